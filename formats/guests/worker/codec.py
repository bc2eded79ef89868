"""Entries, volumes and attributes as bytes, and the limits that both sides check. No I/O.

The worker checks what a parser returned and raises GuestDamaged. The parent checks the same again: only a
worker that an attacker took over can fail there. Values are packed, not JSON: every number has a fixed width,
so there is less to check. 20,000 entries take 0.12 s of processor time on both sides together, 0.15 s as JSON
(EPYC, 2 cores).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from struct import Struct
from struct import error as StructError
from typing import Final

from holdfast.base.types import Buffer
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import DiskExtent, Entry, NodeType, Volume
from holdfast.formats.guests.worker.protocol import Nonsense

NAME_LIMIT: Final = 255 * 4
"""Bytes of a name: 255 characters, the most of all file systems here, in UTF-8."""
LINK_LIMIT: Final = 1 << 17
"""Bytes of a link's target: NTFS allows 32 Ki characters."""
EXTENT_LIMIT: Final = 1 << 16
"""Extents of an entry. The parser reads a file that lies in more of them."""
VOLUME_LIMIT: Final = 4096
TEXT_LIMIT: Final = 4096
"""Characters of a label or an explanation."""
ATTRIBUTE_LIMIT: Final = 1024
_PATH_LIMIT: Final = 1024
_VALUE_LIMIT: Final = 1 << 16
_ATTRIBUTES: Final = (b"user.", b"system.posix_acl_")
_LARGEST: Final = 2**63 - 1

# inode, type, mode, uid, gid, links, size, allocated, mtime, ctime, atime, device, plain, number of extents
_ENTRY: Final = Struct("<QBHIIIQQqqqQ?I")
_NO_EXTENTS: Final = 0xFFFFFFFF
_EXTENT: Final = Struct("<qqq")  # start, length, offset on the disk or -1
_NAME: Final = Struct("<H")
_VOLUME: Final = Struct("<QqHHHI")  # size, offset, lengths of path, file system, label and text
_COUNT: Final = Struct("<I")
_PAGE: Final = Struct("<IB")  # names, whether they are the last
_ATTRIBUTE: Final = Struct("<HI")
_TYPES: Final = tuple(NodeType)
_NUMBERS: Final = {type_: number for number, type_ in enumerate(_TYPES)}


def is_name(name: bytes) -> bool:
    """Whether a directory can hold the name."""
    return (
        0 < len(name) <= NAME_LIMIT and b"/" not in name and b"\0" not in name and name not in (b".", b"..")
    )


def are_extents(extents: Sequence[tuple[int, int, int]], size: int, disk_size: int) -> bool:
    """Whether extents cover a file of `size` bytes in order, each of them zeros or inside the disk."""
    at = 0
    for start, length, disk in extents:
        if start != at or length <= 0 or (disk != -1 and not 0 <= disk <= disk_size - length):
            return False
        at += length
    return at == size


# ---- entries ------------------------------------------------------------------------------------------


def pack_entry(entry: Entry, disk_size: int) -> bytes:
    """Pack an entry; times are clamped to 64 bits.

    Extents that are wrong or too many are left out. The parent then asks the parser for the bytes, and the
    parser reports what is wrong. Raises StructureDamaged for other numbers that are too large.
    """
    extents = entry.extents
    if extents is not None and not (
        len(extents) <= EXTENT_LIMIT and are_extents(extents, entry.size, disk_size)
    ):
        extents = None
    times = entry.mtime, entry.ctime, entry.atime
    try:
        if max(entry.size, entry.allocated) > _LARGEST:
            size = max(entry.size, entry.allocated)
            raise StructureDamaged(f"inode {entry.inode}", "size", size, f"at most {_LARGEST} bytes")
        if entry.mode & ~0o7777:
            raise StructureDamaged(f"inode {entry.inode}", "mode", f"{entry.mode:#o}", "at most 0o7777")
        head = _ENTRY.pack(
            entry.inode,
            _NUMBERS[entry.type],
            entry.mode,
            entry.uid,
            entry.gid,
            entry.links,
            entry.size,
            entry.allocated,
            *(min(max(at, -_LARGEST), _LARGEST) for at in times),
            entry.device,
            entry.plain,
            _NO_EXTENTS if extents is None else len(extents),
        )
        if not extents:
            return head
        if len(extents) == 1:
            return head + _EXTENT.pack(*extents[0])
        return head + Struct(f"<{3 * len(extents)}q").pack(*chain.from_iterable(extents))
    except StructError as error:
        limit = f"inside their ranges: {error}"
        raise StructureDamaged(f"inode {entry.inode}", "one of its numbers", "out of range", limit) from error


def unpack_entry(body: Buffer, disk_size: int) -> Entry:
    """Unpack the entry that fills `body`. Raises Nonsense."""
    try:
        entry, end = _entry_at(body, 0, disk_size)
    except StructError as error:
        raise Nonsense("an entry is cut off") from error
    if end != len(body):
        raise Nonsense("bytes behind an entry")
    return entry


def _entry_at(body: Buffer, at: int, disk_size: int) -> tuple[Entry, int]:
    inode, type_, mode, uid, gid, links, size, allocated, mtime, ctime, atime, device, plain, count = (
        _ENTRY.unpack_from(body, at)
    )
    at += _ENTRY.size
    if type_ >= len(_TYPES) or mode > 0o7777 or size > _LARGEST or allocated > _LARGEST:
        raise Nonsense(f"inode {inode} has an impossible type, mode or size")
    extents: tuple[DiskExtent, ...] | None = None
    if count == 1:
        extents = (DiskExtent(*_EXTENT.unpack_from(body, at)),)
        at += _EXTENT.size
    elif count != _NO_EXTENTS:
        end = at + count * _EXTENT.size
        if count > EXTENT_LIMIT or end > len(body):
            raise Nonsense(f"inode {inode} has {count} extents")
        extents = tuple(map(DiskExtent._make, _EXTENT.iter_unpack(memoryview(body)[at:end])))
        at = end
    if extents is not None and not are_extents(extents, size, disk_size):
        raise Nonsense(f"the extents of inode {inode} do not cover it, or leave the disk")
    entry = Entry(
        inode,
        _TYPES[type_],
        mode,
        uid,
        gid,
        links,
        size,
        allocated,
        mtime,
        ctime,
        atime,
        device,
        extents,
        plain,
    )
    return entry, at


def pack_named(name: bytes, entry: Entry, disk_size: int) -> bytes:
    """Pack a name and its entry, one line of a page. Raises StructureDamaged for a name that no file can
    have."""
    if not is_name(name):
        limit = f"1 to {NAME_LIMIT} bytes without slash and NUL, not . or .."
        raise StructureDamaged("directory", "name of an entry", name, limit)
    return _NAME.pack(len(name)) + name + pack_entry(entry, disk_size)


def pack_page(lines: Sequence[bytes], *, is_last: bool) -> bytes:
    return _PAGE.pack(len(lines), is_last) + b"".join(lines)


def unpack_page(body: Buffer, disk_size: int) -> tuple[list[tuple[bytes, Entry]], bool]:
    """Unpack names with their entries, and whether they are the last. Raises Nonsense."""
    try:
        count, last = _PAGE.unpack_from(body)
        if not count and not last:
            raise Nonsense("an empty page that is not the last")
        at, lines = _PAGE.size, []
        for _ in range(count):
            (length,) = _NAME.unpack_from(body, at)
            at += _NAME.size
            name = bytes(body[at : at + length])
            if not is_name(name):
                raise Nonsense(f"a folder with a name that no file can have: {name[:80]!r}")
            entry, at = _entry_at(body, at + length, disk_size)
            lines.append((name, entry))
    except StructError as error:
        raise Nonsense("a page is cut off") from error
    if at != len(body):
        raise Nonsense("bytes behind a page")
    return lines, bool(last)


# ---- volumes ------------------------------------------------------------------------------------------


def is_volume_path(path: str) -> bool:
    """Whether a volume can have the path."""
    return "\0" not in path and all(part not in ("", ".", "..") for part in path.split("/"))


def pack_volumes(volumes: Sequence[Volume], disk_size: int) -> bytes:
    """Pack the volumes of a disk. Raises StructureDamaged for paths and numbers that no tool writes."""
    if len(volumes) > VOLUME_LIMIT:
        raise StructureDamaged("disk", "number of volumes", len(volumes), f"at most {VOLUME_LIMIT}")
    body = bytearray(_COUNT.pack(len(volumes)))
    for volume in volumes:
        texts = [
            volume.path.encode(errors="replace"),
            *map(_cut, (volume.file_system, volume.label, volume.text)),
        ]
        if not is_volume_path(volume.path) or len(texts[0]) > _PATH_LIMIT:
            limit = f"at most {_PATH_LIMIT} bytes of names without NUL, none of them . or .."
            raise StructureDamaged("disk", "path of a volume", repr(volume.path), limit)
        if not 0 <= volume.size <= _LARGEST:
            raise StructureDamaged(f"volume {volume.path}", "size", volume.size, f"at most {_LARGEST} bytes")
        if not -1 <= volume.offset <= disk_size:
            raise StructureDamaged(f"volume {volume.path}", "offset", volume.offset, f"at most {disk_size}")
        body += _VOLUME.pack(volume.size, volume.offset, *map(len, texts)) + b"".join(texts)
    return bytes(body)


def _cut(text: str) -> bytes:
    return text[:TEXT_LIMIT].encode(errors="replace")


def unpack_volumes(body: Buffer, disk_size: int) -> tuple[Volume, ...]:
    """Unpack the volumes of a disk of `disk_size` bytes. Raises Nonsense."""
    volumes: dict[str, Volume] = {}
    try:
        (count,) = _COUNT.unpack_from(body)
        if count > VOLUME_LIMIT:
            raise Nonsense(f"{count} volumes")
        at = _COUNT.size
        for _ in range(count):
            size, offset, *lengths = _VOLUME.unpack_from(body, at)
            at += _VOLUME.size
            texts = []
            for length in lengths:
                texts.append(bytes(body[at : at + length]).decode())
                at += length
            path, file_system, label, text = texts
            if not is_volume_path(path) or lengths[0] > _PATH_LIMIT or path in volumes:
                raise Nonsense(f"a volume called {path[:200]!r}")
            if size > _LARGEST or not -1 <= offset <= disk_size or max(map(len, texts)) > TEXT_LIMIT:
                raise Nonsense(f"volume {path}: impossible numbers or texts")
            volumes[path] = Volume(path, size, offset, file_system, label, text)
    except (StructError, UnicodeDecodeError) as error:
        raise Nonsense("the list of volumes is cut off or no text") from error
    if at != len(body):
        raise Nonsense("bytes behind the volumes")
    return tuple(volumes.values())


# ---- attributes ---------------------------------------------------------------------------------------


def pack_attributes(attributes: dict[bytes, bytes]) -> bytes:
    """Pack the attributes that users see: `user.` and ACLs. Raises StructureDamaged for impossible ones."""
    body = bytearray()
    shown = {name: value for name, value in attributes.items() if name.startswith(_ATTRIBUTES)}
    if len(shown) > ATTRIBUTE_LIMIT:
        raise StructureDamaged(
            "inode", "number of extended attributes", len(shown), f"at most {ATTRIBUTE_LIMIT}"
        )
    for name, value in shown.items():
        if not _is_attribute(name, value):
            limit = f"at most 255 bytes without NUL, with a value of at most {_VALUE_LIMIT} bytes"
            raise StructureDamaged("inode", "name of an extended attribute", name, limit)
        body += _ATTRIBUTE.pack(len(name), len(value)) + name + value
    return bytes(body)


def _is_attribute(name: bytes, value: bytes) -> bool:
    return (
        name.startswith(_ATTRIBUTES) and len(name) <= 255 and b"\0" not in name and len(value) <= _VALUE_LIMIT
    )


def unpack_attributes(body: Buffer) -> dict[bytes, bytes]:
    """Unpack extended attributes, name to value. Raises Nonsense."""
    attributes: dict[bytes, bytes] = {}
    at = 0
    try:
        while at < len(body):
            name_length, length = _ATTRIBUTE.unpack_from(body, at)
            at += _ATTRIBUTE.size
            name, value = (
                bytes(body[at : at + name_length]),
                bytes(body[at + name_length : at + name_length + length]),
            )
            at += name_length + length
            if not _is_attribute(name, value) or len(attributes) >= ATTRIBUTE_LIMIT:
                raise Nonsense("an impossible attribute, or too many")
            attributes[name] = value
    except StructError as error:
        raise Nonsense("attributes are cut off") from error
    if at != len(body):
        raise Nonsense("an attribute is cut off")
    return attributes
