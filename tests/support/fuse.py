"""Real mounts for tests, each made by a process of its own: mounting forks, and pytest has threads.

That process runs `main` with `mount|serve ROOT MOUNTPOINT STATE [PASSWORD]`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from holdfast.base.errors import HoldfastError
from holdfast.fusefs.mount import Mounted, mount, serve, unmount
from holdfast.repo.core.repository import Repository
from holdfast.repo.store.local import LocalStore
from support.basics import PASSWORD, need, open_repository

_PATIENCE = 100.0
_PROGRAM = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from support.fuse import main
main(*sys.argv[1:])
"""


def need_fuse() -> None:
    """Skip (in continuous integration: fail) where nothing can be mounted."""
    need(os.access("/dev/fuse", os.R_OK | os.W_OK), "/dev/fuse that this user may use")
    need(shutil.which("fusermount3"), "fusermount3, of the package fuse3")


class MountRefused(Exception):
    """The mounting process said no: `name` is the class of its error."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


@dataclass(frozen=True)
class Place:
    """A repository, where it is mounted, and where that is noted."""

    root: Path
    mountpoint: Path
    state: Path

    @property
    def log(self) -> Path:
        return self.state / "log"

    def mount(self, mountpoint: Path | None = None, password: str = PASSWORD) -> int:
        """Mount; returns the daemon's pid. Raises MountRefused."""
        done = subprocess.run(
            self.command("mount", mountpoint, password), capture_output=True, text=True, check=False
        )
        assert done.stdout, done.stderr
        answer = json.loads(done.stdout)
        if "error" in answer:
            raise MountRefused(answer["error"], answer["message"])
        return int(answer["pid"])

    def command(self, verb: str, mountpoint: Path | None = None, password: str = PASSWORD) -> list[str]:
        where = self.mountpoint if mountpoint is None else mountpoint
        return [sys.executable, "-c", _PROGRAM, verb, str(self.root), str(where), str(self.state), password]

    def unmount(self) -> None:
        unmount(self.mountpoint, state=self.state)

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """Mounted within, unmounted after."""
        self.mount()
        try:
            yield self.mountpoint
        finally:
            self.unmount()

    @contextmanager
    def opened(self) -> Iterator[Repository]:
        """The repository, open in this process."""
        with open_repository(LocalStore.open(self.root), self.root.parent / "cache") as repository:
            yield repository

    def clean_up(self) -> None:
        """However the test ended, leave no mount behind."""
        with suppress(HoldfastError):
            unmount(self.mountpoint, state=self.state, timeout=5)
        subprocess.run(["fusermount3", "-uzq", str(self.mountpoint)], check=False, stderr=subprocess.DEVNULL)


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true within a generous time."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_running(pid: int) -> bool:
    """Whether the process is there and not just waiting to be reaped, which is init's business."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def main(verb: str, root: str, mountpoint: str, state: str, password: str) -> None:
    store, folder = LocalStore(Path(root)), Path(state)

    def opener() -> Repository:
        return open_repository(store, folder.parent / "cache", password=password)

    try:
        if verb == "serve":
            serve(opener, Path(mountpoint), location=store.root, state=folder, ready=_print_ready)
            print("unmounted", flush=True)
            return
        mounted: Mounted = mount(
            opener, Path(mountpoint), location=store.root, state=folder, log=folder / "log"
        )
        print(json.dumps({"pid": mounted.pid}))
    except HoldfastError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))


def _print_ready(mountpoint: Path) -> None:
    print("ready", flush=True)
