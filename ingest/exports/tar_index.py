"""The members of a tar archive, by name and place. Nothing is unpacked.

An OVA is a flat ustar or GNU archive of regular files. Everything else that tar can hold (links, devices,
sparse files, folders, names that are paths, the same name twice) is refused: each has been a way out of
somebody's target folder. A header, of 512 bytes:

    0    100  name, padded with NUL
    124  12   size: octal, or big endian with the top bit of the first byte set
    136  12   mtime in seconds, as size
    148  8    sum of the header's bytes, this field taken as spaces, octal
    156  1    type
    257  6    "ustar" and NUL (POSIX) or a space (GNU)
    345  155  what stands before the name, with a slash between (POSIX only)

Members begin after their header and are padded to 512 bytes; two headers of zeros end the archive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import read_exactly
from holdfast.formats.disks.base.image import ImageFile
from holdfast.ingest.exports.names import is_plain

_BLOCK: Final = 512
_MEMBER_LIMIT: Final = 10_000
_HEADERS_LIMIT: Final = 4 * _MEMBER_LIMIT
_EXTENSION_LIMIT: Final = 64 << 10
"""Bytes of a pax header or long name."""
_EXTENSIONS_LIMIT: Final = 4 << 20
"""Bytes of all of them: parsing is slower than writing them is."""
_TIME_LIMIT: Final = 1 << 33
_KINDS: Final = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a named pipe",
    b"7": "a contiguous file",
    b"K": "a long link",
    b"S": "a sparse file",
}


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file in an archive: `start` and `size` in bytes, `mtime` in ns."""

    name: str
    start: int
    size: int
    mtime: int


@dataclass(slots=True)
class _Extension:
    """What a pax header or a GNU long name says of the next member."""

    name: str | None = None
    size: int | None = None


def tar_members(file: ImageFile) -> list[TarMember]:
    """All members in order. Raises ImageDamaged for an archive that is cut off or makes no sense,
    ImageRefused for one that holds more than plain regular files. Reads headers only."""
    members: dict[str, TarMember] = {}
    at = extensions = 0
    extension = _Extension()
    for _ in range(_HEADERS_LIMIT):
        header = read_exactly(file, at, _BLOCK, "a tar header or the archive's end mark")
        if not any(header):
            return list(members.values())
        _check_sum(file, header, at)
        kind = header[156:157]
        size = _number(file, header[124:136], at, "size")
        start = at + _BLOCK
        if kind in (b"x", b"g", b"L"):
            extensions += size
            if size > _EXTENSION_LIMIT or extensions > _EXTENSIONS_LIMIT:
                raise ImageDamaged(file.name, f"extended headers of {extensions} bytes", offset=at)
            content = read_exactly(file, start, size, "a tar extension")
            _extend(file, extension, kind, content, at)
        else:
            member = _member(file, header, extension, start, size)
            extension = _Extension()
            if member is not None:
                if member.name in members:
                    raise ImageRefused(file.name, f"it holds two members named {member.name!r}")
                members[member.name] = member
                size = member.size
        at = start + -(-size // _BLOCK) * _BLOCK
        if len(members) > _MEMBER_LIMIT:
            break
    raise ImageRefused(file.name, f"it has more than {_MEMBER_LIMIT} members: that is no OVA")


def _member(file: ImageFile, header: bytes, extension: _Extension, start: int, size: int) -> TarMember | None:
    """The member of a header; None for the folder `./` itself, which `tar c .` puts first."""
    kind = header[156:157]
    name = extension.name if extension.name is not None else _own_name(file, header, start - _BLOCK)
    if kind == b"5" and name in (".", "./") and not size:
        return None
    if kind not in (b"0", b"\0"):
        what = _KINDS.get(kind, f"of the unknown type {kind!r}")
        raise ImageRefused(file.name, f"its member {name!r} is {what}; an OVA holds regular files only")
    name = name.removeprefix("./")
    if not is_plain(name):
        raise ImageRefused(file.name, f"its member {name!r} is no plain file name")
    if extension.size is not None:
        # Writers leave the field zero, or give the same, or what fits of it: anything else is a trick that
        # makes two readers see two archives.
        if size not in (0, extension.size):
            raise ImageRefused(file.name, f"its member {name!r} has two sizes, {size} and {extension.size}")
        size = extension.size
    if start + size > file.size:
        raise ImageDamaged(
            file.name,
            f"the member {name!r} reaches to {start + size}, the file ends at {file.size}",
            offset=start,
        )
    mtime = min(_number(file, header[136:148], start - _BLOCK, "mtime"), _TIME_LIMIT)
    return TarMember(name, start, size, mtime * 10**9)


def _own_name(file: ImageFile, header: bytes, at: int) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    return _text(file, name, at)


def _extend(file: ImageFile, extension: _Extension, kind: bytes, content: bytes, at: int) -> None:
    if kind == b"L":
        extension.name = _text(file, content.split(b"\0", 1)[0], at)
        return
    for key, value in _pax_records(file, content, at):
        if key.startswith("GNU.sparse.") or key == "linkpath":
            raise ImageRefused(file.name, f"a member is sparse or a link (pax header {key!r})")
        if key in ("path", "size") and kind == b"g":
            raise ImageRefused(file.name, f"a global pax header gives every member the same {key}")
        if key == "path":
            extension.name = value
        elif key == "size":
            if not re.fullmatch(r"[0-9]{1,19}", value):
                raise ImageDamaged(file.name, f"a pax header with the size {value!r}", offset=at)
            extension.size = int(value)


def _pax_records(file: ImageFile, content: bytes, at: int) -> Iterator[tuple[str, str]]:
    """(key, value) of records `LENGTH KEY=VALUE` and a newline; the length counts all of it."""
    place = 0
    while place < len(content):
        match = re.compile(rb"([0-9]{1,6}) ").match(content, place)
        length = int(match[1]) if match else 0
        record = content[place : place + length]
        key, equals, value = record[match.end() - place : -1].partition(b"=") if match else (b"", b"", b"")
        if not equals or len(record) != length or record[-1:] != b"\n":
            raise ImageDamaged(file.name, "a pax header that is none", offset=at)
        yield _text(file, key, at), value.decode(errors="surrogateescape")
        place += length


def _text(file: ImageFile, raw: bytes, at: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ImageDamaged(file.name, f"a member's name is no UTF-8: {raw!r}", offset=at) from error


def _number(file: ImageFile, field: bytes, at: int, what: str) -> int:
    if field[0] & 0x80:
        number = int.from_bytes(field, "big") & ((1 << 95) - 1)
        if field[0] != 0x80 or number >= 1 << 63:
            raise ImageDamaged(file.name, f"a header with an impossible {what}", offset=at)
        return number
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise ImageDamaged(file.name, f"a header with an impossible {what}", offset=at)
    return int(digits or b"0", 8)


def _check_sum(file: ImageFile, header: bytes, at: int) -> None:
    # Some old writers summed signed bytes.
    others = header[:148] + bytes(b" " * 8) + header[156:]
    unsigned = sum(others)
    signed = unsigned - 256 * sum(byte >> 7 for byte in others)
    if _number(file, header[148:156], at, "sum") not in (unsigned, signed):
        raise ImageDamaged(file.name, "no tar header: its sum is wrong", offset=at)
