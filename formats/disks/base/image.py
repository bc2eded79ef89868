"""The interface of the image formats: they take open files and give a disk with extents.

A reader opens no file itself. It asks `Companions` for further files that an image names, and gets only those
that the user named too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias


class ExtentKind(Enum):
    """How the bytes of an extent are stored."""

    DATA = "data"
    ZERO = "zero"
    """The image marks it as zeros."""
    HOLE = "hole"
    """Never written or discarded; reads as zeros."""


class ImageExtent(NamedTuple):
    """A range of a disk whose bytes are all stored alike. Start and length in bytes."""

    start: int
    length: int
    kind: ExtentKind


class ImageFile(Protocol):
    """An open file with random access and a fixed size. `name` is for messages."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from `offset`; fewer bytes only at the end of the file. Raises OSError."""
        ...

    def holes(self) -> Iterator[tuple[int, int]]:
        """(start, end) of the holes of the file itself, in order. None where the file system may report holes
        over data."""
        ...


Companions: TypeAlias = Callable[[str], ImageFile]
"""Opens a file that an image names (an extent, a backing file, a parent). Takes the name as the image has it.
Raises ImageRefused when the user did not name that file."""


class Image(Protocol):
    """An open disk image. One thread at a time; calls of `read_into` may come between two extents.

    Damage that the format can show raises ImageDamaged, with file and offset, before or when the affected
    bytes are read. A disk is never shortened or padded.
    """

    format: str
    """`raw`, `qcow2`, `vmdk`, `vhdx`, `vhd`, `vdi`."""
    size: int
    """Bytes of the disk that the guest sees."""

    def extents(self) -> Iterator[ImageExtent]:
        """All of [0, size) in order; neighbours differ in kind, or are far apart in the file.

        Takes memory for one table of the format at a time, not for the disk.
        """
        ...

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the whole buffer with the disk's bytes from `offset`; [offset, offset + len) is inside the
        disk. Holes and zeros are filled with zeros. Raises ImageDamaged, or OSError from the file."""
        ...
