"""How a volume is recognised: magic numbers at fixed offsets, in an order of trust."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.directory_tree import TreeFileSystem
from holdfast.formats.guests.filesystems.base.interface import BlockDevice


class Trust(IntEnum):
    """The order in which signatures are tried. Those that may be left over from an earlier use come last."""

    FIRST_SECTOR = 0
    """A long magic number in the first sector, which every tool overwrites."""
    ELSEWHERE = 1
    """A long magic number at another offset."""
    MEMBER = 2
    """Swap, and members of arrays: at offsets that file systems leave alone."""
    STALE = 3
    """A short magic number, or one that other tools do not overwrite."""


class Signature(NamedTuple):
    """A magic number at an offset, in bytes, of a volume."""

    offset: int
    magic: bytes
    trust: Trust


class FileSystemFormat(NamedTuple):
    """A file system that is opened here.

    `name` is what messages call it. A format without signatures is recognised by `matches`, which gets the
    volume and raises nothing; it is asked once all signatures have failed. `open` raises GuestDamaged, and
    whatever a parser raises on damaged bytes.
    """

    name: str
    open: Callable[[BlockDevice], TreeFileSystem]
    signatures: tuple[Signature, ...] = ()
    matches: Callable[[BlockDevice], bool] | None = None
