"""LVM2: the label of a physical volume, and the text that describes its volume group.

Source: lib/format_text and lib/label of LVM2. Little-endian.

    sector 0 to 3    the label; at the offset in it the volume header: ID, size, a list of data areas, a list
                     of metadata areas, each list (offset, size) up to an offset of 0
    metadata area    512 bytes of header, then a ring of descriptions
"""

from __future__ import annotations

import re
import zlib
from typing import Annotated, Final, NamedTuple, TypeAlias

from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.layout import At, Layout
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import GuestDamaged

Value: TypeAlias = "int | str | list[Value] | Section"
Section: TypeAlias = dict[str, "Value"]

SECTOR = 512
LABEL_SECTORS = 4
LABEL_MAGIC = b"LABELONE"
_LABEL_TYPE = b"LVM2 001"
_AREA_MAGIC = b" LVM2 x[5A%r0N*>"
_AREA_HEADER = 512
_IGNORED = 0x1
"""Flag of a description that is not in use."""
_TEXT = "lvm description"
_MAX_TEXT = 16 << 20
_MAX_AREAS = 16
_MAX_DEPTH = 8
_CHECKSUM_START = 0xF597A6CF
_TOKEN = re.compile(
    r'\s+|#[^\n]*|(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?\d+(?![\w.]))|(?P<name>[\w.+-]+)|(?P<mark>[{}\[\]=,])'
)


class _Label(NamedTuple):
    """struct label_header, lib/label/label.h."""

    magic: Annotated[bytes, At(0, "8s")]
    header_offset: Annotated[int, At(20, "I")]
    type: Annotated[bytes, At(24, "8s")]


class _VolumeHeader(NamedTuple):
    """struct pv_header, lib/format_text/layout.h; the lists of areas follow."""

    id: Annotated[bytes, At(0, "32s")]
    size: Annotated[int, At(32, "Q")]


class _Area(NamedTuple):
    """struct disk_locn."""

    offset: Annotated[int, At(0, "Q")]
    size: Annotated[int, At(8, "Q")]


class _AreaHeader(NamedTuple):
    """struct mda_header with its first raw_locn."""

    checksum: Annotated[int, At(0, "I")]
    magic: Annotated[bytes, At(4, "16s")]
    offset: Annotated[int, At(40, "Q")]
    """Offset of the description in the area; 0 when there is none."""
    size: Annotated[int, At(48, "Q")]
    text_checksum: Annotated[int, At(56, "I")]
    flags: Annotated[int, At(60, "I")]


_LABEL: Final = Layout(_Label, "<", "lvm label")
_VOLUME_HEADER: Final = Layout(_VolumeHeader, "<", "lvm physical volume header")
_AREA: Final = Layout(_Area, "<", "lvm area")
_METADATA_AREA: Final = Layout(_AreaHeader, "<", "lvm metadata area header")


class PhysicalVolume(NamedTuple):
    """A physical volume of `size` bytes. `text` describes its group; "" when the volume holds no
    description."""

    id: str
    size: int
    text: str


def read_physical_volume(device: BlockDevice) -> PhysicalVolume:
    """Read a physical volume. Raises StructureDamaged when the label, or every copy of the description, is
    damaged."""
    for sector in range(LABEL_SECTORS):
        raw = device.read(sector * SECTOR, SECTOR)
        label = _LABEL.read(raw)
        if label.magic == LABEL_MAGIC and label.type == _LABEL_TYPE:
            break
    else:
        limit = f"1, in the first {LABEL_SECTORS} sectors"
        raise StructureDamaged("lvm physical volume", "number of labels", 0, limit)
    position = label.header_offset
    most = SECTOR - _VOLUME_HEADER.size
    if position > most:
        raise StructureDamaged("lvm label", "offset of the header", position, f"at most {most}")
    header = _VOLUME_HEADER.read(raw, position)
    _, position = _areas(raw, position + _VOLUME_HEADER.size)
    areas, _ = _areas(raw, position)
    id_ = header.id.decode("ascii", "replace")
    error: GuestDamaged | None = None
    for area in areas:
        try:
            return PhysicalVolume(id_, header.size, _description(device, area.offset, area.size))
        except GuestDamaged as found:
            error = found
    if error is not None:
        raise error
    return PhysicalVolume(id_, header.size, "")


def _areas(raw: bytes, position: int) -> tuple[list[_Area], int]:
    """The areas of a list up to its end mark, and where the next list begins."""
    found: list[_Area] = []
    while len(found) < _MAX_AREAS:
        area = _AREA.read(raw, position)
        position += _AREA.size
        if not area.offset:
            return found, position
        found.append(area)
    raise StructureDamaged("lvm label", "number of areas", f"more than {_MAX_AREAS}", f"at most {_MAX_AREAS}")


def _description(device: BlockDevice, start: int, area: int) -> str:
    """The description in the metadata area of `area` bytes at `start`; "" when it has none."""
    raw = device.read(start, _AREA_HEADER)
    header = _METADATA_AREA.read(raw)
    structure = f"lvm metadata area at {start}"
    if header.magic != _AREA_MAGIC:
        raise StructureDamaged(structure, "magic number", header.magic, str(_AREA_MAGIC))
    computed = _checksum(raw[4:])
    if computed != header.checksum:
        raise StructureDamaged(structure, "checksum", f"{header.checksum:#010x}", f"{computed:#010x}")
    offset, size = header.offset, header.size
    if not offset or header.flags & _IGNORED:
        return ""
    if not _AREA_HEADER <= offset < area:
        raise StructureDamaged(
            structure, "offset of the description", offset, f"{_AREA_HEADER} to {area - 1}"
        )
    most = min(_MAX_TEXT, area - _AREA_HEADER)
    if size > most:
        raise StructureDamaged(structure, "size of the description", size, f"at most {most} bytes")
    # The area is a ring: a text that reaches its end continues after the header.
    here = min(size, area - offset)
    text = device.read(start + offset, here)
    if here < size:
        text += device.read(start + _AREA_HEADER, size - here)
    computed = _checksum(text)
    if computed != header.text_checksum:
        field = f"checksum of the description at {offset}"
        raise StructureDamaged(structure, field, f"{header.text_checksum:#010x}", f"{computed:#010x}")
    return text.rstrip(b"\0").decode("utf-8", "replace")


def _checksum(data: bytes) -> int:
    """CRC-32 with another initial value, not inverted at either end."""
    return zlib.crc32(data, _CHECKSUM_START ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def parse_text(text: str) -> Section:
    """Parse sections, lists, numbers and strings. Raises StructureDamaged for anything else."""
    top: Section = {}
    stack = [top]
    tokens = _tokens(text)
    position = 0
    while position < len(tokens):
        kind, token = tokens[position]
        if (kind, token) == ("mark", "}"):
            if len(stack) == 1:
                raise _damaged(position, token, "a name: no section is open")
            stack.pop()
            position += 1
            continue
        if kind != "name" or position + 2 > len(tokens):
            raise _damaged(position, token, "a name with a value")
        _, mark = tokens[position + 1]
        if mark == "{":
            if len(stack) >= _MAX_DEPTH:
                raise StructureDamaged(_TEXT, "depth of sections", len(stack) + 1, f"at most {_MAX_DEPTH}")
            section: Section = {}
            stack[-1][token] = section
            stack.append(section)
            position += 2
        elif mark == "=":
            stack[-1][token], position = _value(tokens, position + 2)
        else:
            raise _damaged(position + 1, mark, "{ or =")
    if len(stack) != 1:
        raise StructureDamaged(_TEXT, "number of open sections at its end", len(stack) - 1, "0")
    return top


def _value(tokens: list[tuple[str, str]], position: int) -> tuple[Value, int]:
    """The value that begins at a token, and the position of the token after it."""
    if position >= len(tokens):
        raise _damaged(position, "", "a value")
    kind, word = tokens[position]
    if kind == "number":
        return int(word[:20]), position + 1
    if kind == "string":
        return word[1:-1].replace('\\"', '"').replace("\\\\", "\\"), position + 1
    if word != "[":
        raise _damaged(position, word, "a value")
    found: list[Value] = []
    position += 1
    while position < len(tokens) and tokens[position][1] != "]":
        if tokens[position] == ("mark", ","):
            position += 1
            continue
        if tokens[position][0] not in ("number", "string"):
            raise _damaged(position, tokens[position][1], "a number or string of a list")
        value, position = _value(tokens, position)
        found.append(value)
    return found, position + 1


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            field, limit = f"character {position}", "the start of a name, number, string or mark"
            raise StructureDamaged(_TEXT, field, repr(text[position]), limit)
        if match.lastgroup is not None:
            found.append((match.lastgroup, match.group()))
        position = match.end()
    return found


def _damaged(position: int, token: str, limit: str) -> StructureDamaged:
    return StructureDamaged(_TEXT, f"word {position}", repr(token[:60]), limit)
