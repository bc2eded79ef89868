"""The repository: encrypted chunks in packs, an index, recipes, snapshots.

All calls are synchronous. The package knows no disk or dump formats.
"""
