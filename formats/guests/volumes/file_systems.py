"""Every file system that is opened here. A new one is a package in `filesystems` and a name in this table."""

from __future__ import annotations

from typing import Final

from holdfast.formats.guests.filesystems.base.signature import FileSystemFormat
from holdfast.formats.guests.filesystems.btrfs.filesystem import BTRFS
from holdfast.formats.guests.filesystems.ext.filesystem import EXT
from holdfast.formats.guests.filesystems.fat.exfat import EXFAT
from holdfast.formats.guests.filesystems.fat.fat import FAT
from holdfast.formats.guests.filesystems.ntfs.filesystem import NTFS
from holdfast.formats.guests.filesystems.xfs.filesystem import XFS

FILE_SYSTEMS: Final[tuple[FileSystemFormat, ...]] = (XFS, NTFS, EXFAT, BTRFS, EXT, FAT)
