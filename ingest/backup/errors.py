"""Errors of sources that look like a disk or a dump but cannot be read as one. Nothing was stored."""

from __future__ import annotations

from holdfast.base.errors import Refused
from holdfast.formats.disks.base.errors import ImageDamaged


class UnknownSourceType(Refused):
    """The source looks like a disk or dump but cannot be read as one; it could be stored as a plain file."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}; nothing was stored")
        self.name = name


class CutOffDisk(ImageDamaged):
    """Named like a raw disk, with a size that no disk has."""
