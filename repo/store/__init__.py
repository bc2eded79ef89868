"""Where a repository's files are kept: one interface, a directory and a store in memory."""
