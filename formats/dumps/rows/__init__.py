"""Rows of a table to CSV."""
