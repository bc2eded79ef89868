"""Reading VHD images: fixed, dynamic, and differencing over parents that the user named.

Footer and dynamic header carry checksums; the table and the blocks do not.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from typing import Final

from holdfast.formats.disks.base.blocks import BAD, HOLE, TABLE_WINDOW, BlockImage
from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import FilePart, read_exactly
from holdfast.formats.disks.base.image import Companions, Image, ImageFile
from holdfast.formats.disks.base.raw import RawImage
from holdfast.formats.disks.vhd.differencing import DifferencingImage
from holdfast.formats.disks.vhd.format import (
    DIFFERENCING,
    DYNAMIC,
    FIXED,
    FOOTER_SIZE,
    HEADER_SIZE,
    NOT_ALLOCATED,
    SECTOR,
    DynamicHeader,
    Footer,
    bitmap_size,
    decode_footer,
    decode_header,
    is_supported,
)

_CHAIN_LIMIT: Final = 32
"""Most disks in a chain of parents."""


class _Fixed(RawImage):
    """A fixed disk: its bytes, then the footer."""

    format = "vhd"


class _Table:
    """The block allocation table. The place of a block is that of its first sector, behind the bitmap."""

    def __init__(self, file: ImageFile, header: DynamicHeader) -> None:
        self._file = file
        self._offset = header.table_offset
        self._skip = bitmap_size(header.block_size)
        self.window = TABLE_WINDOW // 4

    def entry_offset(self, block: int) -> int:
        return self._offset + 4 * block

    def load(self, first: int, count: int) -> array[int]:
        data = read_exactly(self._file, self.entry_offset(first), 4 * count, "the block allocation table")
        if data == b"\xff" * len(data):
            return array("q", [HOLE]) * count
        entries = array("I", data)
        if sys.byteorder == "little":
            entries.byteswap()
        skip = self._skip
        return array(
            "q",
            [
                HOLE if entry == NOT_ALLOCATED else entry * SECTOR + skip if entry else BAD
                for entry in entries
            ],
        )


def open_vhd(file: ImageFile, companions: Companions) -> Image:
    """Open a VHD image; parents of a differencing disk are asked of `companions` by their plain names.

    Raises ImageDamaged; ImageRefused for a parent that nobody named or that is another disk than the one that
    the child was made on, and for what cannot be read here.
    """
    return _open(file, companions, ())


def _open(file: ImageFile, companions: Companions, above: tuple[bytes, ...]) -> Image:
    """Open one image of a chain. `above` are the unique IDs of the images that it is a parent of."""
    footer = _read_footer(file)
    if footer.unique_id in above:
        raise ImageRefused(file.name, "it is a parent of itself")
    if len(above) == _CHAIN_LIMIT:
        raise ImageRefused(file.name, f"it is the parent at the end of a chain of {_CHAIN_LIMIT} disks")
    size = footer.disk_size
    if footer.size and not size:
        raise ImageDamaged(file.name, "the footer's geometry is of no size", offset=file.size - FOOTER_SIZE)
    if footer.type == FIXED:
        if size > file.size - FOOTER_SIZE:
            reason = f"a disk of {size} bytes in a file of {file.size}"
            raise ImageDamaged(file.name, reason, offset=file.size - FOOTER_SIZE)
        return _Fixed(FilePart(file, 0, size, file.name))
    if footer.type not in (DYNAMIC, DIFFERENCING):
        raise ImageRefused(file.name, f"it is a VHD of type {footer.type}, which is not known")
    header = _read_header(file, footer, size)
    # All of a dynamic disk's block is valid, whatever its bitmap says: Hyper-V zeroes what was not written,
    # and QEMU ignores the bitmap. Only a differencing disk needs the bits.
    blocks = BlockImage(file, "vhd", size=size, block_size=header.block_size, table=_Table(file, header))
    if footer.type == DYNAMIC:
        return blocks
    parent = _open_parent(file, header, companions, (*above, footer.unique_id))
    return DifferencingImage(file, blocks, parent)


def _read_footer(file: ImageFile) -> Footer:
    """Read the footer at the end. Raises ImageDamaged when an intact copy at the start differs."""
    if file.size < FOOTER_SIZE:
        raise ImageDamaged(file.name, f"a file of {file.size} bytes has no footer", offset=0)
    offset = file.size - FOOTER_SIZE
    footer = decode_footer(read_exactly(file, offset, FOOTER_SIZE, "the footer"))
    if footer is None:
        raise ImageDamaged(
            file.name,
            "no valid footer at the end: the file is cut off or the footer is damaged",
            offset=offset,
        )
    if not is_supported(footer.version):
        raise ImageRefused(file.name, f"it is VHD version {footer.version >> 16}; only version 1 is known")
    if footer.type in (DYNAMIC, DIFFERENCING):
        copy = decode_footer(read_exactly(file, 0, FOOTER_SIZE, "the footer's copy"))
        if copy is not None and copy != footer:
            raise ImageDamaged(file.name, "the footer and its copy contradict each other", offset=0)
    return footer


def _read_header(file: ImageFile, footer: Footer, size: int) -> DynamicHeader:
    """Read the dynamic header and check it against the sizes of file and disk. Raises ImageDamaged."""
    offset = footer.header_offset
    header = decode_header(read_exactly(file, offset, HEADER_SIZE, "the dynamic header"))
    if header is None:
        raise ImageDamaged(file.name, "there is no valid dynamic header", offset=offset)
    if not is_supported(header.version):
        raise ImageRefused(file.name, f"its header is of version {header.version >> 16}")
    block_size = header.block_size
    if block_size < SECTOR or block_size & block_size - 1:
        raise ImageDamaged(file.name, f"a block size of {block_size} bytes", offset=offset)
    if header.entries * block_size < size:
        reason = f"a disk of {size} bytes in {header.entries} blocks of {block_size}"
        raise ImageDamaged(file.name, reason, offset=offset)
    if header.table_offset + 4 * header.entries > file.size - FOOTER_SIZE:
        reason = f"a table of {header.entries} blocks at {header.table_offset}, in a file of {file.size}"
        raise ImageDamaged(file.name, reason, offset=offset)
    return header


def _open_parent(
    file: ImageFile, header: DynamicHeader, companions: Companions, above: tuple[bytes, ...]
) -> Image:
    refusal: ImageRefused | None = None
    for name in _parent_names(file, header):
        try:
            parent = companions(name)
        except ImageRefused as error:
            refusal = refusal or error
            continue
        found = _read_footer(parent)
        if found.unique_id != header.parent_id:
            raise ImageRefused(
                file.name,
                f"it was made on a disk with ID {header.parent_id.hex()}; {parent.name} has another, "
                f"{found.unique_id.hex()}",
            )
        return _open(parent, companions, above)
    raise refusal or ImageRefused(file.name, "it is a differencing disk that does not name its parent")


def _parent_names(file: ImageFile, header: DynamicHeader) -> Iterator[str]:
    """The file names that the image gives its parent, each once, without the folders of another machine."""
    given = set()
    paths = [header.parent_name]
    for locator in header.locators:
        data = read_exactly(file, locator.offset, locator.length, "a parent locator")
        paths.append(data.decode("utf-16-le", "replace").split("\0", 1)[0])
    for path in paths:
        name = path.replace("\\", "/").rsplit("/", 1)[-1]
        if name not in given and name not in ("", ".", ".."):
            given.add(name)
            yield name
