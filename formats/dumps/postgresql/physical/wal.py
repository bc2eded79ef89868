"""PostgreSQL's write-ahead log as an archive holds it: file names, the page header, timelines, gaps. Pure.

Layout: `access/xlog_internal.h` (file names, XLogLongPageHeaderData). A segment that begins a timeline is a
copy of the one it branched off in, up to that point: its first page then still bears the older timeline, so a
header's timeline is at most that of the name.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Final, NamedTuple

from holdfast.base.errors import Refused
from holdfast.formats.dumps.core.facts import DumpFacts

HEADER_SIZE: Final = 40
"""Bytes at the start of a segment that `check_segment` looks at."""
HISTORY_LIMIT: Final = 1 << 20
"""Bytes of a timeline history or backup history file; real ones have some hundred."""

_NAME = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(\.partial|\.[0-9A-F]{8}\.backup)?")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history")
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_HEADER = "HHIQI4xQII"
_LONG_HEADER = 0x0002
_SMALLEST, _LARGEST = 1 << 20, 1 << 30
_SHOWN = 5


class WalKind(Enum):
    """What archive_command is given."""

    SEGMENT = "segment"
    PARTIAL = "partial segment"
    BACKUP = "backup history"
    HISTORY = "timeline history"


class WalName(NamedTuple):
    """A file name taken apart. `log` and `low` are its second and third eight digits, 0 of a history."""

    kind: WalKind
    timeline: int
    log: int = 0
    low: int = 0

    def number(self, segment_size: int) -> int:
        """The segment's place in the log: it begins at this many times `segment_size`."""
        return self.log * ((1 << 32) // segment_size) + self.low


def parse_name(name: str) -> WalName | None:
    """None when it is no file of a write-ahead log."""
    if match := _HISTORY.fullmatch(name):
        return WalName(WalKind.HISTORY, int(match[1], 16))
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    suffix = match[4] or ""
    kind = WalKind.SEGMENT if not suffix else WalKind.PARTIAL if suffix == ".partial" else WalKind.BACKUP
    return WalName(kind, int(match[1], 16), int(match[2], 16), int(match[3], 16))


def segment_name(timeline: int, number: int, segment_size: int) -> str:
    """The name of a segment by its place in the log."""
    log, low = divmod(number, (1 << 32) // segment_size)
    return f"{timeline:08X}{log:08X}{low:08X}"


def parse_lsn(text: str) -> int | None:
    """A place in the log, written as `16/B374D848`; None when it is not one."""
    match = _LSN.fullmatch(text)
    return int(match[1], 16) << 32 | int(match[2], 16) if match else None


def lsn_text(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def is_segment_size(size: int) -> bool:
    """initdb's --wal-segsize: a power of two from 1 MiB to 1 GiB."""
    return _SMALLEST <= size <= _LARGEST and size & (size - 1) == 0


def check_file(name: str, size: int, head: bytes, system_id: str) -> WalName:
    """Refuse what is not a whole file of this cluster's log under its right name; nothing is believed of
    the name alone. `head` are the first HEADER_SIZE bytes. Raises Refused."""
    parsed = parse_name(name)
    if parsed is None:
        raise Refused(
            f"{name!r} is not the name of a WAL segment, history or backup file; nothing was stored"
        )
    if parsed.kind in (WalKind.SEGMENT, WalKind.PARTIAL):
        fault = _segment_fault(parsed, size, head, system_id)
    else:
        fault = "" if 0 < size <= HISTORY_LIMIT else f"a {parsed.kind.value} file of {size} bytes is none"
    if fault:
        raise Refused(f"{name}: {fault}; nothing was stored")
    return parsed


def _segment_fault(name: WalName, size: int, head: bytes, system_id: str) -> str:
    if not is_segment_size(size):
        return f"has {size} bytes, no size of a WAL segment: it was cut short, or is another file"
    order = _byte_order(head)
    if len(head) < HEADER_SIZE or not order:
        return "does not begin with a WAL page header"
    _, info, timeline, address, _, system, segment, _ = struct.unpack_from(order + _HEADER, head)
    fault = ""
    if not info & _LONG_HEADER:
        fault = "does not begin with the page header of a segment's first page"
    elif segment != size:
        fault = f"has {size} bytes, its header says segments of {segment}"
    elif str(system) != system_id:
        fault = f"is of the cluster with system identifier {system}, not {system_id}"
    elif address != name.number(size) * size:
        fault = f"holds the log from {lsn_text(address)} on, which is not what its name says"
    elif not 0 < timeline <= name.timeline:
        fault = f"is of timeline {timeline}, its name says {name.timeline}"
    return fault


def _byte_order(head: bytes) -> str:
    """PostgreSQL writes in the machine's order; magics of all versions are 0xD0.. to 0xD2.."""
    return next(
        (order for order, high in (("<", head[1:2]), (">", head[:1])) if b"\xd0" <= high <= b"\xd2"), ""
    )


class Branch(NamedTuple):
    """A line of a history file: the timeline that was left, and where."""

    timeline: int
    switch: int


def parse_history(text: str) -> tuple[Branch, ...]:
    """The timelines before this one, oldest first. Lines that are not understood are passed over, as the
    server does with comments."""
    found = []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) >= 2 and words[0].isascii() and words[0].isdecimal():
            switch = parse_lsn(words[1])
            if switch is not None:
                found.append(Branch(int(words[0]), switch))
    return tuple(found)


Histories = Mapping[int, tuple[Branch, ...]]
"""Timeline to its history file, of those that are archived."""


class SegmentRange(NamedTuple):
    """The log segments `first` to `last` of a timeline, by number, both included."""

    timeline: int
    first: int
    last: int

    def text(self, segment_size: int) -> str:
        first = segment_name(self.timeline, self.first, segment_size)
        if self.first == self.last:
            return first
        last = segment_name(self.timeline, self.last, segment_size)
        return f"{first} to {last} ({self.last - self.first + 1:,} segments)"


@dataclass(frozen=True, slots=True)
class Coverage:
    """Ranges of the log that an archive holds and the gaps between them, by timeline."""

    ranges: tuple[SegmentRange, ...]
    gaps: tuple[SegmentRange, ...]


def coverage(names: Iterable[str], segment_size: int, histories: Histories) -> Coverage:
    """The contiguous ranges of whole segments, and the gaps: inside a timeline, and between where a
    timeline branched off, as far as histories tell, and its first segment. O(n log n)."""
    parsed = (parse_name(name) for name in names)
    there = sorted({(n.timeline, n.number(segment_size)) for n in parsed if n and n.kind is WalKind.SEGMENT})
    ranges: list[SegmentRange] = []
    for timeline, number in there:
        if ranges and ranges[-1].timeline == timeline and ranges[-1].last + 1 == number:
            ranges[-1] = ranges[-1]._replace(last=number)
        else:
            ranges.append(SegmentRange(timeline, number, number))
    gaps = [
        SegmentRange(a.timeline, a.last + 1, b.first - 1)
        for a, b in pairwise(ranges)
        if a.timeline == b.timeline
    ]
    oldest = min((r.first for r in ranges), default=0)
    for timeline, branches in histories.items():
        first = next((r.first for r in ranges if r.timeline == timeline), None)
        begins = max(branches[-1].switch // segment_size, oldest) if branches else None
        if first is not None and begins is not None and begins < first:
            gaps.append(SegmentRange(timeline, begins, first - 1))
    return Coverage(tuple(ranges), tuple(sorted(gaps)))


@dataclass(frozen=True, slots=True)
class Base:
    """A physical backup: recovery starts at `start` on `timeline` and is consistent from `stop` on."""

    label: str
    timeline: int
    start: int
    stop: int


def base_of(facts: DumpFacts, label: str) -> Base | None:
    """From a snapshot's facts; None unless it is a physical backup whose place in the log is known."""
    start, timeline = parse_lsn(facts.lsn), facts.timeline
    if not facts.physical or start is None or not (timeline.isascii() and timeline.isdecimal()):
        return None
    stop = parse_lsn(facts.stop_lsn)
    return Base(label, int(timeline), start, stop if stop is not None else start)


@dataclass(frozen=True, slots=True)
class Reach:
    """How far recovery gets from a base with an archive's segments alone. `end` is the last segment in
    one piece, None when not even the first is there; `missing` is the first that is not, "" at the end."""

    end: tuple[int, int] | None
    missing: str


def behind(base: Base, segment_size: int) -> Base:
    """The log position from which an archive is needed; the physical backup holds what is before it."""
    after = (max(base.stop - 1, base.start) // segment_size + 1) * segment_size
    return Base(base.label, base.timeline, after, base.stop)


def reach(base: Base, cover: Coverage, histories: Histories, segment_size: int) -> Reach:
    """Follow the log from a base on, over timelines as `recovery_target_timeline = 'latest'` does."""
    route = _route(base, histories)
    at = base.start // segment_size
    end: tuple[int, int] | None = None
    for timeline, switch in route:
        # The segment with the branching point is on the new timeline too, complete.
        until = None if switch is None else switch // segment_size
        while until is None or at < until:
            found = next(
                (r for r in cover.ranges if r.timeline == timeline and r.first <= at <= r.last), None
            )
            if found is None:
                later = any(r.timeline == timeline and r.first > at for r in cover.ranges)
                wanted = until is not None or later or end is None
                return Reach(end, segment_name(timeline, at, segment_size) if wanted else "")
            last = found.last if until is None else min(found.last, until - 1)
            at, end = last + 1, (timeline, last)
    return Reach(end, "")


def _route(base: Base, histories: Histories) -> list[tuple[int, int | None]]:
    """(timeline, where it is left) from the base on to the newest timeline that descends from it."""
    newest = max(
        (
            timeline
            for timeline, branches in histories.items()
            if any(b.timeline == base.timeline and b.switch >= base.stop for b in branches)
        ),
        default=None,
    )
    if newest is None:
        return [(base.timeline, None)]
    branches = histories[newest]
    first = next(n for n, b in enumerate(branches) if b.timeline == base.timeline)
    return [*((b.timeline, b.switch) for b in branches[first:]), (newest, None)]


def archive_findings(
    names: Iterable[str], segment_size: int, histories: Histories, bases: Iterable[Base]
) -> list[str]:
    """What is wrong with an archive and the physical backups that rely on it, one sentence each."""
    cover = coverage(names, segment_size, histories)
    findings = [f"WAL is missing: {gap.text(segment_size)}" for gap in cover.gaps[:_SHOWN]]
    if len(cover.gaps) > _SHOWN:
        findings.append(f"WAL is missing in {len(cover.gaps) - _SHOWN} more places")
    for base in bases:
        got = reach(behind(base, segment_size), cover, histories, segment_size)
        if got.missing and got.end is None and not _follows(base, cover, segment_size):
            continue  # nothing has been archived since: the backup alone is whole
        if got.missing and got.end is None:
            findings.append(f"{base.label} cannot be recovered from the archive: {got.missing} is not in it")
        elif got.missing:
            end = segment_name(*got.end, segment_size) if got.end else ""
            findings.append(
                f"{base.label} can be recovered to the end of {end} only: {got.missing} is missing"
            )
    return findings


def _follows(base: Base, cover: Coverage, segment_size: int) -> bool:
    """Whether the archive has anything from behind a base."""
    return any(r.last >= behind(base, segment_size).start // segment_size for r in cover.ranges)


def is_before(name: str, start: int, segment_size: int) -> bool:
    """Whether a file of the log holds nothing from `start` on. Timeline histories never do: they are
    tiny, and any of them may be asked for."""
    parsed = parse_name(name)
    if parsed is None or parsed.kind is WalKind.HISTORY:
        return False
    return parsed.number(segment_size) < start // segment_size
