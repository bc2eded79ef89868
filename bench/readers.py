"""How fast an image's reader is beside the decompressor alone over the same clusters, in memory.

python -m bench.readers IMAGE
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import zstandard

from holdfast.disks.files import OpenFile
from holdfast.disks.image import ExtentKind, Image
from holdfast.disks.open import no_companions, open_image

_STEP = 4 << 20
_CLUSTER = 64 << 10
_SAMPLE = 512 << 20
"""Bytes of the disk that are read: enough for a second."""


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
    with OpenFile(path) as file:
        image = open_image(file, no_companions)
        steps = data_of(image)
        total = sum(length for _, length in steps)
        buffer = memoryview(bytearray(_STEP))
        began = time.perf_counter()
        for at, length in steps:
            image.read_into(buffer[:length], at)
        reader = total / (time.perf_counter() - began)
        clusters: list[bytes] = []
        decompress = _decompressor(path)
        for at, length in steps:
            image.read_into(buffer[:length], at)
            clusters += [_compress(path, bytes(buffer[n : n + _CLUSTER])) for n in range(0, length, _CLUSTER)]
    began = time.perf_counter()
    for cluster in clusters:
        decompress(cluster)
    own = total / (time.perf_counter() - began)
    print(json.dumps({"reader_mb_s": reader / 1e6, "own_mb_s": own / 1e6, "ratio": reader / own}))


def _is_zstd(path: Path) -> bool:
    return "zstd" in str(path.parent)


def _compress(path: Path, data: bytes) -> bytes:
    return zstandard.compress(data) if _is_zstd(path) else zlib.compress(data)


def _decompressor(path: Path) -> Callable[[bytes], bytes]:
    return zstandard.ZstdDecompressor().decompress if _is_zstd(path) else zlib.decompress


if __name__ == "__main__":
    main(Path(sys.argv[1]))
