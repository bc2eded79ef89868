"""Names and identities as exports write them: which are plain, which are to be trusted no further."""

from __future__ import annotations

import re
import unicodedata
import uuid
from pathlib import PurePosixPath
from typing import Final

_NAME_BYTES: Final = 255
"""What file systems hold in one name."""
_SHOWN_CHARACTERS: Final = 80
"""Of a disk's name; with a suffix it stays below what any file system holds."""
_NOT_SHOWN: Final = re.compile(r"[^\w .+=@-]")


def is_plain(name: str) -> bool:
    """Whether a name can only be that of a file in the folder it is looked up in."""
    if name in ("", ".", "..") or any(c in "/\\" or unicodedata.category(c)[0] == "C" for c in name):
        return False
    return len(name.encode()) <= _NAME_BYTES


def base_name(location: str) -> str:
    """The last part of a path, as POSIX or as Windows writes it."""
    return re.split(r"[/\\]", location)[-1]


def shown_name(name: str, fallback: str) -> str:
    """A name fit for a path in a snapshot: letters, digits and a little punctuation, never hidden."""
    plain = _NOT_SHOWN.sub("_", name)[:_SHOWN_CHARACTERS].strip(" .")
    while len(plain.encode()) > _NAME_BYTES - 20:
        plain = plain[:-1]
    return plain or fallback


def unique_name(name: str, taken: set[str]) -> str:
    """The name, or with a number behind it where it is taken, case aside; it is taken afterwards."""
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
