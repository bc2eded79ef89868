"""Snapshot records, their selection by name or time, and retention policies."""
