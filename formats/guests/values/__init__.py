"""Entries, extents and paths that the client and the worker share."""
