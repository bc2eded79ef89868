"""How the mount reads: cache, threads, reading ahead. No kernel involved."""

from __future__ import annotations

import errno
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyfuse3
import pytest
import trio

from holdfast.base.errors import Damaged, HoldfastError, MissingChunk, NoSpace, StoreError
from holdfast.fusefs.bridge import Bridge, Result
from holdfast.fusefs.catalog import Catalog
from holdfast.fusefs.daemon import describe_error, rebuild_error
from holdfast.fusefs.errors import MountFailed
from holdfast.fusefs.guard import handler
from holdfast.fusefs.handle import AnswerBuffer, StoredFileHandle, Streams
from holdfast.fusefs.live_tree import LiveTree
from holdfast.fusefs.loader import ChunkLoader
from holdfast.fusefs.operations import HoldfastOperations
from holdfast.repo.core.mirrored import trash_mirrored
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import Item
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.memory import MemoryStore
from holdfast.tree.build import Tree
from support.basics import new_repository, random_bytes, store_file

KIB = 1 << 10
MIB = 1 << 20
CHUNK = 64 * KIB


class SlowStore(MemoryStore):
    """A store whose packs are never in the page cache, and that counts what is read of them."""

    def __init__(self) -> None:
        super().__init__()
        self.pack_reads = 0
        self.readers: set[str] = set()

    def read(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if kind is FileKind.PACK:
            self.pack_reads += 1
            self.readers.add(threading.current_thread().name)
        return super().read(kind, name, offset, length)

    def read_cached(self, kind: FileKind, name: str, offset: int, length: int) -> bytes | None:
        return None


@pytest.fixture
def slow_repository(tmp_path: Path) -> Iterator[Repository]:
    with new_repository(SlowStore(), tmp_path / "cache") as repository:
        yield repository


class Bench:
    """Open files of one repository inside trio."""

    def __init__(self, repository: Repository, bridge: Bridge, cache: int) -> None:
        self.reader = Reader(repository, chunk_cache=cache)
        self.loader = ChunkLoader(repository, self.reader, bridge)
        self.streams = Streams(cache // 4)
        self._bridge = bridge
        self._answer = AnswerBuffer()

    def open(self, item: Item) -> StoredFileHandle:
        return StoredFileHandle(
            item,
            self.reader,
            loader=self.loader,
            bridge=self._bridge,
            streams=self.streams,
            answer=self._answer,
        )


def in_trio(repository: Repository, work: Callable[[Bench], Awaitable[None]], cache: int = 96 * MIB) -> None:
    async def main() -> None:
        with Bridge(threads=3) as bridge, trio.fail_after(60):
            await work(Bench(repository, bridge, cache))

    trio.run(main)


def parts_of(chunks: int, seed: int) -> list[bytes | int]:
    """Chunks with a hole now and then."""
    found: list[bytes | int] = []
    for n in range(chunks):
        found.append(random_bytes(CHUNK, seed * 10_000 + n))
        if n % 7 == 3:
            found.append(3 * CHUNK)
    return found


def content_of(parts: list[bytes | int]) -> bytes:
    return b"".join(bytes(part) if isinstance(part, int) else part for part in parts)


@pytest.mark.parametrize("store", ["quick", "slow"])
def test_any_range_is_what_was_stored(
    store: str, memory_repository: Repository, slow_repository: Repository
) -> None:
    repository = memory_repository if store == "quick" else slow_repository
    parts = parts_of(40, 1)
    content = content_of(parts)
    item = store_file(repository, parts)
    seeds = random.Random(1)

    async def work(bench: Bench) -> None:
        file = bench.open(item)
        for _ in range(300):
            offset = seeds.randrange(len(content) + 100)
            length = seeds.choice([0, 1, 4096, 4097, CHUNK, 3 * CHUNK + 1, 2 * MIB])
            assert await file.read(offset, length) == content[offset : offset + length]
        file.close()

    in_trio(repository, work, cache=MIB)


def test_reading_on_decodes_ahead_on_the_threads(slow_repository: Repository) -> None:
    parts = parts_of(100, 2)
    content = content_of(parts)
    item = store_file(slow_repository, parts)
    store = slow_repository.store
    assert isinstance(store, SlowStore)

    async def work(bench: Bench) -> None:
        file = bench.open(item)
        store.readers.clear()
        for offset in range(0, 4 * CHUNK, CHUNK):
            assert await file.read(offset, CHUNK) == content[offset : offset + CHUNK]
        assert bench.streams.count == 1
        with trio.fail_after(20):
            while bench.reader.chunks.size < 2 * MIB:
                await trio.sleep(0.005)
        reads = store.pack_reads
        for offset in range(4 * CHUNK, 12 * CHUNK, CHUNK):
            assert await file.read(offset, CHUNK) == content[offset : offset + CHUNK]
        assert all(name.startswith("holdfast-mount") for name in store.readers)
        assert store.pack_reads - reads < 12  # runs of what lies further ahead, not one for each chunk
        file.close()
        assert bench.streams.count == 0

    in_trio(slow_repository, work)


def test_jumping_about_decodes_nothing_ahead(slow_repository: Repository) -> None:
    parts: list[bytes | int] = [random_bytes(CHUNK, n) for n in range(100)]
    item = store_file(slow_repository, parts)

    async def work(bench: Bench) -> None:
        file = bench.open(item)
        for n in range(10):
            await file.read((n * 37 % 100) * CHUNK, 4096)
        assert bench.reader.chunks.size == 10 * CHUNK
        assert bench.streams.count == 0

    in_trio(slow_repository, work)


def test_chunk_that_many_want_is_read_once(slow_repository: Repository) -> None:
    item = store_file(slow_repository, [random_bytes(CHUNK, 1)])
    store = slow_repository.store
    assert isinstance(store, SlowStore)

    async def work(bench: Bench) -> None:
        files = [bench.open(item) for _ in range(8)]
        await files[0].read(0, 0)
        bench.reader.node(item.recipe)
        store.pack_reads = 0
        async with trio.open_nursery() as nursery:
            for file in files:
                nursery.start_soon(file.read, 0, 4096)
        assert store.pack_reads == 1

    in_trio(slow_repository, work)


@pytest.mark.parametrize("store", ["quick", "slow"])
def test_damage_is_an_error_there_and_nowhere_else(
    store: str, memory_repository: Repository, slow_repository: Repository
) -> None:
    repository = memory_repository if store == "quick" else slow_repository
    parts: list[bytes | int] = [random_bytes(CHUNK, n) for n in range(10)]
    item = store_file(repository, parts)
    bad = list(Reader(repository).recipe(item).extents())[4]
    assert bad.id is not None
    place = repository.index.locations(bad.id)[0]
    assert isinstance(repository.store, MemoryStore)
    pack = bytearray(repository.store.files[FileKind.PACK, place.pack])
    pack[place.offset + 1000] ^= 1
    repository.store.files[FileKind.PACK, place.pack] = bytes(pack)

    async def work(bench: Bench) -> None:
        file = bench.open(item)
        for offset, part in zip(range(0, 10 * CHUNK, CHUNK), parts, strict=True):
            if offset == bad.start:
                with pytest.raises(Damaged, match=bad.id.hex() if bad.id else ""):
                    await file.read(offset, 4096)
            else:
                assert await file.read(offset, CHUNK) == part
        with pytest.raises(Damaged):
            await file.read(0, 10 * CHUNK)

    in_trio(repository, work)


def test_pack_that_is_gone_is_a_missing_chunk(slow_repository: Repository) -> None:
    item = store_file(slow_repository, [random_bytes(CHUNK, n) for n in range(5)])
    reader = Reader(slow_repository)
    list(reader.recipe(item).extents())

    async def work(bench: Bench) -> None:
        file = bench.open(item)
        bench.reader.node(item.recipe)
        assert isinstance(slow_repository.store, MemoryStore)
        for kind, name in list(slow_repository.store.files):
            if kind is FileKind.PACK:
                slow_repository.store.delete(kind, name)
        for length in (4096, 5 * CHUNK):
            with pytest.raises(MissingChunk):
                await file.read(0, length)

    in_trio(slow_repository, work)


def test_streams_share_the_room() -> None:
    streams = Streams(24 * MIB)
    windows = []
    for streams.count in (0, 1, 2, 4, 100):
        windows.append(streams.window)
    assert windows == [16 * MIB, 16 * MIB, 12 * MIB, 6 * MIB, MIB]


# ---- the bridge ---------------------------------------------------------------------------------------


def test_bridge_brings_results_and_errors_and_prefers_who_waits() -> None:
    async def main() -> None:
        order: list[str] = []
        hold, held = threading.Event(), threading.Event()

        def block() -> None:
            held.set()
            hold.wait(120)

        def note(result: Result[str]) -> None:
            order.append(result.get())

        with Bridge(threads=1) as bridge:
            assert await bridge.run(lambda: 6 * 7) == 42
            with pytest.raises(ZeroDivisionError):
                await bridge.run(lambda: 1 // 0)
            bridge.post(block, lambda result: None, urgent=True)
            held.wait(120)
            bridge.post(lambda: "ahead", note, urgent=False)
            bridge.post(lambda: "urgent", note, urgent=True)
            hold.set()
            with trio.fail_after(20):
                while len(order) < 2:
                    await trio.sleep(0.001)
        assert order == ["urgent", "ahead"]

    trio.run(main)


# ---- the tree that follows the repository --------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def live(repository: Repository, bridge: Bridge) -> Iterator[tuple[LiveTree, Clock, list[tuple[int, str]]]]:
    catalog, clock = Catalog(repository), Clock()
    gone: list[tuple[int, str]] = []
    tree = catalog.update(None)
    assert isinstance(tree, Tree)
    yield (
        LiveTree(catalog, tree, bridge, invalidate=lambda ino, name: gone.append((ino, name)), clock=clock),
        clock,
        gone,
    )


def shown(tree: LiveTree) -> list[str]:
    root = tree.inodes.node(1)
    assert root is not None
    return [name for name in root.children["snapshots"].children if name]  # type: ignore[union-attr]


def test_live_tree_looks_at_most_once_a_second(memory_repository: Repository) -> None:
    store_file(memory_repository, [b"one"])

    async def main() -> None:
        with Bridge(threads=1) as bridge, live(memory_repository, bridge) as (tree, clock, gone):
            first = shown(tree)
            store_file(memory_repository, [b"two"], hours=1)
            await tree.look()
            assert shown(tree) == first
            clock.now += 1.5
            await tree.look()
            assert len(shown(tree)) == 2
            assert gone == []
            for stored in memory_repository.snapshots().good:
                trash_mirrored(memory_repository.store, FileKind.SNAPSHOT, stored.id)
            clock.now += 1.5
            await tree.look()
            assert shown(tree) == []
            assert {name for _, name in gone} >= set(first) | {"etc"}

    trio.run(main)


@pytest.mark.expects_warnings
def test_live_tree_goes_on_when_the_store_does_not_answer(
    memory_repository: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store_file(memory_repository, [b"one"])

    def fail(*_: object, **__: object) -> Iterator[None]:
        raise StoreError("list", "/repository", OSError(errno.EIO, "Input/output error"))

    async def main() -> None:
        with Bridge(threads=1) as bridge, live(memory_repository, bridge) as (tree, clock, _):
            first = shown(tree)
            monkeypatch.setattr(memory_repository.store, "listing", fail)
            clock.now += 2
            await tree.look()
            assert shown(tree) == first

    trio.run(main)
    assert "cannot list /repository" in caplog.text


@pytest.mark.expects_warnings
def test_damaged_snapshot_is_logged_once_and_left_out(
    memory_repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    store_file(memory_repository, [b"one"])
    store_file(memory_repository, [b"two"], hours=1)
    victim = memory_repository.snapshots().good[0].id
    assert isinstance(memory_repository.store, MemoryStore)
    for name in (victim, victim + ".2"):
        memory_repository.store.files[FileKind.SNAPSHOT, name] = b"nonsense"
    catalog = Catalog(memory_repository)
    tree = catalog.update(None)
    assert tree is not None
    assert list(tree.snapshots) == [memory_repository.snapshots().good[0].id]
    store_file(memory_repository, [b"three"], hours=2)
    assert catalog.update(tree) is not None
    assert len([r for r in caplog.records if victim in r.getMessage()]) == 1


# ---- small parts --------------------------------------------------------------------------------------


@pytest.mark.expects_warnings
def test_handlers_raise_nothing_but_fuse_errors(caplog: pytest.LogCaptureFixture) -> None:
    @handler
    async def fails(error: Exception) -> None:
        raise error

    async def main() -> None:
        for error, code in (
            (pyfuse3.FUSEError(errno.ENOENT), errno.ENOENT),
            (Damaged("chunk abc", "not authentic"), errno.EIO),
            (Damaged("chunk abc", "not authentic"), errno.EIO),
            (KeyError(7), errno.EIO),
        ):
            with pytest.raises(pyfuse3.FUSEError) as caught:
                await fails(error)
            assert caught.value.errno == code

    trio.run(main)
    messages = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert messages == ["fails: answered EIO: chunk abc: not authentic", "fails failed: answered EIO"]


def test_every_handler_is_guarded() -> None:
    for name, method in vars(HoldfastOperations).items():
        if name in vars(pyfuse3.Operations) and callable(method) and not name.startswith("__"):
            assert hasattr(method, "__wrapped__"), name


@pytest.mark.parametrize(
    "error",
    [
        Damaged("pack abc", "not authentic", offset=64),
        NoSpace("write", "/repository/packs", OSError(errno.ENOSPC, "No space left on device")),
        MountFailed("no /dev/fuse"),
    ],
)
def test_errors_come_back_from_the_daemon_as_they_were(error: HoldfastError) -> None:
    back = rebuild_error(describe_error(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_strange_errors_of_the_daemon_become_mount_failures() -> None:
    back = rebuild_error(describe_error(ZeroDivisionError("division by zero")))
    assert isinstance(back, MountFailed)
    assert "ZeroDivisionError: division by zero" in str(back)
