"""What the file systems have in common: folders made of names and inode numbers, times that fit."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator

from holdfast.formats.guests.filesystems.base.content import Content, ContentCache
from holdfast.formats.guests.filesystems.base.devices import CachedDevice
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.names import NameCache, is_safe, safe_names
from holdfast.formats.guests.values.values import (
    DAMAGED,
    FILE_FORMATS,
    Entry,
    GuestDamaged,
    GuestError,
    GuestMissing,
    NodeType,
)

PARSE_ERRORS = (GuestError, struct.error, ValueError, IndexError, KeyError, OverflowError)
"""What a parser raises on damaged bytes."""
MAX_INODE = 1 << 44
"""Inode numbers must be below: the mount adds the number of the disk and the volume."""
MAX_SIZE = (1 << 63) - 1
MAX_ATTRIBUTES = 1024
"""Of one inode: more are not handed over, and each may take 64 KiB."""
_MAX_TIME = (1 << 63) - 1

_TYPES = {format_: type_ for type_, format_ in FILE_FORMATS.items()}


class TreeFileSystem(ABC):
    """A file system whose folders hold names and inode numbers."""

    kind: str
    label: str
    root: int
    has_log = False
    """Whether changes stand in a journal that is not replayed here."""

    def __init__(self, device: BlockDevice) -> None:
        self.device = device
        self.tables = CachedDevice(device)
        self._contents = ContentCache()
        self._folders = NameCache()

    @abstractmethod
    def entry(self, inode: int) -> Entry: ...

    @abstractmethod
    def names(self, inode: int) -> Iterator[tuple[bytes, int]]:
        """The names in a folder as they are stored, and the inode numbers they stand for (in NTFS with the
        number of times the record was used above them)."""

    @abstractmethod
    def content(self, inode: int) -> Content:
        """What a file holds. Raises GuestDamaged for what is no file."""

    @abstractmethod
    def readlink(self, inode: int) -> bytes: ...

    @abstractmethod
    def xattrs(self, inode: int) -> dict[bytes, bytes]: ...

    def list(self, inode: int) -> Iterator[tuple[bytes, Entry]]:
        """Names that lead back to this folder or to the top are left out."""
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
        """What `names` says of one name. Raises GuestMissing."""
        child = self._folders.find(inode, name, self.names) if is_safe(name) else None
        if child is None:
            raise GuestMissing(f"no {name!r} in folder {inode}")
        return child

    def read(self, inode: int, offset: int, length: int) -> bytes:
        content = self._contents.get(inode)
        if content is None:
            content = self.content(inode)
            self._contents.put(inode, content)
        return content.read(offset, length)


def node_type(mode: int, inode: int) -> NodeType:
    """From the upper bits of st_mode."""
    found = _TYPES.get(mode & 0o170000)
    if found is None:
        raise GuestDamaged(f"inode {inode}: mode {mode:o} is of no type")
    return found


def check_attributes(count: int, inode: int) -> None:
    """GuestDamaged when an inode has more extended attributes than can be handed over."""
    if count > MAX_ATTRIBUTES:
        raise GuestDamaged(f"inode {inode} has more than {MAX_ATTRIBUTES} extended attributes")


def nanoseconds(seconds: int, fraction: int) -> int:
    """A time in ns since 1970, as near as a signed 64-bit number comes."""
    return clamp(seconds * 1_000_000_000 + (fraction if 0 <= fraction < 1_000_000_000 else 0))


def clamp(time: int) -> int:
    return max(-_MAX_TIME - 1, min(_MAX_TIME, time))


def utf8(name: bytes) -> bytes:
    """UTF-16LE to UTF-8; lone surrogates as their three bytes."""
    return name.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")


def label_text(label: bytes) -> str:
    """A volume's name out of a field of fixed length."""
    return label.split(b"\0", 1)[0].decode("utf-8", "replace").strip()


utf8(b"a\0")  # loads the codec: no file can be opened later
