"""NTFS: reparse points, and the system files in which ntfs-3g stores links and devices.

Source: [MS-FSCC] section 2.1.2, and layout.h of ntfs-3g. Little-endian.
"""

from __future__ import annotations

import os
import struct
from typing import Annotated, Final, NamedTuple

from holdfast.formats.guests.filesystems.base.directory_tree import utf8
from holdfast.formats.guests.filesystems.base.layout import At, Layout
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import NodeType

_MOUNT_POINT = 0xA0000003
_SYMLINK = 0xA000000C
_LX_SYMLINK = 0xA000001D
_CLOUD = 0x9000001A
_CLOUD_MASK = 0xFFFF0FFF

_INTERIX_MARK_SIZE = 8
_INTERIX_LINK = b"IntxLNK\x01"
_INTERIX_CHARACTER = b"IntxCHR\x00"
_INTERIX_BLOCK = b"IntxBLK\x00"
_INTERIX_DEVICE: Final = struct.Struct("<QQ")
"""Follows the mark of a device: its major and minor numbers."""


class _ReparsePoint(NamedTuple):
    """REPARSE_DATA_BUFFER; the data follows."""

    tag: Annotated[int, At(0, "I")]
    length: Annotated[int, At(4, "H")]
    reserved: Annotated[int, At(6, "H")]


class _LinkTarget(NamedTuple):
    """Begins the data of a mount point or symbolic link. Offsets and lengths are in bytes of the names that
    follow it, behind 4 more bytes of flags in a symbolic link."""

    substitute: Annotated[int, At(0, "H")]
    substitute_length: Annotated[int, At(2, "H")]
    shown: Annotated[int, At(4, "H")]
    shown_length: Annotated[int, At(6, "H")]


_REPARSE_POINT: Final = Layout(_ReparsePoint, "<", "ntfs reparse point")
_LINK_TARGET: Final = Layout(_LinkTarget, "<", "ntfs link target")
_SYMLINK_FLAGS = 4
_LX_VERSION = 4
"""Bytes before the target of a link of WSL."""


class SpecialFile(NamedTuple):
    """A file of another type than its record says. `reason` tells why its data cannot be read, "" when it
    can."""

    type: NodeType
    target: bytes = b""
    device: int = 0
    reason: str = ""


_OTHERS: Final = {
    0x80000023: SpecialFile(NodeType.SOCKET),
    0x80000024: SpecialFile(NodeType.FIFO),
    0x80000025: SpecialFile(NodeType.CHARACTER),
    0x80000026: SpecialFile(NodeType.BLOCK),
    0x80000017: SpecialFile(NodeType.FILE, reason="its content is compressed by Windows itself (CompactOS)"),
    0x80000013: SpecialFile(NodeType.FILE, reason="its content was deduplicated by Windows"),
}
"""Special files by tag: those of WSL, then files whose data is elsewhere and that hold zeros themselves."""


def from_reparse_point(data: bytes, *, offline: bool) -> SpecialFile | None:
    """The special file that a reparse point makes of its file; None for tags that leave the data as it is.

    `offline` is whether the file's flags say that its data is not here. Raises StructureDamaged.
    """
    point = _REPARSE_POINT.read(data)
    value = data[_REPARSE_POINT.size : _REPARSE_POINT.size + point.length]
    if point.tag in (_SYMLINK, _MOUNT_POINT):
        return SpecialFile(NodeType.LINK, _windows_target(value, point.tag))
    if point.tag == _LX_SYMLINK:
        return SpecialFile(NodeType.LINK, value[_LX_VERSION:])
    if point.tag in _OTHERS:
        return _OTHERS[point.tag]
    if point.tag & _CLOUD_MASK == _CLOUD and offline:
        return SpecialFile(NodeType.FILE, reason="its content is not on this disk, only in the cloud")
    return None


def from_interix(data: bytes) -> SpecialFile | None:
    """The special file that ntfs-3g stores in a system file of this content; None when the content does not
    begin with a mark."""
    mark, rest = data[:_INTERIX_MARK_SIZE], data[_INTERIX_MARK_SIZE:]
    if mark == _INTERIX_LINK:
        return SpecialFile(NodeType.LINK, utf8(rest[: len(rest) & ~1]))
    if mark in (_INTERIX_CHARACTER, _INTERIX_BLOCK) and len(rest) >= _INTERIX_DEVICE.size:
        major, minor = _INTERIX_DEVICE.unpack_from(rest)
        type_ = NodeType.CHARACTER if mark == _INTERIX_CHARACTER else NodeType.BLOCK
        return SpecialFile(type_, device=os.makedev(major & 0xFFF, minor & 0xFFFFF))
    return None


def _windows_target(value: bytes, tag: int) -> bytes:
    """The target as Windows prints it, with slashes."""
    stored = _LINK_TARGET.read(value)
    names = value[_LINK_TARGET.size + (_SYMLINK_FLAGS if tag == _SYMLINK else 0) :]
    start, length = stored.substitute, stored.substitute_length
    if stored.shown_length:
        start, length = stored.shown, stored.shown_length
    end = start + length
    if end > len(names) or length % 2:
        limit = f"at most {len(names)}, a whole number of characters of 2 bytes from {start}"
        raise StructureDamaged("ntfs link target", "end of its name", end, limit)
    return utf8(names[start:end]).removeprefix(b"\\??\\").replace(b"\\", b"/")
