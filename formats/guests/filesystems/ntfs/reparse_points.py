"""NTFS: reparse points and other ways in which a link, a FIFO or a device is stored as a file."""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.directory_tree import utf8
from holdfast.formats.guests.values.values import GuestDamaged, NodeType

_MOUNT_POINT = 0xA0000003
_SYMLINK = 0xA000000C
_LX_SYMLINK = 0xA000001D
_CLOUD = 0x9000001A
_CLOUD_MASK = 0xFFFF0FFF

_INTERIX_LINK = b"IntxLNK\x01"
_INTERIX_CHARACTER = b"IntxCHR\x00"
_INTERIX_BLOCK = b"IntxBLK\x00"


class Special(NamedTuple):
    """What a file really is. `reason` says why its data cannot be read, "" when it can."""

    type: NodeType
    target: bytes = b""
    device: int = 0
    reason: str = ""


_OTHERS = {
    0x80000023: Special(NodeType.SOCKET),
    0x80000024: Special(NodeType.FIFO),
    0x80000025: Special(NodeType.CHARACTER),
    0x80000026: Special(NodeType.BLOCK),
    0x80000017: Special(NodeType.FILE, reason="is compressed by Windows itself (CompactOS)"),
    0x80000013: Special(NodeType.FILE, reason="was deduplicated by Windows"),
}
"""Those of WSL, then those whose data is elsewhere: what the file holds itself are zeros."""


def from_reparse_point(data: bytes, *, offline: bool) -> Special | None:
    """None for tags that change nothing about the file's own data."""
    (tag, length) = struct.unpack_from("<IH", data)
    value = data[8 : 8 + length]
    if tag in (_SYMLINK, _MOUNT_POINT):
        return Special(NodeType.LINK, _windows_target(value, tag))
    if tag == _LX_SYMLINK:
        return Special(NodeType.LINK, value[4:])
    if tag in _OTHERS:
        return _OTHERS[tag]
    if tag & _CLOUD_MASK == _CLOUD and offline:
        return Special(NodeType.FILE, reason="is not on this disk, only in the cloud")
    return None


def from_interix(data: bytes) -> Special | None:
    """ntfs-3g stores links and devices in system files that start with a mark."""
    mark = data[:8]
    if mark == _INTERIX_LINK:
        return Special(NodeType.LINK, utf8(data[8 : len(data) & ~1]))
    if mark in (_INTERIX_CHARACTER, _INTERIX_BLOCK) and len(data) >= 24:
        major, minor = struct.unpack_from("<QQ", data, 8)
        type_ = NodeType.CHARACTER if mark == _INTERIX_CHARACTER else NodeType.BLOCK
        return Special(type_, device=os.makedev(major & 0xFFF, minor & 0xFFFFF))
    return None


def _windows_target(value: bytes, tag: int) -> bytes:
    """The target as Windows prints it, with slashes."""
    substitute, substitute_length, shown, shown_length = struct.unpack_from("<HHHH", value)
    names = value[12 if tag == _SYMLINK else 8 :]
    start, length = (shown, shown_length) if shown_length else (substitute, substitute_length)
    if start + length > len(names) or length % 2:
        raise GuestDamaged("ntfs: the target of a link lies outside")
    return utf8(names[start : start + length]).removeprefix(b"\\??\\").replace(b"\\", b"/")
