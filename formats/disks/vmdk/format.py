"""VMDK, byte by byte: headers of sparse extents, markers, and the limits that are accepted.

VMware, "Virtual Disk Format 5.0" (technical note, 2011). All numbers are little-endian, all addresses count
sectors of 512 bytes.

Hosted sparse extent, 512 bytes, the footer of a stream likewise:

    0   4  "KDMV"                              44  4  entries of a grain table
    4   4  version, 1 to 3                     48  8  redundant grain directory, if flag 1 is set
    8   4  flags                               56  8  grain directory; all ones: see the footer
    12  8  capacity                            64  8  overhead: everything before the first grain
    20  8  grain size, a power of two          72  1  unclean shutdown
    28  8  descriptor, 0 if there is none      73  4  "\\n \\r\\n", which a transfer as text would change
    36  8  sectors of the descriptor           77  2  compression, 0 none, 1 deflate

A grain directory lists grain tables, a grain table lists grains: 32 bits each, 0 for nothing there. A stream
keeps every grain behind a marker (its first sector on the disk, its compressed length) and puts tables and
footer behind markers of one sector (sectors that follow, 0, kind), the last of which, all zeros, ends it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused

SECTOR: Final = 512
HOSTED_MAGIC: Final = b"KDMV"
ESX_MAGIC: Final = b"COWD"
TEXT_MAGIC: Final = b"# Disk DescriptorFile"

HEADER: Final = struct.Struct("<4sIIQQQQIQQQB4sH")
ESX_HEADER: Final = struct.Struct("<4sIIIIIII")
"""Magic, version 1, flags 3, capacity, grain size, grain directory, its entries, first free sector."""
GRAIN_MARKER: Final = struct.Struct("<QI")
MARKER: Final = struct.Struct("<QII")

FLAG_TEXT_CHECK: Final = 1 << 0
FLAG_REDUNDANT: Final = 1 << 1
FLAG_ZEROED_GRAINS: Final = 1 << 2
FLAG_COMPRESSED: Final = 1 << 16
FLAG_MARKERS: Final = 1 << 17
_INCOMPATIBLE: Final = 0xFFFF0000
TEXT_CHECK: Final = b"\n \r\n"
DEFLATE: Final = 1
DIRECTORY_AT_END: Final = (1 << 64) - 1
ZEROED_GRAIN: Final = 1
"""A table's entry for a grain of zeros, where FLAG_ZEROED_GRAINS is set."""

MARK_TABLE: Final = 1
MARK_DIRECTORY: Final = 2
MARK_FOOTER: Final = 3

ENTRIES: Final = 512
"""Entries of a grain table of a hosted extent; some streams have fewer."""
ESX_ENTRIES: Final = 4096

LARGEST_GRAIN: Final = 8192
"""Sectors: 4 MiB. VMware writes 128 everywhere, ESX's own format 1."""
LARGEST_DISK: Final = 1 << 38
"""Sectors: 128 TiB, twice the largest virtual disk of ESXi."""
MOST_TABLES: Final = 1 << 22
"""Grain tables of an extent: 128 TiB of the usual ones, and a bound on every loop over them."""
LONGEST_DESCRIPTOR: Final = 1 << 20
"""Bytes; qemu's limit."""
MOST_EXTENTS: Final = 4096
"""Most files of one disk: 8 TiB in files of 2 GB."""


@dataclass(frozen=True, slots=True)
class SparseLayout:
    """What a reader needs of a sparse extent, from any kind of header. Addresses and sizes in sectors."""

    capacity: int
    grain: int
    entries: int
    """Entries of a grain table."""
    directory: int
    redundant: int
    """The redundant grain directory; 0 if there is none."""
    lowest: int
    """The first sector that a table or a grain may begin at."""
    zeroed_grains: bool
    compressed: bool
    streamed: bool
    """Whether directory and tables have a marker before them."""

    @property
    def table_count(self) -> int:
        return -(-self.capacity // (self.grain * self.entries))


@dataclass(frozen=True, slots=True)
class HostedHeader:
    """A hosted sparse extent's header. Addresses and sizes in sectors."""

    version: int
    flags: int
    capacity: int
    grain: int
    descriptor: int
    descriptor_size: int
    entries: int
    redundant: int
    directory: int
    overhead: int
    compression: int

    def layout(self, *, streamed: bool) -> SparseLayout:
        has_redundant = bool(self.flags & FLAG_REDUNDANT) and self.redundant not in (0, self.directory)
        return SparseLayout(
            capacity=self.capacity,
            grain=self.grain,
            entries=self.entries,
            directory=self.directory,
            redundant=self.redundant if has_redundant else 0,
            lowest=1 + self.descriptor_size if self.descriptor == 1 else 1,
            zeroed_grains=bool(self.flags & FLAG_ZEROED_GRAINS),
            compressed=bool(self.flags & FLAG_COMPRESSED),
            streamed=streamed,
        )


def parse_hosted(data: bytes, name: str, offset: int) -> HostedHeader:
    """The header, or the footer, of a hosted sparse extent that stands at `offset` of the file `name`.

    Checks what can be checked without the file. Raises ImageDamaged, and ImageRefused for unknown versions
    and features.
    """
    (
        magic, version, flags, capacity, grain, descriptor, descriptor_size,
        entries, redundant, directory, overhead, _unclean, text_check, compression,
    ) = HEADER.unpack_from(data)  # fmt: skip
    if magic != HOSTED_MAGIC:
        raise ImageDamaged(name, "no VMDK header", offset=offset)
    if not 1 <= version <= 3:
        raise ImageRefused(name, f"is VMDK version {version}; versions 1 to 3 are known")
    if unknown := flags & _INCOMPATIBLE & ~(FLAG_COMPRESSED | FLAG_MARKERS):
        raise ImageRefused(name, f"needs VMDK features that are not known (flags {unknown:#x})")
    if flags & FLAG_TEXT_CHECK and text_check != TEXT_CHECK:
        raise ImageDamaged(name, "its line ends were converted, as if it were text", offset=offset + 73)
    if not _is_grain(grain):
        raise ImageDamaged(name, f"a grain size of {grain} sectors", offset=offset + 20)
    if not 0 < capacity <= LARGEST_DISK:
        raise ImageDamaged(name, f"a capacity of {capacity} sectors", offset=offset + 12)
    if not 0 < entries <= ENTRIES or entries & (entries - 1):
        raise ImageDamaged(name, f"grain tables of {entries} entries", offset=offset + 44)
    if -(-capacity // (grain * entries)) > MOST_TABLES:
        raise ImageDamaged(name, f"more than {MOST_TABLES} grain tables", offset=offset + 12)
    if descriptor_size * SECTOR > LONGEST_DESCRIPTOR:
        raise ImageDamaged(name, f"a descriptor of {descriptor_size} sectors", offset=offset + 36)
    _check_compression(flags, compression, name, offset)
    return HostedHeader(
        version=version,
        flags=flags,
        capacity=capacity,
        grain=grain,
        descriptor=descriptor,
        descriptor_size=descriptor_size,
        entries=entries,
        redundant=redundant,
        directory=directory,
        overhead=overhead,
        compression=compression,
    )


def _check_compression(flags: int, algorithm: int, name: str, offset: int) -> None:
    if algorithm not in (0, DEFLATE):
        raise ImageRefused(name, f"is compressed with algorithm {algorithm}; 1 (deflate) is known")
    compressed, markers = bool(flags & FLAG_COMPRESSED), bool(flags & FLAG_MARKERS)
    if compressed and not markers:
        raise ImageRefused(name, "has compressed grains without markers, which no product writes")
    if compressed != markers or compressed != (algorithm == DEFLATE):
        raise ImageDamaged(name, "contradicts itself about compression", offset=offset + 8)


def parse_esx(data: bytes, name: str) -> SparseLayout:
    """The header of a sparse extent as ESX Server 3 wrote it, as `parse_hosted`; its magic has been seen."""
    _magic, version, _flags, capacity, grain, directory, tables, _free = ESX_HEADER.unpack_from(data)
    if version != 1:
        raise ImageRefused(name, f"is COWD version {version}; version 1 is known")
    if not _is_grain(grain):
        raise ImageDamaged(name, f"a grain size of {grain} sectors", offset=16)
    if not capacity:
        raise ImageDamaged(name, "a capacity of 0 sectors", offset=12)
    layout = SparseLayout(
        capacity=capacity,
        grain=grain,
        entries=ESX_ENTRIES,
        directory=directory,
        redundant=0,
        lowest=4,  # the header takes 2 KiB
        zeroed_grains=False,
        compressed=False,
        streamed=False,
    )
    if tables < layout.table_count:
        raise ImageDamaged(name, f"{tables} grain tables for {capacity} sectors", offset=24)
    return layout


def _is_grain(sectors: int) -> bool:
    return 0 < sectors <= LARGEST_GRAIN and sectors & (sectors - 1) == 0
