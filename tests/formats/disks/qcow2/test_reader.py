"""qcow2 images are read as qemu-img wrote them, in every way that it can write them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.formats.disks.base.errors import ImageRefused
from holdfast.formats.disks.base.files import FilePart, OpenFile
from holdfast.formats.disks.base.image import ExtentKind, Image
from holdfast.formats.disks.open import FORMATS, open_image
from holdfast.formats.disks.qcow2.reader import open_qcow2
from support.disk import check_extents, check_image, companions, convert, disk_bytes, raw_disk, read_disk, run

MIB = 1 << 20
SIZE = 5 * MIB + 3 * 512


@contextmanager
def opened(path: Path, *named: Path, **names: Path) -> Iterator[Image]:
    """An image, and the files that the user named with it."""
    with OpenFile(path) as file, companions(*named, **names) as give:
        yield open_qcow2(file, give, FORMATS)


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw_disk(tmp_path_factory.mktemp("raw") / "disk.raw", SIZE, 1)


@pytest.fixture(scope="session")
def wanted(raw: Path) -> bytes:
    return raw.read_bytes()


def qemu_io(image: Path, *commands: str, format_: str = "qcow2") -> None:
    """Write with qemu-io, one command a word list: `write -P 7 0 4k`."""
    run("qemu-io", "-f", format_, *(word for command in commands for word in ("-c", command)), image)


def as_raw(image: Path) -> bytes:
    """What qemu-img reads."""
    target = image.with_name(image.name + ".oracle")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, target)
    content = target.read_bytes()
    target.unlink()
    return content


# ---- every way to write one ---------------------------------------------------------------------------

OPTIONS = [
    "compat=0.10",
    "compat=0.10,cluster_size=512",
    "compat=1.1",
    *(f"cluster_size={size}" for size in ("512", "1k", "4k", "16k", "64k", "256k", "2M")),
    *(f"extended_l2=on,cluster_size={size}" for size in ("16k", "64k", "2M")),
    "lazy_refcounts=on",
    *(f"preallocation={how}" for how in ("off", "metadata", "falloc", "full")),
    "preallocation=metadata,extended_l2=on",
    *(f"refcount_bits={bits}" for bits in (1, 8, 64)),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_an_image_is_the_disk_that_was_converted(
    tmp_path: Path, raw: Path, wanted: bytes, options: str
) -> None:
    with opened(convert(raw, tmp_path / "a.qcow2", "qcow2", options)) as image:
        assert image.format == "qcow2"
        check_image(image, wanted)


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
@pytest.mark.parametrize(
    "more", ["cluster_size=512", "cluster_size=64k", "cluster_size=2M", "extended_l2=on"]
)
def test_compressed_images_are_decompressed(
    tmp_path: Path, raw: Path, wanted: bytes, kind: str, more: str
) -> None:
    path = convert(raw, tmp_path / "a.qcow2", "qcow2", f"compression_type={kind},{more}", extra=["-c"])
    with opened(path) as image:
        check_image(image, wanted, block=4096 if "512" in more else 64 << 10)


def test_compressed_and_plain_clusters_stand_side_by_side(tmp_path: Path, raw: Path) -> None:
    path = convert(raw, tmp_path / "a.qcow2", "qcow2", extra=["-c"])
    rng = random.Random(3)
    qemu_io(path, *(f"write -P {n} {rng.randrange(SIZE // 512 - 64) * 512} 20k" for n in range(1, 20)))
    with opened(path) as image:
        check_image(image, as_raw(path))


def test_compression_that_is_cut_off_at_the_end_of_the_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(disk_bytes(65536, 1))
    path = convert(tmp_path / "a.raw", tmp_path / "a.qcow2", "qcow2", extra=["-c"])
    # QEMU pads the file to a sector, or to a cluster. Nothing but the stream has to be there.
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content)
    with opened(path) as image:
        check_image(image, (tmp_path / "a.raw").read_bytes())


@pytest.mark.parametrize("extended", ["on", "off"])
@pytest.mark.parametrize("cluster", ["16k", "64k"])
def test_clusters_written_in_any_order_are_put_in_order(tmp_path: Path, extended: str, cluster: str) -> None:
    path, size = tmp_path / "a.qcow2", 4 * MIB
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"extended_l2={extended},cluster_size={cluster}",
        path, str(size))  # fmt: skip
    rng = random.Random(5)
    places = rng.sample(range(0, size - 65536, 512), 150)
    commands = [
        f"write -P {n % 255 + 1} {at} {rng.choice((512, 4096, 20480))}" for n, at in enumerate(places)
    ]
    commands += [f"{rng.choice(('write -z', 'write -zu', 'discard'))} {at} 24k" for at in places[::4]]
    rng.shuffle(commands)
    qemu_io(path, *commands)
    with opened(path) as image:
        check_image(image, as_raw(path))


def test_zeroed_clusters_are_zeros_whether_allocated_or_not(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    qemu_io(path, "write -P 1 0 256k", "write -z 64k 64k", "write -zu 128k 64k", "write -z 512k 64k")
    with opened(path) as image:
        check_image(image, as_raw(path))
        assert [(e.start >> 16, e.length >> 16, e.kind) for e in image.extents()] == [
            (0, 1, ExtentKind.DATA),
            (1, 2, ExtentKind.ZERO),
            (3, 1, ExtentKind.DATA),
            (4, 4, ExtentKind.HOLE),
            (8, 1, ExtentKind.ZERO),
            (9, 7, ExtentKind.HOLE),
        ]


def test_internal_snapshots_do_not_show(tmp_path: Path, raw: Path) -> None:
    path = convert(raw, tmp_path / "a.qcow2", "qcow2")
    run("qemu-img", "snapshot", "-c", "before", path)
    qemu_io(path, "write -P 7 0 300k", "write -P 8 2M 100k", "write -z 3M 100k")
    run("qemu-img", "snapshot", "-c", "middle", path)
    qemu_io(path, "write -P 9 100k 300k")
    with opened(path) as image:
        check_image(image, as_raw(path))


def test_an_image_that_was_not_closed_is_read(tmp_path: Path) -> None:
    """Lazy refcounts: the dirty bit is set, and only refcounts may be wrong."""
    path = tmp_path / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", path, "1M")
    run("sh", "-c", f"qemu-io -f qcow2 -c 'write -P 5 0 70k' -c flush -c abort {path} || true")
    assert path.read_bytes()[79] & 1
    with opened(path) as image:
        check_image(image, b"\5" * 71680 + bytes(MIB - 71680))


@pytest.mark.parametrize("size", [0, 512, 65536, 65536 + 512])
def test_small_disks_are_read(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.raw").write_bytes(disk_bytes(size, 2))
    with opened(convert(tmp_path / "a.raw", tmp_path / "a.qcow2", "qcow2")) as image:
        check_image(image, disk_bytes(size, 2))


def test_a_huge_empty_disk_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", path, str(1 << 60))
    qemu_io(path, f"write -P 3 {1 << 59} 512")
    with opened(path) as image:
        assert [(e.start, e.length) for e in image.extents() if e.kind is ExtentKind.DATA] == [
            (1 << 59, 2 * MIB)
        ]
        assert read_disk(image, 1024, 1 << 59, (1 << 59) + 1024) == b"\3" * 512 + bytes(512)


def test_clusters_that_were_allocated_ahead_and_never_written_are_holes(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", path, "64M")
    qemu_io(path, "write -P 1 1M 64k", "write -P 2 20M 1M", "write -P 3 63M 1M")
    with opened(path) as image:
        assert check_extents(image, as_raw(path)) < 4 * MIB
        check_image(image, as_raw(path))


def test_an_image_inside_an_archive_is_read_in_place(tmp_path: Path, raw: Path, wanted: bytes) -> None:
    path = convert(raw, tmp_path / "a.qcow2", "qcow2", "preallocation=metadata")
    size = path.stat().st_size
    (tmp_path / "a.tar").write_bytes(b"x" * 1536 + path.read_bytes() + b"y" * 512)
    with OpenFile(tmp_path / "a.tar") as file, companions() as give:
        check_image(open_qcow2(FilePart(file, 1536, size, "a.qcow2"), give, FORMATS), wanted)


# ---- overlays -----------------------------------------------------------------------------------------


def overlay(path: Path, backing: Path, format_: str, *, options: str = "", size: str = "") -> Path:
    more = ("-o", options) if options else ()
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", backing.name, "-F", format_, *more, path.name,
        *([size] if size else []), cwd=path.parent)  # fmt: skip
    return path


@pytest.mark.parametrize("options", ["", "extended_l2=on", "cluster_size=4k", "compat=0.10"])
@pytest.mark.parametrize("base", ["raw", "qcow2"])
def test_an_overlay_is_read_through_to_its_base(tmp_path: Path, raw: Path, options: str, base: str) -> None:
    bottom = convert(raw, tmp_path / f"base.{base}", base)
    path = overlay(tmp_path / "a.qcow2", bottom, base, options=options)
    commands = ["write -P 1 100k 200k", "write -P 2 1M 512", "write -z 2M 300k", "discard 3M 200k"]
    if "0.10" in options:
        commands = commands[:2]
    qemu_io(path, *commands)
    with opened(path, bottom) as image:
        check_image(image, as_raw(path))


@pytest.mark.parametrize("extended", ["on", "off"])
def test_zeroed_subclusters_hide_the_base(tmp_path: Path, raw: Path, extended: str) -> None:
    bottom = convert(raw, tmp_path / "base.qcow2", "qcow2", extra=["-c"])
    path = overlay(tmp_path / "a.qcow2", bottom, "qcow2", options=f"extended_l2={extended}")
    rng = random.Random(4)
    for n in range(60):
        at = rng.randrange(SIZE // 2048 - 20) * 2048
        qemu_io(path, f"write -z {at} {rng.choice((2, 4, 10, 30))}k", f"write -P {n + 1} {at + 8192} 2k")
    with opened(path, bottom) as image:
        check_image(image, as_raw(path))


@pytest.mark.parametrize("size", ["1M", "3000k", "8M"])
def test_an_overlay_may_be_smaller_or_larger_than_its_base(tmp_path: Path, raw: Path, size: str) -> None:
    middle = overlay(tmp_path / "middle.qcow2", convert(raw, tmp_path / "base.raw", "raw"), "raw", size=size)
    qemu_io(middle, "write -P 1 100k 200k")
    path = overlay(tmp_path / "a.qcow2", middle, "qcow2", size="9M")
    qemu_io(path, "write -P 2 8500k 64k", "write -P 3 70k 1k")
    with opened(path, middle, tmp_path / "base.raw") as image:
        check_image(image, as_raw(path))


def test_a_long_chain_is_read_and_an_endless_one_is_not(tmp_path: Path) -> None:
    paths = [tmp_path / "0.qcow2"]
    run("qemu-img", "create", "-q", "-f", "qcow2", paths[0], "1M")
    for n in range(1, 66):
        paths.append(tmp_path / f"{n}.qcow2")
        run(
            "qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-u",
            "-b",
            paths[-2].name,
            "-F",
            "qcow2",
            paths[-1],
            "1M",
        )
        if n < 10:
            qemu_io(paths[-1], f"write -P {n} {n * 60}k {n}k")
    with opened(paths[64], *paths[:64]) as image:
        check_image(image, as_raw(paths[9]), seed=9)
    with pytest.raises(ImageRefused, match="64 images on top"), opened(paths[65], *paths[:65]):
        pass


# ---- what images must not get -------------------------------------------------------------------------

CANARY = b"canary, canary, canary"


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(CANARY * 4096)
    return path


def test_a_backing_file_that_nobody_named_is_refused(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "a.qcow2"
    for name in (str(canary), f"file:{canary}", f'json:{{"driver":"file","filename":"{canary}"}}'):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", name, "-F", "raw", path, "1M")
        with pytest.raises(ImageRefused, match="nobody named it"), opened(path, tmp_path / "a.qcow2"):
            pass


def test_a_backing_file_of_unknown_format_is_refused_and_not_probed(tmp_path: Path, raw: Path) -> None:
    bottom = convert(raw, tmp_path / "base.qcow2", "qcow2")
    path = tmp_path / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", bottom.name, "-F", "qed", path, "1M")
    with pytest.raises(ImageRefused, match="format qed"), opened(path, bottom):
        pass
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\xe2\x79\x2a\xca", b"none"))
    with pytest.raises(ImageRefused, match="does not say of what format"), opened(path, bottom):
        pass


def test_a_raw_base_that_looks_like_qcow2_is_raw(tmp_path: Path, canary: Path) -> None:
    bottom = tmp_path / "base.raw"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", str(canary), "-F", "raw", bottom, "1M")
    content = bottom.read_bytes()
    path = overlay(tmp_path / "a.qcow2", bottom, "raw")
    with opened(path, bottom) as image:
        assert read_disk(image, 65536)[: len(content)] == content


def test_a_chain_that_bites_its_tail_is_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "a.qcow2", tmp_path / "b.qcow2"
    for path, below in ((first, second), (second, first)):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", below.name, "-F", "qcow2", path, "1M")
    with pytest.raises(ImageRefused, match="below itself"), opened(first, first, second):
        pass


@pytest.mark.parametrize("raw_flag", ["on", "off"])
def test_an_external_data_file_is_read_when_it_is_named(tmp_path: Path, raw: Path, raw_flag: str) -> None:
    path, data = tmp_path / "a.qcow2", tmp_path / "data.bin"
    options = f"data_file={data},data_file_raw={raw_flag}"
    convert(raw, path, "qcow2", options)
    qemu_io(path, "write -P 1 0 64k", "write -z 64k 64k", "write -z 1M 1M", "discard 3M 300k")
    with opened(path, **{str(data): data}) as image:
        check_image(image, as_raw(path))
    with pytest.raises(ImageRefused, match="nobody named it"), opened(path, data):
        pass


def test_an_external_data_file_without_a_name_is_refused(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={canary},data_file_raw=on", path, "64k")
    content = path.read_bytes()
    where = content.index(b"DATA\0\0")
    path.write_bytes(content[:where] + b"none" + content[where + 4 :])
    with pytest.raises(ImageRefused, match="does not say in which"), opened(path, canary):
        pass


def test_encrypted_and_ancient_images_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    content = path.read_bytes()
    for method in (1, 2):
        path.write_bytes(content[:35] + bytes([method]) + content[36:])
        with pytest.raises(ImageRefused, match="encrypted"), opened(path):
            pass
    run("qemu-img", "create", "-q", "-f", "qcow", path, "1M")
    with pytest.raises(ImageRefused, match="version 1"), opened(path):
        pass


def test_an_image_is_opened_by_its_name_and_content(tmp_path: Path, raw: Path, wanted: bytes) -> None:
    path = convert(raw, tmp_path / "a.qcow2", "qcow2")
    with OpenFile(path) as file, companions() as give:
        image = open_image(file, give)
        assert image.format == "qcow2"
        assert read_disk(image, MIB) == wanted
