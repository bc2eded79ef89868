"""VMDK files that qemu-img cannot write: streams as VMware writes them, ESX's sparse extents, descriptors."""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.formats.disks.base.files import BytesFile, OpenFile
from holdfast.formats.disks.base.image import ImageFile
from holdfast.formats.disks.open import no_companions
from holdfast.formats.disks.vmdk.format import ESX_HEADER, GRAIN_MARKER, HEADER, MARKER
from holdfast.formats.disks.vmdk.reader import VmdkImage, open_vmdk
from support.disk import SECTOR, check_extents, companions, convert, disk_bytes, read_disk

GRAIN = 64 << 10
DISK = b"".join(
    (
        disk_bytes(5 * GRAIN, seed=1),
        bytes(3 * GRAIN),
        disk_bytes(30 * GRAIN, seed=2),
        disk_bytes(SECTOR * 9, seed=3),
    )
)
"""A disk of one grain table, with a hole, that ends inside a grain."""
SECTORS = len(DISK) // SECTOR


def qemu_disk(folder: Path, options: str) -> bytes:
    """DISK as qemu writes it, in one file."""
    (folder / "raw").write_bytes(DISK)
    return convert(folder / "raw", folder / "disk.vmdk", "vmdk", options).read_bytes()


def read_all(data: bytes, give: Callable[[str], ImageFile] = no_companions) -> bytes:
    """Open an image, walk it and read it whole."""
    image = open_vmdk(BytesFile(data, "disk.vmdk"), give)
    found = read_disk(image, 3 * GRAIN + SECTOR)
    check_extents(image, found)
    return found


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    """Other bytes at an offset."""
    return data[:offset] + new + data[offset + len(new) :]


@contextmanager
def opened(path: Path, *named: Path) -> Iterator[VmdkImage]:
    """An image whose companions are the files named, and no others."""
    with OpenFile(path) as file, companions(*named) as give:
        yield open_vmdk(file, give)


def descriptor(*extents: str, create_type: str = "custom", parent: str = "ffffffff", more: str = "") -> str:
    lines = "".join(f"{line}\n" for line in extents)
    return (
        f"# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID={parent}\n"
        f'createType="{create_type}"\n{more}\n# Extent description\n{lines}\n'
        '# The Disk Data Base\n#DDB\n\nddb.adapterType = "lsilogic"\n'
    )


def hosted_header(
    capacity: int,
    *,
    version: int = 1,
    flags: int = 1,
    grain: int = GRAIN // SECTOR,
    text: tuple[int, int] = (1, 20),
    entries: int = 512,
    redundant: int = 0,
    directory: int = 21,
    overhead: int = 128,
    check: bytes = b"\n \r\n",
    compression: int = 0,
) -> bytes:
    fields = (b"KDMV", version, flags, capacity, grain, *text, entries, redundant, directory, overhead, 0)
    return HEADER.pack(*fields, check, compression).ljust(SECTOR, b"\0")


def stream(disk: bytes, *, grain: int = GRAIN, marker_per_table: bool = True, level: int = 6) -> bytes:
    """A streamOptimized VMDK with everything behind its grains, as VMware's exports are. Without
    `marker_per_table` all tables stand behind one marker, as Xen Orchestra writes them."""
    capacity = len(disk) // SECTOR
    text = descriptor(f'RDONLY {capacity} SPARSE "generated-stream.vmdk"', create_type="streamOptimized")
    settings = {"version": 3, "flags": 0x30001, "grain": grain // SECTOR, "compression": 1}
    out = bytearray(hosted_header(capacity, directory=(1 << 64) - 1, **settings))  # type: ignore[arg-type]
    out += text.encode().ljust(127 * SECTOR, b"\0")

    def pad() -> int:
        out.extend(bytes(-len(out) % SECTOR))
        return len(out) // SECTOR

    def mark(sectors: int, kind: int) -> None:
        out.extend(MARKER.pack(sectors, 0, kind))
        pad()

    tables: list[list[int]] = []
    for number, at in enumerate(range(0, len(disk), grain)):
        if number % 512 == 0:
            tables.append([0] * 512)
        data = disk[at : at + grain]
        if any(data):
            tables[-1][number % 512] = pad()
            packed = zlib.compress(data, level)
            out += GRAIN_MARKER.pack(at // SECTOR, len(packed)) + packed
    pad()
    directory = []
    for table in tables:
        if marker_per_table and not any(table):
            directory.append(0)
            continue
        if marker_per_table or not directory:
            mark(4, 1)
        directory.append(pad())
        out += array("I", table).tobytes()
    mark(-(-len(directory) * 4 // SECTOR), 2)
    at = pad()
    out += array("I", directory).tobytes()
    pad()
    mark(1, 3)
    out += hosted_header(capacity, directory=at, **settings)  # type: ignore[arg-type]
    mark(0, 0)
    return bytes(out)


def esx_extent(disk: bytes, *, grain: int = 1) -> bytes:
    """A sparse extent as ESX Server 3 wrote it, its grains in reverse order. `grain` in sectors."""
    capacity, unit = len(disk) // SECTOR, grain * SECTOR
    count = -(-len(disk) // (4096 * unit))
    grains: list[bytes] = []
    table = array("I", bytes(count * 4096 * 4))
    first = 5 + count * 32
    wanted = [at for at in range(0, len(disk), unit) if any(disk[at : at + unit])]
    for at in reversed(wanted):
        table[at // unit] = first + len(grains) * grain
        grains.append(disk[at : at + unit].ljust(unit, b"\0"))
    directory = struct.pack(f"<{count}I", *(5 + number * 32 for number in range(count)))
    head = ESX_HEADER.pack(b"COWD", 1, 3, capacity, grain, 4, count, first + len(grains) * grain)
    return head.ljust(4 * SECTOR, b"\0") + directory.ljust(SECTOR, b"\0") + table.tobytes() + b"".join(grains)
