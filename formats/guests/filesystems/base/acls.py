"""POSIX ACLs: converts what a file system stores to the extended attribute that Linux shows.

The attribute (include/uapi/linux/posix_acl_xattr.h), little-endian:

    0  4  version, 2
    then for each entry
    0  2  tag          2  2  permissions          4  4  user or group ID, 0xFFFFFFFF when the tag has none
"""

from __future__ import annotations

import struct
from typing import Annotated, Final, NamedTuple

from holdfast.formats.guests.filesystems.base.layout import At, Layout
from holdfast.formats.guests.values.damage import StructureDamaged

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"

_VERSION = 2
_USER = 0x02
_GROUP = 0x08
_NO_ID = 0xFFFFFFFF
_MAX_ENTRIES = 5461
"""Entries that fit into the 64 KiB that Linux gives an attribute."""
_ENTRY = struct.Struct("<HHI")

_EXT_VERSION = 1
_EXT_HEAD = struct.Struct("<I")
_EXT_SHORT = struct.Struct("<HH")
_EXT_ID = struct.Struct("<I")


class _XfsEntry(NamedTuple):
    """struct xfs_acl_entry of fs/xfs/libxfs/xfs_format.h."""

    tag: Annotated[int, At(0, "I")]
    who: Annotated[int, At(4, "I")]
    permissions: Annotated[int, At(8, "H")]
    padding: Annotated[int, At(10, "H")]


_XFS_COUNT = struct.Struct(">I")
_XFS_ENTRY: Final = Layout(_XfsEntry, ">", "xfs ACL entry")


def from_ext(value: bytes) -> bytes:
    """Convert an ACL of ext2 to ext4 (fs/ext4/acl.h): a version, then tag, permissions and, only where the
    tag names a user or group, an ID."""
    version = _EXT_HEAD.unpack_from(value)[0] if len(value) >= _EXT_HEAD.size else 0
    if version != _EXT_VERSION:
        raise StructureDamaged("ext ACL", "version", version, f"{_EXT_VERSION}")
    parts = [struct.pack("<I", _VERSION)]
    position = _EXT_HEAD.size
    while position < len(value):
        tag, permissions = _EXT_SHORT.unpack_from(value, position)
        position += _EXT_SHORT.size
        who = _NO_ID
        if tag in (_USER, _GROUP):
            (who,) = _EXT_ID.unpack_from(value, position)
            position += _EXT_ID.size
        parts.append(_ENTRY.pack(tag, permissions, who))
    return b"".join(parts)


def from_xfs(value: bytes) -> bytes:
    """Convert an ACL of XFS: a number of entries, then the entries, each with an ID."""
    (count,) = _XFS_COUNT.unpack_from(value)
    end = _XFS_COUNT.size + count * _XFS_ENTRY.size
    if count > _MAX_ENTRIES or end > len(value):
        fit = min(_MAX_ENTRIES, (len(value) - _XFS_COUNT.size) // _XFS_ENTRY.size)
        raise StructureDamaged("xfs ACL", "number of entries", count, f"at most {fit}")
    parts = [struct.pack("<I", _VERSION)]
    for tag, who, permissions, _ in _XFS_ENTRY.each(value[_XFS_COUNT.size : end]):
        parts.append(_ENTRY.pack(tag, permissions, who if tag in (_USER, _GROUP) else _NO_ID))
    return b"".join(parts)
