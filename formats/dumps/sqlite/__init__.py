"""SQLite's SQL text."""
