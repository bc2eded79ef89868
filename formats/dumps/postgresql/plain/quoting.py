"""How PostgreSQL quotes: SQL identifiers, values in its configuration, and values for libpq."""

from __future__ import annotations


def quoted_identifier(name: bytes) -> bytes:
    """An SQL identifier that means this name, always in quotes."""
    return b'"' + name.replace(b'"', b'""') + b'"'


def setting_value(text: str) -> str:
    """A value in postgresql.conf, where a backslash escapes too."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def conninfo_value(text: str) -> str:
    """A value in a connection string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
