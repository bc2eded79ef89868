"""A client for NBD servers: live disks and their dirty bitmaps."""
