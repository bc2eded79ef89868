"""Byte layout of Proxmox VMA archives, version 1 (vma_spec.txt of pve-qemu). Big endian, except the lengths
of blobs.

Header:

    0      4     "VMA" and NUL
    4      4     version, 1
    8      16    UUID of the archive
    24     8     time of the backup, seconds since 1970
    32     16    MD5 of the header, this field taken as zeros
    48     4     offset of the blob buffer
    52     4     size of the blob buffer
    56     4     size of the header, a multiple of 512
    2044   1024  256 offsets of configuration names in the blob buffer, 0 for none
    3068   1024  256 offsets of configuration data
    4096   8192  256 devices: offset of the name (4), reserved (4), size (8), reserved (16)
    12288  ..    blob buffer; a blob is its length (2, little endian) and its bytes, the first at offset 1

Then extents to the end of the file, each a header and up to 59 clusters of 64 KiB, of which only blocks of
4 KiB that are not zeros are stored:

    0      4     "VMAE"
    4      2     zero
    6      2     blocks that follow the header
    8      16    UUID of the archive
    24     16    MD5 of these 512 bytes, this field taken as zeros
    40     472   59 clusters: mask of stored blocks (2, lowest bit first), zero (1), device (1; 0 for no
                 cluster), number of the cluster in the device (4)
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from holdfast.formats.disks.base.errors import ImageDamaged
from holdfast.formats.disks.base.files import read_exactly
from holdfast.formats.disks.base.image import ImageFile

BLOCK: Final = 4096
CLUSTER: Final = 16 * BLOCK
EXTENT_HEADER: Final = 512
CLUSTERS: Final = 59
"""Most clusters of one extent."""
MAGIC: Final = b"VMA\0"
EXTENT_MAGIC: Final = b"VMAE"

_FIXED: Final = 12288
_HEADER_LIMIT: Final = 64 << 20
"""Most bytes of a header: 512 blobs of 64 KiB and tables. Proxmox writes headers of at most 512 KiB."""
_HEAD: Final = struct.Struct(">4sI16sQ16sIII")
_EXTENT_HEAD: Final = struct.Struct(">4sHH16s16s")
_DEVICE: Final = struct.Struct(">I4xQ16x")
_TABLE: Final = struct.Struct(">256I")
_TIME_LIMIT: Final = 1 << 33
_DEVICE_LIMIT: Final = CLUSTER << 32
"""Most bytes of a device: cluster numbers have 32 bits."""


@dataclass(frozen=True, slots=True)
class VmaDevice:
    """A device; `id` is its number in the extents, `size` in bytes."""

    id: int
    name: str
    size: int

    @property
    def clusters(self) -> int:
        return -(-self.size // CLUSTER)


@dataclass(frozen=True, slots=True)
class VmaHeader:
    """An archive's header. `size` in bytes, `time` in seconds since 1970; `configs` are (name, data)."""

    size: int
    uuid: bytes
    time: int
    devices: tuple[VmaDevice, ...]
    configs: tuple[tuple[str, bytes], ...]


def read_header(file: ImageFile) -> VmaHeader:
    """Read and check the header. Raises ImageDamaged."""
    head = read_exactly(file, 0, _FIXED, "the header")
    magic, version, uuid, time, digest, blobs_start, blobs_size, size = _HEAD.unpack_from(head)
    if magic != MAGIC:
        raise ImageDamaged(file.name, "no VMA archive: the magic is wrong", offset=0)
    if version != 1:
        raise ImageDamaged(file.name, f"VMA version {version} is not known", offset=4)
    if not _FIXED <= size <= _HEADER_LIMIT or size % 512:
        raise ImageDamaged(file.name, f"an impossible header size of {size}", offset=56)
    head += read_exactly(file, _FIXED, size - _FIXED, "the header")
    if hashlib.md5(head[:32] + bytes(16) + head[48:], usedforsecurity=False).digest() != digest:
        raise ImageDamaged(file.name, "the header's checksum is wrong", offset=32)
    if blobs_start < _FIXED or blobs_start + blobs_size > size:
        raise ImageDamaged(file.name, "the blob buffer is not inside the header", offset=48)
    blobs = memoryview(head)[blobs_start : blobs_start + blobs_size]
    devices = []
    for number in range(1, 256):
        pointer, device_size = _DEVICE.unpack_from(head, 4096 + 32 * number)
        if not device_size:
            continue
        if device_size > _DEVICE_LIMIT:
            raise ImageDamaged(
                file.name,
                f"device {number} has an impossible size of {device_size}",
                offset=4096 + 32 * number,
            )
        devices.append(VmaDevice(number, _string(file, blobs, pointer), device_size))
    configs = []
    for name, data in zip(_TABLE.unpack_from(head, 2044), _TABLE.unpack_from(head, 3068), strict=True):
        if name and data:
            configs.append((_string(file, blobs, name), _blob(file, blobs, data)))
    return VmaHeader(size, uuid, min(time, _TIME_LIMIT), tuple(devices), tuple(configs))


def _blob(file: ImageFile, blobs: memoryview, pointer: int) -> bytes:
    length = int.from_bytes(blobs[pointer : pointer + 2], "little")
    blob = bytes(blobs[pointer + 2 : pointer + 2 + length])
    if not 0 < pointer <= len(blobs) - 2 or len(blob) != length:
        raise ImageDamaged(file.name, f"a pointer to {pointer}, outside the blob buffer", offset=48)
    return blob


def _string(file: ImageFile, blobs: memoryview, pointer: int) -> str:
    blob = _blob(file, blobs, pointer)
    if not blob.endswith(b"\0"):
        raise ImageDamaged(file.name, "a name without an end in the blob buffer", offset=48)
    return blob[:-1].decode(errors="replace")


def extent_clusters(header: bytes, uuid: bytes, name: str, at: int) -> tuple[int, bytes]:
    """(number of blocks, the 59 cluster fields) of the extent header at offset `at`. Raises ImageDamaged."""
    magic, reserved, blocks, its_uuid, digest = _EXTENT_HEAD.unpack_from(header)
    if magic != EXTENT_MAGIC or reserved:
        raise ImageDamaged(name, "no extent begins where one should", offset=at)
    if hashlib.md5(header[:24] + bytes(16) + header[40:], usedforsecurity=False).digest() != digest:
        raise ImageDamaged(name, "an extent's checksum is wrong", offset=at)
    if its_uuid != uuid:
        raise ImageDamaged(name, "an extent of another archive", offset=at)
    return blocks, header[40:]
