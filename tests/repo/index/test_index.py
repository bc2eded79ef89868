"""The index against a dictionary: packs come, go and come back, in several processes and under load."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, StoreError
from holdfast.base.types import PackID, SnapshotID
from holdfast.repo.index.hidden import HiddenTable
from holdfast.repo.index.idset import IdSet
from holdfast.repo.index.index import Directory, Index
from holdfast.repo.index.locations import Location
from holdfast.repo.index.opening import remove_index
from support.fault import fill, tiny_tmpfs
from support.index_examples import KEY, chunk, directory, opened, pack_id, sync


def places(packs: dict[int, list[int]], n: int) -> set[Location]:
    return {
        Location(pack_id(p), offset, header.size)
        for p, chunks in packs.items()
        for offset, header in directory(chunks)
        if header.id == chunk(n)
    }


SMALL_MAP = 256 << 10
packs_of_chunks = st.dictionaries(
    st.integers(0, 5), st.lists(st.integers(0, 30), max_size=12, unique=True), max_size=6
)
steps = st.lists(st.tuples(st.sampled_from(["sync", "add", "reopen", "delete"]), packs_of_chunks), max_size=6)


@settings(max_examples=40)
@given(
    steps,
    st.dictionaries(st.integers(0, 5), st.lists(st.integers(0, 30), max_size=12, unique=True), min_size=6),
)
def test_it_agrees_with_a_dictionary(
    plan: list[tuple[str, dict[int, list[int]]]], contents: dict[int, list[int]]
) -> None:
    """A pack's content never changes: what varies is which packs are listed when."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index = Index(folder, KEY)
        there: dict[int, list[int]] = {}
        try:
            for action, chosen in plan:
                listed = {p: contents.get(p, []) for p in chosen}
                if action == "add":
                    index.add([(pack_id(p), 1000 + p, directory(c)) for p, c in listed.items()])
                    there |= listed
                else:
                    if action in ("reopen", "delete"):
                        index.close()
                        if action == "delete":
                            remove_index(folder)
                        index = Index(folder, KEY)
                        assert index.lookup([chunk(n) for n in range(31)]) == [None] * 31
                    there = listed
                    sync(index, there)
                found = index.lookup([chunk(n) for n in range(31)])
                for n, location in enumerate(found):
                    expected = places(there, n)
                    assert (location in expected) if expected else (location is None)
                    assert set(index.locations(chunk(n))) == expected
                    assert len(index.locations(chunk(n))) == len(expected)
                assert {p for p in range(6) if index.is_listed(pack_id(p))} == there.keys()
                scanned = {key: set(found) for key, found in index.scan() if found}
                table_key = index.hidden.table_key
                assert scanned == {
                    table_key(chunk(n)): places(there, n) for n in range(31) if places(there, n)
                }
        finally:
            index.close()


def test_sync_says_what_it_did_and_reads_each_directory_once(tmp_path: Path) -> None:
    with opened(tmp_path) as index:
        first = sync(index, {1: [1, 2], 2: [2, 3]})
        assert (first.added, first.removed, first.rebuilt) == (2, 0, True)
        second = sync(index, {2: [2, 3], 3: [4]})
        assert (second.added, second.removed, second.rebuilt) == (1, 1, False)
        assert len(index) == 3
        index.sync([(pack_id(2), 1002)], lambda pack, size: pytest.fail("it is known"))


def test_a_pack_that_comes_back_is_read_again(tmp_path: Path) -> None:
    with opened(tmp_path) as index:
        for _ in range(3):
            sync(index, {1: [1, 2], 2: [2]})
            assert len(index.locations(chunk(2))) == 2
            sync(index, {2: [2]})
            assert index.lookup([chunk(1), chunk(2)])[0] is None
            assert {location.pack for location in index.locations(chunk(2))} == {pack_id(2)}


def test_a_damaged_directory_is_reported_and_the_others_are_entered(tmp_path: Path) -> None:
    def read(pack: PackID, size: int) -> Directory:
        if pack == pack_id(1):
            raise Damaged(f"pack {pack}", "not authentic")
        if pack == pack_id(2):
            raise FileNotFoundError(pack)
        return directory([3])

    with opened(tmp_path) as index:
        synced = index.sync([(pack_id(n), 1) for n in (1, 2, 3)], read)
        assert [pack_id(1) in str(error) for error in synced.damaged] == [True]
        assert index.lookup([chunk(3)])[0] is not None


def test_progress_counts_packs(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with opened(tmp_path) as index:
        index.sync(
            [(pack_id(n), 1) for n in range(3)], lambda p, s: [], lambda done, todo: seen.append((done, todo))
        )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_full_map_grows(tmp_path: Path) -> None:
    with opened(tmp_path, first_map=SMALL_MAP) as index:
        for p in range(20):
            sync(index, {q: list(range(1000 * q, 1000 * q + 1000)) for q in range(p + 1)})
        assert len(index) == 20_000
        assert None not in index.lookup([chunk(n) for n in range(20_000)])
        sync(index, {0: list(range(1000))})
        assert len(index) == 1000
    with opened(tmp_path, first_map=SMALL_MAP) as index:
        sync(index, {0: list(range(1000))})
        assert None not in index.lookup([chunk(n) for n in range(1000)])


def test_the_map_grows_while_other_threads_look_up_and_write(tmp_path: Path) -> None:
    wanted = [chunk(n) for n in range(200)]
    stop, failures = threading.Event(), []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    with opened(tmp_path, first_map=SMALL_MAP) as index:
        index.add([(pack_id(0), 1, directory(list(range(200))))])

        def look_up() -> None:
            try:
                while not stop.is_set():
                    assert None not in index.lookup(wanted)
            except BaseException as error:  # noqa: BLE001  handed to the test
                failures.append(error)

        def write(first: int) -> None:
            try:
                for p in range(first, first + 8):
                    index.add([(pack_id(p), 1, directory(list(range(1000 * p, 1000 * p + 1000))))])
            except BaseException as error:  # noqa: BLE001  handed to the test
                failures.append(error)

        readers = [threading.Thread(target=look_up) for _ in range(3)]
        writers = [threading.Thread(target=write, args=(first,)) for first in (100, 200)]
        try:
            for thread in readers + writers:
                thread.start()
            for thread in writers:
                thread.join()
        finally:
            stop.set()
            for thread in readers:
                thread.join()
            sys.setswitchinterval(interval)
        assert failures == []
        assert len(index) == 16_200


_GROW = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from support.index_examples import opened, sync
with opened(Path(sys.argv[2]), first_map=256 << 10) as index:
    sync(index, {p: list(range(1000 * p, 1000 * p + 1000)) for p in range(20)})
"""


def test_another_process_may_make_the_map_larger(tmp_path: Path) -> None:
    packs = {p: list(range(1000 * p, 1000 * p + 1000)) for p in range(20)}
    with opened(tmp_path, first_map=SMALL_MAP) as index:
        sync(index, {0: packs[0]})
        subprocess.run(
            [sys.executable, "-P", "-c", _GROW, str(Path(__file__).parents[2]), str(tmp_path)], check=True
        )
        assert index.lookup([chunk(5)])[0] is not None  # the first read after it
        index.add([(pack_id(99), 1, directory([99_999]))])
        index.sync(
            [(pack_id(p), 1000 + p) for p in packs],
            lambda pack, size: pytest.fail("the other one entered it"),
        )
        assert None not in index.lookup([chunk(n) for n in range(20_000)])


def filled(folder: Path) -> bytes:
    with opened(folder) as index:
        sync(index, {1: list(range(500))})
    return (folder / "data.mdb").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"garbage" * 10_000,
        lambda data: b"",
        lambda data: b"x",
        lambda data: bytes(len(data)),
        *(lambda data, n=n: data[: len(data) * n // 7] for n in range(1, 6)),
    ],
)
def test_a_broken_or_truncated_index_is_begun_anew(tmp_path: Path, damage: object) -> None:
    data = filled(tmp_path)
    (tmp_path / "data.mdb").write_bytes(damage(data))  # type: ignore[operator]  # one of the functions above
    with opened(tmp_path) as index:
        synced = sync(index, {1: list(range(500))})
        assert (synced.added, synced.rebuilt) == (1, True)
        assert None not in index.lookup([chunk(n) for n in range(500)])


def test_an_index_of_another_repository_is_begun_anew(tmp_path: Path) -> None:
    filled(tmp_path)
    with opened(tmp_path, b"another repo 16b") as index:
        assert len(index) == 0
        assert sync(index, {1: [1]}).rebuilt


def test_an_index_that_is_open_already_is_refused_and_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as index:
        sync(index, {1: [1]})
        with pytest.raises(StoreError, match="already open"):
            Index(tmp_path, KEY)
    with opened(tmp_path) as index:
        assert not sync(index, {1: [1]}).added


def test_a_place_that_cannot_be_a_folder_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="index"):
        Index(tmp_path / "file" / "index", KEY)


def test_removing_an_index_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    filled(tmp_path / "index")
    remove_index(tmp_path / "index")
    remove_index(tmp_path / "index")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("in_memory", [0, 3, 1000])
@pytest.mark.parametrize("on_disk", [True, False])
@given(batches=st.lists(st.lists(st.integers(0, 40), max_size=20), max_size=5))
def test_a_set_of_ids_says_which_were_new(batches: list[list[int]], in_memory: int, on_disk: bool) -> None:
    def scratch() -> Path | None:
        return Path(name) / "set" if on_disk else None

    with (
        tempfile.TemporaryDirectory() as name,
        IdSet(scratch, HiddenTable(KEY), in_memory=in_memory) as ids,
    ):
        seen: set[int] = set()
        for batch in batches:
            new = list(dict.fromkeys(n for n in batch if n not in seen))
            assert ids.add([chunk(n) for n in batch]) == [chunk(n) for n in new]
            seen |= set(new)
            assert not list(Path(name).iterdir())
        assert ids.contains([chunk(n) for n in range(41)]) == [n in seen for n in range(41)]


def test_a_set_of_ids_grows_and_leaves_no_name_even_while_it_is_used(tmp_path: Path) -> None:
    with IdSet(lambda: tmp_path / "set", HiddenTable(KEY), in_memory=1000, first_map=SMALL_MAP) as ids:
        assert len(ids.add([chunk(n) for n in range(20_000)])) == 20_000
        assert ids.add([chunk(n) for n in range(20_000)]) == []
        assert not list(tmp_path.iterdir())


def test_a_set_of_ids_that_finds_no_room_goes_on_in_memory(tmp_path: Path) -> None:
    with tiny_tmpfs(tmp_path, 1 << 20) as small:
        with IdSet(lambda: small / "set", HiddenTable(KEY), in_memory=1000) as ids:
            for n in range(0, 40_000, 500):
                assert len(ids.add([chunk(k) for k in range(n, n + 500)])) == 500
            assert all(ids.contains([chunk(n) for n in range(40_000)]))
            assert ids.add([chunk(n) for n in range(40_000)]) == []
        fill(small)
        with IdSet(lambda: small / "set", HiddenTable(KEY), in_memory=0) as ids:
            assert ids.add([chunk(1), chunk(2), chunk(1)]) == [chunk(1), chunk(2)]
            assert ids.contains([chunk(1), chunk(3)]) == [True, False]


# ---- indexes without a name ---------------------------------------------------------------------------


@pytest.mark.parametrize("on_disk", [True, False])
def test_an_index_of_one_process_does_all_that_others_do_and_leaves_no_name(
    tmp_path: Path, on_disk: bool
) -> None:
    scratch = tmp_path / "index" if on_disk else None
    with closing(Index(None, KEY, scratch=scratch, first_map=SMALL_MAP)) as index:
        sync(index, {n: list(range(n * 100, n * 100 + 100)) for n in range(1, 60)})
        assert not list(tmp_path.iterdir())
        assert len(index) == 5900
        assert index.locations(chunk(150))[0].pack == pack_id(1)
        assert sum(1 for _ in index.scan()) == 5900
        index.avoid({chunk(150): {pack_id(1)}})
        assert index.lookup([chunk(150), chunk(151)])[0] is None
        sync(index, {2: list(range(200, 300))})
        assert len(index) == 100


def test_threads_that_read_an_index_without_locks_while_another_writes_see_whole_answers() -> None:
    with closing(Index(None, KEY, first_map=SMALL_MAP)) as index:
        sync(index, {1: list(range(1000))})
        done = threading.Event()
        wrong: list[object] = []

        def read() -> None:
            while not done.is_set():
                found = index.lookup([chunk(n) for n in range(0, 1000, 7)])
                if not all(place and place.pack == pack_id(1) for place in found):
                    wrong.append(found)

        readers = [threading.Thread(target=read) for _ in range(3)]
        for each in readers:
            each.start()
        packs = {1: list(range(1000))}
        for n in range(2, 12):
            packs[n] = list(range(n * 1000, n * 1000 + 1000))
            sync(index, packs)
        done.set()
        for each in readers:
            each.join()
        assert not wrong
        assert len(index) == 11_000


# ---- vouching for snapshots ---------------------------------------------------------------------------


SNAPSHOT = SnapshotID("5a" * 32)


def test_the_index_vouches_for_a_snapshot_until_something_is_lost(tmp_path: Path) -> None:
    with opened(tmp_path) as index:
        sync(index, {1: [1, 2], 2: [3]})
        assert not index.is_known_complete(SNAPSHOT)
        index.record_complete(SNAPSHOT, index.loss_counter())
        sync(index, {1: [1, 2], 2: [3], 4: [5]})
        assert index.is_known_complete(SNAPSHOT)
        sync(index, {1: [1, 2], 4: [5]})
        assert not index.is_known_complete(SNAPSHOT)
        sync(index, {1: [1, 2], 2: [3], 4: [5]})
        assert not index.is_known_complete(SNAPSHOT)


def test_while_chunks_are_known_to_be_damaged_they_are_absent_there_and_nothing_is_vouched_for(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as index:
        sync(index, {1: [1, 2], 2: [2, 3]})
        index.record_complete(SNAPSHOT, index.loss_counter())
        index.avoid({chunk(2): {pack_id(1)}, chunk(1): {pack_id(1)}})
        assert not index.is_known_complete(SNAPSHOT)
        assert [place.pack for place in index.locations(chunk(2))] == [pack_id(2)]
        assert index.lookup([chunk(1)]) == [None]
        assert sorted(len(places) for _, places in index.scan()) == [0, 1, 1]
        index.avoid({})
        assert index.is_known_complete(SNAPSHOT)
        assert len(index.locations(chunk(2))) == 2


def test_nothing_is_vouched_for_while_packs_lie_in_the_trash(tmp_path: Path) -> None:
    with opened(tmp_path) as index:
        sync(index, {1: [1, 2], 2: [3]})
        index.record_complete(SNAPSHOT, index.loss_counter())
        index.sync([(pack_id(1), 1001)], lambda pack, size: [], trashed=[pack_id(2)])
        assert not index.is_known_complete(SNAPSHOT)
        assert index.lookup([chunk(3)]) == [None]
        assert [place.pack for place in index.trashed_locations(chunk(3))] == [pack_id(2)]
        sync(index, {1: [1, 2], 2: [3]})
        assert index.is_known_complete(SNAPSHOT)


def test_an_index_that_was_rebuilt_vouches_for_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as index:
        sync(index, {1: [1]})
        index.record_complete(SNAPSHOT, index.loss_counter())
    remove_index(tmp_path)
    with opened(tmp_path) as index:
        sync(index, {1: [1]})
        assert not index.is_known_complete(SNAPSHOT)
