"""Every byte flipped, files cut, zeroed, lost, swapped, doubled: found, and never served as data."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.base.errors import Damaged, HoldfastError, NoRepository, WrongPassword
from holdfast.base.types import SnapshotID
from holdfast.repo.core.keyslots import new_recovery_key
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import SubjectKind
from holdfast.repo.store.interface import FileKind, Store
from holdfast.repo.store.local import LocalStore
from holdfast.repo.store.memory import MemoryStore
from holdfast.repo.upkeep.check import Depth
from support.basics import PASSWORD, open_repository
from support.fault import (
    LONG,
    Content,
    add_key,
    all_contents,
    backup,
    contents,
    copy_memory,
    create,
    data,
    findings,
    in_child,
    index_of,
    later,
    local,
    repository_files,
    restored,
)
from support.scratch import fast_folder

DISK = b"a partition, more or less ".ljust(4096, b".") + bytes(4096) + data(1, 1024) + bytes(3072)
DUMP = b"INSERT INTO t VALUES (1, 'one');\n" * 20
FIRST: Content = {"web.raw": DISK}
SECOND: Content = {"dump.sql": DUMP, "notes.txt": b"kept with the dump\n"}


@dataclass
class Specimen:
    """A small repository, what its snapshots hold, and both its secrets."""

    recovery: str
    expected: dict[SnapshotID, Content]


def fill_repository(store: Store, cache: Path) -> Specimen:
    create(store)
    with open_repository(store, cache) as repository:
        recovery = new_recovery_key()
        add_key(repository, recovery)
        backup(repository, FIRST, name="web", kind=SubjectKind.VM)
        backup(repository, SECOND, name="shop", time=later(1))
        expected = all_contents(repository)
        assert sorted(map(len, expected.values())) == [1, 2]
        assert findings(repository) == []
    return Specimen(recovery, expected)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with fast_folder() as fast:
        yield fast


@pytest.fixture
def on_disk(folder: Path) -> tuple[Path, Specimen]:
    root = folder / "repository"
    store = LocalStore.create(root)
    specimen = fill_repository(store, folder / "cache")
    store.close()
    return root, specimen


def readable(repository: Repository) -> dict[SnapshotID, Content]:
    return {s.id: contents(repository, s.snapshot) for s in repository.snapshots().good}


def widened(specimen: Specimen, repository: Repository) -> Specimen:
    """The specimen with the snapshots that were made since; each has the content of one that was there."""
    by_name = {frozenset(content): content for content in specimen.expected.values()}
    expected = {
        stored.id: by_name[frozenset(item.path for item in stored.snapshot.items)]
        for stored in repository.snapshots().good
    }
    return Specimen(specimen.recovery, expected)


def assert_right_or_refused(repository: Repository, specimen: Specimen, *, fully: bool = True) -> int:
    """Reading gives the right bytes or raises; how many items could not be read."""
    refused = 0
    for stored in repository.snapshots().good:
        for read in (contents, restored) if fully else (contents,):
            try:
                assert read(repository, stored.snapshot) == specimen.expected[stored.id]
            except Damaged:
                refused += 1
    return refused


# ---- Flips ---------------------------------------------------------------------------------------------

BITS = range(8) if LONG else (None,)


def offsets(size: int) -> Iterator[int]:
    """All in the campaign; else both ends, where lengths, magic numbers and tags stand, and samples."""
    for offset in range(size):
        if LONG or offset < 256 or offset >= size - 256 or offset % 5 == 0:
            yield offset


@pytest.mark.slow
@pytest.mark.timeout(7200 if LONG else 300)
@pytest.mark.parametrize(
    "kind", [FileKind.CONFIG, FileKind.KEY, FileKind.KEYRING, FileKind.SNAPSHOT, FileKind.PACK]
)
@pytest.mark.parametrize("bit", BITS)
def test_every_flipped_byte_is_found_and_never_read_as_data(
    kind: FileKind, bit: int | None, folder: Path
) -> None:
    pristine = MemoryStore()
    specimen = fill_repository(pristine, folder)
    tried = 0
    for key in [k for k in pristine.files if k[0] is kind]:
        whole = pristine.files[key]
        for offset in offsets(len(whole)):
            flipped = bytearray(whole)
            flipped[offset] ^= 1 << (offset % 8 if bit is None else bit)
            store = copy_memory(pristine)
            store.files[key] = bytes(flipped)
            secret = specimen.recovery if offset % 2 else PASSWORD
            thorough = LONG or offset % 16 == 0
            with open_repository(store, folder, password=secret) as repository:
                if kind is FileKind.PACK:
                    # With the index from before the check.
                    assert_right_or_refused(repository, specimen, fully=thorough)
                # What is no pack must be found by the quickest check.
                deep = thorough or kind is FileKind.PACK
                found = findings(repository, Depth.READ_DATA if deep else Depth.STRUCTURE)
                where = store.describe(*key)
                assert any(where in f.where or key[1] in f.where + f.problem for f in found), (key, offset)
                if kind is FileKind.PACK and LONG:
                    assert_right_or_refused(repository, specimen)
                elif kind is not FileKind.PACK and thorough:
                    assert all_contents(repository) == specimen.expected, (key, offset)
                elif kind is not FileKind.PACK:
                    assert {s.id for s in repository.snapshots().good} == specimen.expected.keys()
            tried += 1
    assert tried > 600


def test_a_flipped_byte_in_a_chunk_names_the_pack_the_chunk_and_what_it_affects(folder: Path) -> None:
    store = MemoryStore()
    specimen = fill_repository(store, folder)
    key, whole = max(
        ((k, v) for k, v in store.files.items() if k[0] is FileKind.PACK), key=lambda kv: len(kv[1])
    )
    flipped = bytearray(whole)
    flipped[64 + 64 + 5] ^= 1  # head, first record's header, then its payload
    store.files[key] = bytes(flipped)
    with open_repository(store, folder) as repository:
        found = findings(repository)
        assert any(f.where == store.describe(*key) and f.problem.startswith("chunk ") for f in found)
        assert any(name.startswith("web@2026-11-22_02-00-00:") for f in found for name in f.affects)
        assert assert_right_or_refused(repository, specimen) == 2


def test_a_backup_after_the_check_heals_a_flipped_chunk(folder: Path) -> None:
    store = MemoryStore()
    specimen = fill_repository(store, folder)
    for key, whole in list(store.files.items()):
        if key[0] is FileKind.PACK:
            flipped = bytearray(whole)
            flipped[64 + 64 + 5] ^= 1
            store.files[key] = bytes(flipped)
    with open_repository(store, folder) as repository:
        assert findings(repository)
        assert assert_right_or_refused(repository, specimen) == 4
        backup(repository, FIRST, name="web", kind=SubjectKind.VM, time=later(2))
        backup(repository, SECOND, name="shop", time=later(3))
        assert assert_right_or_refused(repository, widened(specimen, repository)) == 0


# ---- Files cut, zeroed, lost, swapped, doubled -----------------------------------------------------------


def truncations(whole: bytes) -> Iterator[bytes]:
    for length in (0, 1, 8, 63, 64, 65, 127, 128, len(whole) // 2, len(whole) - 64, len(whole) - 1):
        if 0 <= length < len(whole):
            yield whole[:length]


def zeroed(whole: bytes) -> Iterator[bytes]:
    for start in range(0, len(whole), 4096):
        yield whole[:start] + bytes(len(whole[start : start + 4096])) + whole[start + 4096 :]


def grown(whole: bytes) -> Iterator[bytes]:
    yield whole + b"\0"
    yield whole + bytes(4096)
    yield whole * 2


@pytest.mark.parametrize("damage", [truncations, zeroed, grown])
def test_a_file_of_the_wrong_bytes_or_length_is_found_with_its_path(
    damage: Callable[[bytes], Iterator[bytes]], on_disk: tuple[Path, Specimen], folder: Path
) -> None:
    root, specimen = on_disk
    for path in repository_files(root):
        whole = path.read_bytes()
        for wrong in damage(whole):
            path.write_bytes(wrong)
            with local(root) as store, open_repository(store, folder / "cache") as repository:
                assert_right_or_refused(repository, specimen)
                found = findings(repository)
                assert any(str(path) in f.where or path.name in f.where + f.problem for f in found), path
                if "packs" not in path.parts:
                    assert all_contents(repository) == specimen.expected
                else:
                    assert_right_or_refused(repository, specimen)
        path.write_bytes(whole)
    with local(root) as store, open_repository(store, folder / "cache") as repository:
        assert findings(repository) == []
        assert all_contents(repository) == specimen.expected


def test_one_missing_file_is_found_and_costs_nothing_unless_it_is_a_pack(
    on_disk: tuple[Path, Specimen], folder: Path
) -> None:
    root, specimen = on_disk
    for path in repository_files(root):
        whole = path.read_bytes()
        path.unlink()
        with local(root) as store, open_repository(store, folder / "cache") as repository:
            for depth in (Depth.REACHABLE, Depth.READ_DATA):
                found = findings(repository, depth)
                assert found, path
            if "packs" in path.parts:
                assert any(f.affects for f in found)
                assert assert_right_or_refused(repository, specimen) > 0
            else:
                assert any(f.where == str(path) and "missing" in f.problem for f in found)
                assert all_contents(repository) == specimen.expected
        path.write_bytes(whole)


def test_two_files_that_changed_places_are_found(on_disk: tuple[Path, Specimen], folder: Path) -> None:
    root, specimen = on_disk
    files = repository_files(root)
    for n, one in enumerate(files):
        for other in files[n + 1 :]:
            a, b = one.read_bytes(), other.read_bytes()
            if a == b or one.name.removesuffix(".2") == other.name.removesuffix(".2"):
                continue
            one.write_bytes(b)
            other.write_bytes(a)
            with local(root) as store, open_repository(store, folder / "cache") as repository:
                assert len({f.where for f in findings(repository)} & {str(one), str(other)}) == 2
                assert_right_or_refused(repository, specimen)
            one.write_bytes(a)
            other.write_bytes(b)


@pytest.mark.parametrize(
    "rename",
    [
        pytest.param(lambda p: p.with_name(p.name[:2] + "0" * (len(p.name) - 2)), id="another hash"),
        pytest.param(lambda p: p.with_name(p.name + ".bak"), id="a suffix"),
        pytest.param(lambda p: p.with_name(p.name[:2] + "-copy of it"), id="an odd name"),
        pytest.param(lambda p: p.with_name(p.name[:-1] + "é"), id="no ASCII"),
    ],
)
def test_a_copy_under_another_name_is_found_and_stops_nothing(
    rename: Callable[[Path], Path], on_disk: tuple[Path, Specimen], folder: Path
) -> None:
    root, specimen = on_disk
    for path in repository_files(root):
        if path.parent == root:
            continue  # only two names mean anything at the top
        copy = rename(path)
        copy.write_bytes(path.read_bytes())
        with local(root) as store, open_repository(store, folder / "cache") as repository:
            repository.refresh()
            assert readable(repository) == specimen.expected
            backup(repository, SECOND, name="again")
            assert any(copy.name in f.where + f.problem for f in findings(repository)), copy
            for stored in repository.snapshots().good:
                if stored.snapshot.subject.name == "again":
                    for name in (stored.id, stored.id + ".2"):
                        store.delete(FileKind.SNAPSHOT, name)
        copy.unlink()


def test_without_either_config_there_is_no_repository_and_init_will_not_make_another(
    on_disk: tuple[Path, Specimen],
) -> None:
    root, _ = on_disk
    (root / "config").unlink()
    (root / "config.2").unlink()
    with pytest.raises(NoRepository, match=str(root)):
        LocalStore.open(root)
    keys = sorted((root / "keys").iterdir())
    with pytest.raises(HoldfastError, match=str(root)):
        LocalStore.create(root)
    assert sorted((root / "keys").iterdir()) == keys


def test_with_both_copies_of_a_slot_damaged_the_other_secret_opens(
    on_disk: tuple[Path, Specimen], folder: Path
) -> None:
    root, specimen = on_disk
    with local(root) as store, open_repository(store, folder / "cache") as repository:
        slot = repository.slot.id
    for name in (slot, slot + ".2"):
        path = root / "keys" / name
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with local(root) as store:
        with pytest.raises(Damaged, match=slot):
            open_repository(store, folder / "cache")
        with open_repository(store, folder / "cache", password=specimen.recovery) as repository:
            assert all_contents(repository) == specimen.expected
            assert {f.where for f in findings(repository)} == {
                str(root / "keys" / slot),
                str(root / "keys" / (slot + ".2")),
            }
    with local(root) as store, pytest.raises(Damaged):
        open_repository(store, folder / "cache", password="no such word")
    for name in (slot, slot + ".2"):
        (root / "keys" / name).unlink()
    with local(root) as store, pytest.raises(WrongPassword):
        open_repository(store, folder / "cache")


def test_a_copy_without_empty_folders_works(on_disk: tuple[Path, Specimen], folder: Path) -> None:
    root, specimen = on_disk
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    assert not (root / "pending").exists()
    with local(root) as store, open_repository(store, folder / "cache") as repository:
        assert all_contents(repository) == specimen.expected
        new = backup(repository, {"dump.sql": data(5, 2000)}, time=later(5)).stored
        assert contents(repository, new.snapshot) == {"dump.sql": data(5, 2000)}
        for name in (new.id, new.id + ".2"):
            store.trash(FileKind.SNAPSHOT, name)
        assert findings(repository) == []


# ---- The index is a cache --------------------------------------------------------------------------------


def deleted(index: Path) -> None:
    for path in index.iterdir():
        path.unlink()
    index.rmdir()


def emptied(index: Path) -> None:
    for path in index.iterdir():
        path.write_bytes(b"")


def cut_to(size: int) -> Callable[[Path], None]:
    def cut(index: Path) -> None:
        with (index / "data.mdb").open("r+b") as file:
            file.truncate(size)

    return cut


def garbage(index: Path) -> None:
    for path in index.iterdir():
        path.write_bytes(random.Random(7).randbytes(path.stat().st_size))


def a_folder_in_its_place(index: Path) -> None:
    deleted(index)
    (index / "data.mdb" / "strange").mkdir(parents=True)


def a_file_in_its_place(index: Path) -> None:
    deleted(index)
    index.write_bytes(b"not a folder")


@pytest.mark.parametrize(
    "damage",
    [deleted, emptied, garbage, a_folder_in_its_place, a_file_in_its_place]
    + [pytest.param(cut_to(size), id=f"cut to {size}") for size in (1, 4096, 8192, 12288, 20000)],
)
def test_the_next_command_rebuilds_a_lost_or_damaged_index(
    damage: Callable[[Path], None], on_disk: tuple[Path, Specimen], folder: Path
) -> None:
    root, specimen = on_disk
    with local(root) as store, open_repository(store, folder / "cache") as repository:
        chunks = len(repository.index)
    damage(index_of(folder / "cache"))

    def use() -> None:
        with local(root) as store, open_repository(store, folder / "cache") as repository:
            assert repository.refresh().rebuilt
            assert len(repository.index) == chunks
            assert all_contents(repository) == specimen.expected
            again = backup(repository, SECOND, time=later(3)).stored
            assert again.snapshot.stats.new_chunks == 0
            assert findings(repository) == []

    assert in_child(use) == 0  # in a child: a map cut short can end a process by SIGBUS


def test_the_index_of_another_repository_is_not_believed(
    on_disk: tuple[Path, Specimen], folder: Path
) -> None:
    root, specimen = on_disk
    other = folder / "other"
    other_store = LocalStore.create(other)
    fill_repository(other_store, folder / "others")
    other_store.close()
    index = index_of(folder / "cache")
    shutil.rmtree(index)
    shutil.copytree(index_of(folder / "others"), index)
    with local(root) as store, open_repository(store, folder / "cache") as repository:
        assert repository.refresh().rebuilt
        assert all_contents(repository) == specimen.expected
        assert findings(repository) == []


def test_an_index_from_before_a_pack_was_lost_is_not_believed_about_it(
    on_disk: tuple[Path, Specimen], folder: Path
) -> None:
    root, specimen = on_disk
    for path in (root / "packs").rglob("*"):
        if path.is_file():
            path.unlink()
    with local(root) as store, open_repository(store, folder / "cache") as repository:
        assert assert_right_or_refused(repository, specimen) == 4
        backup(repository, FIRST, name="web", kind=SubjectKind.VM, time=later(2))
        backup(repository, SECOND, name="shop", time=later(3))
        assert assert_right_or_refused(repository, widened(specimen, repository)) == 0
        assert findings(repository) == []


def test_an_index_from_before_a_pack_was_cut_short_is_not_believed_about_it(
    on_disk: tuple[Path, Specimen], folder: Path
) -> None:
    root, specimen = on_disk
    for path in (root / "packs").rglob("*"):
        if path.is_file():
            os.truncate(path, 64 + 64)
    with local(root) as store, open_repository(store, folder / "cache") as repository:
        backup(repository, FIRST, name="web", kind=SubjectKind.VM, time=later(2))
        backup(repository, SECOND, name="shop", time=later(3))
        assert assert_right_or_refused(repository, widened(specimen, repository)) == 0
