"""The repository: format, crypto, store, index, recipes, snapshots. Synchronous and silent."""
