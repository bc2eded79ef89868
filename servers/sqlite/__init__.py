"""SQLite: backups through the online backup API, throw-away databases."""
