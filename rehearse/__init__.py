"""Proof that a backup is any good: throw-away servers that load or recover it."""
