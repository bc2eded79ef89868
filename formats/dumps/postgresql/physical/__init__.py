"""PostgreSQL's physical backups: pg_basebackup's tar, the data directory, WAL and recovery."""
