"""A disk to its volumes: partitions, logical volumes, opened containers, and the file systems in them.

One bad volume never hides the others: what cannot be opened is a volume with a text that says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from holdfast.formats.guests.filesystems.base.devices import DeviceRange
from holdfast.formats.guests.filesystems.base.directory_tree import PARSE_ERRORS, TreeFileSystem
from holdfast.formats.guests.filesystems.base.interface import BlockDevice, OpenVolume
from holdfast.formats.guests.filesystems.btrfs.filesystem import BtrfsFileSystem
from holdfast.formats.guests.filesystems.ext.filesystem import ExtFileSystem
from holdfast.formats.guests.filesystems.fat.exfat import ExfatFileSystem
from holdfast.formats.guests.filesystems.fat.fat import FatFileSystem
from holdfast.formats.guests.filesystems.ntfs.filesystem import NtfsFileSystem
from holdfast.formats.guests.filesystems.xfs.filesystem import XfsFileSystem
from holdfast.formats.guests.values.values import Volume
from holdfast.formats.guests.volumes.luks import WrongPassphrase, open_luks, read_header
from holdfast.formats.guests.volumes.luks_crypt import CipherUnknown
from holdfast.formats.guests.volumes.lvm import group_name, logical_volumes
from holdfast.formats.guests.volumes.lvm_metadata import PhysicalVolume, read_physical_volume
from holdfast.formats.guests.volumes.partitions import Partition, read_partitions
from holdfast.formats.guests.volumes.probe import Kind, has_file_system_in_sector_0, probe

_MAX_NESTING = 3
"""Containers in containers, and volume groups in logical volumes."""
_MAX_LVS = 1024
_MAX_TEXT = 400
_BROKEN = (*PARSE_ERRORS, ArithmeticError, AttributeError, TypeError, RuntimeError, MemoryError)
"""What a parser may raise when a volume is opened; not what the channel to the disk raises when it ends."""
_UNSAFE = re.compile(r"[^A-Za-z0-9+_.-]")
_LOCKED = "encrypted; give its passphrase at mount (--luks-passphrase-file)"

_IN_USE = "it was in use: changes that stand in its journal alone are not shown"

_OPENERS: dict[Kind, Callable[[BlockDevice], TreeFileSystem]] = {
    Kind.EXT: ExtFileSystem,
    Kind.XFS: XfsFileSystem,
    Kind.BTRFS: BtrfsFileSystem,
    Kind.NTFS: NtfsFileSystem,
    Kind.FAT: FatFileSystem,
    Kind.EXFAT: ExfatFileSystem,
}


def open_volumes(disk: BlockDevice, passphrases: Sequence[str]) -> list[OpenVolume]:
    """All volumes of a disk, each with its file system where one opens. Each passphrase is tried on each LUKS
    container."""
    opening = _Opening(passphrases)
    if disk.size == 0:
        return []
    partitions = (
        None if has_file_system_in_sector_0(disk) else read_partitions(disk, partial(_holds_something, disk))
    )
    if partitions is None:
        opening.open("p0", disk)
    for partition in partitions or ():
        path = f"p{partition.number}"
        if partition.size <= 0 or partition.start + partition.size > disk.size:
            opening.add(path, None, _outside(partition, disk), size=max(partition.size, 0))
        else:
            opening.open(path, DeviceRange(disk, partition.start, partition.size), name=partition.name)
    for _ in range(_MAX_NESTING):
        if not opening.open_groups():
            break
    return opening.volumes


def _holds_something(disk: BlockDevice, start: int, size: int) -> bool:
    """Whether anything known starts at a place of a disk."""
    if size <= 0 or start + size > disk.size:
        return False
    try:
        return probe(DeviceRange(disk, start, size)).kind is not Kind.UNKNOWN
    except PARSE_ERRORS:
        return False


class _Opening:
    """The volumes found so far, and the physical volumes among them whose groups are still to be opened."""

    def __init__(self, passphrases: Sequence[str]) -> None:
        self.volumes: list[OpenVolume] = []
        self._passphrases = passphrases
        self._physical: list[tuple[PhysicalVolume, BlockDevice]] = []
        self._opened: set[tuple[str, str]] = set()

    def open(self, path: str, device: BlockDevice, *, name: str = "", depth: int = 0) -> None:
        """Add what a device holds under a path. `name` is what the partition table calls it."""
        try:
            kind, text = probe(device)
            if kind is Kind.LUKS:
                self._open_luks(path, device, name, depth)
            elif kind is Kind.LVM:
                self._add_physical(path, device)
            elif kind in _OPENERS:
                self._open_file_system(path, device, kind)
            else:
                self.add(path, device, text, label=name)
        except _BROKEN as error:
            self.add(path, device, f"damaged: {str(error) or type(error).__name__}", label=name)

    def add(
        self, path: str, device: BlockDevice | None, text: str, *, label: str = "", size: int = 0
    ) -> None:
        """Add a volume that is shown as a text."""
        size = size if device is None else device.size
        volume = Volume(path, size, _offset(device), "", label, text[:_MAX_TEXT])
        self.volumes.append(OpenVolume(volume, None))

    def open_groups(self) -> bool:
        """Open the volumes of the groups whose physical volumes were found; whether there were new ones. One
        that misses a physical volume now is told of all the same: it may lie on another disk."""
        before = len(self._opened)
        for group, name, size, device, text in logical_volumes(self._physical)[:_MAX_LVS]:
            if (group, name) in self._opened:
                continue
            self._opened.add((group, name))
            path = f"lvm/{safe_name(group)}/{safe_name(name)}"
            if device is None:
                self.add(path, None, text, size=size)
            else:
                self.open(path, device)
        return len(self._opened) > before

    def _open_file_system(self, path: str, device: BlockDevice, kind: Kind) -> None:
        try:
            file_system = _OPENERS[kind](device)
            file_system.entry(file_system.root)
        except _BROKEN as error:
            reason = str(error) or type(error).__name__
            self.add(path, device, f"damaged or unknown {kind.value} file system: {reason}")
            return
        text = _IN_USE if file_system.has_log else ""
        volume = Volume(path, device.size, _offset(device), file_system.kind, file_system.label, text)
        self.volumes.append(OpenVolume(volume, file_system))

    def _add_physical(self, path: str, device: BlockDevice) -> None:
        physical = read_physical_volume(device)
        self._physical.append((physical, device))
        group = group_name(physical)
        of = f" of the group {safe_name(group)}" if group else ""
        self.add(path, device, f"LVM physical volume{of}; its volumes stand below lvm/")

    def _open_luks(self, path: str, device: BlockDevice, name: str, depth: int) -> None:
        header = read_header(device)
        what = f"LUKS{header.version}"
        try:
            if not self._passphrases:
                self.add(path, device, f"{what} {_LOCKED}", label=name)
            elif depth >= _MAX_NESTING:
                self.add(path, device, f"{what} inside of {depth} others; it is not opened", label=name)
            else:
                inner = open_luks(device, header, self._passphrases)
                self.open(path, inner, name=name, depth=depth + 1)
        except WrongPassphrase:
            self.add(path, device, f"{what} encrypted; none of the passphrases opens it", label=name)
        except CipherUnknown as error:
            self.add(path, device, f"{what} encrypted; {error}", label=name)
        except MemoryError:
            self.add(path, device, f"{what} encrypted; its key slot asks for too much memory", label=name)


def safe_name(name: str) -> str:
    """A name that can be part of a path: what is not a letter, digit or one of + _ . - is an underscore."""
    safe = _UNSAFE.sub("_", name)[:128]
    return "_" if safe.strip(".") == "" else safe


def _offset(device: BlockDevice | None) -> int:
    """Of the first byte on the disk, -1 when there is no such place or the device is in several pieces."""
    if device is None or not device.size:
        return -1
    try:
        runs = device.extents(0, device.size)
    except PARSE_ERRORS:
        return -1
    return runs[0].disk if runs and len(runs) == 1 else -1


def _outside(partition: Partition, disk: BlockDevice) -> str:
    end = partition.start + partition.size
    return f"damaged: it reaches from {partition.start} to {end} on a disk of {disk.size} bytes"
