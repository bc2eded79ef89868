"""How fast an image's reader is beside its decompressor alone, over the same compressed clusters in memory.

python -m bench.readers IMAGE
"""

from __future__ import annotations

import json
import mmap
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import zstandard

from holdfast.formats.disks.base.files import OpenFile
from holdfast.formats.disks.base.image import ExtentKind, Image
from holdfast.formats.disks.open import no_companions, open_image

_STEP = 4 << 20
_SAMPLE = 512 << 20
"""Bytes of the disk that are read: enough for a second."""
_ROUNDS = 5


class Recorder:
    """Stands in for a library and keeps what it is given to decompress."""

    def __init__(self, library: object) -> None:
        self._library = library
        self.packed: list[bytes] = []

    def __getattr__(self, name: str) -> object:
        found = getattr(self._library, name)
        if name == "decompressobj":  # zlib
            return lambda *words: _Recording(found(*words), "decompress", self.packed)
        if name == "ZstdDecompressor":
            return lambda **words: _Recording(found(**words), "stream_reader", self.packed)
        return found


class _Recording:
    """An engine of a library whose one method is listened to."""

    def __init__(self, engine: object, method: str, packed: list[bytes]) -> None:
        self._engine = engine
        self._method = method
        self._packed = packed

    def __getattr__(self, name: str) -> object:
        found = getattr(self._engine, name)
        if name != self._method:
            return found

        def listen(data: memoryview, *words: object, **options: object) -> object:
            self._packed.append(bytes(data))
            return found(data, *words, **options)

        return listen


def data_of(image: Image) -> list[tuple[int, int]]:
    """(offset, length) of the first data, in steps as an ingest reads them."""
    found: list[tuple[int, int]] = []
    total = 0
    for extent in image.extents():
        if extent.kind is not ExtentKind.DATA:
            continue
        end = extent.start + extent.length
        for at in range(extent.start, end, _STEP):
            found.append((at, min(_STEP, end - at)))
            total += found[-1][1]
            if total >= _SAMPLE:
                return found
    return found


def main(path: Path) -> None:
    """Both in turn: the machine's speed drifts. What qcow2 stores uncompressed counts for neither."""
    from holdfast.formats.disks.qcow2 import clusters as qcow2_clusters  # noqa: PLC0415  to listen in
    from holdfast.formats.disks.vmdk import stream as vmdk_stream  # noqa: PLC0415  to listen in

    with OpenFile(path) as file:
        image = open_image(file, no_companions)
        steps = data_of(image)
        recorder = Recorder(zlib)
        zstd = Recorder(zstandard)
        with (
            _listening(qcow2_clusters, zlib=recorder, zstandard=zstd),
            _listening(vmdk_stream, zlib=recorder),
        ):
            read(image, steps)
        rates = [(read(image, steps), unpack(recorder.packed, zstd.packed)) for _ in range(_ROUNDS)]
    reader, own = (sorted(rate)[_ROUNDS // 2] for rate in zip(*rates, strict=True))
    size = sum(length for _, length in steps) / 1e6
    print(json.dumps({"reader_mb_s": size / reader, "own_mb_s": size / own, "ratio": own / reader}))


class _listening:
    def __init__(self, module: object, **stand_ins: object) -> None:
        self._module = module
        self._stand_ins = stand_ins

    def __enter__(self) -> None:
        self._were = {name: getattr(self._module, name) for name in self._stand_ins}
        for name, stand_in in self._stand_ins.items():
            setattr(self._module, name, stand_in)

    def __exit__(self, *_: object) -> None:
        for name, was in self._were.items():
            setattr(self._module, name, was)


def read(image: Image, steps: list[tuple[int, int]]) -> float:
    """Seconds to read it all."""
    buffer = memoryview(mmap.mmap(-1, _STEP))
    began = time.perf_counter()
    for at, length in steps:
        image.read_into(buffer[:length], at)
    return time.perf_counter() - began


def unpack(deflated: list[bytes], zstd: list[bytes]) -> float:
    """Seconds that one thread needs for the decompression alone."""
    engines: tuple[tuple[list[bytes], Callable[[bytes], object]], ...] = (
        (deflated, _inflate),
        (zstd, _unzstd()),
    )
    began = time.perf_counter()
    for clusters, decompress in engines:
        for cluster in clusters:
            decompress(cluster)
    return time.perf_counter() - began


def _inflate(data: bytes) -> bytes:
    is_stream = data[:1] == b"\x78" and int.from_bytes(data[:2], "big") % 31 == 0  # VMDK; qcow2 is raw
    return zlib.decompressobj(15 if is_stream else -12).decompress(data)


def _unzstd() -> Callable[[bytes], object]:
    engine = zstandard.ZstdDecompressor()
    return lambda data: engine.stream_reader(data).read(1 << 21)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
