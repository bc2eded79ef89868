"""ext2, ext3 and ext4."""

from __future__ import annotations

import base64
import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base import acls
from holdfast.formats.guests.filesystems.base.content import (
    Content,
    Inline,
    Piece,
    Pieces,
    Unreadable,
    file_extents,
    read_pieces,
)
from holdfast.formats.guests.filesystems.base.directory_tree import (
    MAX_SIZE,
    PARSE_ERRORS,
    check_attributes,
    nanoseconds,
)
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.unix import UnixFileSystem
from holdfast.formats.guests.filesystems.ext.blocks import BlockReader
from holdfast.formats.guests.filesystems.ext.superblock import Super
from holdfast.formats.guests.values.values import FileExtent, GuestDamaged, GuestMissing

_ROOT = 2
_FLAG_ENCRYPTED = 0x800
_FLAG_HUGE = 0x40000
_FLAG_EXTENTS = 0x80000
_FLAG_INLINE = 0x10000000

_BASE = struct.Struct("<HHIiiiIHHIII60sIIIIHHHHHH")
_EXTRA = struct.Struct("<HHIII")
_NAME = struct.Struct("<IHB")
_XATTR = struct.Struct("<BBHIII")
_XATTR_MAGIC = 0xEA020000
_MAX_XATTR = 64 << 10
_MAX_LINK = 64 << 10
_READ_STEP = 64 << 10


class _Inode(NamedTuple):
    number: int
    mode: int
    uid: int
    gid: int
    links: int
    size: int
    allocated: int
    mtime: int
    ctime: int
    atime: int
    flags: int
    block: bytes
    attributes: int
    extra: bytes
    """What follows the fields in the inode: attributes."""

    @property
    def has_attributes_inside(self) -> bool:
        return len(self.extra) >= 4 and struct.unpack_from("<I", self.extra)[0] == _XATTR_MAGIC


class ExtFileSystem(UnixFileSystem[_Inode]):
    """One ext file system. Raises GuestDamaged when its superblock cannot be used."""

    family = "ext"

    def __init__(self, device: BlockDevice) -> None:
        super().__init__(device)
        self._super = Super(self.tables)
        self.kind = self._super.kind
        self.label = self._super.label
        self.has_log = self._super.has_log
        self.root = _ROOT
        self._load(_ROOT)

    def _device(self, node: _Inode) -> int:
        return _device_number(node.block)

    def _is_plain(self, node: _Inode) -> bool:
        return not node.attributes and not node.has_attributes_inside

    def names(self, inode: int) -> Iterator[tuple[bytes, int]]:
        node = self._load_kind(inode, stat.S_IFDIR)
        names = self._stored_names(node)
        yield from _encrypted(names) if node.flags & _FLAG_ENCRYPTED else names

    def _stored_names(self, node: _Inode) -> Iterator[tuple[bytes, int]]:
        inode = node.number
        if node.flags & _FLAG_INLINE:
            # The first four bytes are the parent's number; what is in the attribute are entries again.
            yield from _names(node.block[4:], inode)
            rest = self._all_xattrs(node).get((7, b"data"), b"")
            yield from _names(rest, inode)
            return
        if node.size > self.device.size:
            raise GuestDamaged(f"ext: folder {inode} of {node.size} bytes")
        block_size = self._super.block_size
        for start, whole, place in self._pieces(node):
            length = min(whole, node.size - start)
            if place < 0:
                continue
            for offset in range(0, length, _READ_STEP):
                data = self.tables.read(place + offset, min(_READ_STEP, length - offset))
                for block in range(0, len(data), block_size):
                    yield from _names(data[block : block + block_size], inode)

    def content(self, inode: int) -> Content:
        node = self._load_kind(inode, stat.S_IFREG)
        if node.flags & _FLAG_ENCRYPTED:
            return Unreadable(f"ext: inode {inode} is encrypted")
        if node.flags & _FLAG_INLINE:
            return Inline(self._inline(node))
        return Pieces(self.device, self._pieces(node), node.size)

    def readlink(self, inode: int) -> bytes:
        node = self._load_kind(inode, stat.S_IFLNK)
        if node.size > _MAX_LINK or node.flags & _FLAG_ENCRYPTED:
            raise GuestDamaged(f"ext: the link {inode} is encrypted, or of {node.size} bytes")
        if node.flags & _FLAG_INLINE:
            return self._inline(node)
        if node.size < len(node.block) and not node.flags & _FLAG_EXTENTS:
            return node.block[: node.size]
        return read_pieces(self.tables, self._pieces(node), node.size, 0, node.size)

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        found = {}
        for (index, name), value in self._all_xattrs(self._load(inode)).items():
            if index == 1:
                found[b"user." + name] = value
            elif index == 2 and not name:
                found[acls.ACCESS] = acls.from_ext(value)
            elif index == 3 and not name:
                found[acls.DEFAULT] = acls.from_ext(value)
        return found

    def _load(self, inode: int) -> _Inode:
        raw = self.tables.read(self._super.inode_offset(inode), self._super.inode_size)
        (
            mode, uid, size, atime, ctime, mtime, deleted, gid, links, sectors, flags, _,
            block, _, attributes, size_high, _, sectors_high, attributes_high, uid_high, gid_high, _, _,
        ) = _BASE.unpack_from(raw)  # fmt: skip
        if mode == 0 or (links == 0 and deleted):
            raise GuestMissing(f"ext: inode {inode} is not in use")
        extra_size = mtime_extra = ctime_extra = atime_extra = 0
        if len(raw) >= 144:
            extra_size, _, ctime_extra, mtime_extra, atime_extra = _EXTRA.unpack_from(raw, 128)
            if extra_size > len(raw) - 128:
                raise GuestDamaged(f"ext: inode {inode}: {extra_size} extra bytes")
            if extra_size < 16:
                mtime_extra = ctime_extra = atime_extra = 0
        if stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and self._super.large_directories):
            size |= size_high << 32
        unit = 512
        if self._super.huge_files:
            sectors |= sectors_high << 32
            if flags & _FLAG_HUGE:
                unit = self._super.block_size
        if size > MAX_SIZE:
            raise GuestDamaged(f"ext: inode {inode} of {size} bytes")
        return _Inode(
            inode,
            mode,
            uid | uid_high << 16,
            gid | gid_high << 16,
            links,
            size,
            sectors * unit,
            nanoseconds(mtime + ((mtime_extra & 3) << 32), mtime_extra >> 2),
            nanoseconds(ctime + ((ctime_extra & 3) << 32), ctime_extra >> 2),
            nanoseconds(atime + ((atime_extra & 3) << 32), atime_extra >> 2),
            flags,
            block,
            attributes | attributes_high << 32,
            raw[128 + extra_size :] if len(raw) > 128 else b"",
        )

    def _pieces(self, node: _Inode) -> tuple[Piece, ...]:
        reader = BlockReader(self.tables, self._super.block_size, node.number)
        if node.flags & _FLAG_EXTENTS:
            return tuple(reader.by_extents(node.block))
        return tuple(reader.by_map(node.block, node.size))

    def _extents(self, node: _Inode) -> tuple[FileExtent, ...] | None:
        if node.flags & (_FLAG_INLINE | _FLAG_ENCRYPTED):
            return None
        try:
            return file_extents(self.device, self._pieces(node), node.size)
        except PARSE_ERRORS:
            return None  # reading it will say what is wrong

    def _inline(self, node: _Inode) -> bytes:
        data = node.block[: node.size]
        if len(data) < node.size:
            data += self._all_xattrs(node).get((7, b"data"), b"")
        if len(data) < node.size:
            raise GuestDamaged(f"ext: inode {node.number}: {len(data)} bytes inside of {node.size}")
        return data[: node.size]

    def _all_xattrs(self, node: _Inode) -> dict[tuple[int, bytes], bytes]:
        """Name index and name to value; those in the inode, then those in its block."""
        found: dict[tuple[int, bytes], bytes] = {}
        if node.has_attributes_inside:
            self._add_xattrs(found, node.extra[4:], 0, node.number)
        if node.attributes:
            size = self._super.block_size
            block = self.tables.read(node.attributes * size, size)
            if struct.unpack_from("<I", block)[0] != _XATTR_MAGIC:
                raise GuestDamaged(f"ext: inode {node.number}: attribute block {node.attributes} is damaged")
            self._add_xattrs(found, block, 32, node.number)
        return found

    def _add_xattrs(self, found: dict[tuple[int, bytes], bytes], area: bytes, place: int, inode: int) -> None:
        while place + 4 <= len(area) and area[place : place + 4] != bytes(4):
            length, index, offset, value_inode, size, _ = _XATTR.unpack_from(area, place)
            name = area[place + 16 : place + 16 + length]
            place += (16 + length + 3) & ~3
            if size > _MAX_XATTR:
                raise GuestDamaged(f"ext: inode {inode}: an attribute of {size} bytes")
            if value_inode:
                value = self._value(value_inode, size)
            elif offset + size > len(area):
                raise GuestDamaged(f"ext: inode {inode}: an attribute's value lies outside")
            else:
                value = area[offset : offset + size]
            found.setdefault((index, name), value)
            check_attributes(len(found), inode)

    def _value(self, inode: int, size: int) -> bytes:
        """An attribute's value that fills an inode of its own."""
        node = self._load(inode)
        if node.flags & _FLAG_INLINE or node.size < size:
            raise GuestDamaged(f"ext: inode {inode} holds no attribute of {size} bytes")
        return read_pieces(self.tables, self._pieces(node), size, 0, size)


def _names(block: bytes, inode: int) -> Iterator[tuple[bytes, int]]:
    """The entries of a directory block; index blocks look like one empty entry."""
    place = 0
    end = len(block)
    while place + 8 <= end:
        child, length, name_length = _NAME.unpack_from(block, place)
        if length in (0, 0xFFFF) and end == 65536:
            length = 65536
        if length < 8 or length % 4 or place + length > end or name_length + 8 > length:
            raise GuestDamaged(f"ext: folder {inode}: an entry of {length} bytes is damaged")
        if child:
            yield block[place + 8 : place + 8 + name_length], child
        place += length


def _encrypted(names: Iterator[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
    """Names that are encrypted are any bytes, slashes too: in letters, as Linux shows them without the key
    (not the same: it puts hashes in that it computes)."""
    for name, child in names:
        is_dots = name in (b".", b"..")
        yield name if is_dots else base64.urlsafe_b64encode(name).rstrip(b"="), child


def _device_number(block: bytes) -> int:
    old, new = struct.unpack_from("<II", block)
    if old:
        return os.makedev(old >> 8 & 0xFF, old & 0xFF)
    return os.makedev((new & 0xFFF00) >> 8, new & 0xFF | new >> 12 & 0xFFF00)
