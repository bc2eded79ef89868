"""One header of a tar archive: ustar, with GNU and pax extensions. No I/O, and no policy: the
caller decides which kinds of members and which names it accepts.

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

Members begin after their header and are padded to 512 bytes; two headers of zeros end the archive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

BLOCK: Final = 512
EXTENSION_LIMIT: Final = 64 << 10
"""Bytes of a pax header or long name."""
EXTENSIONS: Final = (b"x", b"g", b"L", b"K")
"""Types of headers whose content describes the next member."""
FILE, HARD_LINK, LINK, FOLDER = b"0", b"1", b"2", b"5"
_TIME_LIMIT: Final = 1 << 33
"""Seconds. Later times become this one, of which a date can still be made."""
_NUMBER_LIMIT: Final = 1 << 62
_SIZE: Final = re.compile(rb"[0-9]{1,18}")
_OCTAL: Final = re.compile(rb"[0-7]*")
_PAX_LENGTH: Final = re.compile(rb"([0-9]{1,6}) ")
_KINDS: Final = {
    HARD_LINK: "a hard link",
    LINK: "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    FOLDER: "a folder",
    b"6": "a named pipe",
    b"7": "a contiguous file",
    b"S": "a sparse file",
}


class TarError(ValueError):
    """It is no tar archive, or a damaged one. The message says why."""


class TarRefused(TarError):
    """An archive that two readers could read differently, or with a feature that is not supported."""


@dataclass(frozen=True, slots=True)
class TarHeader:
    """A member. `path` and `target` as they stand there: bytes that are not UTF-8 are lone surrogates.

    `kind` is the type byte, FILE for the old NUL; `mode` the permission bits; `mtime` in ns.
    """

    path: str
    kind: bytes
    size: int
    mode: int
    mtime: int
    target: str
    owner: str

    @property
    def kind_name(self) -> str:
        """`a hard link`, for a message."""
        return _KINDS.get(self.kind, f"of the unknown type {self.kind!r}")


@dataclass(slots=True)
class Extension:
    """What pax headers and GNU long names say of the next member; make a new one for each member."""

    path: str | None = None
    target: str | None = None
    size: int | None = None

    def extend(self, kind: bytes, content: bytes) -> None:
        """Take in the content of an extension header of type `kind`. Raises TarError."""
        if kind in (b"L", b"K"):
            text = _text(content.split(b"\0", 1)[0])
            if kind == b"L":
                self.path = text
            else:
                self.target = text
            return
        for key, value in _pax_records(content):
            if key.startswith(b"GNU.sparse."):
                raise TarRefused("it holds a sparse file")
            if key in (b"path", b"linkpath", b"size") and kind == b"g":
                raise TarRefused(f"a global header gives every member the same {key.decode()}")
            if key == b"path":
                self.path = _text(value)
            elif key == b"linkpath":
                self.target = _text(value)
            elif key == b"size":
                if _SIZE.fullmatch(value) is None:
                    raise TarError(f"a pax header has the size {value[:40]!r}")
                self.size = int(value)


def check_sum(header: bytes) -> None:
    """Raise TarError unless the checksum of the header is right."""
    others = header[:148] + bytes(b" " * 8) + header[156:]
    unsigned = sum(others)
    signed = unsigned - 256 * sum(byte >> 7 for byte in others)  # some old writers summed signed bytes
    noted = tar_number(header[148:156], "sum")
    if noted not in (unsigned, signed):
        raise TarError(f"no tar header: it has the wrong sum, {noted} in place of {unsigned}")


def parse_header(header: bytes, extension: Extension) -> TarHeader:
    """The member of a header whose sum is right. Raises TarError."""
    kind = FILE if header[156:157] == b"\0" else header[156:157]
    path = extension.path if extension.path is not None else _own_path(header)
    size = tar_number(header[124:136], "size")
    if extension.size is not None:
        # Writers leave the field zero, or give the same: anything else makes two readers see two archives.
        if size not in (0, extension.size):
            raise TarRefused(f"its member {path!r} has two sizes, {size} and {extension.size}")
        size = extension.size
    target = extension.target if extension.target is not None else _text(_until_nul(header[157:257]))
    return TarHeader(
        path=path,
        kind=kind,
        size=size,
        mode=tar_number(header[100:108], "mode") & 0o7777,
        mtime=min(tar_number(header[136:148], "mtime"), _TIME_LIMIT) * 10**9,
        target=target,
        owner=_until_nul(header[265:297]).decode(errors="replace"),
    )


def tar_number(field: bytes, what: str) -> int:
    """A number, octal or base 256. Raises TarError."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] != 0x80 or value >= _NUMBER_LIMIT:
            raise TarError(f"a header has an impossible {what}: {field!r}")
        return value
    digits = field.strip(b" \0")
    if _OCTAL.fullmatch(digits) is None:
        raise TarError(f"a header has an impossible {what}: {field!r}")
    return int(digits or b"0", 8)


def _own_path(header: bytes) -> str:
    name = _until_nul(header[:100])
    if header[257:263] == b"ustar\0":
        prefix = _until_nul(header[345:500])
        name = prefix + b"/" + name if prefix else name
    return _text(name)


def _pax_records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of records `LENGTH KEY=VALUE` and a newline; the length counts all of it."""
    start = 0
    while start < len(content):
        match = _PAX_LENGTH.match(content, start)
        length = int(match[1]) if match else 0
        record = content[start : start + length]
        key, equals, value = record[match.end() - start : -1].partition(b"=") if match else (b"", b"", b"")
        if not equals or len(record) != length or record[-1:] != b"\n":
            raise TarError(f"a pax header has no record at offset {start}")
        yield key, value
        start += length


def _until_nul(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")
