"""Programs that run a stranger's SQL: as their own user, without a network, gone when we say so.

Layers, each as far as it can be had: root hands over to the database's own user (setpriv, which also forbids
setuid programs); a network namespace with nothing in it; a process namespace, so that whatever was started
in it dies with its first process, also when this process is killed (the parent death signal).
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from holdfast.base.errors import Refused

_PROBE_SECONDS: Final = 10.0
_POLITE_SECONDS: Final = 8.0
"""PostgreSQL kills its own processes 5 s after an immediate shutdown."""
_GONE_SECONDS: Final = 10.0
_SHUTDOWN_SECONDS: Final = 120.0
_TAIL: Final = 16 << 10
_NAMESPACES: Final = ("--net", "--ipc", "--pid", "--fork", "--kill-child=KILL")
_ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8", "LANGUAGE": "C", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}


@dataclass(frozen=True, slots=True)
class User:
    """Whom programs run as."""

    name: str
    uid: int
    gid: int


def user_for(names: Sequence[str]) -> User:
    """As root: the first of these users there is, nobody at last. Else whoever we are. Raises Refused."""
    if os.geteuid():
        try:
            name = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            name = str(os.geteuid())
        return User(name, os.geteuid(), os.getegid())
    for name in (*names, "nobody"):
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            if found.pw_uid:
                return User(found.pw_name, found.pw_uid, found.pw_gid)
    raise Refused(f"no user to run a server as: neither {' nor '.join(names)} nor nobody is known here")


class Confinement:
    """Starts programs and ends them. A context manager: at its end all are gone. One thread but for
    `end_all`.

    `notes` say what of the confinement could not be had.
    """

    def __init__(self, user: User, folder: Path, *, keep: bool = False) -> None:
        """Programs run as `user` in `folder`, which is their home. With `keep`, what servers hold in memory
        shall be in the folder at the end: they are shut down then, and killed otherwise."""
        self.user = user
        self.keep = keep
        self.folder = folder
        self.notes: tuple[str, ...] = ()
        self._prefix: tuple[str, ...] = ()
        self._namespaces = False
        self._running: list[Program] = []
        self._lock = threading.Lock()
        self._ended = False

    def __enter__(self) -> Confinement:
        before, after = _user_words(self.user)
        kinds = (_NAMESPACES,) if os.geteuid() == 0 else (("--user", "--map-current-user", *_NAMESPACES),)
        unshare = shutil.which("unshare")
        for kind in kinds if unshare else ():
            prefix = (*before, str(unshare), *kind, "--", *after)
            if _works([*prefix, "true"]):
                self._prefix, self._namespaces = prefix, True
        if not self._namespaces:
            self._prefix = after
            self.notes = ("the server was not cut off from the network: no namespaces can be made here",)
        return self

    def __exit__(self, *_: object) -> None:
        without_interrupt(self.end_all)

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
    ) -> Program:
        """Start a program; what it says on standard error is kept, the end of it.

        Call it from the thread that lives longest, the main one: the kernel ends the program with the thread.
        """
        as_user = self._to_become
        alive, theirs = os.pipe()
        try:
            process = subprocess.Popen(
                [*self._prefix, *argv],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                cwd=self.folder,
                env={**_ENVIRONMENT, "HOME": str(self.folder), **(env or {})},
                pass_fds=(theirs,),
                start_new_session=True,
                user=as_user.uid if as_user else None,
                group=as_user.gid if as_user else None,
                extra_groups=[] if as_user else None,
            )
        except BaseException:
            os.close(alive)
            raise
        finally:
            os.close(theirs)
        program = Program(process, alive, contained=self._namespaces, name=Path(argv[0]).name)
        with self._lock:
            self._running = [p for p in self._running if not p.is_gone] + [program]
            ended = self._ended
        if ended:
            program.end()
        return program

    @property
    def _to_become(self) -> User | None:
        """Where no setpriv changes the user."""
        changed = os.geteuid() or any(word.startswith("--reuid=") for word in self._prefix)
        return None if changed else self.user

    def end_all(self) -> None:
        """End everything, and let nothing be started any more. From any thread; again, it does nothing."""
        with self._lock:
            self._ended = True
            running = list(self._running)
        for program in reversed(running):
            program.end()


@dataclass(slots=True)
class Program:
    """A program that was started. `contained`: in a process namespace."""

    process: subprocess.Popen[bytes]
    alive: int
    contained: bool
    name: str
    is_gone: bool = False
    _said: bytearray = field(default_factory=bytearray)
    _listener: threading.Thread | None = None
    _ending: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._listener = threading.Thread(target=self._listen, name="holdfast-listen", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        with suppress(OSError, ValueError):
            while data := os.read(self.process.stderr.fileno(), 1 << 16):
                self._said += data
                del self._said[: max(0, len(self._said) - _TAIL)]

    def last_words(self, limit: int = 2000) -> str:
        """The end of what it said on standard error."""
        return bytes(self._said).decode(errors="replace").strip()[-limit:]

    def wait(self) -> int:
        """Its exit code, negative for a signal; it and its last words are complete then."""
        code = self.process.wait()
        self.end()
        return code

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program itself, not to what wraps it."""
        pid = self.process.pid
        if self.contained:
            with suppress(OSError, ValueError, IndexError):
                pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)

    def shut_down(self, number: signal.Signals) -> None:
        """Let it end by itself, on a signal, if it does so soon."""
        if not self.is_gone and self.process.poll() is None:
            self.send(number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_SHUTDOWN_SECONDS)
        self.end()

    def end(self) -> None:
        """Kill it with all that it started, and wait until they are gone. From any thread."""
        with self._ending:
            if self.is_gone:
                return
            if not self.contained and self.process.poll() is None:
                self.process.send_signal(
                    signal.SIGQUIT
                )  # PostgreSQL ends its children, in sessions of their own
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(_POLITE_SECONDS)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            deadline = time.monotonic() + _GONE_SECONDS
            while not _is_closed(self.alive) and time.monotonic() < deadline:
                time.sleep(0.01)
            os.close(self.alive)
            assert self._listener is not None
            self._listener.join(1.0)
            for stream in (self.process.stderr, self.process.stdout, self.process.stdin):
                if stream is not None:
                    with suppress(OSError):  # what was not read any more
                        stream.close()
            self.is_gone = True


def without_interrupt(action: Callable[[], None]) -> None:
    """Do it to the end, begun again after each KeyboardInterrupt, of which one is raised then."""
    interrupted = False
    while True:
        try:
            action()
        except KeyboardInterrupt:
            interrupted = True
            continue
        if interrupted:
            raise KeyboardInterrupt
        return


def _is_closed(pipe: int) -> bool:
    """Whether no process has the other end any more."""
    os.set_blocking(pipe, False)
    try:
        return not os.read(pipe, 1)
    except BlockingIOError:
        return False


def _user_words(user: User) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(before the namespaces, behind them): words of a command line that change the user."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return (), ()
    before: tuple[str, ...] = (setpriv, "--pdeathsig", "KILL", "--")
    if not _works([*before, "true"]):
        before = ()
    if os.geteuid():
        return before, (setpriv, "--no-new-privs", "--")
    ids = (f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups")
    # Becoming another user resets the parent death signal that unshare has set.
    dies = ("--pdeathsig", "KILL") if before else ()
    return before, (setpriv, *ids, *dies, "--no-new-privs", "--")


def _works(argv: Sequence[str]) -> bool:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_SECONDS, check=False, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
