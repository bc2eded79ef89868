"""Names of database objects as names of files: no two objects get the same."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

_LIMIT: Final = 240
"""Bytes: what a file system takes, less a suffix such as ".schema.sql"."""


def file_name(*parts: str) -> str:
    """`public.orders` for ("public", "orders"); empty parts are left out.

    A dot within a part, a slash, a percent sign, a tilde and what is not printable stand as %XX of their
    UTF-8 bytes, so that the way back is certain. What would be too long is cut and gets a tilde and a hash of
    the whole behind it. No parts at all are "%", which no name has.
    """
    name = ".".join("".join(map(_character, part)) for part in parts if part)
    if len(name.encode()) <= _LIMIT:
        return name or "%"
    mark = blake2b(name.encode(), digest_size=8).hexdigest()
    short = name.encode()[: _LIMIT - len(mark) - 1].decode(errors="ignore")
    return f"{short}~{mark}"


def _character(character: str) -> str:
    if character in "./%~" or not character.isprintable():
        return "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogateescape"))
    return character
