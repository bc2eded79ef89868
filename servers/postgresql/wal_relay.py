"""Archived log for a recovering throw-away server, which may read neither the repository nor its password.

The server's restore_command asks through a named pipe in the private folder; a thread of ours answers and
has the file written there by `fetch`. The server's user owns that folder and is not trusted: what is used
here is in a folder of our own inside, made and opened before anything of that user runs and held open.
"""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from holdfast.base.confinement.plan import User
from holdfast.servers.confined.errors import RehearsalFailed
from holdfast.servers.confined.stage import FetchLog

_SCRIPT: Final = b"""#!/bin/sh
# $1: the file's name, $2: where the server wants it. 200 stops a recovery, 1 says that there is no such file.
cd "$(dirname "$0")" || exit 200
printf '%s\\n' "$1" > ask || exit 200
read -r answer < answer || exit 200
case $answer in
yes) cp -f file "$OLDPWD/$2" || exit 200 ;;
no) exit 1 ;;
*) exit 200 ;;
esac
"""
_FOLDER: Final = "log"
_LONGEST_NAME: Final = 255


class WalRelay:
    """Answers until the block ends, or `close`. `trouble` is what kept it from doing so."""

    def __init__(self, folder: Path, user: User, fetch: FetchLog) -> None:
        """Nothing that the user started may run yet when the block is entered."""
        self._folder = folder / _FOLDER
        self._user = user
        self._fetch = fetch
        self._thread = threading.Thread(target=self._serve, name="holdfast-log")
        self._opened: list[int] = []
        self._ended = threading.Event()
        self.trouble: BaseException | None = None
        self.files = 0

    @property
    def command(self) -> tuple[str, ...]:
        """The restore_command's words, without the two that the server adds."""
        return ("/bin/sh", str(self._folder / "fetch"))

    def __enter__(self) -> WalRelay:
        try:
            self._open()
        except BaseException:
            self._close_all()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer no more. Again, it does nothing."""
        if self._opened:
            self._ended.set()
            os.write(self._stop_write, b"x")
            self._thread.join()
            self._close_all()

    def _open(self) -> None:
        self._folder.mkdir(mode=0o755)
        self._fd = self._keep(
            os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        )
        if os.fstat(self._fd).st_uid != os.geteuid():
            raise RehearsalFailed(f"{self._folder} is not the folder that was made there")
        os.fchmod(self._fd, 0o755)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open("fetch", flags, 0o600, dir_fd=self._fd), "wb") as script:
            script.write(_SCRIPT)
            os.fchmod(script.fileno(), 0o644)
        self._ask, self._answers = self._pipe("ask"), self._pipe("answer")
        self._stop_read, self._stop_write = map(self._keep, os.pipe())

    def _pipe(self, name: str) -> int:
        """Make a named pipe and open it for reading and writing: so it never ends while we run, and no reader
        or writer, absent or hostile, keeps us waiting."""
        os.mkfifo(name, 0o600, dir_fd=self._fd)
        self._hand_over(name)
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        return self._keep(os.open(name, flags, dir_fd=self._fd))

    def _keep(self, fd: int) -> int:
        self._opened.append(fd)
        return fd

    def _close_all(self) -> None:
        while self._opened:
            os.close(self._opened.pop())

    def _serve(self) -> None:
        held = b""
        while self._stop_read not in select.select([self._ask, self._stop_read], [], [])[0]:
            with suppress(BlockingIOError):
                held += os.read(self._ask, 4096)
            *names, held = held.split(b"\n")
            for name in names:
                if self._ended.is_set():
                    return
                answer = self._answer(name)
                with suppress(BlockingIOError):  # full: nobody who asked has read for long
                    os.write(self._answers, answer)
            if len(held) > _LONGEST_NAME:
                held = b""

    def _answer(self, name: bytes) -> bytes:
        try:
            with suppress(FileNotFoundError):
                os.unlink("file", dir_fd=self._fd)
            # By the descriptor: the server's user may have put something else in the folder's place.
            path = Path(f"/proc/self/fd/{self._fd}/file")
            if self.trouble or not self._fetch(name.decode("ascii"), path):
                return b"stop\n" if self.trouble else b"no\n"
            self._hand_over("file")
            self.files += 1
        except BaseException as error:  # noqa: BLE001  raised by whoever waits for the server
            self.trouble = error
            return b"stop\n"
        return b"yes\n"

    def _hand_over(self, name: str) -> None:
        if os.geteuid() == 0:
            os.chown(name, self._user.uid, self._user.gid, dir_fd=self._fd, follow_symlinks=False)
