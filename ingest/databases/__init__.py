"""Taking backups of running databases with their own tools."""
