"""File systems of guests, one sub-package a family. Imported by the worker only."""
