"""The namespace of a snapshot. The mount, ls, dump, restore, find and diff show it by one set of names."""
