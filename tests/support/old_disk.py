"""Images that QEMU cannot write: VHDX with logs and odd block states, differencing VHD; and disks that
qemu-io wrote to in random order."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import google_crc32c

from holdfast.base.types import Buffer
from holdfast.formats.disks.base.view import View
from holdfast.formats.disks.vhdx import format as vhdx
from support.disk import run

MIB = 1 << 20
LOG_GUID = bytes(range(1, 17))


def shuffled(image: Path, format_: str, size: int, block: int, seed: int) -> bytes:
    """Have qemu-io write some blocks and parts of blocks of an empty image, last ones first among them.
    Returns the disk as it is then."""
    rng = random.Random(seed)
    disk = bytearray(size)
    commands: list[str] = []
    starts = list(range(0, size, block))
    rng.shuffle(starts)
    for start in starts[: max(1, len(starts) * 2 // 3)]:
        at = start + 512 * rng.randrange(4)
        length = min(rng.choice((512, 4096, block // 2, block, block + 512)), size - at)
        if length > 0:
            pattern = rng.randrange(1, 256)
            commands += ["-c", f"write -P {pattern} {at} {length}"]
            disk[at : at + length] = bytes([pattern]) * length
    run("qemu-io", "-f", format_, *commands, image)
    return bytes(disk)


# ---- VHDX ---------------------------------------------------------------------------------------------


def write_vhdx(
    path: Path,
    *,
    size: int,
    block: int = MIB,
    sector: int = 512,
    bat: Mapping[int, int] | None = None,
    data: Mapping[int, bytes] | None = None,
    items: Mapping[bytes, bytes | None] | None = None,
    regions: Sequence[tuple[bytes, int, int]] | None = None,
    headers: Sequence[vhdx.Header] = (vhdx.Header(1), vhdx.Header(2)),
) -> Path:
    """A VHDX with log, metadata and BAT at 1, 2 and 3 MiB, and these BAT entries (by their index), bytes (by
    file offset), metadata items (None: left out) and regions in place of what would be there."""
    values = {
        vhdx.FILE_PARAMETERS: struct.pack("<II", block, 0),
        vhdx.VIRTUAL_SIZE: struct.pack("<Q", size),
        vhdx.VIRTUAL_ID: bytes(16),
        vhdx.LOGICAL_SECTOR: struct.pack("<I", sector),
        vhdx.PHYSICAL_SECTOR: struct.pack("<I", 4096),
        **(items or {}),
    }
    blocks = max(1, -(-size // block))
    length = -(-8 * (vhdx.bat_index(blocks - 1, vhdx.chunk_ratio(block, sector)) + 1) // MIB) * MIB
    table = regions or [(vhdx.BAT, 3 * MIB, length), (vhdx.METADATA, 2 * MIB, MIB)]
    with path.open("wb") as file:
        file.write(vhdx.IDENTIFIER)
        for offset, header in zip(vhdx.HEADER_OFFSETS, headers, strict=True):
            file.seek(offset)
            file.write(vhdx.encode_header(header, b"w" * 16, b"d" * 16))
        for offset in vhdx.REGION_OFFSETS:
            file.seek(offset)
            file.write(vhdx.encode_regions(list(table)))
        file.seek(2 * MIB)
        file.write(vhdx.encode_metadata({k: v for k, v in values.items() if v is not None}))
        for index, entry in (bat or {}).items():
            file.seek(3 * MIB + 8 * index)
            file.write(struct.pack("<Q", entry))
        for offset, content in (data or {}).items():
            file.seek(offset)
            file.write(content)
        end = file.seek(0, 2)
        file.truncate(max(3 * MIB + length, -(-end // MIB) * MIB))
    return path


def log_entry(
    sequence: int,
    tail: int,
    writes: Sequence[tuple[int, bytes | int]],
    *,
    flushed: int,
    last: int | None = None,
    guid: bytes = LOG_GUID,
) -> bytes:
    """An entry of a VHDX log: at each offset a page of 4096 bytes, or so many zeros."""
    descriptors, pages = bytearray(), bytearray()
    for offset, what in writes:
        if isinstance(what, int):
            descriptors += struct.pack("<4sIQQQ", b"zero", 0, what, offset, sequence)
        else:
            descriptors += struct.pack("<4s4s8sQQ", b"desc", what[-4:], what[:8], offset, sequence)
            pages += b"data" + struct.pack("<I", sequence >> 32) + what[8:-4]
            pages += struct.pack("<I", sequence & 0xFFFFFFFF)
    head = -(-(64 + len(descriptors)) // 4096) * 4096
    entry = struct.pack(
        "<4sIIIQII16sQQ",
        b"loge",
        0,
        head + len(pages),
        tail,
        sequence,
        len(writes),
        0,
        guid,
        flushed,
        last or flushed,
    )
    entry = (entry + descriptors).ljust(head, b"\0") + pages
    return entry[:4] + struct.pack("<I", google_crc32c.value(entry)) + entry[8:]


def make_dirty(image: Path, entries: Mapping[int, bytes], *, guid: bytes = LOG_GUID) -> Path:
    """Put entries at these places into the log of an image, which may wrap, and say in both headers that the
    log is to be replayed."""
    with image.open("r+b") as file:
        for at, sequence in zip(vhdx.HEADER_OFFSETS, (1000, 1001), strict=True):
            file.seek(at)
            old = vhdx.decode_header(file.read(vhdx.HEADER_SIZE))
            assert old is not None
            offset, length = old.log_offset, old.log_length
            header = vhdx.Header(sequence, guid, 0, 1, length, offset)
            file.seek(at)
            file.write(vhdx.encode_header(header, b"w" * 16, b"d" * 16))
        for position, entry in entries.items():
            file.seek(offset + position)
            file.write(entry[: length - position])
            file.seek(offset)
            file.write(entry[length - position :])
    return image


# ---- VHD ----------------------------------------------------------------------------------------------


def vhd_sum(data: bytes, at: int) -> bytes:
    """A structure of VHD with its checksum put in."""
    clear = data[:at] + bytes(4) + data[at + 4 :]
    return data[:at] + struct.pack(">I", ~sum(clear) & 0xFFFFFFFF) + data[at + 4 :]


def vhd_footer(
    *,
    size: int,
    type_: int,
    unique_id: bytes,
    creator: bytes = b"win ",
    geometry: tuple[int, int, int] = (1, 1, 1),
    version: int = 1 << 16,
) -> bytes:
    offset = 512 if type_ > 2 else 0xFFFFFFFFFFFFFFFF
    footer = struct.pack(">8sIIQI4sI4s", b"conectix", 2, version, offset, 0, creator, 0, b"Wi2k")
    footer += struct.pack(">QQHBBII16s", size, size, *geometry, type_, 0, unique_id)
    return vhd_sum(footer.ljust(512, b"\0"), 64)


def write_vhd(
    path: Path,
    sectors: Mapping[int, bytes],
    *,
    size: int,
    unique_id: bytes,
    parent_id: bytes | None = None,
    parent_name: str = "",
    locators: Mapping[bytes, str] | None = None,
    block: int = 64 << 10,
) -> Path:
    """A dynamic VHD, or a differencing one when it has a parent, that holds these sectors (by number). Bytes
    of its blocks that belong to no such sector are rubbish, and so are the bits behind the last sector."""
    footer = vhd_footer(size=size, type_=3 if parent_id is None else 4, unique_id=unique_id)
    blocks = -(-size // block)
    table_offset = 512 + 1024 + 8 * 512
    header = struct.pack(
        ">8sQQIIII16sII",
        b"cxsparse",
        2**64 - 1,
        table_offset,
        1 << 16,
        blocks,
        block,
        0,
        parent_id or b"",
        0,
        0,
    )
    header += parent_name.encode("utf-16-be").ljust(512, b"\0")
    texts = {k: v.encode("utf-16-le") for k, v in (locators or {}).items()}
    for index, (platform, text) in enumerate(texts.items()):
        header += struct.pack(">4sIIIQ", platform, 512, len(text), 0, 1536 + 512 * index)
    header = vhd_sum(header.ljust(1024, b"\0"), 36)
    per_block = block // 512
    numbers = sorted({number // per_block for number in sectors}, reverse=True)
    table = [0xFFFFFFFF] * blocks
    body = bytearray()
    data_start = -(-(table_offset + 4 * blocks) // 512) * 512
    for number in numbers:
        table[number] = (data_start + len(body)) // 512
        bits = bytearray(-(-per_block // 4096) * 512)
        content = bytearray(random.Random(number).randbytes(block))
        for inside in range(per_block):
            found = sectors.get(number * per_block + inside)
            if found is not None:
                bits[inside // 8] |= 0x80 >> inside % 8
                content[inside * 512 : inside * 512 + 512] = found
        body += bits + content
    data = footer + header + b"".join(text.ljust(512, b"\0") for text in texts.values())
    data = data.ljust(table_offset, b"\0") + struct.pack(f">{blocks}I", *table)
    path.write_bytes(data.ljust(data_start, b"\0") + body + footer)
    return path


# ---- views --------------------------------------------------------------------------------------------


class Disk:
    """A disk with data in these runs (start, length) and zeros elsewhere. Each sector of a run is filled with
    a byte that its number decides."""

    def __init__(self, size: int, runs: Sequence[tuple[int, int]]) -> None:
        self.size = size
        self.runs = list(runs)

    def __str__(self) -> str:
        return f"{self.size} bytes, {len(self.runs)} runs"

    def read(self, start: int, end: int) -> bytes:
        """Bytes [start, end) of a run."""
        sectors = range(start // 512, -(-end // 512))
        return b"".join(bytes([n * 37 % 255 + 1]) * 512 for n in sectors)[start % 512 :][: end - start]

    def content(self) -> bytearray:
        content = bytearray(self.size)
        for start, length in self.runs:
            content[start : start + length] = self.read(start, start + length)
        return content

    def allocation(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        yield from ((at, length) for at, length in self.runs if at < end and at + length > start)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.content())
        return path


def random_disk(size: int, seed: int) -> Disk:
    rng = random.Random(seed)
    edges = sorted(rng.sample(range(0, size, 512), min(40, size // 512 // 2 * 2)))
    return Disk(size, [(a, b - a) for a, b in zip(edges[::2], edges[1::2], strict=True)])


def restored(view: View, disk: Disk, path: Path) -> Path:
    """Write what a restore writes: the tables and the disk's data, into a file that is zeros."""
    with path.open("wb") as file:
        file.truncate(view.size)
        for start, end in view.tables():
            for part in view.parts(start, end):
                assert part.data is not None
                file.seek(part.start)
                file.write(part.data)
        for start, length in disk.runs:
            file.seek(view.data_start + start)
            file.write(disk.read(start, start + length))
    return path


def check_parts(view: View, disk: Disk, whole: Path) -> None:
    """Parts of any range are clipped, in order and without gaps, and together what a restored file has."""
    content, disk_content = whole.read_bytes(), disk.content()
    assert len(content) == view.size
    rng = random.Random(5)
    edges = [0, view.size, view.data_start, *(edge for table in view.tables() for edge in table)]
    for _ in range(300):
        start, end = sorted(
            rng.randrange(view.size + 1)
            if rng.random() < 0.5
            else min(view.size, max(0, rng.choice(edges) + rng.randint(-9, 9)))
            for _ in range(2)
        )
        if rng.random() < 0.5:
            end = min(end, start + rng.choice((1, 8, 512, 4096)))
        at = start
        for part in view.parts(start, end):
            assert part.start == at
            assert part.length > 0
            at += part.length
            found: Buffer = bytes(part.length) if part.disk < 0 else disk_content[part.disk :][: part.length]
            if part.data is not None:
                found = part.data
            assert len(found) == part.length
            assert found == content[part.start : at]
        assert at == end


def check_writable(image: Path, format_: str, disk: Disk, seed: int) -> None:
    """QEMU writes to a restored image, into data and into holes, and no byte gets lost."""
    rng = random.Random(seed)
    wanted = disk.content()
    commands: list[str] = []
    for _ in range(60):
        start = rng.randrange(0, disk.size, 512)
        length = min(rng.choice((512, 64 << 10, MIB, 3 * MIB)), disk.size - start)
        pattern = rng.randrange(256)
        commands += ["-c", f"write -P {pattern} {start} {length}"]
        wanted[start : start + length] = bytes([pattern]) * length
    run("qemu-io", "-f", format_, *commands, image)
    raw = image.with_suffix(".written")
    raw.write_bytes(wanted)
    assert "No errors" in run("qemu-img", "check", "-f", format_, image)
    assert "identical" in run("qemu-img", "compare", "-f", format_, "-F", "raw", image, raw)
