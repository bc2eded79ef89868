"""PostgreSQL: plain dumps, base backups, WAL."""
