"""Stores: all of them against one suite, then what only a directory can get wrong."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.base.errors import Locked, NoRepository, NoSpace, RepositoryExists, StoreError
from holdfast.repo.store.interface import FileKind, LockMode, Store
from holdfast.repo.store.local import LocalStore
from holdfast.repo.store.memory import MemoryStore
from support.faulty_store import Clock, Crash, FaultyStore, crash_at, fail_at
from support.store_conformance import NAME, OTHER, StoreConformance, names


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestLocalStore(StoreConformance):
    @pytest.fixture
    def store(self, local_store: LocalStore) -> Store:
        return local_store


class TestFaultyStoreWithoutFaults(StoreConformance):
    @pytest.fixture
    def store(self, local_store: LocalStore) -> Store:
        return FaultyStore(local_store)


def test_the_time_of_trashing_is_listed(local_store: LocalStore) -> None:
    clock = Clock(5000.0)
    memory = MemoryStore(clock)
    memory.put(FileKind.PACK, NAME, b"content")
    clock.advance(60)
    memory.trash(FileKind.PACK, NAME)
    assert [entry.modified for entry in memory.listing(FileKind.PACK, trashed=True)] == [5060.0]

    local_store.put(FileKind.PACK, NAME, b"content")
    os.utime(local_store.describe(FileKind.PACK, NAME), (1000, 1000))
    local_store.trash(FileKind.PACK, NAME)
    (entry,) = local_store.listing(FileKind.PACK, trashed=True)
    assert entry.modified > 1_700_000_000


def test_a_faulty_store_fails_at_the_operation_it_was_told_to_and_only_there() -> None:
    store = FaultyStore(MemoryStore(), before=fail_at(2, errno.ENOSPC))
    store.put(FileKind.PACK, NAME, b"one")
    with pytest.raises(NoSpace):
        store.put(FileKind.PACK, OTHER, b"two")
    store.put(FileKind.PACK, OTHER, b"two")
    assert store.did("put") == [("put", FileKind.PACK)] * 3


def test_nothing_happens_after_a_crash_and_what_happened_before_it_stays() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner, after=crash_at(1))
    for _ in range(2):
        with pytest.raises(Crash):
            store.put(FileKind.PACK, NAME, b"one")
    assert inner.read(FileKind.PACK, NAME) == b"one"
    store = FaultyStore(inner, before=crash_at(1))
    with pytest.raises(Crash):
        store.delete(FileKind.PACK, NAME)
    with pytest.raises(Crash):
        store.sync()
    assert inner.read(FileKind.PACK, NAME) == b"one"


# ---- making and opening a directory -------------------------------------------------------------------


def test_a_new_store_is_for_its_owner_only(tmp_path: Path) -> None:
    store = LocalStore.create(tmp_path / "deep" / "repository")
    store.put(FileKind.KEY, NAME, b"key")
    files = [path for path in store.root.rglob("*") if path.is_file()]
    assert files
    for path in (store.root, *files):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_an_interrupted_creation_can_be_repeated(tmp_path: Path) -> None:
    LocalStore.create(tmp_path).put(FileKind.KEY, NAME, b"key")
    LocalStore.create(tmp_path)


def test_a_repository_or_a_folder_with_strangers_is_not_taken_over(tmp_path: Path) -> None:
    store = LocalStore.create(tmp_path / "one")
    store.put(FileKind.CONFIG, "config.2", b"config")
    with pytest.raises(RepositoryExists, match="already"):
        LocalStore.create(store.root)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "thesis.txt").touch()
    with pytest.raises(RepositoryExists, match=r"thesis\.txt"):
        LocalStore.create(tmp_path / "two")


def test_a_folder_without_a_config_is_no_repository(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NoRepository, match="no repository in"):
            LocalStore.open(root)
    (tmp_path / "config.2").touch()
    LocalStore.open(tmp_path).close()


def test_a_file_where_the_folder_should_be_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file"):
        LocalStore.create(tmp_path / "file" / "repository")


# ---- what a crash leaves ------------------------------------------------------------------------------


def test_leftovers_of_a_crash_are_invisible_until_they_are_cleaned(local_store: LocalStore) -> None:
    local_store.put(FileKind.PACK, NAME, b"content")
    leftovers = [
        local_store.root / folder / ".tmp-0123456789abcdef"
        for folder in ("", "keys", f"packs/{NAME[:2]}", "pending", "snapshots")
    ]
    for leftover in leftovers:
        leftover.write_bytes(bytes(100))
    assert names(local_store, FileKind.PACK) == [NAME]
    assert all(names(local_store, k) == [] for k in FileKind if k is not FileKind.PACK)
    assert local_store.clean() == 100 * len(leftovers)
    assert not any(leftover.exists() for leftover in leftovers)
    assert local_store.clean() == 0
    assert local_store.read(FileKind.PACK, NAME) == b"content"


def test_folders_that_a_copy_left_out_because_they_were_empty_are_made_again(local_store: LocalStore) -> None:
    local_store.put(FileKind.CONFIG, "config", b"config")
    for folder in (f"packs/{NAME[:2]}", "pending", "trash/packs", "trash/snapshots", "trash"):
        (local_store.root / folder).rmdir()
    assert names(local_store, FileKind.PACK) == []
    assert local_store.put(FileKind.PACK, NAME, b"content")
    assert local_store.put(FileKind.PENDING, NAME, b"content")
    local_store.trash(FileKind.PACK, NAME)
    local_store.sync()
    assert local_store.read(FileKind.PACK, NAME) == b"content"


def test_nothing_is_made_where_the_disk_of_the_repository_is_gone(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(StoreError, match="cannot write"):
        store.put(FileKind.PACK, NAME, b"content")
    assert list(tmp_path.iterdir()) == []


# ---- fsync, full disks --------------------------------------------------------------------------------


class FailingSync:
    """`os.fsync` that fails the first `times` times for files; remembers which files it was called for."""

    def __init__(self, times: int, code: int = errno.EIO) -> None:
        self._real = os.fsync
        self._left = times
        self._code = code
        self.files: list[str] = []

    def __call__(self, fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            self.files.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
            if self._left:
                self._left -= 1
                raise OSError(self._code, os.strerror(self._code))
        self._real(fd)


def no_temporaries(store: LocalStore) -> bool:
    return not list(store.root.rglob(".tmp-*"))


def test_after_one_failed_fsync_a_new_file_is_written_and_the_old_one_never_synced_again(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = FailingSync(1)
    monkeypatch.setattr(os, "fsync", fsync)
    assert local_store.put(FileKind.PACK, NAME, b"content")
    assert len(fsync.files) == len(set(fsync.files)) == 2
    assert local_store.read(FileKind.PACK, NAME) == b"content"
    assert no_temporaries(local_store)


def test_the_second_failed_fsync_ends_it_and_nothing_is_there(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = FailingSync(2)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreError, match=NAME) as caught:
        local_store.put(FileKind.PACK, NAME, b"content")
    assert caught.value.errno == errno.EIO
    assert not isinstance(caught.value, NoSpace)
    assert len(set(fsync.files)) == 2
    assert names(local_store, FileKind.PACK) == []
    assert no_temporaries(local_store)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_that_fsync_tells_of_is_not_tried_again(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fsync = FailingSync(1, code)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(NoSpace):
        local_store.put(FileKind.PACK, NAME, b"content")
    assert len(fsync.files) == 1
    assert no_temporaries(local_store)


def test_a_failed_sync_of_a_folder_is_a_store_error(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_store.put(FileKind.SNAPSHOT, NAME, b"content")

    def fsync(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreError, match=r"cannot sync .*snapshots"):
        local_store.sync()


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """The kernel refuses to write beyond 1 MiB of any file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files_only")
@pytest.mark.parametrize("size", [2 << 20, 9 << 20])
def test_what_does_not_fit_is_no_space_and_leaves_nothing(local_store: LocalStore, size: int) -> None:
    with pytest.raises(NoSpace, match=NAME):
        local_store.put(FileKind.PACK, NAME, bytes(size))
    assert names(local_store, FileKind.PACK) == []
    assert no_temporaries(local_store)
    assert local_store.put(FileKind.PACK, NAME, b"small")


def test_short_writes_are_carried_on(local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    local_store.put(FileKind.PACK, NAME, b"0123456789" * 10)
    monkeypatch.undo()
    assert local_store.read(FileKind.PACK, NAME) == b"0123456789" * 10


def test_short_reads_are_carried_on(local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    local_store.put(FileKind.PACK, NAME, b"0123456789" * 10)
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: real(fd, min(length, 7), offset))
    assert local_store.read(FileKind.PACK, NAME, 5) == (b"0123456789" * 10)[5:]


def test_a_read_error_names_the_file(local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    local_store.put(FileKind.PACK, NAME, b"content")

    def pread(fd: int, length: int, offset: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(StoreError, match=NAME):
        local_store.read(FileKind.PACK, NAME)


def test_a_file_system_without_hard_links_will_do(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: str, target: str, **folders: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    assert local_store.put(FileKind.PACK, NAME, b"first")
    assert not local_store.put(FileKind.PACK, NAME, b"second")
    assert local_store.read(FileKind.PACK, NAME) == b"first"
    assert no_temporaries(local_store)


def test_packs_stay_readable_through_descriptors_that_are_open(local_store: LocalStore) -> None:
    """More packs than descriptors are kept, deleted and put again under the same name."""
    all_names = [f"{n:064x}" for n in range(200)]
    for name in all_names:
        local_store.put(FileKind.PACK, name, name.encode())
    for _ in range(2):
        assert all(local_store.read(FileKind.PACK, name) == name.encode() for name in all_names)
    local_store.delete(FileKind.PACK, all_names[-1])
    with pytest.raises(FileNotFoundError):
        local_store.read(FileKind.PACK, all_names[-1])
    assert len(os.listdir("/proc/self/fd")) < 180  # noqa: PTH208  a count, no paths


# ---- locks across processes ---------------------------------------------------------------------------

_HOLD = """
import sys
from pathlib import Path
from holdfast.repo.store.interface import LockMode
from holdfast.repo.store.local import LocalStore
with LocalStore(Path(sys.argv[1])).lock(LockMode(sys.argv[2]), 0):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold_elsewhere(store: LocalStore, mode: LockMode) -> subprocess.Popen[bytes]:
    """Another process that holds the lock until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(store.root), mode.value],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_locks_hold_between_processes(local_store: LocalStore) -> None:
    with hold_elsewhere(local_store, LockMode.SHARED) as other:
        with local_store.lock(LockMode.SHARED, 0):
            pass
        with pytest.raises(Locked, match="is locked"), local_store.lock(LockMode.EXCLUSIVE, 0):
            pytest.fail("the other process holds it")
        other.communicate(b"")
    with local_store.lock(LockMode.EXCLUSIVE, 0):
        pass


def test_a_killed_process_leaves_no_lock(local_store: LocalStore) -> None:
    with hold_elsewhere(local_store, LockMode.EXCLUSIVE) as other:
        with pytest.raises(Locked, match="prune"), local_store.lock(LockMode.SHARED, 0):
            pytest.fail("the other process holds it")
        other.send_signal(signal.SIGKILL)
        other.wait()
    with local_store.lock(LockMode.EXCLUSIVE, 0):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_adds_belongs_to_whom_the_repository_belongs(tmp_path: Path) -> None:
    store = LocalStore.create(tmp_path / "repository")
    for path in (tmp_path / "repository", *(tmp_path / "repository").rglob("*")):
        os.chown(path, 65534, 65534)
    with store.lock(LockMode.SHARED, 1.0):
        store.put(FileKind.PACK, NAME, b"content")
        store.put(FileKind.SNAPSHOT, OTHER, b"content")
    store.close()
    found = {path.stat().st_uid for path in (tmp_path / "repository").rglob("*")}
    assert found == {65534}
