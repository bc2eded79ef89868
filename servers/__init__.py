"""Database servers and their programs: live ones to back up, throw-away ones that prove a backup."""
