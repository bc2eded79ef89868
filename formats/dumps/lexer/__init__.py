"""The SQL lexer in C: statements and rows of a dump, found while it streams in."""
