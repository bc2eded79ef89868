"""MySQL and MariaDB: dumps taken, throw-away servers."""
