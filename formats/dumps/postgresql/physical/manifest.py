"""PostgreSQL's backup_manifest: which files a physical backup has, and the log it needs. Pure.

A JSON document that the server writes a line at a time, one line a file. It is read the same way, so that
a cluster of a million files needs no more memory than its longest line. Format: "Backup Manifest Format" in
the PostgreSQL manual, versions 1 (13 to 16) and 2 (17, with the system identifier).

    { "PostgreSQL-Backup-Manifest-Version": 1,
    "Files": [
    { "Path": "global/1262", "Size": 8192, ..., "Checksum-Algorithm": "SHA256", "Checksum": "5f..." },
    ...
    ],
    "WAL-Ranges": [
    { "Timeline": 1, "Start-LSN": "0/6000028", "End-LSN": "0/6000100" }
    ],
    "Manifest-Checksum": "fe..."}

The last checksum is the SHA-256 of all lines before its own.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, NamedTuple

from holdfast.base.types import Buffer
from holdfast.formats.dumps.postgresql.physical.wal import parse_lsn

MANIFEST_NAME: Final = "backup_manifest"
_LINE_LIMIT: Final = 64 << 10
_RANGES_LIMIT: Final = 10_000
_VERSIONS: Final = (1, 2)


class ManifestError(ValueError):
    """The file is no manifest or an incomplete one; the message names the fault."""


class ManifestFile(NamedTuple):
    """A file of the backup. `checksum` is in hex, "" with `algorithm` "NONE"."""

    path: str
    size: int
    algorithm: str
    checksum: str


class WalRange(NamedTuple):
    """The range [start, end) of the log, as LSNs, that must be replayed."""

    timeline: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says besides its files. `system_id` is "" in version 1."""

    version: int
    system_id: str
    ranges: tuple[WalRange, ...]


class ManifestReader:
    """Reads one manifest in pieces of any size. Raises ManifestError."""

    def __init__(self) -> None:
        self._hash: Final = sha256()
        self._rest = b""
        self._place = "version"
        self._version = 0
        self._system_id = ""
        self._ranges: list[WalRange] = []

    def feed(self, data: Buffer) -> list[ManifestFile]:
        """The files that are known by now and were not before."""
        *lines, self._rest = (self._rest + bytes(data)).split(b"\n")
        if len(self._rest) > _LINE_LIMIT:
            raise ManifestError(f"it has a line of more than {_LINE_LIMIT} bytes")
        return [file for line in lines if (file := self._line(line)) is not None]

    def finish(self) -> Manifest:
        if self._place != "end" or self._rest:
            raise ManifestError("it ends early")
        if not self._ranges:
            raise ManifestError("it names no log")
        return Manifest(self._version, self._system_id, tuple(self._ranges))

    def _line(self, line: bytes) -> ManifestFile | None:
        """The states follow one another: version, (system identifier,) files, ranges, checksum."""
        if self._place == "end":
            raise ManifestError("something follows its end")
        if match := re.fullmatch(rb'"Manifest-Checksum": ?"([0-9a-fA-F]{64})" ?\}', line):
            self._check(match[1].decode().lower())
            return None
        self._hash.update(line + b"\n")
        if self._place == "files" and line.startswith(b"{"):
            return _file(_parse(line))
        if self._place == "ranges" and line.startswith(b"{"):
            self._add_range(_parse(line))
        elif line.startswith(b'{ "PostgreSQL-Backup-Manifest-Version":') and self._place == "version":
            self._version = _number(_parse(line.rstrip(b",") + b"}"), "PostgreSQL-Backup-Manifest-Version")
            if self._version not in _VERSIONS:
                raise ManifestError(f"it is of version {self._version}; known are 1 and 2")
            self._place = "head"
        elif (
            match := re.fullmatch(rb'"System-Identifier": ?([0-9]{1,20}),', line)
        ) and self._place == "head":
            self._system_id = match[1].decode()
        elif line == b'"Files": [' and self._place == "head":
            self._place = "files"
        elif line == b"]," and self._place in ("files", "ranges"):
            self._place = "after " + self._place
        elif line == b'"WAL-Ranges": [' and self._place == "after files":
            self._place = "ranges"
        else:
            raise ManifestError(f"it has a line that does not belong there: {line[:60]!r}")
        return None

    def _check(self, checksum: str) -> None:
        if self._place != "after ranges":
            raise ManifestError("it ends early")
        if self._hash.hexdigest() != checksum:
            raise ManifestError("its own checksum is wrong")
        self._place = "end"

    def _add_range(self, document: dict[str, Any]) -> None:
        start, end = (parse_lsn(_string(document, name)) for name in ("Start-LSN", "End-LSN"))
        if start is None or end is None or start > end or len(self._ranges) >= _RANGES_LIMIT:
            raise ManifestError("it names an impossible range of the log")
        self._ranges.append(WalRange(_number(document, "Timeline"), start, end))


def _parse(line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line.rstrip().removesuffix(b","))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ManifestError(f"it has a line that is not JSON: {line[:60]!r}")
    return document


def _file(document: dict[str, Any]) -> ManifestFile:
    if "Encoded-Path" in document:
        try:
            path = bytes.fromhex(_string(document, "Encoded-Path")).decode(errors="surrogateescape")
        except ValueError:
            raise ManifestError("it has an encoded path that is not hexadecimal") from None
    else:
        path = _string(document, "Path")
    algorithm = _string(document, "Checksum-Algorithm") if "Checksum-Algorithm" in document else "NONE"
    checksum = "" if algorithm == "NONE" else _string(document, "Checksum").lower()
    return ManifestFile(path, _number(document, "Size"), algorithm, checksum)


def _string(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise ManifestError(f"it has an entry without {name}")
    return value


def _number(document: dict[str, Any], name: str) -> int:
    value = document.get(name)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ManifestError(f"it has an entry without {name}")
    return value
