"""Small repositories, processes that die, and full file systems, for the fault tests.

Nothing here is a test. Content is made from seeds, so a failure repeats. `HOLDFAST_CAMPAIGN=long` turns
the samples of the short run into every case.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from holdfast.base.types import SnapshotID
from holdfast.ingest.backup.backup import BackupOutcome, BackupRequest, back_up
from holdfast.ingest.backup.plan import plan_items
from holdfast.ingest.sources.source import Source
from holdfast.repo.core.key_changes import add_slot
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.restore import Restorer
from holdfast.repo.format.crypto import Argon2Cost
from holdfast.repo.snapshots.snapshot import Snapshot, SubjectKind
from holdfast.repo.store.interface import Store
from holdfast.repo.store.local import LocalStore
from holdfast.repo.store.memory import MemoryStore
from holdfast.repo.upkeep.check import Depth, check
from holdfast.repo.upkeep.findings import Finding, Weight
from support import basics
from support.basics import NOW, PASSWORD, MemorySource, MemoryTarget, need, random_bytes

COST = Argon2Cost(8, 1, 1)
"""The cheapest Argon2id there is: these tests are not about it."""
LONG = os.environ.get("HOLDFAST_CAMPAIGN") == "long"
SMALL_PACK = 160 << 10

Content = dict[str, bytes]
"""Item path to bytes."""


def data(seed: int, size: int) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return random_bytes(size, seed)


def open_repository(
    store: Store, cache: Path, *, password: str = PASSWORD, pack_target: int = SMALL_PACK
) -> Repository:
    """Makes several packs out of little content. Chunks must be well below `pack_target`."""
    return basics.open_repository(store, cache, password=password, pack_target=pack_target)


def create(store: Store, *, password: str = PASSWORD) -> None:
    Repository.create(store, password, created=NOW, cost=COST)


def add_key(repository: Repository, secret: str) -> str:
    return add_slot(repository, secret, label="more", created=NOW.isoformat(), cost=COST).id


def backup(
    repository: Repository,
    content: Content,
    *,
    name: str = "shop",
    kind: SubjectKind | None = SubjectKind.DATABASE,
    time: datetime = NOW,
    sources: Sequence[Source] = (),
) -> BackupOutcome:
    """Back `content` up (or `sources`); item paths are its keys when there are several."""
    everything = list(sources) or [MemorySource(plain, path) for path, plain in content.items()]
    return back_up(
        repository,
        BackupRequest(
            items=plan_items(everything, kind),
            name=name,
            host="host",
            program="test",
            kind=kind,
            time=time,
        ),
        progress=lambda count: None,
        clock=lambda: 0.0,
    )


def contents(repository: Repository, snapshot: Snapshot) -> Content:
    """Everything in a snapshot, read the slow way."""
    reader = Reader(repository)
    found: Content = {}
    for item in snapshot.items:
        found[item.path] = reader.read(reader.recipe(item), 0, item.size)
        assert len(found[item.path]) == item.size
    return found


def restored(repository: Repository, snapshot: Snapshot) -> Content:
    """Everything in a snapshot, by both ways of `Restorer`."""
    reader = Reader(repository)
    restorer = Restorer(repository, reader, threads=2)
    found: Content = {}
    for item in snapshot.items:
        target = MemoryTarget(item.size)
        restorer.to_target(reader.recipe(item), target, lambda count: None)
        found[item.path] = bytes(target.content)
        assert b"".join(bytes(part) for part in restorer.in_order(reader.recipe(item))) == target.content
    return found


def all_contents(repository: Repository) -> dict[SnapshotID, Content]:
    found = repository.snapshots()
    assert not found.damaged
    return {stored.id: contents(repository, stored.snapshot) for stored in found.good}


def damage(repository: Repository, depth: Depth = Depth.READ_DATA) -> list[Finding]:
    """The findings of a check, without those that the next prune or key command mends."""
    return [each for each in check(repository, depth).findings if each.weight is Weight.DAMAGE]


def findings(repository: Repository, depth: Depth = Depth.READ_DATA) -> list[Finding]:
    return check(repository, depth).findings


def later(hours: float) -> datetime:
    return NOW + timedelta(hours=hours)


def copy_memory(store: MemoryStore, clock: Callable[[], float] | None = None) -> MemoryStore:
    other = MemoryStore(clock) if clock else MemoryStore()
    other.files = dict(store.files)
    other.trashed = dict(store.trashed)
    return other


def forget_seen(cache: Path) -> None:
    """Make the cache one of a user who has seen no snapshot: for copies of a repository as it was before."""
    for seen in cache.glob("*/seen"):
        seen.unlink()


# ---- Processes that die --------------------------------------------------------------------------------

_CALLS = ("open", "write", "fsync", "link", "unlink", "rename", "utime", "mkdir", "truncate")


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process: 0 when it returned, 1 when it raised, -9 when it was killed.

    The parent must hold no LMDB environment and run no other thread at this moment.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001  a child must never return into the test
            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status)


def path_of(file: int | str | bytes | os.PathLike[str], arguments: Mapping[str, Any]) -> str:
    """The path that a system call is about: `file` is a descriptor, or a name, maybe in an open folder."""
    if isinstance(file, int):
        return str(Path(f"/proc/self/fd/{file}").readlink())
    folder = arguments.get("src_dir_fd", arguments.get("dir_fd"))
    name = os.fsdecode(file)
    return name if folder is None else str(Path(f"/proc/self/fd/{folder}").readlink() / name)


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_before_call(k: int, root: Path) -> None:
    """In a child: die instead of making the k-th system call that changes a file under `root`, from 1.

    The cache is elsewhere and does not count.
    """
    left = [k]
    lock = threading.Lock()
    inside = str(root)

    def counts(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if name == "open" and not args[1] & os.O_CREAT:
            return False
        return path_of(args[0], kwargs).startswith(inside)

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not counts(name, args, kwargs):
                return real(*args, **kwargs)
            with lock:
                left[0] -= 1
                if left[0] == 0:
                    kill_me()
            return real(*args, **kwargs)

        return call

    for name in _CALLS:
        setattr(os, name, wrap(name, getattr(os, name)))


def kill_at_every_call(
    run: Callable[[int], tuple[Path, Callable[[], None]]],
    verify: Callable[[int], None],
    *,
    step: Callable[[int], int] = lambda k: k + 1,
    limit: int = 5000,
) -> int:
    """For k = 1, 2, ...: `run(k)` gives a repository and work, a child dies before call k, `verify(k)` looks.

    Ends with the first child that finishes; returns how many were killed.
    """
    k, killed = 1, 0
    while k < limit:
        root, work = run(k)

        def child(root: Path = root, work: Callable[[], None] = work, k: int = k) -> None:
            kill_before_call(k, root)
            work()

        code = in_child(child)
        assert code in (0, -signal.SIGKILL), f"call {k}: the child failed by itself"
        verify(k)
        if code == 0:
            return killed
        killed += 1
        k = step(k)
    raise AssertionError("the child never finished")


def copy_repository(source: Path, target: Path) -> Path:
    """A copy that shares the files' bytes: they are immutable."""
    shutil.copytree(source, target, copy_function=os.link)
    return target


def repository_files(root: Path) -> list[Path]:
    """Every file that is part of the truth: not the lock."""
    inside = (path for path in sorted(root.rglob("*")) if path.is_file())
    return [p for p in inside if p.relative_to(root).parts[0] != "lock"]


def index_of(cache: Path) -> Path:
    """The folder of the one index in a cache."""
    (folder,) = cache.glob("*/index")
    return folder


def leftovers(root: Path) -> list[Path]:
    return sorted(root.rglob(".tmp-*"))


# ---- Small file systems --------------------------------------------------------------------------------


def _can_mount() -> bool:
    return os.geteuid() == 0 and shutil.which("mount") is not None


@contextmanager
def mounted(argv: Sequence[str], folder: Path) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(["mount", *argv, str(folder)], check=False, capture_output=True, text=True)
    need(done.returncode == 0, f"leave to mount ({done.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def tiny_ext4(folder: Path, size: int) -> Iterator[Path]:
    """An ext4 of `size` bytes on a loop device."""
    need(_can_mount() and shutil.which("mkfs.ext4") is not None, "root and mkfs.ext4")
    image = folder / "ext4.img"
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-N", "2000", "-b", "1024", str(image)], check=True)
    with mounted(["-o", "loop", str(image)], folder / "ext4") as root:
        yield root


@contextmanager
def tiny_tmpfs(folder: Path, size: int) -> Iterator[Path]:
    need(_can_mount(), "root")
    with mounted(["-t", "tmpfs", "-o", f"size={size}", "tmpfs"], folder / "tmpfs") as root:
        yield root


def fill(folder: Path) -> Path:
    """Take every free byte of a file system; delete the file to have them back."""
    path = folder / "filler"
    for piece in (1 << 20, 4096, 512, 1):
        with path.open("ab", buffering=0) as file:
            try:
                while True:
                    if file.write(bytes(piece)) < piece:
                        break
            except OSError:
                continue
    return path


@contextmanager
def local(root: Path) -> Iterator[LocalStore]:
    store = LocalStore.open(root)
    try:
        yield store
    finally:
        store.close()


OLD: Content = {"a.sql": data(1, 150_000), "b.sql": data(2, 120_000)}


NEXT: Content = {"a.sql": data(1, 60_000) + data(3, 90_000), "b.sql": data(4, 100_000)}


LAST: Content = {"a.sql": OLD["a.sql"] + b"more", "b.sql": NEXT["b.sql"]}
