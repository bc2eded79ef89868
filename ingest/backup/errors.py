"""Why a source is not taken for what it seems to be. Nothing was stored."""

from __future__ import annotations

from holdfast.base.errors import Refused
from holdfast.formats.disks.base.errors import ImageDamaged


class UnknownForm(Refused):
    """It looks like a disk or a dump, and cannot be read as one. As a plain file it could be stored."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}; nothing was stored")
        self.name = name


class CutOffDisk(ImageDamaged):
    """Named like a raw disk, with a size that no disk has."""
