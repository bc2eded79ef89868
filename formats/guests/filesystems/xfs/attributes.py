"""XFS: extended attributes, in the inode or in blocks of the attribute fork."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from holdfast.formats.guests.filesystems.base.content import Piece, read_pieces
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.xfs.inode import FORMAT_LOCAL, Inode, fork_pieces
from holdfast.formats.guests.filesystems.xfs.superblock import Super
from holdfast.formats.guests.values.values import GuestDamaged

ROOT = 0x2
_LOCAL = 0x1
_SECURE = 0x4
_PARENT = 0x8
_INCOMPLETE = 0x80
_HIDDEN = _SECURE | _PARENT | _INCOMPLETE

_LEAF_MAGIC = (0xFBEE, 0x3BEE)
_NODE_MAGIC = (0xFEBE, 0x3EBE)
_REMOTE_MAGIC = b"XARM"
_REMOTE_HEAD = 56
_MAX_VALUE = 64 << 10
_MAX_DEPTH = 6


def attributes(device: BlockDevice, super_: Super, inode: Inode) -> Iterator[tuple[int, bytes, bytes]]:
    """(namespace, name, value) of those of users and of root; the namespace is 0 or ROOT."""
    fork = inode.attributes
    if fork is None:
        return
    if fork.format == FORMAT_LOCAL:
        yield from _short(fork.data, inode.number)
    elif fork.extents:
        yield from _Blocks(device, super_, inode).attributes()


def is_plain(inode: Inode) -> bool:
    """Whether the inode itself tells that there are none of those. Guests with SELinux have an attribute of
    the system in each."""
    fork = inode.attributes
    if fork is None or fork.format != FORMAT_LOCAL:
        return fork is None or not fork.extents
    try:
        return next(_short(fork.data, inode.number), None) is None
    except (GuestDamaged, struct.error, IndexError):
        return False


def _short(data: bytes, inode: int) -> Iterator[tuple[int, bytes, bytes]]:
    size, count = struct.unpack_from(">HB", data)
    if size > len(data):
        raise GuestDamaged(f"xfs: inode {inode}: {size} bytes of attributes in {len(data)}")
    place = 4
    for _ in range(count):
        name_length, value_length, flags = data[place], data[place + 1], data[place + 2]
        end = place + 3 + name_length + value_length
        if end > size:
            raise GuestDamaged(f"xfs: inode {inode}: an attribute reaches to {end} of {size}")
        name = data[place + 3 : place + 3 + name_length]
        if not flags & _HIDDEN:
            yield flags & ROOT, name, data[place + 3 + name_length : end]
        place = end


class _Blocks:
    """The attribute fork as blocks: a tree whose leaves are a chain."""

    def __init__(self, device: BlockDevice, super_: Super, inode: Inode) -> None:
        assert inode.attributes is not None
        self._device = device
        self._size = super_.block_size
        self._crc = super_.version == 5
        self._number = inode.number
        self._pieces: list[Piece] = fork_pieces(device, super_, inode.attributes, inode.number)
        if not self._pieces:
            raise self._damaged("its attributes have no blocks")
        self._end = self._pieces[-1][0] + self._pieces[-1][1]

    def attributes(self) -> Iterator[tuple[int, bytes, bytes]]:
        number = self._first_leaf()
        seen = set()
        while True:
            if number in seen:
                raise self._damaged(f"attribute block {number} is there twice")
            seen.add(number)
            block = self._block(number)
            (forward,) = struct.unpack_from(">I", block)
            if self._magic(block) not in _LEAF_MAGIC:
                raise self._damaged(f"attribute block {number}")
            yield from self._leaf(block)
            if not forward:
                return
            number = forward

    def _first_leaf(self) -> int:
        number = 0
        for _ in range(_MAX_DEPTH):
            block = self._block(number)
            if self._magic(block) not in _NODE_MAGIC:
                return number
            (_, number) = struct.unpack_from(">II", block, 64 if self._crc else 16)
        raise self._damaged("a tree of attributes without an end")

    def _leaf(self, block: bytes) -> Iterator[tuple[int, bytes, bytes]]:
        head = 56 if self._crc else 12
        first = 80 if self._crc else 32
        (count,) = struct.unpack_from(">H", block, head)
        if first + count * 8 > len(block):
            raise self._damaged(f"{count} attributes in a block")
        for _, place, flags, _ in struct.iter_unpack(">IHBB", block[first : first + count * 8]):
            if flags & _HIDDEN:
                continue
            if flags & _LOCAL:
                value_length, name_length = struct.unpack_from(">HB", block, place)
                start = place + 3
                end = start + name_length + value_length
                value = block[start + name_length : end]
            else:
                value_block, value_length, name_length = struct.unpack_from(">IIB", block, place)
                start = place + 9
                end = start + name_length
                value = self._remote(value_block, value_length)
            if end > len(block):
                raise self._damaged(f"an attribute reaches to {end}")
            yield flags & ROOT, block[start : start + name_length], value

    def _remote(self, number: int, length: int) -> bytes:
        if length > _MAX_VALUE:
            raise self._damaged(f"an attribute of {length} bytes")
        if not self._crc:
            return self._read(number * self._size, length)
        parts = []
        while length > 0:
            block = self._block(number)
            if block[:4] != _REMOTE_MAGIC:
                raise self._damaged(f"attribute block {number}")
            parts.append(block[_REMOTE_HEAD : _REMOTE_HEAD + length])
            length -= len(parts[-1])
            number += 1
        return b"".join(parts)

    def _block(self, number: int) -> bytes:
        return self._read(number * self._size, self._size)

    def _read(self, offset: int, length: int) -> bytes:
        if offset + length > self._end:
            raise self._damaged(f"no attribute block at {offset}")
        return read_pieces(self._device, self._pieces, self._end, offset, length)

    def _magic(self, block: bytes) -> int:
        return int(struct.unpack_from(">H", block, 8)[0])

    def _damaged(self, reason: str) -> GuestDamaged:
        return GuestDamaged(f"xfs: inode {self._number}: {reason}")
