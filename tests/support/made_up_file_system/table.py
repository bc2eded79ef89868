"""The table of file systems with one line more, as a worker is told to use it."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.formats.guests.filesystems.base.interface import BlockDevice, OpenVolume
from holdfast.formats.guests.volumes import open as product
from holdfast.formats.guests.volumes.file_systems import FILE_SYSTEMS
from support.made_up_file_system.filesystem import SHELF


def open_volumes(disk: BlockDevice, passphrases: Sequence[str]) -> list[OpenVolume]:
    return product.open_volumes(disk, passphrases, (*FILE_SYSTEMS, SHELF))
