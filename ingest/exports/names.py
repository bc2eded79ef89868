"""Checks and cleans the names and UUIDs of exports, which are not trusted."""

from __future__ import annotations

import re
import unicodedata
import uuid
from pathlib import PurePosixPath
from typing import Final

_NAME_BYTES: Final = 255
"""Most bytes of a name in common file systems."""
_SHOWN_CHARACTERS: Final = 80
"""Longest name of a disk, in characters; leaves room for a suffix below 255 bytes."""
_NOT_SHOWN: Final = re.compile(r"[^\w .+=@-]")


def is_plain(name: str) -> bool:
    """Whether a name is one path component without control characters, so it cannot lead elsewhere."""
    if name in ("", ".", "..") or any(c in "/\\" or unicodedata.category(c)[0] == "C" for c in name):
        return False
    return len(name.encode()) <= _NAME_BYTES


def base_name(location: str) -> str:
    """The last component of a POSIX or Windows path."""
    return re.split(r"[/\\]", location)[-1]


def shown_name(name: str, fallback: str) -> str:
    """A name that is valid in paths of a snapshot: letters, digits and some punctuation, not hidden."""
    plain = _NOT_SHOWN.sub("_", name)[:_SHOWN_CHARACTERS].strip(" .")
    while len(plain.encode()) > _NAME_BYTES - 20:
        plain = plain[:-1]
    return plain or fallback


def unique_name(name: str, taken: set[str]) -> str:
    """The name, with a number appended if `taken` has it, ignoring case. Adds the result to `taken`."""
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
    number = 1
    found = name
    while found.casefold() in taken:
        number += 1
        found = f"{stem}-{number}{suffix}"
    taken.add(found.casefold())
    return found


def canonical_uuid(text: str) -> str:
    """A UUID in lower case with dashes, however it was written (`{...}`, bare digits, VMware's
    `56 4d ... -...`); "" for anything else and for the nil UUID, which identifies nobody."""
    digits = re.sub(r"[\s{}-]", "", text)
    if not re.fullmatch(r"[0-9A-Fa-f]{32}", digits) or not digits.strip("0"):
        return ""
    return str(uuid.UUID(hex=digits))
