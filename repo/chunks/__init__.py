"""Content-defined chunking, recipes (trees of chunk IDs that describe a stream) and their differences."""
