"""The descriptor of a VMDK: the text that lists the files and extents of a disk.

    # Disk DescriptorFile
    version=1
    CID=fffffffe
    parentCID=ffffffff
    createType="monolithicFlat"
    # Extent description
    RW 20480 FLAT "disk-flat.vmdk" 0
    # The Disk Data Base
    ddb.adapterType = "lsilogic"

A text descriptor has no length and no checksum, so every line must be one that the format knows: an extent
line that was ignored would make the disk shorter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.vmdk.format import LARGEST_DISK, MOST_EXTENTS, TEXT_MAGIC

FLAT_TYPES: Final = frozenset({"FLAT", "VMFS"})
SPARSE_TYPES: Final = frozenset({"SPARSE", "VMFSSPARSE"})
_EXTENT_TYPES: Final = FLAT_TYPES | SPARSE_TYPES | {"ZERO"}
_REFUSED_TYPES: Final = {
    "SESPARSE": "has an extent in ESXi's space-efficient format, which only ESXi writes and documents",
    "VMFSRDM": "stands for a device",
    "VMFSRAW": "stands for a device",
}

_NO_PARENT: Final = 0xFFFFFFFF
_VERSIONS: Final = frozenset({"1", "2", "3", "4"})
_LONGEST_LINE: Final = 4096
_EXTENT: Final = re.compile(
    r"(?P<access>[A-Z]+)\s+(?P<sectors>[0-9]{1,20})\s+(?P<type>[A-Z]+)"
    r'(?:\s+"(?P<name>[^"]*)"(?:\s+(?P<offset>[0-9]{1,20}))?)?'
)
_EXTENT_BEGINS: Final = re.compile(r"(?:RW|RDONLY|NOACCESS)\s")
_SETTING: Final = re.compile(r"(?P<key>[A-Za-z][\w.:-]*)\s*=\s*(?P<value>.*)", re.DOTALL)
_CODECS: Final = frozenset(
    {"utf-8", "iso-8859-1", "shift_jis", "euc-jp", "euc-kr", "big5", "gbk", "gb2312", "gb18030"}
    | {f"windows-{page}" for page in (932, 936, 949, 950, *range(1250, 1259))}
)
"""Encodings of descriptors by VMware's products, by their names there, as far as Python has them."""
_PYTHON_NAMES: Final = {f"windows-{page}": f"cp{page}" for page in (932, 936, 949, 950)}


@dataclass(frozen=True, slots=True)
class ExtentLine:
    """One extent: `sectors` of the disk, from sector `offset` of a file for flat ones. `at` is the line's
    byte offset in the file that holds the descriptor."""

    kind: str
    sectors: int
    name: str
    offset: int
    at: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What the descriptor of a disk without a parent says. Extents are in the order of the disk."""

    create_type: str
    extents: tuple[ExtentLine, ...]


def parse_descriptor(data: bytes, file: str, start: int) -> Descriptor:
    """Read a descriptor that stands at byte `start` of the file called `file`; the caller has
    checked that it is no longer than LONGEST_DESCRIPTOR.

    Raises ImageDamaged for what is no descriptor, ImageRefused for disks that need a parent, a key or a
    device. The names of extents are returned unchecked.
    """
    if not data.startswith(TEXT_MAGIC):
        raise ImageDamaged(file, "no VMDK descriptor", offset=start)
    data = data.partition(b"\0")[0]
    codec = _find_codec(data, file)
    settings: dict[str, str] = {}
    extents: list[ExtentLine] = []
    at = start
    for raw in data.split(b"\n"):
        line_at, at = at, at + len(raw) + 1
        if len(raw) > _LONGEST_LINE:
            raise ImageDamaged(file, "a descriptor line without an end", offset=line_at)
        try:
            line = raw.decode(codec).strip()
        except UnicodeDecodeError as error:
            raise ImageDamaged(file, f"a descriptor line that is not {codec}", offset=line_at) from error
        if not line or line.startswith("#"):
            continue
        if _EXTENT_BEGINS.match(line):
            extents.append(_parse_extent(line, file, line_at))
            if len(extents) > MOST_EXTENTS:
                raise ImageRefused(file, f"is made of more than {MOST_EXTENTS} extents")
            continue
        match = _SETTING.fullmatch(line)
        if match is None:
            raise ImageDamaged(file, "a line that is no part of a descriptor", offset=line_at)
        key, value = match["key"].lower(), match["value"].strip().strip('"')
        if key in settings and key in {"cid", "parentcid", "createtype", "parentfilenamehint"}:
            raise ImageDamaged(file, f"a descriptor with two {match['key']}", offset=line_at)
        settings[key] = value
    _refuse_dependants(settings, file, start)
    if not extents:
        raise ImageDamaged(file, "a descriptor without extents", offset=start)
    if sum(line.sectors for line in extents) > LARGEST_DISK:
        raise ImageDamaged(file, f"a disk of more than {LARGEST_DISK} sectors", offset=start)
    return Descriptor(settings["createtype"], tuple(extents))


def _find_codec(data: bytes, file: str) -> str:
    """The encoding of file names, from the line `encoding=`; UTF-8 without one."""
    match = re.search(
        rb'^[ \t]*encoding[ \t]*=[ \t]*"?([\w-]{1,32})"?[ \t\r]*$', data, re.MULTILINE | re.IGNORECASE
    )
    encoding = match[1].decode("ascii", "replace").lower() if match else "utf-8"
    if encoding not in _CODECS:
        raise ImageRefused(file, f"its descriptor is in the encoding {encoding}, which is not known")
    return _PYTHON_NAMES.get(encoding, encoding)


def _parse_extent(line: str, file: str, at: int) -> ExtentLine:
    match = _EXTENT.match(line)
    if match is None:
        raise ImageDamaged(file, "an extent line that cannot be read", offset=at)
    kind, name, offset = match["type"], match["name"] or "", int(match["offset"] or 0)
    if kind in _REFUSED_TYPES:
        raise ImageRefused(file, _REFUSED_TYPES[kind])
    if kind not in _EXTENT_TYPES:
        raise ImageRefused(file, f"has an extent of the type {kind}, which is not known")
    if match["access"] == "NOACCESS":
        raise ImageRefused(file, "has an extent that must not be read (NOACCESS)")
    if line[match.end() :].strip():
        raise ImageRefused(file, "has an extent that stands for a device")
    if kind != "ZERO" and not name:
        raise ImageDamaged(file, "an extent without a file", offset=at)
    if kind == "FLAT" and match["offset"] is None:
        raise ImageDamaged(file, "a flat extent that does not say where it begins", offset=at)
    if kind in SPARSE_TYPES and offset:
        raise ImageDamaged(file, "a sparse extent that begins inside its file", offset=at)
    sectors = int(match["sectors"])
    if not 0 < sectors <= LARGEST_DISK or offset > LARGEST_DISK:
        raise ImageDamaged(file, f"an extent of {sectors} sectors from sector {offset}", offset=at)
    return ExtentLine(kind, sectors, name, offset, at)


def _refuse_dependants(settings: dict[str, str], file: str, at: int) -> None:
    """Raise ImageRefused for disks that are encrypted, have a parent or an unknown version; ImageDamaged for
    descriptors that do not say whether there is a parent."""
    if settings.get("version") not in _VERSIONS:
        raise ImageRefused(file, f"has a descriptor of version {settings.get('version', 'unknown')}")
    for key, value in settings.items():
        if "crypt" in key or (key == "ddb.iofilters" and "crypt" in value.lower()):
            raise ImageRefused(file, "is encrypted")
    if hint := settings.get("parentfilenamehint"):
        raise ImageRefused(file, f"is a snapshot: it holds only what differs from {hint!r}")
    try:
        parent = int(settings["parentcid"], 16)
    except (KeyError, ValueError) as error:
        raise ImageDamaged(
            file, "a descriptor that does not say whether it has a parent", offset=at
        ) from error
    if parent != _NO_PARENT:
        raise ImageRefused(
            file, f"is a snapshot: it holds only what differs from a disk with CID {parent:08x}"
        )
    if not settings.get("createtype"):
        raise ImageDamaged(file, "a descriptor without a createType", offset=at)
