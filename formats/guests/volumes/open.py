"""From a disk to its volumes: partitions, logical volumes, opened containers, and the file systems in them.

A damaged volume never hides the others: one that cannot be opened is listed with a text that tells why.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from functools import partial

from holdfast.formats.guests.filesystems.base.devices import DeviceRange
from holdfast.formats.guests.filesystems.base.directory_tree import PARSE_ERRORS
from holdfast.formats.guests.filesystems.base.interface import BlockDevice, OpenVolume
from holdfast.formats.guests.filesystems.base.signature import FileSystemFormat
from holdfast.formats.guests.values.values import UNOPENED, GuestError, Volume
from holdfast.formats.guests.volumes.file_systems import FILE_SYSTEMS
from holdfast.formats.guests.volumes.luks import WrongPassphrase, open_luks, read_header
from holdfast.formats.guests.volumes.luks_crypt import CipherUnknown
from holdfast.formats.guests.volumes.lvm import group_name, logical_volumes
from holdfast.formats.guests.volumes.lvm_metadata import PhysicalVolume, read_physical_volume
from holdfast.formats.guests.volumes.partitions import Partition, read_partitions
from holdfast.formats.guests.volumes.probe import Container, has_file_system_in_sector_0, probe

_MAX_NESTING = 3
"""Levels of containers in containers, and of volume groups in logical volumes."""
_MAX_LVS = 1024
_MAX_TEXT = 400
_BROKEN = (*PARSE_ERRORS, ArithmeticError, AttributeError, TypeError, RuntimeError, MemoryError)
"""Exceptions of a parser that opens a damaged volume; not those of the channel to the parent."""
_UNSAFE = re.compile(r"[^A-Za-z0-9+_.-]")
_IN_USE = "it was in use: changes that stand in its journal alone are not shown"


def open_volumes(
    disk: BlockDevice,
    passphrases: Sequence[str],
    file_systems: Sequence[FileSystemFormat] = FILE_SYSTEMS,
) -> list[OpenVolume]:
    """All volumes of a disk, each with its file system where one opens. Each passphrase is tried on each LUKS
    container."""
    opening = _Opening(passphrases, file_systems)
    if disk.size == 0:
        return []
    partitions = None
    if not has_file_system_in_sector_0(disk, file_systems):
        partitions = read_partitions(disk, partial(_is_known, disk, file_systems))
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


def _is_known(disk: BlockDevice, file_systems: Sequence[FileSystemFormat], start: int, size: int) -> bool:
    """Whether a volume of a known kind lies in a range of a disk, in bytes."""
    if size <= 0 or start + size > disk.size:
        return False
    try:
        return probe(DeviceRange(disk, start, size), file_systems).is_known
    except PARSE_ERRORS:
        return False


class _Opening:
    """The volumes found so far, and the physical volumes among them whose groups are still to be opened."""

    def __init__(self, passphrases: Sequence[str], file_systems: Sequence[FileSystemFormat]) -> None:
        self.volumes: list[OpenVolume] = []
        self._passphrases = passphrases
        self._file_systems = file_systems
        self._physical: list[tuple[PhysicalVolume, BlockDevice]] = []
        self._opened: set[tuple[str, str]] = set()

    def open(self, path: str, device: BlockDevice, *, name: str = "", depth: int = 0) -> None:
        """Open a volume and add it under a path. `name` is its name in the partition table, `depth` the
        number of containers around it."""
        try:
            probed = probe(device, self._file_systems)
            if probed.container is Container.LUKS:
                self._open_luks(path, device, name, depth)
            elif probed.container is Container.LVM:
                self._add_physical(path, device)
            elif probed.file_system is not None:
                self._open_file_system(path, device, probed.file_system)
            else:
                self.add(path, device, probed.text, label=name)
        except _BROKEN as error:
            self.add(path, device, f"damaged: {_reason(error)}", label=name)

    def add(
        self, path: str, device: BlockDevice | None, text: str, *, label: str = "", size: int = 0
    ) -> None:
        """Add a volume without a file system; `text` tells what it is."""
        size = size if device is None else device.size
        volume = Volume(path, size, _offset(device), "", label, text[:_MAX_TEXT])
        self.volumes.append(OpenVolume(volume, None))

    def open_groups(self) -> bool:
        """Open the volumes of the groups whose physical volumes were found; returns whether there were new
        ones. A volume that lacks a physical volume is added too: that one may be on another disk."""
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

    def _open_file_system(self, path: str, device: BlockDevice, format_: FileSystemFormat) -> None:
        try:
            file_system = format_.open(device)
            file_system.entry(file_system.root)
        except _BROKEN as error:
            reason = _reason(error)
            self.add(path, device, f"damaged or unknown {format_.name} file system: {reason}")
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
                self.add(path, device, f"{what} {UNOPENED}", label=name)
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
    """A name that can be part of a path: with underscores instead of all but letters, digits and + _ . -"""
    safe = _UNSAFE.sub("_", name)[:128]
    return "_" if safe.strip(".") == "" else safe


def _offset(device: BlockDevice | None) -> int:
    """The disk offset of a device's first byte; -1 when it lies in several extents or nowhere."""
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


def _reason(error: Exception) -> str:
    """What a volume's text tells of an exception of its parser."""
    if isinstance(error, GuestError):
        return str(error)
    if isinstance(error, struct.error | IndexError):
        return f"a structure ends before its last field: {error}"
    return f"{type(error).__name__}: {error}"
