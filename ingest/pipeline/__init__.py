"""From a source's bytes to chunks and a recipe."""
