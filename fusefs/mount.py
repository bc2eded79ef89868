"""Mounting and unmounting: what the command line calls.

mount(opener, Path("/mnt/b"), location=repo, state=cache, log=cache / "mount.log")   # a daemon
serve(opener, Path("/mnt/b"), location=repo, state=cache)                            # this process
unmount(Path("/mnt/b"), state=cache)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast.fusefs.daemon import Reporter, start_daemon
from holdfast.fusefs.errors import MountFailed, NoBinding
from holdfast.fusefs.mountpoint import absolute, check_facilities, check_mountpoint
from holdfast.fusefs.options import MountOptions
from holdfast.fusefs.records import record_of_this_process, remove_record, write_record
from holdfast.fusefs.unmount import unmount
from holdfast.repo.core.repository import IndexProgress, Repository

__all__ = ["MountFailed", "MountOptions", "Mounted", "RepositoryOpener", "mount", "serve", "unmount"]

RepositoryOpener = Callable[[], Repository]
"""Opens the repository with its secret and does not touch `index`: LMDB must not live through a fork."""

_DEFAULTS = MountOptions()


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount that answers. `mountpoint` is absolute; `log` is where its daemon writes."""

    mountpoint: Path
    pid: int
    log: Path


def mount(
    open_repository: RepositoryOpener,
    mountpoint: Path,
    *,
    location: Path | None,
    state: Path,
    log: Path,
    options: MountOptions = _DEFAULTS,
    progress: IndexProgress | None = None,
) -> Mounted:
    """Mount in a daemon of its own; returns when the mount answers.

    The mountpoint is checked first, then `open_repository` is called here (so that it can ask for a
    password on the terminal, and so that its errors are raised as they are), then the daemon starts: a
    fork, so the caller must have no threads. `location` is the repository's folder when it is a local
    one, None otherwise; `state` a folder of this user's in which running mounts are recorded; `progress`
    is called here with (packs done, packs to do) while the daemon brings the index up to date. Raises
    Refused (mountpoint missing, not empty, taken, inside the repository or around it), MountFailed,
    NoBinding, and what opening and indexing raise.
    """
    path, state, log = absolute(mountpoint), state.absolute(), log.absolute()
    _load_binding()
    check_facilities(allow_other=options.allow_other)
    check_mountpoint(path, location)
    with open_repository() as repository:

        def work(reporter: Reporter) -> None:
            _serve_here(repository, path, state, options, ready=reporter.ready, progress=reporter.progress)

        return Mounted(path, start_daemon(work, log, progress), log)


def serve(
    open_repository: RepositoryOpener,
    mountpoint: Path,
    *,
    location: Path | None,
    state: Path,
    options: MountOptions = _DEFAULTS,
    ready: Callable[[Path], None] | None = None,
    progress: IndexProgress | None = None,
) -> None:
    """Mount in the foreground; returns after it was unmounted, or after SIGINT or SIGTERM unmounted it.

    Main thread only. Logs through `logging` (logger "holdfast.fusefs"); `ready` is called once with the
    absolute mountpoint, when the mount answers. Raises what `mount` raises.
    """
    path = absolute(mountpoint)
    _load_binding()
    check_facilities(allow_other=options.allow_other)
    check_mountpoint(path, location)
    with open_repository() as repository:
        _serve_here(
            repository,
            path,
            state.absolute(),
            options,
            ready=lambda: ready(path) if ready else None,
            progress=progress,
        )


def _load_binding() -> None:
    """Load what only a served mount needs, and not everybody has: an extra of the installation."""
    try:
        importlib.import_module("holdfast.fusefs.session")
    except ImportError as error:
        raise NoBinding(
            f"mounting needs pyfuse3, which is not installed here or cannot be loaded: {error}"
        ) from None


def _serve_here(
    repository: Repository,
    path: Path,
    state: Path,
    options: MountOptions,
    *,
    ready: Callable[[], None],
    progress: IndexProgress | None,
) -> None:
    """Serve with a record of the mount, written before the mount is announced and removed after its end."""
    # Here, because it takes 250 ms and a binding that not everybody has: the other commands do without.
    from holdfast.fusefs.session import run_session  # noqa: PLC0415

    record = record_of_this_process(path)
    write_record(state, record)
    try:
        with repository:
            run_session(repository, path, options, ready=ready, progress=progress)
    finally:
        remove_record(state, record)
