"""Unmounting, and waiting until nothing is left of the daemon."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from holdfast.base.errors import Refused
from holdfast.base.mount_table import mounted_at
from holdfast.fusefs.errors import MountFailed, NotMounted
from holdfast.fusefs.mountpoint import TYPE, UNMOUNTER, absolute
from holdfast.fusefs.records import read_record, remove_record

_PATIENCE = 1.0
"""Seconds a busy mount is tried again: indexers and shells let go of it by themselves."""


def unmount(mountpoint: Path, *, state: Path, timeout: float = 30.0) -> None:
    """Unmount and wait until the daemon is gone. Cleans up after a daemon that was killed, too.

    Raises NotMounted when nothing of ours is mounted there, Refused when it is in use (naming a process
    that uses it), MountFailed when the daemon is still there after `timeout` seconds.
    """
    path = absolute(mountpoint)
    entry = mounted_at(path)
    record = read_record(state, path)
    daemon = record.open_process() if record else None
    try:
        if entry is not None and entry.type == TYPE:
            _detach(path)
        elif daemon is None:
            if record is not None:
                remove_record(state, record)
            what = f"; what is mounted there is {entry.type}" if entry else ""
            raise NotMounted(f"no Holdfast mount at {path}{what}")
        if daemon is not None and not select.select([daemon], [], [], timeout)[0]:
            assert record is not None
            raise MountFailed(
                f"{path} is unmounted, but its daemon (process {record.pid}) has not ended in {timeout:g} s; "
                f"it may be waiting for the repository's disk; `kill {record.pid}` ends it"
            )
        if record is not None:
            remove_record(state, record)
    finally:
        if daemon is not None:
            os.close(daemon)


def _detach(path: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            done = subprocess.run(
                [UNMOUNTER, "-u", "--", str(path)], capture_output=True, text=True, check=False
            )
        except OSError as error:
            reason = f"cannot run {UNMOUNTER}: {error.strerror}"
            raise MountFailed(f"{reason}; install the package fuse3") from None
        if done.returncode == 0:
            return
        said = done.stderr.strip()
        if "busy" not in said.lower():
            raise MountFailed(f"cannot unmount {path}: {said}")
        if time.monotonic() > deadline:
            user = next(_users(path), "some process (`fuser -vm` may tell which)")
            raise Refused(f"{path} is in use by {user}; close that and unmount again")
        time.sleep(0.1)


def _users(path: Path) -> Iterator[str]:
    """Processes with a working directory or an open file in the mount, as far as we may see them."""
    prefix = str(path)
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        if any(target == prefix or target.startswith(prefix + "/") for target in _links(process)):
            try:
                name = (process / "comm").read_text().strip()
            except OSError:
                continue
            yield f"{name!r} (process {process.name})"


def _links(process: Path) -> Iterator[str]:
    """Working directory, root and open files of a process; nothing of this touches the files."""
    try:
        links = [process / "cwd", process / "root", *(process / "fd").iterdir()]
    except OSError:
        return
    for link in links:
        try:
            yield os.readlink(link)  # noqa: PTH115  a string is wanted
        except OSError:
            continue
