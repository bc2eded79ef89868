"""Whether the files of a physical PostgreSQL backup are what its manifest says, and what it says of itself.

Told of members in stream order, it hashes them as they pass. What PostgreSQL's own `pg_verifybackup` checks
is checked here: every file of the manifest is there with its size and checksum, there is no other, and the
log that the backup needs is there under its right names. And further: all is of one cluster.
"""

from __future__ import annotations

import re
from dataclasses import replace
from hashlib import sha256
from typing import Final

from holdfast.base.errors import Refused
from holdfast.base.moments import moment
from holdfast.base.tar_header import FILE, TarHeader
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.formats.dumps.postgresql.physical.control import CONTROL_PATH, parse_control
from holdfast.formats.dumps.postgresql.physical.manifest import (
    MANIFEST_NAME,
    Manifest,
    ManifestError,
    ManifestFile,
    ManifestReader,
)
from holdfast.formats.dumps.postgresql.physical.wal import (
    HEADER_SIZE,
    WalKind,
    check_file,
    lsn_text,
    parse_lsn,
    parse_name,
    segment_name,
)

_ALGORITHM: Final = "SHA256"
_HEAD: Final = 8192
"""Bytes of a file that are kept when what it says is of interest."""
_WAL: Final = "pg_wal/"
_STATUS: Final = "pg_wal/archive_status/"
_LABEL: Final = "backup_label"
_VERSION: Final = "PG_VERSION"
_NOT_LISTED: Final = re.compile(
    rf"{re.escape(_WAL)}.*|postgresql\.auto\.conf|(?:recovery|standby)\.signal|{MANIFEST_NAME}"
)
"""What may be there without standing in the manifest, as for pg_verifybackup."""
_SHOWN: Final = 3


class BackupChecks:
    """Checks one base backup. Call `begin`, `data` and `end` for each member, `finish` once."""

    def __init__(self) -> None:
        self._faults: list[str] = []
        self._more = 0
        self._files: dict[str, tuple[int, bytes]] = {}
        self._segments: dict[str, int] = {}
        self._heads: dict[str, bytes] = {}
        self._manifest = ManifestReader()
        self._manifest_seen = False
        self._uncompared = ""
        self._stop_time = 0
        self._status_time = 0
        self._member: TarHeader | None = None
        self._hash = sha256()
        self._head = bytearray()

    def begin(self, member: TarHeader) -> None:
        self._member = member
        self._hash = sha256()
        self._head.clear()

    def data(self, data: memoryview) -> None:
        """More of the member that has begun."""
        assert self._member is not None
        if len(self._head) < _HEAD:
            self._head += data[: _HEAD - len(self._head)]
        if self._member.path == MANIFEST_NAME:
            self._read_manifest(data)
        elif not _is_segment(self._member.path):
            self._hash.update(data)

    def end(self) -> None:
        """The member is complete."""
        member = self._member
        assert member is not None
        path, head = member.path, bytes(self._head)
        if member.kind != FILE:
            return
        if path == MANIFEST_NAME:
            self._manifest_seen = True
            self._stop_time = member.mtime
        elif _is_segment(path):
            self._segments[path] = member.size
            self._heads[path] = head[:HEADER_SIZE]
        else:
            if not self._manifest_seen:
                self._files[path] = member.size, self._hash.digest()
            else:
                self._fault(f"{path} stands behind the manifest")
            if path in (_LABEL, _VERSION, CONTROL_PATH):
                self._heads[path] = head
        if path.startswith(_STATUS):  # the server makes these up once the backup has stopped
            self._status_time = max(self._status_time, member.mtime)

    def finish(self) -> tuple[str, DumpFacts]:
        """Return (the fault or "", facts)."""
        try:
            if not self._manifest_seen:
                raise ManifestError("there is none: the backup ended early, or was taken with --no-manifest")
            manifest = self._manifest.finish()
        except ManifestError as error:
            self._fault(f"{MANIFEST_NAME}: {error}")
            return self._summary(), DumpFacts()
        for path in self._files:
            if _NOT_LISTED.fullmatch(path) is None:
                self._fault(f"{path} is not in the manifest")
        facts = self._facts(manifest)
        self._check_segments(manifest, facts.system_id)
        return self._summary(), facts

    @property
    def uncompared(self) -> str:
        """The manifest's checksum algorithm when it is not SHA256: then only sizes were compared."""
        return self._uncompared

    def _read_manifest(self, data: memoryview) -> None:
        if self._faults and self._faults[0].startswith(MANIFEST_NAME):
            return
        try:
            for file in self._manifest.feed(data):
                self._compare(file)
        except ManifestError as error:
            self._faults.insert(0, f"{MANIFEST_NAME}: {error}")

    def _compare(self, file: ManifestFile) -> None:
        found = self._files.pop(file.path, None)
        if found is None:
            self._fault(f"{file.path} is in the manifest, and is not there")
        elif found[0] != file.size:
            self._fault(f"{file.path} has {found[0]} bytes, the manifest says {file.size}")
        elif file.algorithm != _ALGORITHM:
            self._uncompared = file.algorithm
        elif found[1].hex() != file.checksum:
            self._fault(f"{file.path} is not what the manifest says: its checksum differs")

    def _facts(self, manifest: Manifest) -> DumpFacts:
        control = parse_control(self._heads.get(CONTROL_PATH, b""))
        if control is None:
            self._fault(f"{CONTROL_PATH} is missing or is not a control file")
        elif manifest.system_id not in ("", control.system_id):
            self._fault(
                f"the manifest is of system identifier {manifest.system_id}, "
                f"{CONTROL_PATH} of {control.system_id}"
            )
        version = self._heads.get(_VERSION, b"").strip()
        is_version = re.fullmatch(rb"[0-9]{1,3}(?:\.[0-9]{1,3})?", version) is not None
        if not is_version:
            self._fault(f"{_VERSION} is missing or holds no version")
        # In the header are whole seconds, cut off: only a second later it has surely stopped.
        stopped = moment((self._status_time or self._stop_time) + 10**9)
        facts = DumpFacts(
            physical=True,
            system_id=control.system_id if control else "",
            server=f"PostgreSQL {version.decode()}" if is_version else "",
            stop_time=stopped.isoformat(),
        )
        return self._with_label(facts, manifest)

    def _with_label(self, facts: DumpFacts, manifest: Manifest) -> DumpFacts:
        text = self._heads.get(_LABEL, b"").decode(errors="replace")
        start = re.search(r"^START WAL LOCATION: ([0-9A-F/]+) ", text, re.MULTILINE)
        timeline = re.search(r"^START TIMELINE: ([0-9]{1,10})$", text, re.MULTILINE)
        lsn = parse_lsn(start[1]) if start else None
        if lsn is None or timeline is None:
            self._fault(f"{_LABEL} is not there, or does not say where the backup begins")
            return facts
        if "INCREMENTAL FROM LSN" in text:
            self._fault("it is an incremental backup, which is nothing without the one before")
        if not any(r.timeline == int(timeline[1]) and r.start <= lsn <= r.end for r in manifest.ranges):
            self._fault(f"{_LABEL} begins at {lsn_text(lsn)}, which is not in the manifest's WAL ranges")
        stop = max(r.end for r in manifest.ranges)
        return replace(facts, lsn=lsn_text(lsn), timeline=str(int(timeline[1])), stop_lsn=lsn_text(stop))

    def _check_segments(self, manifest: Manifest, system_id: str) -> None:
        """Every segment of the ranges is there, each is what its name says, all are of one size."""
        for path, size in self._segments.items():
            try:
                check_file(path.removeprefix(_WAL), size, self._heads[path], system_id)
            except Refused as error:
                self._fault(f"{_WAL}{str(error).removesuffix('; nothing was stored')}")
        sizes = set(self._segments.values())
        if len(sizes) != 1:
            wrong = "WAL segments of several sizes" if sizes else "no WAL segments: take it with -X fetch"
            self._fault(f"it holds {wrong}")
            return
        size = sizes.pop()
        if size <= 0:
            return
        for each in manifest.ranges:
            last = max(each.start, each.end - 1)
            if last // size - each.start // size > len(self._segments):
                self._fault(f"not all segments from {lsn_text(each.start)} to {lsn_text(each.end)} are there")
                continue
            for place in range(each.start // size, last // size + 1):
                name = segment_name(each.timeline, place, size)
                if _WAL + name not in self._segments:
                    self._fault(f"{_WAL}{name} is needed, and is not there")

    def _fault(self, text: str) -> None:
        if len(self._faults) < _SHOWN:
            self._faults.append(text)
        else:
            self._more += 1

    def _summary(self) -> str:
        return "; ".join([*self._faults, *([f"and {self._more} more faults"] if self._more else [])])


def _is_segment(path: str) -> bool:
    if not path.startswith(_WAL):
        return False
    parsed = parse_name(path.removeprefix(_WAL))
    return parsed is not None and parsed.kind is WalKind.SEGMENT
