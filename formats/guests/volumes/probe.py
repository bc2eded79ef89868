"""Recognises what a volume holds by magic numbers, without opening it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from holdfast.formats.guests.filesystems.base.devices import CachedDevice
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.signature import FileSystemFormat, Signature, Trust
from holdfast.formats.guests.values.values import GuestDamaged
from holdfast.formats.guests.volumes import luks, lvm_metadata
from holdfast.formats.guests.volumes.file_systems import FILE_SYSTEMS


class Container(Enum):
    """A volume that holds other volumes."""

    LVM = "lvm"
    LUKS = "luks"


class Probed(NamedTuple):
    """What a volume holds: a file system that is opened here, a container, or neither. Then `text` says what
    it is, for the user, and `is_known` is false when nothing was recognised."""

    file_system: FileSystemFormat | None = None
    container: Container | None = None
    text: str = ""
    is_known: bool = True


class _Candidate(NamedTuple):
    signature: Signature
    probed: Probed


def _other(offset: int, magic: bytes, trust: Trust, text: str) -> _Candidate:
    """A volume that is recognised but not opened."""
    return _Candidate(Signature(offset, magic, trust), Probed(text=text))


_PAGES: Final = (4096, 8192, 16384, 65536)
_CONTAINERS: Final = (
    _Candidate(Signature(0, luks.MAGIC, Trust.FIRST_SECTOR), Probed(container=Container.LUKS)),
    *(
        _Candidate(
            Signature(sector * lvm_metadata.SECTOR, lvm_metadata.LABEL_MAGIC, Trust.ELSEWHERE),
            Probed(container=Container.LVM),
        )
        for sector in range(lvm_metadata.LABEL_SECTORS)
    ),
)
_OTHERS: Final = (
    _other(3, b"-FVE-FS-", Trust.FIRST_SECTOR, "BitLocker encrypted volume; it cannot be opened here"),
    _other(3, b"ReFS\0\0\0\0", Trust.FIRST_SECTOR, "ReFS file system; it cannot be opened here"),
    *(_other(page - 10, b"SWAPSPACE2", Trust.MEMBER, "Linux swap") for page in _PAGES),
    *(_other(page - 10, b"SWAP-SPACE", Trust.MEMBER, "Linux swap, old format") for page in _PAGES),
    *(_other(page - 10, b"S1SUSPEND\0", Trust.MEMBER, "Linux swap, suspended system") for page in _PAGES),
    _other(4096, b"\xfc\x4e\x2b\xa9", Trust.MEMBER, "member of a Linux software RAID (md)"),
    _other(0, b"\xfc\x4e\x2b\xa9", Trust.MEMBER, "member of a Linux software RAID (md)"),
    _other(1024, b"\x10\x20\xf5\xf2", Trust.STALE, "F2FS file system; it cannot be opened here"),
    _other(0x10034, b"ReIsErFs", Trust.STALE, "ReiserFS file system; it cannot be opened here"),
    _other(0x10034, b"ReIsEr2Fs", Trust.STALE, "ReiserFS file system; it cannot be opened here"),
    _other(0x8000, b"JFS1", Trust.STALE, "JFS file system; it cannot be opened here"),
    _other(1024, b"H+\0\x04", Trust.STALE, "HFS+ file system; it cannot be opened here"),
    _other(1024, b"HX\0\x05", Trust.STALE, "HFSX file system; it cannot be opened here"),
    _other(32, b"NXSB", Trust.STALE, "APFS container; it cannot be opened here"),
    _other(0, b"hsqs", Trust.STALE, "SquashFS file system; it cannot be opened here"),
    _other(1024, b"\xe2\xe1\xf5\xe0", Trust.STALE, "EROFS file system; it cannot be opened here"),
    _other(0x8001, b"CD001", Trust.STALE, "ISO 9660 file system; it cannot be opened here"),
    _other(0x10000 + 1372, b"\x19\x01\x54\x19", Trust.STALE, "UFS2 file system; it cannot be opened here"),
    _other(4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", Trust.STALE, "bcachefs; it cannot be opened here"),
    _other(0x100000, b"\x0d\xd0\x01\xc0", Trust.STALE, "VMFS file system; it cannot be opened here"),
    _other(0, b"bluestore block device\n", Trust.STALE, "Ceph BlueStore device"),
)  # fmt: skip
"""Volumes that are recognised but not opened."""
_ZFS_FIRST: Final = 128 << 10
_ZFS_UBERBLOCKS: Final = 128 << 10
_ZFS_UBERBLOCK: Final = 0x00BAB10C
_ZFS_STEP: Final = 1024
"""Bytes of the shortest uberblock."""
_ZFS_MAGICS: Final = tuple(struct.pack(f"{order}Q", _ZFS_UBERBLOCK) for order in "<>")
_MD_MAGIC: Final = b"\xfc\x4e\x2b\xa9"
_MD_TEXT: Final = "member of a Linux software RAID (md)"
_EMPTY_LOOK: Final = 1 << 20
"""A volume is called empty when this many bytes at its start are zeros."""


def probe(device: BlockDevice, file_systems: Sequence[FileSystemFormat] = FILE_SYSTEMS) -> Probed:
    """Recognise what a volume holds. Raises GuestDamaged only when none of the disk's bytes can be read."""
    tables = CachedDevice(device)
    for signature, probed in _candidates(file_systems):
        if _has(tables, signature):
            return probed
    if _is_zfs(tables):
        return Probed(text="member of a ZFS pool; it cannot be opened here")
    for format_ in file_systems:
        if format_.matches is not None and format_.matches(tables):
            return Probed(format_)
    # The superblocks of md formats 0.90 and 1.0 are at the end. A file system in a mirror of these formats
    # begins at offset 0 and was recognised above.
    for offset in (device.size // 65536 * 65536 - 65536, (device.size // 512 - 16) // 8 * 4096):
        if offset > 0 and _read(tables, offset, len(_MD_MAGIC)) == _MD_MAGIC:
            return Probed(text=_MD_TEXT)
    look = min(device.size, _EMPTY_LOOK)
    if not any(device.read(0, look)):
        return Probed(text=f"empty: its first {look} bytes are zeros", is_known=False)
    return Probed(text="no file system that is known here", is_known=False)


def has_file_system_in_sector_0(
    device: BlockDevice, file_systems: Sequence[FileSystemFormat] = FILE_SYSTEMS
) -> bool:
    """Whether the first sector belongs to a file system or container, so that it is no partition table."""
    tables = CachedDevice(device)
    for signature, probed in _candidates(file_systems):
        is_inside = signature.offset + len(signature.magic) <= 512
        if is_inside and probed.container is not Container.LVM and _has(tables, signature):
            return True
    return any(format_.matches is not None and format_.matches(tables) for format_ in file_systems)


def _candidates(file_systems: Sequence[FileSystemFormat]) -> list[_Candidate]:
    """Everything with a signature, in the order in which signatures are trusted."""
    found = [
        _Candidate(signature, Probed(format_)) for format_ in file_systems for signature in format_.signatures
    ]
    return sorted((*_CONTAINERS, *found, *_OTHERS), key=lambda candidate: candidate.signature.trust)


def _has(device: BlockDevice, signature: Signature) -> bool:
    return _read(device, signature.offset, len(signature.magic)) == signature.magic


def _is_zfs(device: BlockDevice) -> bool:
    """Whether there is an uberblock in the ring from 128 KiB on; it may be any one of them."""
    ring = _read(device, _ZFS_FIRST, _ZFS_UBERBLOCKS)
    return any(ring[offset : offset + 8] in _ZFS_MAGICS for offset in range(0, len(ring), _ZFS_STEP))


def _read(device: BlockDevice, offset: int, length: int) -> bytes:
    """Read bytes of a volume; b"", which is no magic number, when they are outside of it or cannot be
    read."""
    if offset < 0 or offset + length > device.size:
        return b""
    try:
        return device.read(offset, length)
    except GuestDamaged:
        return b""
