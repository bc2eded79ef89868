"""Lists the members of a tar archive with their offsets. Unpacks nothing.

An OVA is a flat ustar or GNU archive of regular files. All other members (links, devices, sparse files,
folders, names that are paths, duplicate names) are refused: attackers have used each of them to write
outside of a target directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from holdfast.base.tar_header import (
    BLOCK,
    EXTENSION_LIMIT,
    FILE,
    FOLDER,
    Extension,
    TarError,
    TarHeader,
    TarRefused,
    check_sum,
    parse_header,
    tar_number,
)
from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import read_exactly
from holdfast.formats.disks.base.image import ImageFile
from holdfast.ingest.exports.names import is_plain

_MEMBER_LIMIT: Final = 10_000
_HEADERS_LIMIT: Final = 4 * _MEMBER_LIMIT
_EXTENSIONS_LIMIT: Final = 4 << 20
"""Most bytes of all extensions together; parsing them is slow."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file in an archive: `start` and `size` in bytes, `mtime` in ns."""

    name: str
    start: int
    size: int
    mtime: int


def tar_members(file: ImageFile) -> list[TarMember]:
    """All members in order. Reads only headers.

    Raises ImageDamaged for a truncated or malformed archive, ImageRefused for members that are not regular
    files.
    """
    members: dict[str, TarMember] = {}
    at = extensions = 0
    extension = Extension()
    for _ in range(_HEADERS_LIMIT):
        header = read_exactly(file, at, BLOCK, "a tar header or the archive's end mark")
        if not any(header):
            return list(members.values())
        start = at + BLOCK
        with _translated(file, at):
            check_sum(header)
            size = tar_number(header[124:136], "size")
            kind = header[156:157]
            if kind in (b"x", b"g", b"L"):
                extensions += size
                if size > EXTENSION_LIMIT or extensions > _EXTENSIONS_LIMIT:
                    raise TarError(f"extended headers of {extensions} bytes")
                extension.extend(kind, read_exactly(file, start, size, "a tar extension"))
            else:
                member = _member(file, parse_header(header, extension), extension, start)
                extension = Extension()
                if member is not None:
                    if member.name in members:
                        raise TarRefused(f"it holds two members named {member.name!r}")
                    members[member.name] = member
                    size = member.size
        at = start + -(-size // BLOCK) * BLOCK
        if len(members) > _MEMBER_LIMIT:
            break
    raise ImageRefused(file.name, f"it has more than {_MEMBER_LIMIT} members: that is no OVA")


@contextmanager
def _translated(file: ImageFile, at: int) -> Iterator[None]:
    """Raise errors of the tar header at offset `at` as errors of the image file."""
    try:
        yield
    except TarRefused as error:
        raise ImageRefused(file.name, str(error)) from error
    except TarError as error:
        raise ImageDamaged(file.name, str(error), offset=at) from error


def _member(file: ImageFile, header: TarHeader, extension: Extension, start: int) -> TarMember | None:
    """The member of a header; None for the folder `./` itself, which `tar c .` puts first."""
    try:
        header.path.encode()
    except UnicodeEncodeError:
        raise TarError(f"a member's name is no UTF-8: {header.path!r}") from None
    if header.kind == FOLDER and header.path in (".", "./") and not header.size:
        return None
    if header.kind != FILE or extension.target is not None:
        what = header.kind_name if header.kind != FILE else "a link"
        raise TarRefused(f"its member {header.path!r} is {what}; an OVA holds regular files only")
    name = header.path.removeprefix("./")
    if not is_plain(name):
        raise TarRefused(f"its member {name!r} is no plain file name")
    if start + header.size > file.size:
        end = start + header.size
        reason = f"the member {name!r} reaches to {end}, the file ends at {file.size}"
        raise ImageDamaged(file.name, reason, offset=start)
    return TarMember(name, start, header.size, header.mtime)
