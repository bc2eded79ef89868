"""Stores of repository files: the interface, a local directory and an in-memory store."""
