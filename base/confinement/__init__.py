"""Confinement: programs that handle a stranger's data, in an empty root, without rights, within limits."""
