"""Telling a disk image's format, and opening it.

A raw disk holds whatever its guest wrote, which can be a qcow2 header that names a backing file. So the
content decides only where the name does not: `.raw` is raw whatever it holds, `.qcow2` must be qcow2, and a
file with an ambiguous name (`.img`) and the magic of another format is refused until the user says which.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Final

from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused, UnclearFormat
from holdfast.formats.disks.base.files import read_exactly
from holdfast.formats.disks.base.image import Companions, Image, ImageFile
from holdfast.formats.disks.base.raw import RawImage
from holdfast.formats.disks.qcow2.reader import open_qcow2
from holdfast.formats.disks.vdi.reader import open_vdi
from holdfast.formats.disks.vhd.reader import open_vhd
from holdfast.formats.disks.vhdx.reader import open_vhdx
from holdfast.formats.disks.vmdk.reader import open_vmdk

Opener = Callable[[ImageFile, Companions], Image]

FORMATS: Final[dict[str, Opener]] = {
    "raw": lambda file, companions: RawImage(file),
    "qcow2": lambda file, companions: open_qcow2(file, companions, FORMATS),
    "vmdk": open_vmdk,
    "vhdx": open_vhdx,
    "vhd": open_vhd,
    "vdi": open_vdi,
}
"""Every format by its name."""

_SUFFIXES: Final = {
    ".raw": "raw",
    ".dd": "raw",
    ".qcow2": "qcow2",
    ".qcow": "qcow2",
    ".vmdk": "vmdk",
    ".vhdx": "vhdx",
    ".avhdx": "vhdx",
    ".vhd": "vhd",
    ".avhd": "vhd",
    ".vdi": "vdi",
}
_MAGIC: Final = (
    ("qcow2", 0, b"QFI\xfb"),
    ("vmdk", 0, b"KDMV"),
    ("vmdk", 0, b"COWD"),
    ("vmdk", 0, b"# Disk DescriptorFile"),
    ("vhdx", 0, b"vhdxfile"),
    ("vdi", 64, b"\x7f\x10\xda\xbe"),
    ("vhd", 0, b"conectix"),
)
_AMBIGUOUS: Final = (".img", ".bin", ".image")
"""Suffixes that raw disks have, and images of other formats too."""


def suffix_format(name: str) -> str | None:
    """The format that a file's name promises, if it promises one."""
    return _SUFFIXES.get(PurePath(name).suffix.lower())


def magic_format(file: ImageFile) -> str | None:
    """The format whose magic the file has; None for what may be a raw disk."""
    head = read_exactly(file, 0, min(file.size, 512), "the head")
    for format_, offset, magic in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return format_
    if file.size >= 512 and file.size % 512 == 0:
        foot = read_exactly(file, file.size - 512, 512, "the foot")
        if foot.startswith(b"conectix"):
            return "vhd"
    return None


def image_format(file: ImageFile) -> str | None:
    """The format of an image by name and content; None when neither says that it is a disk image.

    Raises ImageRefused when they contradict each other in a way that only the user can settle, ImageDamaged
    when the name promises a format that the content is not.
    """
    promised = suffix_format(file.name)
    if promised == "raw":
        return "raw"  # without reading it: its first sector may be bad
    found = magic_format(file)
    if promised is not None:
        if found != promised:
            it_is = f"it looks like {found}" if found else f"it has no {promised} header"
            raise ImageDamaged(file.name, f"is named like a {promised} image, but {it_is}", offset=0)
        return promised
    if found is not None and PurePath(file.name).suffix.lower() in _AMBIGUOUS:
        raise UnclearFormat(file.name, found)
    return found


def open_image(file: ImageFile, companions: Companions, format_: str | None = None) -> Image:
    """Open an image whose format is known, or told by `image_format` (raw when that is None)."""
    return FORMATS[format_ or image_format(file) or "raw"](file, companions)


def no_companions(name: str) -> ImageFile:
    """The `Companions` of an image that may use no other file. Raises ImageRefused for every name."""
    raise ImageRefused(name, "is wanted by another image, and nobody named it")
