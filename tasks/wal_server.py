"""The process that a `wal-push` leaves running: it has the repository open and archives for later pushes.

It holds no lock while it waits. It ends when it has had nothing to do for a while, when the repository or
the key slot that opened it is gone, and after any failure. It answers "archived" only when the file is
durable; otherwise it closes the connection, and the push that asked archives the file itself.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from holdfast.base.errors import HoldfastError
from holdfast.base.passwords import from_file
from holdfast.base.private_process import become_private
from holdfast.ingest.sources.source import FileSource
from holdfast.repo.core.mirrored import mirrored_names
from holdfast.repo.core.repository import Repository
from holdfast.repo.records.log_archive import LogReading
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.local import LocalStore
from holdfast.tasks.push_logs import push_wal
from holdfast.tasks.wal_protocol import (
    DONE,
    SEPARATOR,
    Place,
    check_peer,
    check_private,
    connect,
    find_place,
    home_cache,
)
from holdfast.tasks.wal_source import pusher, system_id_in

_REQUEST_LIMIT = 16 << 10
_REQUEST_PATIENCE = 5.0
_LOOK = 5.0
"""Seconds between looks whether the repository is still there."""
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "XDG_CACHE_HOME")


def leave_behind(variables: Mapping[str, str], cache_home: str) -> None:
    """Start the process unless there is one, or the variables do not say enough for one. Never fails."""
    with suppress(OSError, ValueError):
        place = find_place(variables, home_cache({"XDG_CACHE_HOME": cache_home}))
        if place is None:
            return
        with suppress(OSError):
            connect(place).close()
            return
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment |= dict(variables) | {
            "HOLDFAST_REPOSITORY": place.repository,
            "HOLDFAST_PASSWORD_FILE": place.password_file,
        }
        subprocess.Popen(  # it outlives us, with nothing of ours but these variables
            [sys.executable, "-P", "-m", "holdfast.tasks.wal_server"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            start_new_session=True,
        )


def main() -> NoReturn:
    """The process. Its standing orders are in the environment."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    become_private()
    place = find_place(os.environ, home_cache(os.environ))
    if place is None:
        sys.exit(2)
    try:
        with _listening(place) as listener:
            _serve(listener, place)
    except (HoldfastError, OSError):
        sys.exit(1)
    sys.exit(0)


@contextmanager
def _listening(place: Place) -> Iterator[socket.socket]:
    """The socket, in a private folder; one process at a time has it, by the lock of a file beside it."""
    folder = Path(place.folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    lock = -1
    try:
        check_private(os.fstat(handle))
        base = f"/proc/self/fd/{handle}/{place.name}"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(f"{base}.lock", flags, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(FileNotFoundError):
            Path(base).unlink()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(base)
            try:
                listener.listen(16)
                yield listener
            finally:
                for name in (base, f"{base}.lock"):
                    with suppress(FileNotFoundError):
                        Path(name).unlink()
    finally:
        if lock >= 0:
            os.close(lock)
        os.close(handle)


def _serve(listener: socket.socket, place: Place) -> None:
    def password() -> str:
        return from_file(Path(place.password_file))

    cache = Path(place.folder).parent
    with (
        closing(LocalStore.open(Path(place.repository))) as store,
        Repository.open(store, password, cache=cache) as repository,
    ):
        repository.refresh()
        reading = LogReading(repository)
        reading.snapshots()
        idle_since = time.monotonic()
        listener.settimeout(min(_LOOK, place.seconds))
        while time.monotonic() - idle_since < place.seconds and _is_there(repository):
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                with connection:
                    _answer(connection, repository, reading)
                idle_since = time.monotonic()


def _is_there(repository: Repository) -> bool:
    """Whether the repository at the path is the one that was opened and still has the key slot."""
    config = Path(repository.store.describe(FileKind.CONFIG, "config"))
    return config.is_file() and repository.slot.id in mirrored_names(repository.store, FileKind.KEY)


def _answer(connection: socket.socket, repository: Repository, reading: LogReading) -> None:
    """Carry out one request; whatever goes wrong with it is left to who asked."""
    with suppress(HoldfastError, OSError, ValueError):
        check_peer(connection)
        connection.settimeout(_REQUEST_PATIENCE)
        request = b""
        while part := connection.recv(_REQUEST_LIMIT):
            request += part
            if len(request) > _REQUEST_LIMIT:
                return
        if not request or not _is_there(repository):
            return  # somebody only looked whether we are here
        folder, path = (Path(os.fsdecode(part)) for part in request.split(SEPARATOR))
        with FileSource(folder / path) as source:
            push_wal(repository, reading, source, pusher(), system_id=system_id_in(folder))
        connection.sendall(DONE)


if __name__ == "__main__":
    main()
