"""A physical backup as a tar stream: its members while it streams in, its files afterwards.

The stream is stored as it came. Chunks end where the data of a member begins and ends, so a file that did
not change costs nothing, nor does one that several databases have (their headers differ). What PostgreSQL
puts into such an archive are regular files, folders and, below pg_tblspc/, symbolic links; anything else is a
fault, and so is whatever could make two readers see two archives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from holdfast.base.tar_header import (
    BLOCK,
    EXTENSION_LIMIT,
    EXTENSIONS,
    FILE,
    FOLDER,
    LINK,
    Extension,
    TarError,
    TarHeader,
    check_sum,
    tar_number,
)
from holdfast.base.types import Buffer
from holdfast.formats.dumps.core.catalogue import Catalogue, Section
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.formats.dumps.core.tar_member import parse_member
from holdfast.formats.dumps.core.virtual_file import VirtualFile, stored_range
from holdfast.formats.dumps.postgresql.physical.basebackup import BackupChecks
from holdfast.formats.dumps.postgresql.plain.marks import NAME

FORM: Final = "tar"
BORDER_MEMBER: Final = 4096
"""Bytes. Smaller members share a chunk with their neighbours."""
DATA_FOLDER: Final = "data"
_MEMBER_LIMIT: Final = 400_000
"""Files of a cluster, some six a table; each takes a kilobyte of memory in the backup and whenever it is
opened."""
_EXTENSIONS_LIMIT: Final = 64 << 20
"""Bytes of all extended headers: parsing is slower than writing them is."""
_NO_LIMIT: Final = 1 << 62
_TYPES: Final = {FILE: "FILE", FOLDER: "FOLDER", LINK: "LINK"}
_LABEL: Final = b"START WAL LOCATION:"
_TABLESPACE: Final = re.compile(r"pg_tblspc/[0-9]{1,10}")


class _At(Enum):
    HEADER = 1
    EXTENSION = 2
    DATA = 3
    PADDING = 4
    END = 5


class TarScanner:
    """Scans one tar stream. Not thread-safe. Memory grows with the number of members, not with their size.

    Never raises for what the stream holds: the first fault ends the scan, and stands in the catalogue.
    """

    def __init__(self) -> None:
        self._checks: Final = BackupChecks()
        self._sections: list[Section] = []
        self._kinds: dict[str, bytes] = {}
        self._implied: set[str] = set()
        self._extension = Extension()
        self._extensions = 0
        self._owner = ""
        self._fault = ""
        self._complete = False
        self._at = _At.HEADER
        self._left = BLOCK
        self._after = 0
        self._collected = bytearray()
        self._kind = b""
        self._size = 0
        self._member: TarHeader | None = None
        self._border = 0

    def feed(self, data: Buffer) -> list[int]:
        """Offsets where chunks shall end, ascending: starts and ends of the data of members of 4 KiB and
        more. Between an end and the next start is a header of 512 bytes, which is a chunk of its own."""
        view = memoryview(data).cast("B")
        borders: list[int] = []
        place = 0
        while place < len(view) and not self._fault:
            part = view[place : place + self._left]
            place += len(part)
            self._left -= len(part)
            self._size += len(part)
            try:
                self._take(part, borders)
            except TarError as error:
                self._fault = f"byte {self._size}: {error}"
        self._size += len(view) - place
        return borders

    def finish(self) -> Catalogue:
        fault = self._fault
        facts = DumpFacts()
        if not fault and not self._complete:
            fault = "the archive ends early"
        if self._sections and self._sections[-1].start + self._sections[-1].length > self._size:
            self._sections.pop()
        if not fault:
            fault, facts = self._checks.finish()
        extra: dict[str, Any] = {"owner": self._owner} if self._owner else {}
        if self._checks.uncompared:
            extra["uncompared"] = self._checks.uncompared
        return Catalogue(NAME, FORM, tuple(self._sections), fault, facts.stored(), extra)

    def _take(self, part: memoryview, borders: list[int]) -> None:
        """Consume part of the expected bytes; return the next step once they are complete."""
        if self._at is _At.DATA:
            self._checks.data(part)
        elif self._at is _At.END and any(part):
            raise TarError("something follows the end of the archive")
        elif self._at in (_At.HEADER, _At.EXTENSION):
            self._collected += part
        if self._left:
            return
        if self._at is _At.HEADER:
            self._header(bytes(self._collected), borders)
        elif self._at is _At.EXTENSION:
            self._extension.extend(self._kind, bytes(self._collected[: self._after]))
            self._expect(_At.HEADER, BLOCK)
        elif self._at is _At.DATA:
            self._end_member(borders)
        elif self._at is _At.END:
            self._complete = True
            self._left = _NO_LIMIT  # more zeros may follow: tar fills up to its record size
        else:
            self._expect(_At.HEADER, BLOCK)

    def _expect(self, what: _At, length: int) -> None:
        self._at, self._left = what, length
        self._collected.clear()

    def _header(self, header: bytes, borders: list[int]) -> None:
        if not any(header):
            self._expect(_At.END, BLOCK)
            return
        check_sum(header)
        self._kind = header[156:157]
        if self._kind in EXTENSIONS:
            size = tar_number(header[124:136], "size")
            self._extensions += size
            if size > EXTENSION_LIMIT or self._extensions > _EXTENSIONS_LIMIT:
                raise TarError(f"extended headers of {self._extensions} bytes")
            if not size:
                raise TarError("an extended header without content")
            self._after = size
            self._expect(_At.EXTENSION, _padded(size))
            return
        member = parse_member(header, self._extension)
        self._extension = Extension()
        if member.kind == FOLDER and not member.path:
            self._expect(_At.HEADER, BLOCK)
            return
        self._enter(member)
        self._begin_member(member, borders)

    def _enter(self, member: TarHeader) -> None:
        """Refuse what would overwrite or leave the folder that the archive is unpacked into."""
        if member.kind == FOLDER and member.path in self._implied:
            self._implied.discard(member.path)
        elif member.path in self._kinds:
            raise TarError(f"it holds {member.path!r} twice")
        if len(self._kinds) >= _MEMBER_LIMIT:
            raise TarError(
                f"it has more than {_MEMBER_LIMIT:,} members; it was stored whole, but what follows was not "
                "looked at"
            )
        if member.kind == LINK and (_TABLESPACE.fullmatch(member.path) is None or not member.target):
            raise TarError(f"{member.path!r} is a symbolic link")
        above = member.path.rpartition("/")[0]
        while above and self._kinds.get(above) != FOLDER:
            if above in self._kinds:
                raise TarError(f"{member.path!r} stands below {above!r}, which is no folder")
            self._kinds[above] = FOLDER
            self._implied.add(above)
            above = above.rpartition("/")[0]
        self._kinds[member.path] = member.kind

    def _begin_member(self, member: TarHeader, borders: list[int]) -> None:
        self._owner = self._owner or member.owner
        extra: dict[str, Any] = {"mode": member.mode, "mtime": member.mtime // 10**9}
        if member.target:
            extra["target"] = member.target
        self._sections.append(
            Section(self._size, member.size, _TYPES[member.kind], name=member.path, extra=extra)
        )
        self._member = member
        self._checks.begin(member)
        if member.size >= BORDER_MEMBER and self._size > self._border:
            self._border = self._size
            borders.append(self._size)
        self._expect(_At.DATA, member.size)
        if not member.size:
            self._end_member(borders)

    def _end_member(self, borders: list[int]) -> None:
        assert self._member is not None
        self._checks.end()
        if self._member.size >= BORDER_MEMBER:
            self._border = self._size
            borders.append(self._size)
        padding = -self._member.size % BLOCK
        self._expect(*((_At.PADDING, padding) if padding else (_At.HEADER, BLOCK)))


def is_physical_backup(head: bytes) -> bool:
    """Whether a stream with these first bytes is pg_basebackup's tar: it begins with backup_label."""
    header = head[:BLOCK]
    if len(header) < BLOCK or not head.startswith(b"backup_label\0"):
        return False
    try:
        check_sum(header)
    except TarError:
        return False
    return head[BLOCK : BLOCK + len(_LABEL)] == _LABEL


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def files(catalogue: Catalogue, size: int) -> dict[str, VirtualFile]:
    """The cluster's files below `data/`, one by one; `size` is the stored stream's.

    Folders that the archive names have keys that end in "/" and no content, so that empty ones are there
    too. A symbolic link has a target.
    """
    found: dict[str, VirtualFile] = {}
    for section in catalogue.sections:
        path = f"{DATA_FOLDER}/{section.name}"
        mode, mtime = _mode(section.extra), _mtime(section.extra)
        if section.type == "FOLDER":
            found[path + "/"] = VirtualFile((), mode=mode, mtime=mtime)
        elif section.type == "LINK":
            found[path] = VirtualFile((), mode=mode, mtime=mtime, target=str(section.extra.get("target", "")))
        elif section.start + section.length <= size:
            found[path] = VirtualFile((stored_range(section.start, section.length),), mode=mode, mtime=mtime)
    return found


def _mode(extra: Mapping[str, Any]) -> int:
    mode = extra.get("mode")
    return mode & 0o777 if isinstance(mode, int) else 0o400


def _mtime(extra: Mapping[str, Any]) -> int | None:
    """Nanoseconds."""
    mtime = extra.get("mtime")
    return mtime * 10**9 if isinstance(mtime, int) else None
