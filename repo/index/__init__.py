"""The LMDB index from chunk IDs to their locations in packs, and sets of IDs on disk."""
