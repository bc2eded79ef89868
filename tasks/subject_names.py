"""Names of subjects: they are directories in the mount and parts of selectors."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

_LIMIT: Final = 200
GLOBALS: Final = "globals"
"""The subject of what belongs to no database of a server."""


def name_fault(name: str) -> str:
    """Why this cannot be a subject's name, "" if it can."""
    if not name or name in (".", "..", "latest"):
        return "it is empty or has a meaning of its own"
    if not name.isprintable() or name != name.strip():
        return "it has control characters in it, or space around it"
    if set(name) & set("/:"):
        return "/ and : cannot be in it"
    return f"it is longer than {_LIMIT} bytes" if len(name.encode()) > _LIMIT else ""


def quoted_name(database: str) -> str:
    """A subject's name for any database: what a name cannot hold is percent-encoded, and so is a name that
    would be taken for another's."""
    if database == GLOBALS or "%" in database or name_fault(database):
        quoted = quote(database, safe=" !#$&'()*+,;=@[]{}^~|<>?\"\\`")
        quoted = quoted.replace(" ", "%20") if quoted != quoted.strip() else quoted
        return quoted if quoted != database else f"%{ord(database[0]):02X}{database[1:]}"
    return database
