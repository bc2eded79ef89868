"""PostgreSQL: dumps and base backups taken, throw-away servers, recovery."""
