"""Inode numbers of files inside guests: which volume, and which inode in it. No table of files is kept.

    bit 62       set: a file inside a guest
    bits 44-61   the volume's slot, handed out when the volume is first shown
    bits 0-43    the inode number in the guest's file system

A mount that has shown a million files of a guest remembers none of them.
"""

from __future__ import annotations

import errno
from hashlib import blake2b
from typing import NamedTuple

import pyfuse3

from holdfast.base.types import SnapshotID

_GUEST = 1 << 62
_SLOTS = 1 << 18
_INODE_BITS = 44
_INODES = 1 << _INODE_BITS


class VolumeKey(NamedTuple):
    """A volume of a disk of a snapshot. `disk` is the item's path."""

    snapshot: SnapshotID
    disk: str
    volume: str


def is_guest(number: int) -> bool:
    """Whether an inode number is that of a file inside a guest."""
    return bool(number & _GUEST)


def guest_number(slot: int, inode: int) -> int:
    """The mount's number for an inode of the volume in a slot. Raises FUSEError when it does not fit."""
    if not 0 <= inode < _INODES:
        raise pyfuse3.FUSEError(errno.EOVERFLOW)
    return _GUEST | slot << _INODE_BITS | inode


def split_number(number: int) -> tuple[int, int]:
    """(slot, inode in the guest)."""
    return number >> _INODE_BITS & (_SLOTS - 1), number & (_INODES - 1)


class Slots:
    """Gives each volume a slot: a hash of it if that is free, so that numbers mostly survive a remount."""

    def __init__(self) -> None:
        self._keys: dict[int, VolumeKey] = {}
        self._slots: dict[VolumeKey, int] = {}

    def slot(self, key: VolumeKey) -> int:
        """The volume's slot. Raises FUSEError when all are taken."""
        slot = self._slots.get(key)
        if slot is None:
            if len(self._slots) == _SLOTS:
                raise pyfuse3.FUSEError(errno.EOVERFLOW)
            digest = blake2b("\0".join(key).encode(errors="surrogatepass"), digest_size=4).digest()
            slot = int.from_bytes(digest, "little") % _SLOTS
            while slot in self._keys:
                slot = (slot + 1) % _SLOTS
            self._slots[key] = slot
            self._keys[slot] = key
        return slot

    def key(self, slot: int) -> VolumeKey:
        """The volume in a slot. Raises FUSEError for a slot that no volume has."""
        try:
            return self._keys[slot]
        except KeyError:
            raise pyfuse3.FUSEError(errno.ESTALE) from None
