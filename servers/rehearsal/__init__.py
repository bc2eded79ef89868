"""A rehearsal: find what to load, load or recover it, count, ask, give a verdict."""
