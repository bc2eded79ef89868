"""qcow2 on disk: header, table entries and limits. Big endian.

    0    4   magic "QFI\\xfb"                    76   -   version 2 ends at 72
    4    4   version: 2 or 3                     72   8   incompatible features
    8    8   offset of the backing file's name   80   8   compatible features
    16   4   its length                          88   8   auto-clear features
    20   4   cluster bits                        96   4   refcount order
    24   8   size of the disk                   100   4   length of the header
    32   4   encryption                         104   1   compression type
    36   4   entries of the L1 table
    40   8   offset of the L1 table
    48   8   offset of the refcount table
    56   4   its clusters
    60   4   snapshots, 64 8 their offset

Behind the header stand extensions (type, length, data padded to 8 bytes) up to the name of the backing file
or the end of the first cluster. Source: QEMU, docs/interop/qcow2; limits as in QEMU's block/qcow2.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import Final

from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import read_exactly
from holdfast.formats.disks.base.image import ImageFile

_MAGIC: Final = b"QFI\xfb"
_HEAD: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_HEAD_3: Final = struct.Struct(">QQQII")
_EXTENSION: Final = struct.Struct(">II")
_HEAD_2_SIZE: Final = _HEAD.size
_HEAD_3_SIZE: Final = _HEAD.size + _HEAD_3.size
_WRITTEN_HEAD_SIZE: Final = 112
"""As QEMU writes it: compression type and padding included."""

_CLUSTER_BITS: Final = range(9, 22)
_EXTENDED_CLUSTER_BITS: Final = 14
_BACKING_NAME_LIMIT: Final = 1023
L1_LIMIT: Final = 32 << 20
"""Bytes of an L1 table."""
REFCOUNT_TABLE_LIMIT: Final = 8 << 20
"""Bytes of a refcount table."""
OFFSET_LIMIT: Final = 1 << 56
"""File offsets that an entry can hold."""

_EXTENSION_END: Final = 0
_BACKING_FORMAT: Final = 0xE2792ACA
_DATA_FILE: Final = 0x44415441

_DIRTY: Final = 1 << 0
_CORRUPT: Final = 1 << 1
_EXTERNAL: Final = 1 << 2
_COMPRESSION: Final = 1 << 3
_EXTENDED: Final = 1 << 4

# Entries of L1 and L2 tables.
COPIED: Final = 1 << 63
COMPRESSED: Final = 1 << 62
ZERO: Final = 1 << 0
OFFSET_MASK: Final = 0x00FF_FFFF_FFFF_FE00
L1_RESERVED: Final = ~(COPIED | OFFSET_MASK)
L2_RESERVED: Final = ~(COPIED | OFFSET_MASK | ZERO)

SUBCLUSTERS: Final = 32
ALL_ALLOCATED: Final = 0xFFFF_FFFF
ALL_ZERO: Final = 0xFFFF_FFFF << 32
"""Of the bitmap beside an extended L2 entry: bit n allocates subcluster n, bit n + 32 says it is zeros."""

SECTOR: Final = 512


class Compression(Enum):
    """What compressed clusters are compressed with."""

    ZLIB = 0
    """Raw deflate with a window of 4 KiB."""
    ZSTD = 1


@dataclass(frozen=True, slots=True)
class Qcow2Head:
    """What the header says, checked: the L1 table is in the file and large enough for the disk."""

    version: int
    size: int
    cluster_bits: int
    l1_offset: int
    l1_entries: int
    extended: bool
    """L2 entries have a bitmap of subclusters beside them."""
    compression: Compression
    backing: str | None
    backing_format: str | None
    external: bool
    """Clusters are in a data file of their own."""
    data_file: str | None

    @property
    def cluster(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def l2_bits(self) -> int:
        """Two's logarithm of the entries of an L2 table."""
        return self.cluster_bits - (4 if self.extended else 3)


def read_head(file: ImageFile) -> Qcow2Head:
    """Read and check a header. Raises ImageDamaged, and ImageRefused for what nobody here can read."""
    name = file.name
    head = read_exactly(file, 0, min(file.size, _HEAD_3_SIZE + 1), "the header")
    if len(head) < _HEAD_2_SIZE or not head.startswith(_MAGIC):
        raise ImageDamaged(name, "no qcow2 header", offset=0)
    (_, version, backing_at, backing_length, cluster_bits, size, encryption, l1_entries, l1_offset) = (
        _HEAD.unpack_from(head)[:9]
    )
    if version not in (2, 3):
        raise ImageRefused(name, f"is qcow version {version}; versions 2 and 3 can be read")
    if cluster_bits not in _CLUSTER_BITS:
        raise ImageDamaged(name, f"clusters of 2^{cluster_bits} bytes", offset=20)
    if encryption:
        raise ImageRefused(name, "is encrypted; decrypt it with qemu-img convert, which takes its key")
    length, incompatible, compression = _HEAD_2_SIZE, 0, 0
    if version == 3:
        if len(head) < _HEAD_3_SIZE:
            raise ImageDamaged(name, "the header is cut off", offset=len(head))
        incompatible, _, _, _, length = _HEAD_3.unpack_from(head, _HEAD_2_SIZE)
        if not _HEAD_3_SIZE <= length <= 1 << cluster_bits or length % 8:
            raise ImageDamaged(name, f"a header of {length} bytes", offset=100)
        compression = head[_HEAD_3_SIZE] if length > _HEAD_3_SIZE and len(head) > _HEAD_3_SIZE else 0
    _check_features(name, incompatible, compression, cluster_bits)

    first = read_exactly(file, 0, min(file.size, 1 << cluster_bits), "the first cluster")
    backing = None
    if backing_at:
        if not (length <= backing_at and 0 < backing_length <= _BACKING_NAME_LIMIT) or (
            backing_at + backing_length > len(first)
        ):
            raise ImageDamaged(name, "the backing file's name is not in the first cluster", offset=8)
        backing = _text(first[backing_at : backing_at + backing_length])
    extensions = _extensions(name, first[: backing_at or len(first)], length)
    result = Qcow2Head(
        version=version,
        size=size,
        cluster_bits=cluster_bits,
        l1_offset=l1_offset,
        l1_entries=l1_entries,
        extended=bool(incompatible & _EXTENDED),
        compression=Compression(compression),
        backing=backing,
        backing_format=_text(extensions[_BACKING_FORMAT]) if _BACKING_FORMAT in extensions else None,
        external=bool(incompatible & _EXTERNAL),
        data_file=_text(extensions[_DATA_FILE]) if _DATA_FILE in extensions else None,
    )
    _check_l1(file, result)
    return result


def _check_features(name: str, incompatible: int, compression: int, cluster_bits: int) -> None:
    # A dirty image has refcounts that cannot be believed. Nobody here reads them.
    unknown = incompatible & ~(_DIRTY | _CORRUPT | _EXTERNAL | _COMPRESSION | _EXTENDED)
    if unknown:
        raise ImageRefused(name, f"needs features that are not known here: bits {unknown:#x}")
    if incompatible & _CORRUPT:
        raise ImageDamaged(name, "it is marked corrupt by the program that wrote it", offset=72)
    if bool(incompatible & _COMPRESSION) != (compression != 0):
        raise ImageDamaged(name, f"compression type {compression} against its feature bit", offset=104)
    if compression not in [known.value for known in Compression]:
        raise ImageRefused(name, f"is compressed in a way that is not known here: type {compression}")
    if incompatible & _EXTENDED and cluster_bits < _EXTENDED_CLUSTER_BITS:
        raise ImageDamaged(name, "extended L2 entries with clusters that are too small", offset=72)


def _check_l1(file: ImageFile, head: Qcow2Head) -> None:
    if head.size >= 1 << 63:
        raise ImageDamaged(file.name, f"a disk of {head.size} bytes", offset=24)
    wanted = -((-head.size) >> (head.cluster_bits + head.l2_bits))
    if not wanted <= head.l1_entries <= L1_LIMIT // 8:
        raise ImageDamaged(file.name, f"an L1 table of {head.l1_entries} entries, not {wanted}", offset=36)
    if head.l1_offset % head.cluster or head.l1_offset + 8 * head.l1_entries > file.size:
        raise ImageDamaged(
            file.name, f"the L1 table at {head.l1_offset} is misplaced or cut off", offset=head.l1_offset
        )


def _extensions(name: str, first: bytes, at: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while at + _EXTENSION.size <= len(first):
        kind, length = _EXTENSION.unpack_from(first, at)
        if kind == _EXTENSION_END:
            break
        start = at + _EXTENSION.size
        if kind in found or start + length > len(first):
            raise ImageDamaged(name, "a header extension comes twice or is too long", offset=at)
        found[kind] = first[start : start + length]
        at = start + -(-length // 8) * 8
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")  # as the names of files are decoded


def encode_head(
    *,
    size: int,
    cluster_bits: int,
    l1_offset: int,
    l1_entries: int,
    refcount_table_offset: int,
    refcount_table_clusters: int,
) -> bytes:
    """A header of version 3 without any features, refcounts of 16 bits."""
    head = _HEAD.pack(
        _MAGIC, 3, 0, 0, cluster_bits, size, 0, l1_entries, l1_offset,
        refcount_table_offset, refcount_table_clusters, 0, 0,
    )  # fmt: skip
    head += _HEAD_3.pack(0, 0, 0, 4, _WRITTEN_HEAD_SIZE)
    return head.ljust(_WRITTEN_HEAD_SIZE + _EXTENSION.size, b"\0")
