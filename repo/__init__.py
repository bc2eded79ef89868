"""The repository: encrypted chunks in packs, an index, recipes, snapshots.

Synchronous; knows no disk or dump formats.
"""
