"""Content-defined chunking.

Recipes, which are trees of chunk IDs that describe a stream, and how two of them differ.
"""
