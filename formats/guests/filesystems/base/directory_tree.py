"""The base of every file system: directories made of names and inode numbers, times and texts converted."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator

from holdfast.formats.guests.filesystems.base.content import Content, ContentCache
from holdfast.formats.guests.filesystems.base.devices import CachedDevice
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.names import NameCache, is_safe, safe_names
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import (
    DAMAGED,
    FILE_FORMATS,
    Entry,
    GuestError,
    GuestMissing,
    NodeType,
)

PARSE_ERRORS = (GuestError, struct.error, ValueError, IndexError, KeyError, OverflowError)
"""Exceptions that a parser raises on damaged bytes."""
MAX_INODE = 1 << 44
"""Inode numbers must be below this: the mount adds the numbers of the disk and the volume above them."""
MAX_SIZE = (1 << 63) - 1
"""Bytes of the largest file that Linux can show."""
MAX_ATTRIBUTES = 1024
"""Extended attributes of one inode that are sent to the parent; each may take 64 KiB."""
_MAX_TIME = (1 << 63) - 1

_TYPES = {format_: type_ for type_, format_ in FILE_FORMATS.items()}


class TreeFileSystem(ABC):
    """A file system whose directories map names to inode numbers."""

    kind: str
    label: str
    root: int
    has_log = False
    """Whether the journal holds changes, which are not replayed here."""

    def __init__(self, device: BlockDevice) -> None:
        self.device = device
        self.tables = CachedDevice(device)
        self._contents = ContentCache()
        self._names = NameCache()

    @abstractmethod
    def entry(self, inode: int) -> Entry:
        """Read one inode. Raises GuestMissing, GuestDamaged."""

    @abstractmethod
    def names(self, inode: int) -> Iterator[tuple[bytes, int]]:
        """Yield the names of a directory as they are stored, and their inode numbers. (NTFS puts the record's
        sequence number above the inode number.)"""

    @abstractmethod
    def content(self, inode: int) -> Content:
        """Find the bytes of a file. Raises GuestMissing when the inode is not a file."""

    @abstractmethod
    def readlink(self, inode: int) -> bytes:
        """Return the target of a symbolic link."""

    @abstractmethod
    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        """Return the attributes of `user.` and the ACLs."""

    def list(self, inode: int) -> Iterator[tuple[bytes, Entry]]:
        """Yield names with their inodes. Names that lead back to this directory or to the top are left
        out."""
        for name, child in safe_names(self.names(inode)):
            if child in (inode, self.root):
                continue
            try:
                entry = self.entry(child)
            except PARSE_ERRORS:
                entry = DAMAGED
            yield name, entry

    def lookup(self, inode: int, name: bytes) -> Entry:
        return self.entry(self.child(inode, name))

    def child(self, inode: int, name: bytes) -> int:
        """Return the number that `names` yields with one name. Raises GuestMissing."""
        child = self._names.find(inode, name, self.names) if is_safe(name) else None
        if child is None:
            raise GuestMissing(f"directory {inode} has no {name[:80]!r}")
        return child

    def read(self, inode: int, offset: int, length: int) -> bytes:
        content = self._contents.get(inode)
        if content is None:
            content = self.content(inode)
            self._contents.put(inode, content)
        return content.read(offset, length)


def node_type(mode: int, inode: int) -> NodeType:
    """The type of an inode, from the upper bits of its st_mode. Raises StructureDamaged for unknown bits."""
    found = _TYPES.get(mode & 0o170000)
    if found is None:
        raise StructureDamaged(f"inode {inode}", "mode", f"{mode:#o}", "of a known file type")
    return found


def check_attributes(count: int, inode: int) -> None:
    """Raise StructureDamaged when an inode has more extended attributes than can be sent to the parent."""
    if count > MAX_ATTRIBUTES:
        raise StructureDamaged(
            f"inode {inode}", "number of extended attributes", count, f"at most {MAX_ATTRIBUTES}"
        )


def nanoseconds(seconds: int, fraction: int) -> int:
    """A time in ns since 1970, clamped to a signed 64-bit number. A fraction out of range counts as 0."""
    return clamp(seconds * 1_000_000_000 + (fraction if 0 <= fraction < 1_000_000_000 else 0))


def clamp(time: int) -> int:
    """The nearest time, in ns, that a signed 64-bit number can hold."""
    return max(-_MAX_TIME - 1, min(_MAX_TIME, time))


def utf8(name: bytes) -> bytes:
    """Convert UTF-16LE to UTF-8; a lone surrogate becomes three bytes."""
    return name.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")


def label_text(label: bytes) -> str:
    """The name of a volume, from a field of fixed length that zeros fill up."""
    return label.split(b"\0", 1)[0].decode("utf-8", "replace").strip()


utf8(b"a\0")  # loads the codec now: the worker can open no file later
