"""VMDK images: a disk in one file, or in many that a descriptor names.

The reader asks its `Companions` for every file that a descriptor names; they decide whether it may be opened.
A file that contains its descriptor is its own and only extent, whatever name the descriptor gives it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final, Protocol

from holdfast.formats.disks.base.blocks import merged
from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import FilePart, read_exactly
from holdfast.formats.disks.base.image import Companions, ExtentKind, ImageExtent, ImageFile
from holdfast.formats.disks.base.raw import RawImage
from holdfast.formats.disks.vmdk.descriptor import (
    FLAT_TYPES,
    SPARSE_TYPES,
    Descriptor,
    ExtentLine,
    parse_descriptor,
)
from holdfast.formats.disks.vmdk.format import ESX_MAGIC, HOSTED_MAGIC, LONGEST_DESCRIPTOR, SECTOR, TEXT_MAGIC
from holdfast.formats.disks.vmdk.sparse import open_hosted, open_sparse

_ALONE: Final = frozenset({"monolithicSparse", "streamOptimized"})
"""Values of createType for disks that are one file."""
_PARTS: Final = {
    "monolithicFlat": FLAT_TYPES,
    "twoGbMaxExtentFlat": FLAT_TYPES | {"ZERO"},
    "2GbMaxExtentFlat": FLAT_TYPES | {"ZERO"},
    "twoGbMaxExtentSparse": SPARSE_TYPES | {"ZERO"},
    "2GbMaxExtentSparse": SPARSE_TYPES | {"ZERO"},
    "vmfs": FLAT_TYPES | {"ZERO"},
    "vmfsThin": FLAT_TYPES | {"ZERO"},
    "vmfsPreallocated": FLAT_TYPES | {"ZERO"},
    "vmfsEagerZeroedThick": FLAT_TYPES | {"ZERO"},
    "vmfsSparse": SPARSE_TYPES | {"ZERO"},
    "custom": FLAT_TYPES | SPARSE_TYPES | {"ZERO"},
}
"""Values of createType for disks with a text descriptor, and the types of extents that each can have."""


class _Part(Protocol):
    """A range of the disk that one extent line describes. Offsets are relative to its start."""

    size: int

    def extents(self) -> Iterator[ImageExtent]: ...
    def read_into(self, buffer: memoryview, offset: int) -> None: ...


class _ZeroPart:
    """An extent of zeros, without a file."""

    def __init__(self, size: int) -> None:
        self.size = size

    def extents(self) -> Iterator[ImageExtent]:
        yield ImageExtent(0, self.size, ExtentKind.ZERO)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = bytes(len(buffer))


class VmdkImage:
    """A VMDK disk that consists of adjacent parts. Implements Image."""

    format = "vmdk"

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts
        *self._starts, self.size = accumulate((part.size for part in parts), initial=0)

    def extents(self) -> Iterator[ImageExtent]:
        yield from merged(
            extent._replace(start=start + extent.start)
            for part, start in zip(self._parts, self._starts, strict=True)
            for extent in part.extents()
        )

    def read_into(self, buffer: memoryview, offset: int) -> None:
        done = 0
        number = bisect_right(self._starts, offset) - 1
        while done < len(buffer):
            part = self._parts[number]
            within = offset + done - self._starts[number]
            piece = buffer[done : done + part.size - within]
            part.read_into(piece, within)
            done += len(piece)
            number += 1


def open_vmdk(file: ImageFile, companions: Companions) -> VmdkImage:
    """Open a sparse VMDK with its descriptor inside, or a text descriptor with the extents it names.

    Raises ImageDamaged, and ImageRefused for snapshots, encrypted disks, devices, names with a folder in
    them, and unknown kinds of VMDK.
    """
    head = read_exactly(file, 0, min(file.size, len(TEXT_MAGIC)), "the head")
    if head.startswith(HOSTED_MAGIC):
        return _open_alone(file)
    if head.startswith(ESX_MAGIC):
        raise ImageRefused(file.name, "is one extent of a disk; its descriptor file is needed to read it")
    if file.size > LONGEST_DESCRIPTOR and head == TEXT_MAGIC:
        raise ImageRefused(file.name, f"its descriptor is longer than {LONGEST_DESCRIPTOR} bytes")
    if head != TEXT_MAGIC:
        raise ImageDamaged(file.name, "neither a VMDK header nor a descriptor", offset=0)
    descriptor = parse_descriptor(read_exactly(file, 0, file.size, "the descriptor"), file.name, 0)
    allowed = _PARTS.get(descriptor.create_type)
    if allowed is None:
        raise ImageRefused(file.name, _unknown(descriptor))
    for line in descriptor.extents:
        if line.kind not in allowed:
            raise ImageDamaged(
                file.name, f"a {line.kind} extent in a {descriptor.create_type} disk", offset=line.at
            )
        _check_name(line.name, file.name)
    _refuse_repeats(descriptor, file)
    return VmdkImage([_open_part(line, file, companions) for line in descriptor.extents])


def _open_alone(file: ImageFile) -> VmdkImage:
    header, extent = open_hosted(file)
    at, length = header.descriptor * SECTOR, header.descriptor_size * SECTOR
    text = read_exactly(file, at, length, "the descriptor") if at else b""
    if not text.strip(b"\0"):
        raise ImageRefused(file.name, "is one extent of a disk; its descriptor file is needed to read it")
    descriptor = parse_descriptor(text, file.name, at)
    if descriptor.create_type not in _ALONE:
        raise ImageRefused(file.name, _unknown(descriptor))
    line = descriptor.extents[0]
    if len(descriptor.extents) > 1 or line.kind != "SPARSE":
        raise ImageRefused(file.name, "its descriptor names other files than itself")
    if line.sectors * SECTOR != extent.size:
        raise ImageDamaged(
            file.name,
            f"{line.sectors} sectors by its descriptor, {header.capacity} by its header",
            offset=line.at,
        )
    return VmdkImage([extent])


def _open_part(line: ExtentLine, descriptor: ImageFile, companions: Companions) -> _Part:
    size = line.sectors * SECTOR
    if line.kind == "ZERO":
        return _ZeroPart(size)
    file = companions(line.name)
    if line.kind in FLAT_TYPES:
        start = line.offset * SECTOR
        if start + size > file.size:
            raise ImageDamaged(
                file.name,
                f"it ends {start + size - file.size} bytes before its extent does",
                offset=file.size,
            )
        return RawImage(FilePart(file, start, size, file.name))
    extent = open_sparse(file)
    if extent.size != size:
        raise ImageDamaged(
            descriptor.name,
            f"{line.sectors} sectors for {line.name!r}, which holds {extent.size // SECTOR}",
            offset=line.at,
        )
    return extent


def _refuse_repeats(descriptor: Descriptor, file: ImageFile) -> None:
    """Raise when several lines name one file, which would make a disk without end. A flat file may be in
    several lines, each with another part."""
    ends: dict[str, int] = {}
    for line in descriptor.extents:
        if line.kind == "ZERO":
            continue
        if line.offset < ends.get(line.name, 0) or (line.name in ends and line.kind in SPARSE_TYPES):
            raise ImageDamaged(file.name, f"two extents have the same part of {line.name!r}", offset=line.at)
        ends[line.name] = line.offset + line.sectors


def _check_name(name: str, descriptor: str) -> None:
    """Raise unless it is a bare file name: extents are in the folder of their descriptor."""
    if name.startswith("..") or name == "." or any(mark in name for mark in "/\\\0"):
        raise ImageRefused(descriptor, f"wants the file {name!r}, which is not in its folder")


def _unknown(descriptor: Descriptor) -> str:
    return f"is a VMDK of the type {descriptor.create_type!r}, which cannot be read in this form"
