"""FAT12, FAT16 and FAT32: the boot sector."""

from __future__ import annotations

from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.fat import layout
from holdfast.formats.guests.filesystems.fat.layout import (
    BOOT_SECTOR,
    BOOT_SECTOR_32,
    FIRST_CLUSTER,
    SLOT,
    BootSector,
)
from holdfast.formats.guests.values.damage import StructureDamaged


class FatGeometry(NamedTuple):
    """The checked boot sector. Offsets and sizes are in bytes; `root_size` is 0 in FAT32, whose top directory
    is a chain from `root_cluster`."""

    bits: int
    cluster_size: int
    clusters: int
    table_offset: int
    root_offset: int
    root_size: int
    root_cluster: int
    data_offset: int
    label: bytes


def read_boot_sector(device: BlockDevice) -> FatGeometry:
    """Read and check the boot sector. Raises StructureDamaged when it is not one of FAT."""
    raw = device.read(0, layout.BOOT_SIZE)
    boot = BOOT_SECTOR.read(raw)
    boot32 = BOOT_SECTOR_32.read(raw)
    _check(boot)
    table_sectors = boot.table_sectors_16 or boot32.table_sectors
    if not table_sectors:
        raise _damaged("sectors of a table", table_sectors, "at least 1")
    sectors = boot.sectors_16 or boot.sectors_32
    root_size = boot.root_entries * SLOT
    root_offset = (boot.reserved_sectors + boot.tables * table_sectors) * boot.sector_size
    data_offset = root_offset + -(-root_size // boot.sector_size) * boot.sector_size
    clusters = (sectors - data_offset // boot.sector_size) // boot.sectors_per_cluster
    if clusters < 1:
        needed = data_offset // boot.sector_size + boot.sectors_per_cluster
        raise _damaged("number of sectors", sectors, f"at least {needed}, for its tables and one cluster")
    if data_offset >= device.size:
        raise _damaged("offset of the first cluster", data_offset, f"below the volume's {device.size} bytes")
    active = 0
    if boot.table_sectors_16:
        bits = 16 if clusters > layout.FAT12_CLUSTERS else 12
        root_cluster, signature, label = 0, boot.signature, boot.label
    else:
        bits = 32
        root_cluster, signature, label = boot32.root_cluster, boot32.signature, boot32.label
        active = boot32.flags & 0xF if boot32.flags & layout.ACTIVE_TABLE_ONLY else 0
    if active >= boot.tables:
        raise _damaged("number of the active table", active, f"below {boot.tables}")
    # Some programs make a table too short for the last clusters. These are not used, as in Linux.
    clusters = min(clusters, table_sectors * boot.sector_size * 8 // bits - FIRST_CLUSTER)
    if clusters < 1:
        raise _damaged("number of clusters in the table", clusters, "at least 1")
    return FatGeometry(
        bits=bits,
        cluster_size=boot.sector_size * boot.sectors_per_cluster,
        clusters=clusters,
        table_offset=(boot.reserved_sectors + active * table_sectors) * boot.sector_size,
        root_offset=root_offset,
        root_size=root_size,
        root_cluster=root_cluster,
        data_offset=data_offset,
        label=label if signature == layout.EXTENDED_SIGNATURE else b"",
    )


def _check(boot: BootSector) -> None:
    if boot.sector_size not in layout.SECTOR_SIZES:
        sizes = ", ".join(map(str, layout.SECTOR_SIZES))
        raise _damaged("sector size", boot.sector_size, f"one of {sizes} bytes")
    count = boot.sectors_per_cluster
    if not count or count & (count - 1):
        raise _damaged("sectors per cluster", count, "a power of two from 1 to 128")
    if not boot.reserved_sectors:
        raise _damaged("reserved sectors", boot.reserved_sectors, "at least 1")
    if not 1 <= boot.tables <= layout.MAX_TABLES:
        raise _damaged("number of tables", boot.tables, f"1 to {layout.MAX_TABLES}")
    if boot.media not in layout.MEDIA:
        raise _damaged("media type", f"{boot.media:#x}", "0xf0, or 0xf8 to 0xff")


def _damaged(field: str, value: int | str, limit: str) -> StructureDamaged:
    return StructureDamaged("fat boot sector", field, value, limit)
