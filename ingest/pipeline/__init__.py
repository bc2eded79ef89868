"""Turns a source's bytes into chunks and a recipe."""
