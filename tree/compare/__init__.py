"""Comparing the trees of two snapshots."""
