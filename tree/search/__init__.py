"""Finding names in the trees of many snapshots."""
