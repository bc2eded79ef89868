"""Database dumps, physical backups and logs: scanned while they stream in, shown as virtual files."""
