"""One header of a tar archive as databases write them: ustar, with GNU and pax extensions. Pure.

A header, of 512 bytes:

    0    100  name, padded with NUL
    100  8    mode, octal
    124  12   size: octal, or big endian with the top bit of the first byte set
    136  12   mtime in seconds, as size
    148  8    sum of the header's bytes, this field taken as spaces, octal
    156  1    type
    157  100  target of a link
    257  6    "ustar" and NUL (POSIX) or a space (GNU)
    265  32   name of the owner
    345  155  what stands before the name, with a slash between (POSIX only)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

BLOCK: Final = 512
EXTENSION_LIMIT: Final = 64 << 10
"""Bytes of a pax header or long name."""
EXTENSIONS: Final = (b"x", b"g", b"L", b"K")
FILE, LINK, FOLDER = b"0", b"2", b"5"
_PATH_LIMIT: Final = 4096
_NAME_LIMIT: Final = 255
_TIME_LIMIT: Final = 1 << 33
_OTHERS: Final = {
    b"1": "a hard link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a named pipe",
    b"7": "a contiguous file",
    b"S": "a sparse file",
}


class TarError(ValueError):
    """It is no tar archive, or holds what this one may not. The message says why."""


@dataclass(slots=True)
class Extension:
    """What extensions say of the next member."""

    path: str | None = None
    target: str | None = None
    size: int | None = None

    def extend(self, kind: bytes, content: bytes) -> None:
        """Take in a pax header or a GNU long name. Raises TarError."""
        if kind in (b"L", b"K"):
            text = _text(content.split(b"\0", 1)[0])
            if kind == b"L":
                self.path = text
            else:
                self.target = text
            return
        for key, value in _pax_records(content):
            if key.startswith(b"GNU.sparse."):
                raise TarError("it holds a sparse file")
            if key in (b"path", b"linkpath", b"size") and kind == b"g":
                raise TarError(f"a global header gives every member the same {key.decode()}")
            if key == b"path":
                self.path = _text(value)
            elif key == b"linkpath":
                self.target = _text(value)
            elif key == b"size":
                if re.fullmatch(rb"[0-9]{1,18}", value) is None:
                    raise TarError("a pax header with an impossible size")
                self.size = int(value)


@dataclass(frozen=True, slots=True)
class Member:
    """`path` is relative and plain, without a slash at the end; `kind` FILE, LINK or FOLDER; `mtime` ns."""

    path: str
    kind: bytes
    size: int
    mode: int
    mtime: int
    target: str
    owner: str


def check_sum(header: bytes) -> None:
    """Raises TarError when this is no header."""
    if sum(header[:148]) + 8 * 32 + sum(header[156:]) != number(header[148:156], "sum"):
        raise TarError("a header has the wrong sum")


def parse_member(header: bytes, extension: Extension) -> Member:
    """The member of a header whose sum is right. Raises TarError."""
    kind = FILE if header[156:157] == b"\0" else header[156:157]
    path = extension.path if extension.path is not None else _own_path(header)
    if kind not in (FILE, LINK, FOLDER):
        raise TarError(f"{path!r} is {_OTHERS.get(kind, 'of an unknown type')}")
    size = number(header[124:136], "size")
    if extension.size is not None:
        # Writers leave the field zero, or give the same: anything else makes two readers see two archives.
        if size not in (0, extension.size):
            raise TarError(f"{path!r} has two sizes, {size} and {extension.size}")
        size = extension.size
    if kind != FILE and size:
        raise TarError(f"{path!r} is no file and has {size} bytes")
    target = extension.target if extension.target is not None else _text(header[157:257].split(b"\0", 1)[0])
    return Member(
        path=_plain(path, is_folder=kind == FOLDER),
        kind=kind,
        size=size,
        mode=number(header[100:108], "mode") & 0o7777,
        mtime=min(number(header[136:148], "mtime"), _TIME_LIMIT) * 10**9,
        target=target if kind == LINK else "",
        owner=header[265:297].split(b"\0", 1)[0].decode(errors="replace"),
    )


def number(field: bytes, what: str) -> int:
    """A number, octal or base 256. Raises TarError."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] != 0x80 or value >= 1 << 62:
            raise TarError(f"a header with an impossible {what}")
        return value
    digits = field.strip(b" \0")
    if re.fullmatch(rb"[0-7]*", digits) is None:
        raise TarError(f"a header with an impossible {what}")
    return int(digits or b"0", 8)


def _plain(path: str, *, is_folder: bool) -> str:
    path = path.removeprefix("./")
    if is_folder:
        path = path.removesuffix("/") or "."
        if path == ".":
            return ""
    parts = path.split("/")
    encoded = path.encode(errors="surrogateescape")
    if len(encoded) > _PATH_LIMIT or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise TarError(f"{path[:100]!r} is no plain path")
    if any(len(part.encode(errors="surrogateescape")) > _NAME_LIMIT for part in parts):
        raise TarError(f"{path[:100]!r} has a name that is too long")
    return path


def _own_path(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    return _text(name)


def _pax_records(content: bytes) -> list[tuple[bytes, bytes]]:
    """(key, value) of records `LENGTH KEY=VALUE` and a newline; the length counts all of it."""
    records = []
    place = 0
    while place < len(content):
        match = re.compile(rb"([0-9]{1,6}) ").match(content, place)
        length = int(match[1]) if match else 0
        record = content[place : place + length]
        if match is None or len(record) != length or record[-1:] != b"\n":
            raise TarError("a pax header that is none")
        key, equals, value = record[match.end() - place : -1].partition(b"=")
        if not equals:
            raise TarError("a pax header that is none")
        records.append((key, value))
        place += length
    return records


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")
