"""Seeded disks, images written by qemu-img, and the comparison of both, for tests of image readers."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import OpenFile
from holdfast.formats.disks.base.image import Companions, ExtentKind, Image, ImageFile
from support.basics import need

SECTOR = 512


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run an oracle and return what it printed; a failure shows what it complained about."""
    need(shutil.which(str(command[0])), f"the program {command[0]}")
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def disk_bytes(length: int, seed: int) -> bytes:
    """Bytes like those of a disk: stretches that compress well beside stretches that do not."""
    rng = random.Random(seed)
    content = bytearray()
    while len(content) < length:
        unit = rng.choice((SECTOR, 4096, 20480))
        if rng.random() < 0.5:
            content += rng.randbytes(unit)
        else:
            line = b"%016x some line of a text that compresses well\n" % rng.getrandbits(64)
            content += (line * (unit // len(line) + 1))[:unit]
    return bytes(content[:length])


def raw_disk(path: Path, size: int, seed: int, *, unit: int = 16 << 10) -> Path:
    """Write a raw disk: a seeded pattern of runs of data, of written zeros and of holes.

    Runs are 1 to 16 units long and begin at multiples of 512; one of eight is only a few sectors long.
    """
    rng = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size)
        at = 0
        while at < size:
            length = unit * rng.choice((1, 1, 2, 3, 5, 16))
            if rng.random() < 1 / 8:
                length = SECTOR * rng.randint(1, 9)
            length = min(length, size - at)
            kind = rng.choice(("data", "data", "zero", "hole"))
            file.seek(at)
            if kind != "hole":
                file.write(disk_bytes(length, rng.getrandbits(32)) if kind == "data" else bytes(length))
            at += length
    return path


def convert(
    raw: Path, target: Path, format_: str, options: str = "", *, extra: Sequence[str | Path] = ()
) -> Path:
    """Have qemu-img write a raw disk as an image; `options` as after `-o`."""
    more = ("-o", options) if options else ()
    run("qemu-img", "convert", "-f", "raw", "-O", format_, *more, *extra, raw, target)
    return target


@contextmanager
def companions(*paths: Path, **names: Path) -> Iterator[Companions]:
    """What a user named: files by their own names, or by the name that the image has for them."""
    files: dict[str, ImageFile] = {}
    opened: list[OpenFile] = []

    def give(name: str) -> ImageFile:
        if name not in files:
            raise ImageRefused(name, "nobody named it")
        return files[name]

    try:
        for name, path in [*((path.name, path) for path in paths), *names.items()]:
            opened.append(OpenFile(path, name=name))
            files[name] = opened[-1]
        yield give
    finally:
        for file in opened:
            file.close()


def read_disk(image: Image, step: int, start: int = 0, end: int | None = None) -> bytes:
    """Read [start, end) of an image in steps, into buffers full of rubbish."""
    end = image.size if end is None else end
    found = bytearray()
    for at in range(start, end, step):
        buffer = bytearray(b"\xa5" * min(step, end - at))
        image.read_into(memoryview(buffer), at)
        found += buffer
    return bytes(found)


def check_extents(image: Image, wanted: bytes) -> int:
    """`extents` covers the disk in order, and all that is not data is zeros. Returns the bytes of data."""
    at = data = 0
    for extent in image.extents():
        assert extent.start == at
        assert extent.length > 0
        at += extent.length
        if extent.kind is ExtentKind.DATA:
            data += extent.length
        else:
            assert not any(wanted[extent.start : at]), f"{extent} is not zeros"
    assert at == image.size
    return data


def check_image(image: Image, wanted: bytes, *, block: int = 64 << 10, seed: int = 1) -> None:
    """An image is a disk with these bytes: size, extents, and reads smaller than, equal to and larger than a
    block, at its edges and across them, while extents are walked."""
    assert image.size == len(wanted)
    check_extents(image, wanted)
    for step in {block, 3 * block + SECTOR, max(4 << 20, 2 * block)}:
        assert read_disk(image, step) == wanted, f"read in steps of {step}"
    found = bytearray(len(wanted))
    for extent in image.extents():
        if extent.kind is ExtentKind.DATA:
            image.read_into(memoryview(found)[extent.start : extent.start + extent.length], extent.start)
    assert found == wanted, "data extents alone"
    rng = random.Random(seed)
    for _ in range(200 if wanted else 0):
        start = min(rng.randrange(len(wanted)), len(wanted) - 1)
        if rng.random() < 0.5:
            start = max(0, min(start // block * block + rng.choice((-1, 0, 1, -SECTOR)), len(wanted) - 1))
        end = min(len(wanted), start + rng.choice((1, 7, SECTOR, 4096, block - 1, block, block + 1)))
        assert read_disk(image, block + SECTOR, start, end) == wanted[start:end], f"read [{start}, {end})"
    image.read_into(memoryview(bytearray()), 0)


def damaged(image: Path, target: Path, changes: Mapping[int, bytes], *, size: int | None = None) -> Path:
    """Copy an image with other bytes at some offsets, and cut it to `size`."""
    shutil.copyfile(image, target)
    with target.open("r+b") as file:
        for offset, content in changes.items():
            file.seek(offset)
            file.write(content)
        if size is not None:
            file.truncate(size)
    return target


def read_or_damaged(image: Image, wanted: bytes, *, step: int = 64 << 10) -> ImageDamaged | None:
    """Read a damaged image whole: it must be right, or end in ImageDamaged (which is returned); it may not
    be silently different. Extents that end before the damage must be right as well."""
    assert image.size == len(wanted)
    try:
        check_extents(image, wanted)
        assert read_disk(image, step) == wanted
    except ImageDamaged as error:
        return error
    return None
