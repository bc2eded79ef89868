"""Magic numbers: what a volume holds, without opening it."""

from __future__ import annotations

import struct
from enum import Enum
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.devices import CachedDevice
from holdfast.formats.guests.filesystems.base.directory_tree import PARSE_ERRORS
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.fat.boot import read_boot_sector
from holdfast.formats.guests.values.values import GuestDamaged


class Kind(Enum):
    """What is to be done with a volume."""

    EXT = "ext"
    XFS = "xfs"
    BTRFS = "btrfs"
    NTFS = "ntfs"
    FAT = "fat"
    EXFAT = "exfat"
    LVM = "lvm"
    LUKS = "luks"
    OTHER = "other"
    """Known, but nobody here opens it."""
    UNKNOWN = "unknown"


class Probed(NamedTuple):
    """`text` says in words for the user what it is, for OTHER and UNKNOWN."""

    kind: Kind
    text: str


class _Magic(NamedTuple):
    offset: int
    magic: bytes
    kind: Kind
    text: str


_PAGES = (4096, 8192, 16384, 65536)

# In this order: what others leave behind at other places comes last.
_MAGICS = (
    _Magic(0, b"LUKS\xba\xbe", Kind.LUKS, ""),
    _Magic(0, b"XFSB", Kind.XFS, ""),
    _Magic(3, b"NTFS    ", Kind.NTFS, ""),
    _Magic(3, b"EXFAT   ", Kind.EXFAT, ""),
    _Magic(3, b"-FVE-FS-", Kind.OTHER, "BitLocker encrypted volume; it cannot be opened here"),
    _Magic(3, b"ReFS\0\0\0\0", Kind.OTHER, "ReFS file system; it cannot be opened here"),
    *(_Magic(sector * 512, b"LABELONE", Kind.LVM, "") for sector in range(4)),
    _Magic(0x10040, b"_BHRfS_M", Kind.BTRFS, ""),
    *(_Magic(page - 10, b"SWAPSPACE2", Kind.OTHER, "Linux swap") for page in _PAGES),
    *(_Magic(page - 10, b"SWAP-SPACE", Kind.OTHER, "Linux swap, old format") for page in _PAGES),
    *(_Magic(page - 10, b"S1SUSPEND\0", Kind.OTHER, "Linux swap, suspended system") for page in _PAGES),
    _Magic(4096, b"\xfc\x4e\x2b\xa9", Kind.OTHER, "member of a Linux software RAID (md)"),
    _Magic(0, b"\xfc\x4e\x2b\xa9", Kind.OTHER, "member of a Linux software RAID (md)"),
    _Magic(1024 + 56, b"\x53\xef", Kind.EXT, ""),
    _Magic(1024, b"\x10\x20\xf5\xf2", Kind.OTHER, "F2FS file system; it cannot be opened here"),
    _Magic(0x10034, b"ReIsErFs", Kind.OTHER, "ReiserFS file system; it cannot be opened here"),
    _Magic(0x10034, b"ReIsEr2Fs", Kind.OTHER, "ReiserFS file system; it cannot be opened here"),
    _Magic(0x8000, b"JFS1", Kind.OTHER, "JFS file system; it cannot be opened here"),
    _Magic(1024, b"H+\0\x04", Kind.OTHER, "HFS+ file system; it cannot be opened here"),
    _Magic(1024, b"HX\0\x05", Kind.OTHER, "HFSX file system; it cannot be opened here"),
    _Magic(32, b"NXSB", Kind.OTHER, "APFS container; it cannot be opened here"),
    _Magic(0, b"hsqs", Kind.OTHER, "SquashFS file system; it cannot be opened here"),
    _Magic(1024, b"\xe2\xe1\xf5\xe0", Kind.OTHER, "EROFS file system; it cannot be opened here"),
    _Magic(0x8001, b"CD001", Kind.OTHER, "ISO 9660 file system; it cannot be opened here"),
    _Magic(0x10000 + 1372, b"\x19\x01\x54\x19", Kind.OTHER, "UFS2 file system; it cannot be opened here"),
    _Magic(4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", Kind.OTHER, "bcachefs; it cannot be opened here"),
    _Magic(0x100000, b"\x0d\xd0\x01\xc0", Kind.OTHER, "VMFS file system; it cannot be opened here"),
    _Magic(0, b"bluestore block device\n", Kind.OTHER, "Ceph BlueStore device"),
)  # fmt: skip
_ZFS_FIRST = 128 << 10
_ZFS_UBERBLOCK = 0x00BAB10C
_MD_OLD = b"\xfc\x4e\x2b\xa9"
_EMPTY_LOOK = 1 << 20


def probe(device: BlockDevice) -> Probed:
    """What a volume holds. Raises GuestDamaged only when the disk's bytes cannot be delivered at all."""
    tables = CachedDevice(device)
    for offset, magic, kind, text in _MAGICS:
        if _read(tables, offset, len(magic)) == magic:
            return Probed(kind, text)
    if _is_zfs(tables):
        return Probed(Kind.OTHER, "member of a ZFS pool; it cannot be opened here")
    if _is_fat(tables):
        return Probed(Kind.FAT, "")
    # md formats 0.90 and 1.0 stand at the end: what is inside of a mirror was seen before as itself.
    for place in (device.size // 65536 * 65536 - 65536, (device.size // 512 - 16) // 8 * 4096):
        if place > 0 and _read(tables, place, 4) == _MD_OLD:
            return Probed(Kind.OTHER, "member of a Linux software RAID (md)")
    look = min(device.size, _EMPTY_LOOK)
    if not any(device.read(0, look)):
        return Probed(Kind.UNKNOWN, f"empty: its first {look} bytes are zeros")
    return Probed(Kind.UNKNOWN, "no file system that is known here")


def has_file_system_in_sector_0(device: BlockDevice) -> bool:
    """Whether the first sector belongs to a file system or container, so that it is no partition table."""
    tables = CachedDevice(device)
    for offset, magic, kind, _ in _MAGICS:
        if offset + len(magic) <= 512 and kind is not Kind.LVM and _read(tables, offset, len(magic)) == magic:
            return True
    return _is_fat(tables)


def _is_fat(device: BlockDevice) -> bool:
    raw = _read(device, 0, 512)
    if raw[510:] != b"\x55\xaa" or raw[:1] not in (b"\xeb", b"\xe9"):
        return False
    try:
        read_boot_sector(device)
    except PARSE_ERRORS:
        return False
    return True


def _is_zfs(device: BlockDevice) -> bool:
    """Uberblocks, of 1 KiB or more, from 128 KiB on; one of the later ones may be the only one."""
    ring = _read(device, _ZFS_FIRST, 128 << 10)
    for place in range(0, len(ring), 1024):
        if struct.unpack_from("<Q", ring, place)[0] == _ZFS_UBERBLOCK:
            return True
        if struct.unpack_from(">Q", ring, place)[0] == _ZFS_UBERBLOCK:
            return True
    return False


def _read(device: BlockDevice, offset: int, length: int) -> bytes:
    """b"" for what is outside or cannot be read: no magic number."""
    if offset < 0 or offset + length > device.size:
        return b""
    try:
        return device.read(offset, length)
    except GuestDamaged:
        return b""
