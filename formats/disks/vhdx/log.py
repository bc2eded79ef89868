"""Replaying the log of a VHDX image whose last writer stopped midway ([MS-VHDX] 2.3), without writing to it.

The log is a ring of entries. One sequence of them is active: each is valid, its number follows the one
before, and the last one says where the first is. Applied to the file in order they complete the interrupted
writes. Here nothing is written: `ReplayedFile` shows the image as it would be after that.

    entry       0  4 "loge"    4  4 CRC-32C of the entry     8  4 length      12  4 tail: where in the
               16  8 sequence 24  4 descriptors             28  4 zero             log the sequence begins
               32 16 log GUID
               48  8 flushed file offset: the file was at least that long
               56  8 last file offset: and has to be that long now
    descriptor 32 bytes each, from offset 64 of the entry on
                0  4 "desc"    4  4 last 4 bytes             8  8 first 8 bytes of the page at the
               16  8 file offset                            24  8 sequence
                0  4 "zero"    4  4 zero                     8  8 length of the zeros at the
               16  8 file offset                            24  8 sequence
    data       4 KiB for each "desc", from the next multiple of 4 KiB on
                0  4 "data"    4  4 high half of sequence    8 4084 the bytes between      4092  4 low half
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise
from typing import Final, NamedTuple

from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import read_exactly
from holdfast.formats.disks.base.image import ImageFile
from holdfast.formats.disks.vhdx.format import MIB, Header, is_sound

PAGE: Final = 4096
ENTRY: Final = struct.Struct("<4sIIIQII16sQQ")
DESCRIPTOR: Final = struct.Struct("<4s4s8sQQ")
_LOG_LIMIT: Final = 4 << 20
"""Bytes of a log that is replayed. Hyper-V's have 1 MiB; one of this size made of nothing but descriptors,
which no machine writes, takes seconds to sort out."""
_FILE_LIMIT: Final = 1 << 62
_GROWTH_LIMIT: Final = 64 << 30
"""Bytes that a file may lack of the length that its log gives it: some hundred of the largest blocks. They
are zeros, and a table can point to each of them once."""


class Write(NamedTuple):
    """A write to the range [start, end) of the file: the bytes `page`, or zeros if that is None."""

    start: int
    end: int
    page: bytes | None


@dataclass(frozen=True, slots=True)
class _Entry:
    position: int
    length: int
    tail: int
    sequence: int
    flushed: int
    last: int
    writes: tuple[Write, ...]


class ReplayedFile:
    """A file as it is after some writes, which are kept in memory. Where it grows to `size` it is zeros."""

    def __init__(self, file: ImageFile, size: int, writes: list[Write]) -> None:
        self.name = file.name
        self.size = max(size, file.size)
        self._file = file
        self._runs = _flattened(writes)
        self._starts = [run.start for run in self._runs]

    def read_into(self, buffer: memoryview, offset: int) -> int:
        length = max(0, min(len(buffer), self.size - offset))
        below = max(0, min(length, self._file.size - offset))
        done = self._file.read_into(buffer[:below], offset) if below else 0
        if done < below:
            return done
        buffer[below:length] = bytes(length - below)
        end = offset + length
        for index in range(max(0, bisect_right(self._starts, offset) - 1), len(self._runs)):
            run = self._runs[index]
            if run.start >= end:
                break
            first, last = max(run.start, offset), min(run.end, end)
            if first < last:
                page = run.page[first - run.start : last - run.start] if run.page else bytes(last - first)
                buffer[first - offset : last - offset] = page
        return length

    def holes(self) -> Iterator[tuple[int, int]]:
        yield from ()


def replay_log(file: ImageFile, header: Header) -> ImageFile:
    """The image as it is after its log was replayed.

    Raises ImageDamaged when the log has no active sequence or the file has lost bytes that the log relies on;
    ImageRefused when the log's version is unknown or it is too large.
    """
    offset, length = header.log_offset, header.log_length
    if header.log_version != 0:
        raise ImageRefused(file.name, f"its log, of version {header.log_version}, would have to be replayed")
    if offset < MIB or offset % MIB or not length or length % MIB or offset + length > file.size:
        raise ImageDamaged(file.name, f"a log of {length} bytes at {offset}", offset=offset)
    if length > _LOG_LIMIT:
        raise ImageRefused(
            file.name, f"its log of {length} bytes would have to be replayed; the limit is {_LOG_LIMIT}"
        )
    entries = _Log(file, header).active_sequence()
    newest = entries[-1]
    if newest.flushed > file.size:
        reason = f"the file was {newest.flushed} bytes long when its log was written, and is {file.size}"
        raise ImageDamaged(file.name, reason, offset=offset + newest.position)
    if newest.last > file.size + _GROWTH_LIMIT:
        reason = f"the log wants a file of {newest.last} bytes, and this one has {file.size}"
        raise ImageDamaged(file.name, reason, offset=offset + newest.position)
    return ReplayedFile(file, newest.last, [write for entry in entries for write in entry.writes])


class _Log:
    """A log in memory, and the search for its active sequence."""

    def __init__(self, file: ImageFile, header: Header) -> None:
        self._name = file.name
        self._offset = header.log_offset
        self._guid = header.log_guid
        self._data = read_exactly(file, header.log_offset, header.log_length, "the log")
        # Genuine entries overlap only where a new one was written over an old one. Bytes to sum are limited,
        # or a log made of heads that all claim the whole log would take hours.
        self._budget = 4 * len(self._data)
        self._known: dict[int, _Entry | None] = {}

    def active_sequence(self) -> list[_Entry]:
        """The entries to apply, oldest first ([MS-VHDX] 2.3.3)."""
        best: list[_Entry] = []
        position = 0
        while position < len(self._data):
            entries = self._sequence(position)
            tail = entries[-1].tail if entries else None
            first = next((i for i, entry in enumerate(entries) if entry.position == tail), None)
            if first is None:
                position += PAGE
                continue
            if not best or entries[-1].sequence > best[-1].sequence:
                best = entries[first:]
            position = entries[-1].position + entries[-1].length
            if entries[-1].position < entries[0].position:
                break  # all of the ring was searched
        if not best:
            raise ImageDamaged(self._name, "the log has no valid sequence of entries", offset=self._offset)
        return best

    def _sequence(self, position: int) -> list[_Entry]:
        """The valid entries from `position` on that follow each other, once around the ring at most."""
        entries: list[_Entry] = []
        total = 0
        while total < len(self._data):
            if position not in self._known:
                self._known[position] = self._decode(position)
            entry = self._known[position]
            if entry is None or (entries and entry.sequence != entries[-1].sequence + 1):
                break
            entries.append(entry)
            total += entry.length
            position = (position + entry.length) % len(self._data)
        return entries

    def _decode(self, position: int) -> _Entry | None:
        """The entry at a position in the log; None when there is no valid one."""
        size = len(self._data)
        signature, _, length, tail, sequence, count, _, guid, flushed, last = ENTRY.unpack_from(
            self._data, position
        )
        if signature != b"loge" or guid != self._guid or not sequence or not 0 < length <= size:
            return None
        head = -(-(ENTRY.size + count * DESCRIPTOR.size) // PAGE) * PAGE
        if length % PAGE or tail % PAGE or tail >= size or head > length or last > _FILE_LIMIT:
            return None
        self._budget -= length
        if self._budget < 0:
            raise ImageDamaged(
                self._name, "the entries of the log lie over each other", offset=self._offset + position
            )
        data = self._data[position : position + length]
        data += self._data[: length - len(data)]  # it goes on at the start of the ring
        if not is_sound(data, b"loge"):
            return None
        writes = _decode_writes(data, count, sequence, head)
        if writes is None:
            return None
        return _Entry(position, length, tail, sequence, flushed, last, tuple(writes))


def _decode_writes(data: bytes, count: int, sequence: int, at: int) -> list[Write] | None:
    """The writes of an entry whose data pages begin at `at`; None when it contradicts itself."""
    writes = []
    for index in range(count):
        signature, trailing, leading, offset, number = DESCRIPTOR.unpack_from(
            data, ENTRY.size + index * DESCRIPTOR.size
        )
        if number != sequence or offset % PAGE or offset > _FILE_LIMIT:
            return None
        if signature == b"zero":
            length = int.from_bytes(leading, "little")
            if length % PAGE or length > _FILE_LIMIT:
                return None
            writes.append(Write(offset, offset + length, None))
        elif signature == b"desc":
            page = data[at : at + PAGE]
            number = int.from_bytes(page[-4:] + page[4:8], "little")
            if len(page) < PAGE or page[:4] != b"data" or number != sequence:
                return None
            writes.append(Write(offset, offset + PAGE, leading + page[8:-4] + trailing))
            at += PAGE
        else:
            return None
    return writes


def _flattened(writes: list[Write]) -> list[Write]:
    """Return writes that do not overlap and have the same effect, in order of offset.

    A sweep over all edges with the writes that cover the current one in a heap, the latest on top. Pages and
    edges lie at multiples of 4 KiB, so no page is ever cut.
    """
    edges = sorted({edge for write in writes for edge in (write.start, write.end)})
    begin = sorted(range(len(writes)), key=lambda index: writes[index].start, reverse=True)
    covering: list[int] = []
    runs: list[Write] = []
    for edge, after in pairwise(edges):
        while begin and writes[begin[-1]].start == edge:
            heappush(covering, -begin.pop())
        while covering and writes[-covering[0]].end <= edge:
            heappop(covering)
        if covering:
            runs.append(Write(edge, after, writes[-covering[0]].page))
    return runs
