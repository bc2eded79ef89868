"""POSIX ACLs as file systems store them, to the form that the extended attribute has on Linux."""

from __future__ import annotations

import struct

from holdfast.formats.guests.values.values import GuestDamaged

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"

_VERSION = 2
_USER = 0x02
_GROUP = 0x08
_NOBODY = 0xFFFFFFFF
_MAX_ENTRIES = 5461
"""What fits the 64 KiB that Linux gives an attribute."""


def from_ext(value: bytes) -> bytes:
    """ext2 to ext4: version 1, the ID only where a user or group is named (fs/ext4/acl.h)."""
    if len(value) < 4 or struct.unpack_from("<I", value)[0] != 1:
        raise GuestDamaged("an ACL of an unknown version")
    parts = [struct.pack("<I", _VERSION)]
    place = 4
    while place < len(value):
        tag, permissions = struct.unpack_from("<HH", value, place)
        place += 4
        who = _NOBODY
        if tag in (_USER, _GROUP):
            (who,) = struct.unpack_from("<I", value, place)
            place += 4
        parts.append(struct.pack("<HHI", tag, permissions, who))
    return b"".join(parts)


def from_xfs(value: bytes) -> bytes:
    """XFS: a count and (tag, ID, permissions), big-endian (fs/xfs/libxfs/xfs_format.h: xfs_acl)."""
    (count,) = struct.unpack_from(">I", value)
    if count > _MAX_ENTRIES or 4 + count * 12 > len(value):
        raise GuestDamaged(f"an ACL with {count} entries in {len(value)} bytes")
    parts = [struct.pack("<I", _VERSION)]
    for tag, who, permissions, _ in struct.iter_unpack(">IIHH", value[4 : 4 + count * 12]):
        parts.append(struct.pack("<HHI", tag, permissions, who if tag in (_USER, _GROUP) else _NOBODY))
    return b"".join(parts)
