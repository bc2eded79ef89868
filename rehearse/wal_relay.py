"""Archived log for a recovering throw-away server, which may read neither the repository nor its password.

The server's restore_command asks through a named pipe in the private folder; a thread of ours answers and
has the file written there by `fetch`.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from holdfast.rehearse.confined import User

FetchLog = Callable[[str, Path], bool]
"""`fetch(name, path)` writes an archived file to `path`; False when the archive does not hold it."""

_SCRIPT: Final = """#!/bin/sh
# $1: the file's name, $2: where the server wants it. 200 stops a recovery, 1 says that there is no such file.
cd "$(dirname "$0")" || exit 200
printf '%s\\n' "$1" > log.ask || exit 200
read -r answer < log.answer || exit 200
case $answer in
yes) exec mv -f log.file "$OLDPWD/$2" ;;
no) exit 1 ;;
*) exit 200 ;;
esac
"""
_LONGEST_NAME: Final = 255


class WalRelay:
    """Answers until the block ends. `trouble` is what kept it from doing so."""

    def __init__(self, folder: Path, user: User, fetch: FetchLog) -> None:
        self._folder = folder
        self._user = user
        self._fetch = fetch
        self._thread = threading.Thread(target=self._serve, name="holdfast-log")
        self._stop_read, self._stop_write = os.pipe()
        self.trouble: BaseException | None = None
        self.files = 0

    @property
    def command(self) -> tuple[str, ...]:
        """The restore_command's words, without the two that the server adds."""
        return ("/bin/sh", str(self._folder / "log.fetch"))

    def __enter__(self) -> WalRelay:
        (self._folder / "log.fetch").write_text(_SCRIPT)
        (self._folder / "log.fetch").chmod(0o644)
        for name in ("log.ask", "log.answer"):
            os.mkfifo(self._folder / name, 0o600)
            self._hand_over(self._folder / name)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._stop_write, b"x")
        self._thread.join()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def _serve(self) -> None:
        # Open for both ways: the pipes have no end while this runs, whoever comes and goes.
        ask = os.open(self._folder / "log.ask", os.O_RDWR | os.O_CLOEXEC)
        answer = os.open(self._folder / "log.answer", os.O_RDWR | os.O_CLOEXEC)
        held = b""
        try:
            while self._stop_read not in select.select([ask, self._stop_read], [], [])[0]:
                held += os.read(ask, 4096)
                *names, held = held.split(b"\n")
                for name in names:
                    os.write(answer, self._answer(name))
                if len(held) > _LONGEST_NAME:
                    held = b""
        finally:
            os.close(ask)
            os.close(answer)

    def _answer(self, name: bytes) -> bytes:
        try:
            path = self._folder / "log.file"
            path.unlink(missing_ok=True)
            if self.trouble or not self._fetch(name.decode("ascii"), path):
                return b"stop\n" if self.trouble else b"no\n"
            self._hand_over(path)
            self.files += 1
        except BaseException as error:  # noqa: BLE001  raised by whoever waits for the server
            self.trouble = error
            return b"stop\n"
        return b"yes\n"

    def _hand_over(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, self._user.uid, self._user.gid, follow_symlinks=False)
