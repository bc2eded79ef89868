"""LVM2: the label of a physical volume, and the text that describes its volume group.

Source: lib/format_text and lib/label of LVM2.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple, TypeAlias

from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.values.values import GuestDamaged

Value: TypeAlias = "int | str | list[Value] | Section"
Section: TypeAlias = dict[str, "Value"]

SECTOR = 512
_LABEL_SECTORS = 4
_MAGIC = b" LVM2 x[5A%r0N*>"
_HEAD_SIZE = 512
_MAX_TEXT = 16 << 20
_MAX_AREAS = 16
_MAX_DEPTH = 8
_CHECKSUM_START = 0xF597A6CF
_TOKEN = re.compile(
    r'\s+|#[^\n]*|(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?\d+(?![\w.]))|(?P<name>[\w.+-]+)|(?P<mark>[{}\[\]=,])'
)


class PhysicalVolume(NamedTuple):
    """`text` is the description of its group, "" when it keeps none."""

    id: str
    size: int
    text: str


def read_physical_volume(device: BlockDevice) -> PhysicalVolume:
    """Raises GuestDamaged when the label or every copy of the description is damaged."""
    for sector in range(_LABEL_SECTORS):
        raw = device.read(sector * SECTOR, SECTOR)
        if raw[:8] == b"LABELONE" and raw[24:32] == b"LVM2 001":
            break
    else:
        raise GuestDamaged("lvm: no label in the first four sectors")
    (place,) = struct.unpack_from("<I", raw, 20)
    if place > SECTOR - 40:
        raise GuestDamaged(f"lvm: the header would be at {place} of its sector")
    id_ = raw[place : place + 32].decode("ascii", "replace")
    (size,) = struct.unpack_from("<Q", raw, place + 32)
    _, place = _areas(raw, place + 40)
    areas, _ = _areas(raw, place)
    error: GuestDamaged | None = None
    for start, length in areas:
        try:
            return PhysicalVolume(id_, size, _description(device, start, length))
        except GuestDamaged as found:
            error = found
    if error is not None:
        raise error
    return PhysicalVolume(id_, size, "")


def _areas(raw: bytes, place: int) -> tuple[list[tuple[int, int]], int]:
    """(offset, size) up to the end mark, and where the next list starts."""
    found: list[tuple[int, int]] = []
    while len(found) < _MAX_AREAS:
        offset, size = struct.unpack_from("<QQ", raw, place)
        place += 16
        if not offset:
            return found, place
        found.append((offset, size))
    raise GuestDamaged(f"lvm: more than {_MAX_AREAS} areas")


def _description(device: BlockDevice, start: int, area: int) -> str:
    head = device.read(start, _HEAD_SIZE)
    (checksum,) = struct.unpack_from("<I", head)
    if head[4:20] != _MAGIC or _checksum(head[4:]) != checksum:
        raise GuestDamaged(f"lvm: the head of the description at {start} is damaged")
    offset, size, text_checksum, flags = struct.unpack_from("<QQII", head, 40)
    if not offset or flags & 1:
        return ""
    if not _HEAD_SIZE <= offset < area or size > min(_MAX_TEXT, area - _HEAD_SIZE):
        raise GuestDamaged(f"lvm: a description of {size} bytes at {offset} of {area}")
    # A ring: what does not fit behind goes on after the head.
    here = min(size, area - offset)
    text = device.read(start + offset, here)
    if here < size:
        text += device.read(start + _HEAD_SIZE, size - here)
    if _checksum(text) != text_checksum:
        raise GuestDamaged(f"lvm: the description at {start + offset} is damaged")
    return text.rstrip(b"\0").decode("utf-8", "replace")


def _checksum(data: bytes) -> int:
    """CRC-32 from another start, not inverted at either end."""
    return zlib.crc32(data, _CHECKSUM_START ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def parse_text(text: str) -> Section:
    """Sections, lists, numbers and strings. Raises GuestDamaged for anything else."""
    top: Section = {}
    stack = [top]
    tokens = _tokens(text)
    place = 0
    while place < len(tokens):
        kind, token = tokens[place]
        if (kind, token) == ("mark", "}"):
            if len(stack) == 1:
                raise GuestDamaged("lvm: a section ends that did not begin")
            stack.pop()
            place += 1
            continue
        if kind != "name" or place + 2 > len(tokens):
            raise GuestDamaged(f"lvm: {token!r} where a name was expected")
        _, mark = tokens[place + 1]
        if mark == "{":
            if len(stack) >= _MAX_DEPTH:
                raise GuestDamaged("lvm: sections nested too deeply")
            section: Section = {}
            stack[-1][token] = section
            stack.append(section)
            place += 2
        elif mark == "=":
            stack[-1][token], place = _value(tokens, place + 2)
        else:
            raise GuestDamaged(f"lvm: {mark!r} after the name {token!r}")
    if len(stack) != 1:
        raise GuestDamaged("lvm: a section does not end")
    return top


def _value(tokens: list[tuple[str, str]], place: int) -> tuple[Value, int]:
    if place >= len(tokens):
        raise GuestDamaged("lvm: a value is missing")
    kind, word = tokens[place]
    if kind == "number":
        return int(word[:20]), place + 1
    if kind == "string":
        return word[1:-1].replace('\\"', '"').replace("\\\\", "\\"), place + 1
    if word != "[":
        raise GuestDamaged(f"lvm: {word!r} where a value was expected")
    found: list[Value] = []
    place += 1
    while place < len(tokens) and tokens[place][1] != "]":
        if tokens[place] == ("mark", ","):
            place += 1
            continue
        if tokens[place][0] not in ("number", "string"):
            raise GuestDamaged(f"lvm: {tokens[place][1]!r} in a list")
        value, place = _value(tokens, place)
        found.append(value)
    return found, place + 1


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise GuestDamaged(f"lvm: the description is damaged at character {place}")
        if match.lastgroup is not None:
            found.append((match.lastgroup, match.group()))
        place = match.end()
    return found
