"""Where a run of the tests keeps its files, and what it left behind when it ended.

One run has one private folder (`start`), which is TMPDIR to it and to all that it starts. It is in memory
where there is plenty: on ext4 the 256 directories of a repository take longer than most tests. With TMPDIR
set the run stays there. The folder is removed at the end; what cannot be removed, stands beside pytest's own
folder, is still running or still mounted fails the run (`Run.finish`). The folder of a run whose tests failed
stays until the next run begins.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PREFIX = f"hf-run{os.getuid()}-"
_LONGEST = 40
"""Bytes of a folder below which servers put their sockets: a socket's path has 107, names included."""
_LONGEST_PARENT = 60
"""Bytes of a TMPDIR that is used. A test that is about longer paths makes its own."""
_SHORT = Path("/tmp")  # noqa: S108  mkdtemp makes the name
_MEMORY = Path("/dev/shm")  # noqa: S108  the same
_VARIABLE = "HOLDFAST_TESTS_FOLDERS"
_PYTEST = "t"
_KEPT = "kept"
_ROOM_A_CORE = 2 << 30
"""Bytes of memory that must be free for each core before a run's files go there; 600 MiB were measured."""
_PATIENCE = 10.0
"""Seconds for a process that was told to end to be gone."""


@dataclass(frozen=True, slots=True)
class Run:
    """The folders of one run: `root` is its TMPDIR, one has a short path, one is in memory, one on a disk."""

    root: Path
    short: Path
    memory: Path
    disk: Path
    locks: tuple[int, ...]

    @property
    def base(self) -> Path:
        """The folder that pytest keeps `tmp_path`s in."""
        return self.root / _PYTEST

    @property
    def kept(self) -> Path:
        """The folder of what is made once a run."""
        return self.root / _KEPT

    @property
    def folders(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys((self.root, self.short, self.memory, self.disk)))

    def finish(self, *, keep: bool) -> list[str]:
        """Name everything the run left behind, then remove its folders. `keep` leaves pytest's for a look."""
        found = [*self._processes(), *self._mounts(), *self._devices()]
        for folder in self.folders:
            found += [str(path) for path in sorted(folder.iterdir()) if path not in (self.base, self.kept)]
        if not keep:
            for folder in self.folders:
                shutil.rmtree(folder, ignore_errors=True)
            found += [f"{folder} (cannot be removed)" for folder in self.folders if folder.exists()]
        for lock in self.locks:
            os.close(lock)
        return found

    def _names(self, text: bytes) -> bool:
        return any(os.fsencode(folder) in text for folder in self.folders)

    def _processes(self) -> list[str]:
        deadline = time.monotonic() + _PATIENCE
        while (found := list(self._running())) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _running(self) -> Iterator[str]:
        """Processes that have one of the folders in their arguments, environment or working directory."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes()
                known = words + (entry / "environ").read_bytes() + os.fsencode((entry / "cwd").readlink())
                if self._names(known):
                    command = words.replace(b"\0", b" ").decode(errors="replace")
                    yield f"process {entry.name}: {command}"

    def _mounts(self) -> list[str]:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
        return [f"mount {line.split()[4].decode(errors='replace')}" for line in lines if self._names(line)]

    def _devices(self) -> list[str]:
        files = Path("/sys/block").glob("loop*/loop/backing_file")
        found = []
        for path in files:
            with suppress(OSError):  # detached meanwhile
                if self._names(path.read_bytes()):
                    found.append(f"device {path.parts[3]}")
        return found


def start() -> Run:
    """Make the folders, name them to the processes of this run, and sweep out those of dead runs."""
    disk = where = Path(tempfile.gettempdir()).resolve()
    if " " in str(where) or len(os.fsencode(where)) > _LONGEST_PARENT:
        disk = where = _SHORT  # hooks are split at blanks, and sockets stand deep below `tmp_path`
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else where
    if "TMPDIR" not in os.environ and _has_room(memory):
        where = memory
    for parent in dict.fromkeys((where, _SHORT, memory, disk)):
        _sweep(parent)
    made = {where: _make(where)}
    root = made[where]
    short = root if len(os.fsencode(root)) <= _LONGEST else _make(_SHORT)
    for parent in (memory, disk):
        if parent not in made:
            made[parent] = _make(parent)
    folders = {root, short, *made.values()}
    run = Run(root, short, made[memory], made[disk], tuple(_lock(folder) for folder in folders))
    run.kept.mkdir(mode=0o755)
    os.environ["TMPDIR"] = str(root)
    os.environ[_VARIABLE] = os.pathsep.join(map(str, (run.short, run.memory, run.disk, run.kept)))
    tempfile.tempdir = None  # it remembers the answer of before
    return run


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder with a short path that servers' users can enter: sockets and clusters belong there."""
    with _folder(0) as folder:
        folder.chmod(0o755)
        yield folder


@contextmanager
def fast_folder() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of small repositories, and fsync costs nothing."""
    with _folder(1) as folder:
        yield folder


@contextmanager
def disk_folder() -> Iterator[Path]:
    """A folder on a disk unless TMPDIR is in memory: for what is about holes, links and durable files."""
    with _folder(2) as folder:
        yield folder


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills once a run, for whichever of its processes asks first: templates to copy."""
    kept = Path(os.environ[_VARIABLE].split(os.pathsep)[3], name)
    if not kept.exists():
        own = Path(tempfile.mkdtemp(dir=kept.parent))
        own.chmod(0o755)
        make(own)
        try:
            own.rename(kept)
        except OSError:  # another process was quicker
            shutil.rmtree(own)
    return kept


@contextmanager
def _folder(which: int) -> Iterator[Path]:
    parent = os.environ[_VARIABLE].split(os.pathsep)[which]
    with tempfile.TemporaryDirectory(prefix="", dir=parent) as name:
        yield Path(name)


def _has_room(memory: Path) -> bool:
    """Whether a whole run may keep its files in memory, with programs and attributes of users among them."""
    wanted = _ROOM_A_CORE * (os.cpu_count() or 1)
    there = os.statvfs(memory)
    available = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.M)
    if there.f_flag & os.ST_NOEXEC or there.f_bavail * there.f_frsize < wanted:
        return False
    if available is None or int(available[1]) << 10 < 2 * wanted:
        return False
    with tempfile.NamedTemporaryFile(prefix=_PREFIX, dir=memory) as file:
        try:
            os.setxattr(file.name, "user.holdfast", b"1")
        except OSError:  # before Linux 6.6
            return False
    return True


def _lock(folder: Path) -> int:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def _sweep(parent: Path) -> None:
    """Remove what runs left that failed or were killed: nobody holds their folders' locks."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            handle = _lock(folder)
        except OSError:
            continue  # in use, or just removed by another run
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _make(parent: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    folder.chmod(0o1777)  # as TMPDIR has to be: servers run as users of their own
    return folder
