"""PostgreSQL's plain dumps: SQL text of pg_dump and pg_dumpall."""
