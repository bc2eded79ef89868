"""Compressed clusters of a qcow2 image."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final, NamedTuple, TypeAlias

import zstandard

from holdfast.formats.disks.base.allocation import AllocationRange
from holdfast.formats.disks.base.errors import ImageDamaged
from holdfast.formats.disks.base.files import Scratch, fill_exactly
from holdfast.formats.disks.base.image import ImageFile
from holdfast.formats.disks.qcow2.format import Compression, Qcow2Head

_WINDOW_BITS: Final = -12
"""Raw deflate with the window that QEMU uses."""
_ZSTD_WINDOW: Final = 8 << 20
"""Bytes of memory that a zstd frame may demand; a cluster has at most 2 MiB."""
_TOGETHER: Final = 4 << 20
"""Bytes of compressed clusters that are read at once."""
_GAP: Final = 4096
"""Bytes. Clusters that are farther apart in the file are not read together."""
_THREADS: Final = 4
"""One thread decompresses 370 MB/s of zlib, two do 720 MB/s: both libraries release the GIL."""
_SHARE: Final = 128 << 10
"""Bytes of the disk for which another thread is used."""
_SMALL: Final = 16 << 10
"""Bytes. Smaller clusters are decompressed before a second thread has got the GIL."""

_Decompress: TypeAlias = Callable[[memoryview, memoryview], int]
"""Decompresses the first buffer into the second, never past its end. Returns the number of bytes that came,
or that the data announce if they are more than fit. Raises the errors of the library."""


class Packed(NamedTuple):
    """A range of one compressed cluster, and the buffer for its bytes."""

    where: AllocationRange
    target: memoryview


class Unpacker:
    """Reads compressed clusters and decompresses them, on several threads where that is faster.

    Keeps the last cluster of which only a part was read, so that small reads decompress it once.
    """

    def __init__(self, file: ImageFile, head: Qcow2Head) -> None:
        self._file = file
        self._cluster = head.cluster
        self._compression = head.compression
        self._threads = min(_THREADS, len(os.sched_getaffinity(0))) if head.cluster >= _SMALL else 1
        # Its threads hold no reference to this object, so they end when it goes.
        self._pool: ThreadPoolExecutor | None = None
        self._scratch = Scratch()
        self._kept_at = -1
        self._kept = memoryview(b"")

    def unpack(self, wanted: Sequence[Packed]) -> None:
        """Fill all targets. Raises ImageDamaged for compressed data that do not give exactly one cluster."""
        whole = [packed for packed in wanted if packed.where.length == self._cluster]
        for group in _groups(whole):
            start = group[0].where.file_offset
            data = self._scratch.take(
                max(where.file_offset + where.packed_length for where, _ in group) - start
            )
            fill_exactly(self._file, data, start, "compressed clusters")
            self._decompress(group, data, start)
        for where, target in wanted:
            if where.length < self._cluster:
                self._keep(where)
                skip = where.start % self._cluster
                target[:] = self._kept[skip : skip + where.length]

    def _keep(self, where: AllocationRange) -> None:
        if where.file_offset == self._kept_at:
            return
        data = memoryview(bytearray(where.packed_length))
        fill_exactly(self._file, data, where.file_offset, "a compressed cluster")
        kept = memoryview(bytearray(self._cluster))
        self._decompress_some([Packed(where, kept)], data, where.file_offset)
        self._kept, self._kept_at = kept, where.file_offset

    def _decompress(self, group: Sequence[Packed], data: memoryview, start: int) -> None:
        threads = min(self._threads, len(group), max(1, len(group) * self._cluster // _SHARE))
        if threads > 1 and self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads - 1, "qcow2")
        others = [
            self._pool.submit(self._decompress_some, group[n::threads], data, start)
            for n in range(1, threads)
            if self._pool is not None
        ]
        try:
            self._decompress_some(group[::threads], data, start)
        finally:
            wait(others)  # nobody may write to the caller's buffer after this
        for other in others:
            other.result()

    def _decompress_some(self, some: Sequence[Packed], data: memoryview, start: int) -> None:
        """Decompress clusters out of `data`, which are the bytes of the file from `start`."""
        decompress = _zstd() if self._compression is Compression.ZSTD else _zlib
        for where, target in some:
            at = where.file_offset - start
            try:
                count = decompress(data[at : at + where.packed_length], target)
            except (zlib.error, zstandard.ZstdError) as error:
                raise self._damaged(where, str(error)) from error
            if count != len(target):
                raise self._damaged(where, f"{count} bytes, not {len(target)}")

    def _damaged(self, where: AllocationRange, reason: str) -> ImageDamaged:
        return ImageDamaged(self._file.name, f"a compressed cluster: {reason}", offset=where.file_offset)


def _zlib(packed: memoryview, target: memoryview) -> int:
    # Whether the stream ends with the cluster is not asked: QEMU does not ask either.
    content = zlib.decompressobj(_WINDOW_BITS).decompress(packed, len(target))
    target[: len(content)] = content
    return len(content)


def _zstd() -> _Decompress:
    context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)

    def decompress(packed: memoryview, target: memoryview) -> int:
        promised = zstandard.frame_content_size(packed)
        if promised > len(target):
            return promised
        done = 0
        with context.stream_reader(packed, read_across_frames=True) as reader:
            while done < len(target) and (count := reader.readinto(target[done:])):
                done += count
        return done

    return decompress


def _groups(wanted: Sequence[Packed]) -> Iterator[list[Packed]]:
    """Group what lies together in the file, in the file's order."""
    group: list[Packed] = []
    end = 0
    for packed in sorted(wanted, key=lambda packed: packed.where.file_offset):
        where = packed.where
        stop = where.file_offset + where.packed_length
        if group and (where.file_offset > end + _GAP or stop - group[0].where.file_offset > _TOGETHER):
            yield group
            group = []
        end = max(end, stop) if group else stop
        group.append(packed)
    if group:
        yield group
