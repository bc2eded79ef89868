"""Disks read from real NBD servers: whole, by their holes, and by what a dirty bitmap says has changed."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.base.errors import SourceError, StreamFailed
from holdfast.ingest.nbd.source import NbdSource
from holdfast.ingest.nbd.uri import NbdAddress, is_nbd_uri, parse_uri
from holdfast.ingest.pipeline.changes import ingest_changes
from holdfast.ingest.pipeline.changes_plan import find_bitmap_parent
from holdfast.ingest.pipeline.pipeline import IngestResult, Pipeline
from holdfast.ingest.sources.source import HEAD_SIZE, FileSource, Source
from holdfast.repo.chunks.chunker import DISK
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.snapshots.snapshot import BadRange, ItemKind, StoredSnapshot
from support.basics import ignore, make_item, make_snapshot, random_bytes, read_all, read_item
from support.nbd import kill, nbdkit, qemu_img, qemu_io, qemu_nbd

MIB = 1 << 20
KIB = 1 << 10


def sparse_disk(path: Path) -> bytes:
    """10 MiB of which the third to the seventh are a hole, with a lonely block inside."""
    content = bytearray(random_bytes(10 * MIB, 1))
    content[2 * MIB : 7 * MIB] = bytes(5 * MIB)
    content[4 * MIB : 4 * MIB + 4096] = random_bytes(4096, 2)
    with path.open("wb") as file:
        file.truncate(len(content))
        for at in (*range(0, 2 * MIB, MIB), *range(7 * MIB, 10 * MIB, MIB)):
            file.seek(at)
            file.write(content[at : at + MIB])
        file.seek(4 * MIB)
        file.write(content[4 * MIB : 4 * MIB + 4096])
    return bytes(content)


def uri(path: str, export: str = "") -> str:
    return f"nbd+unix:///{export}?socket={path}"


# ---- URIs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("nbd://host", NbdAddress("", host="host", port=10809)),
        ("nbd://host/", NbdAddress("", host="host", port=10809)),
        ("nbd://host:10810/vm/disk%201", NbdAddress("vm/disk 1", host="host", port=10810)),
        ("NBD://[::1]:1/%2F", NbdAddress("/", host="::1", port=1)),
        ("nbd+unix:///?socket=/run/q.sock", NbdAddress("", socket="/run/q.sock")),
        ("nbd+unix:///sda?socket=a%20b", NbdAddress("sda", socket="a b")),
    ],
)
def test_uris_are_understood(text: str, address: NbdAddress) -> None:
    assert is_nbd_uri(text)
    assert parse_uri(text) == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nbds://host/x", "TLS is not supported"),
        ("nbds+unix:///x?socket=/s", "TLS is not supported"),
        ("nbd+vsock://2/x", "cannot connect by nbd\\+vsock"),
        ("nbd:///x", "write nbd://HOST"),
        ("nbd://host/x?socket=/s", "write nbd://HOST"),
        ("nbd+unix:///x", "write nbd\\+unix:///EXPORT"),
        ("nbd+unix://host/x?socket=/s", "write nbd\\+unix:///EXPORT"),
        ("nbd://host:99999/", "not an NBD URI"),
        ("nbd://host:x/", "not an NBD URI"),
        ("nbd://[::1/", "not an NBD URI"),
        ("nbd://user@host/", "no user name"),
        ("nbd://host/#x", "no fragment"),
        ("nbd://host/%ff", "not UTF-8"),
        ("nbd://host/" + "x" * 5000, "longer than"),
        ("nbd://host/?tls-certificates=x", "unknown option tls-certificates"),
    ],
)
def test_uris_that_cannot_be_followed_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        NbdSource(text)
    assert is_nbd_uri(text)
    assert not is_nbd_uri("/dev/nbd0")


@pytest.mark.parametrize(
    "text", ["nbd://user:secret@host/", "nbds://user:secret@host/x", "nbd://a:secret@h:x/"]
)
def test_a_password_in_a_uri_is_not_repeated(text: str) -> None:
    with pytest.raises(SourceError) as caught:
        NbdSource(text)
    assert "secret" not in str(caught.value)


def test_nobody_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot connect: No such file"):
        NbdSource(uri(str(tmp_path / "none")))
    with pytest.raises(SourceError, match="cannot connect"):
        NbdSource("nbd://127.0.0.1:1/", timeout=5)
    with pytest.raises(SourceError, match="no name of a host"):
        NbdSource(f"nbd://{'a' * 80}/")


# ---- whole disks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_a_disk_is_read_whole_and_its_holes_are_not(tmp_path: Path, format_: str) -> None:
    content = sparse_disk(tmp_path / "disk.raw")
    qemu_img("convert", "-f", "raw", "-O", format_, tmp_path / "disk.raw", tmp_path / "image")
    with (
        qemu_nbd(tmp_path, "-r", "-f", format_, str(tmp_path / "image")) as server,
        NbdSource(uri(server)) as source,
    ):
        assert (source.name, source.size, source.head) == ("disk", len(content), content[:HEAD_SIZE])
        assert source.is_device
        extents = list(source.extents(holes=True))
        assert sum(e.length or 0 for e in extents if e.is_hole) >= 4 * MIB
        before = source.received
        assert read_all(source, unit=300 * KIB) == content
        assert source.received - before < 6 * MIB
        assert read_all(source, holes=False, unit=4 * MIB) == content
        assert (source.finish(), source.bad) == ("", [])


def test_a_named_export_gives_the_disk_its_name(tmp_path: Path) -> None:
    sparse_disk(tmp_path / "disk.raw")
    options = ["-r", "-f", "raw", "-x", "pool/vm 1", str(tmp_path / "disk.raw")]
    with qemu_nbd(tmp_path, *options) as server:
        with NbdSource(uri(server, "pool/vm%201")) as source:
            assert source.name == "vm 1"
        with pytest.raises(SourceError, match=r"no such export.*; it offers 'pool/vm 1'"):
            NbdSource(uri(server, "other"))


def test_a_disk_is_read_over_tcp(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        nbdkit(tmp_path, "-i", "127.0.0.1", "-p", str(port), "pattern", "1M"),
        NbdSource(f"nbd://127.0.0.1:{port}/") as source,
    ):
        expected = b"".join(n.to_bytes(8, "big") for n in range(0, MIB, 8))
        assert read_all(source) == expected


@pytest.mark.parametrize("size", [0, 1, 511, 4097, 1_000_001])
def test_odd_sizes_are_read(tmp_path: Path, size: int) -> None:
    with nbdkit(tmp_path, "pattern", str(size)) as server, NbdSource(uri(server)) as source:
        expected = b"".join(n.to_bytes(8, "big") for n in range(0, size + 8, 8))[:size]
        assert read_all(source) == expected
        assert source.head == expected[:HEAD_SIZE]


@pytest.mark.parametrize(
    ("minimum", "preferred", "maximum"),
    [(512, 512, 512), (512, 4096, "64K"), ("16K", "16K", "128K"), ("64K", "64K", "32M")],
)
def test_block_sizes_that_the_server_insists_on_are_kept(
    tmp_path: Path, minimum: object, preferred: object, maximum: object
) -> None:
    policy = [
        f"blocksize-minimum={minimum}",
        f"blocksize-preferred={preferred}",
        f"blocksize-maximum={maximum}",
        "blocksize-error-policy=error",
    ]
    with (
        nbdkit(tmp_path, "--filter=blocksize-policy", "pattern", "3M", *policy) as server,
        NbdSource(uri(server)) as source,
    ):
        expected = b"".join(n.to_bytes(8, "big") for n in range(0, 3 * MIB, 8))
        assert read_all(source, unit=4096 * 300) == expected
        assert read_all(source, unit=4096 * 15) == expected
        buffer = bytearray(8192)
        source.read_into(memoryview(buffer), 1_000_000)
        assert bytes(buffer) == expected[1_000_000:][:8192]
        assert source.bad == []


def test_a_server_without_structured_replies_gives_all_of_it_as_data(tmp_path: Path) -> None:
    with nbdkit(tmp_path, "--no-sr", "memory", "2M") as server, NbdSource(uri(server)) as source:
        assert [(e.length, e.is_hole) for e in source.extents(holes=True)] == [(2 * MIB, False)]
        assert read_all(source) == bytes(2 * MIB)
    with nbdkit(tmp_path, "memory", "2M") as server, NbdSource(uri(server)) as source:
        assert [(e.length, e.is_hole) for e in source.extents(holes=True)] == [(2 * MIB, True)]


def test_slow_replies_are_waited_for(tmp_path: Path) -> None:
    options = ["--filter=delay", "pattern", "8M", "rdelay=20ms"]
    with nbdkit(tmp_path, *options) as server, NbdSource(uri(server)) as source:
        assert len(read_all(source, unit=4 * MIB)) == 8 * MIB
    options[-1] = "rdelay=3"
    with nbdkit(tmp_path, *options) as server, pytest.raises(StreamFailed, match="does not answer in time"):
        NbdSource(uri(server), timeout=0.3)


# ---- what cannot be read ------------------------------------------------------------------------------


def test_blocks_that_cannot_be_read_are_listed_and_zero(tmp_path: Path) -> None:
    content = sparse_disk(tmp_path / "disk.raw")
    image = f"driver=blkdebug,image.driver=file,image.filename={tmp_path / 'disk.raw'}"
    for n, sector in enumerate([1000, 1001, 18000]):
        image += f",inject-error.{n}.event=none,inject-error.{n}.iotype=read,inject-error.{n}.sector={sector}"
        image += f",inject-error.{n}.errno=5,inject-error.{n}.once=off,inject-error.{n}.immediately=on"
    with qemu_nbd(tmp_path, "-r", "--image-opts", image) as server, NbdSource(uri(server)) as source:
        found = read_all(source, unit=4 * MIB)
        first, second = 1000 * 512 // 4096 * 4096, 18000 * 512 // 4096 * 4096
        for at in (first, second):
            content = content[:at] + bytes(4096) + content[at + 4096 :]
        assert found == content
        assert source.bad == [BadRange(at, 4096, "Input/output error") for at in (first, second)]


def test_a_disk_of_which_nothing_can_be_read_is_all_bad(tmp_path: Path) -> None:
    options = ["--filter=error", "memory", "300K", "error-pread=EIO", "error-pread-rate=100%"]
    with nbdkit(tmp_path, *options) as server, NbdSource(uri(server)) as source:
        assert source.head == b""
        assert read_all(source, holes=False) == bytes(300 * KIB)
        assert source.bad == [BadRange(0, 300 * KIB, "Input/output error")]


def test_a_server_that_goes_away_ends_the_backup(tmp_path: Path, memory_repository: Repository) -> None:
    with nbdkit(tmp_path, "pattern", "64M") as server, NbdSource(uri(server)) as source:
        list(source.extents(holes=True))
        source.read_into(memoryview(bytearray(4 * MIB)), 0)
        kill(tmp_path)
        with pytest.raises(StreamFailed, match="nothing was committed"):
            read_all(source)
    assert memory_repository.snapshots().good == ()


# ---- what has changed ---------------------------------------------------------------------------------


def test_a_bitmap_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", image, "10M")
    qemu_img("bitmap", "--add", image, "monday")
    options = ["-r", "-f", "qcow2", "--bitmap", "monday", str(image)]
    with (
        qemu_nbd(tmp_path, *options) as server,
        pytest.raises(SourceError, match="'tuesday'; the server offers 'monday'"),
    ):
        NbdSource(uri(server), bitmap="tuesday")
    with (
        nbdkit(tmp_path, "memory", "1M") as server,
        pytest.raises(SourceError, match="the server offers none"),
    ):
        NbdSource(uri(server), bitmap="monday")


PATH = "disks/sda.raw"


def keep(writer: Writer, ingested: IngestResult, checkpoint: str) -> StoredSnapshot:
    item = make_item(ingested.recipe, ingested.size, path=PATH, allocated=ingested.allocated, chunker=DISK)
    return writer.commit(make_snapshot(replace(item, kind=ItemKind.DISK, checkpoint=checkpoint)))


def back_up_whole(repository: Repository, source: Source, checkpoint: str = "") -> StoredSnapshot:
    with Writer(repository) as writer:
        pipeline = Pipeline(writer, repository.keys, ignore, threads=2)
        return keep(writer, pipeline.ingest(source, DISK, None), checkpoint)


def back_up_changes(
    repository: Repository, source: NbdSource, parent: StoredSnapshot, *, bitmap: str, checkpoint: str
) -> StoredSnapshot:
    with Writer(repository) as writer:
        known_complete = repository.index.is_known_complete(parent.id)
        found = find_bitmap_parent(parent, PATH, bitmap, source.size or 0, known_complete)
        assert found.item, found.reason
        pipeline = Pipeline(writer, repository.keys, ignore, threads=2)
        recipe = Reader(repository).recipe(found.item)
        ingested = ingest_changes(pipeline, source, DISK, recipe, source.dirty_extents())
        return keep(writer, ingested, checkpoint)


def test_an_incremental_backup_is_the_full_one_and_reads_what_changed(
    tmp_path: Path, memory_repository: Repository
) -> None:
    """Twice in a row, each time by the bitmap that began with the backup before."""
    raw, image = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(random_bytes(30 * MIB, 1) + bytes(10 * MIB) + random_bytes(24 * MIB, 2))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, image)
    qemu_img("bitmap", "--add", image, "monday")
    with qemu_nbd(tmp_path, "-r", "-f", "qcow2", str(image)) as server, NbdSource(uri(server)) as source:
        parent = back_up_whole(memory_repository, source, "monday")

    monday = [
        "write -P 7 5M 4k",
        "write -P 8 5063680 512",
        "write -z 12M 1M",
        "write -P 9 33M 100k",
        "discard 60M 1M",
    ]
    tuesday = ["write -P 1 0 4k", "write -P 2 67104768 4k", "write -P 3 13100000 70000"]
    for bitmap, following, changes in (("monday", "tuesday", monday), ("tuesday", "wednesday", tuesday)):
        qemu_io(image, *changes)
        qemu_img("bitmap", "--add", image, following)
        options = ["-r", "-f", "qcow2", "--bitmap", bitmap, str(image)]
        with qemu_nbd(tmp_path, *options) as server, NbdSource(uri(server), bitmap=bitmap) as source:
            parent = back_up_changes(memory_repository, source, parent, bitmap=bitmap, checkpoint=following)
            assert source.received < 4 * MIB
        qemu_img("convert", "-f", "qcow2", "-O", "raw", image, raw)
        with FileSource(raw) as whole:
            (full,) = back_up_whole(memory_repository, whole).snapshot.items
        (item,) = parent.snapshot.items
        assert (item.recipe, item.size, item.allocated) == (full.recipe, full.size, full.allocated)
        assert read_item(memory_repository, item) == raw.read_bytes()
    assert find_bitmap_parent(parent, PATH, "tuesday", item.size, True).item is None
