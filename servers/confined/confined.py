"""Programs that run a stranger's SQL, in a confinement that is made once for a server and its clients.

The warden (`base/confinement/warden.py`) makes it and starts them: a user that owns nothing, an empty root
directory with programs and one folder, no network, limits, and the end of all of it with this process.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from holdfast.base.confinement.empty_root import PROGRAM_FOLDERS
from holdfast.base.confinement.plan import Ended, NotConfined, Plan
from holdfast.base.errors import Refused
from holdfast.servers.confined.errors import RehearsalFailed
from holdfast.servers.confined.program import Program

PIPE: Final = subprocess.PIPE
_START_SECONDS: Final = 30.0
_PYTHON: Final = (sys.executable, "-P", "-s", "-S", "-m", "holdfast.base.confinement.warden")
_ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8", "LANGUAGE": "C", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
_WORDS: Final = 2000


class Confinement:
    """Starts programs and ends them. A context manager: at its end all are gone. One thread but for
    `end_all`. Entering it raises NotConfined, which names the layer that cannot be had."""

    def __init__(self, plan: Plan, *, keep: bool = False) -> None:
        """Programs run in `plan.folder`, which is their home. With `keep`, what servers hold in memory shall
        be in the folder at the end: they are shut down then, and killed otherwise."""
        self.plan = plan
        self.user = plan.user
        self.folder = plan.folder
        self.keep = keep
        self._running: list[Program] = []
        self._ended_for: Ended | None = None
        self._lock = threading.Lock()
        self._ended = False
        self._warden: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Confinement:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._warden = ours
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [*_PYTHON, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    cwd="/",
                    env={
                        "PYTHONPATH": os.pathsep.join(path for path in sys.path if os.path.isabs(path)),  # noqa: PTH117
                        "LC_ALL": "C.UTF-8",
                    },
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            self._greet(ours)
        except BaseException:
            self._end_warden()
            raise
        return self

    def _greet(self, warden: socket.socket) -> None:
        try:
            warden.send(self.plan.pack().encode())
            came = select.select([warden], [], [], _START_SECONDS)[0]
            answer = json.loads(warden.recv(4096) or b'{"missing": ""}') if came else {"missing": "in time"}
        except OSError:
            answer = {"missing": ""}
        if "missing" in answer:
            said = answer["missing"] or self._last_words() or "the process that makes it ended"
            raise NotConfined(f"a confined server cannot be had here: {said}")

    def _last_words(self) -> str:
        assert self._process is not None
        assert self._process.stderr is not None
        self._process.kill()
        return self._process.stderr.read().decode(errors="replace").strip()[-_WORDS:]

    def __exit__(self, *_: object) -> None:
        without_interrupt(self.end_all)
        without_interrupt(self._end_warden)

    def _end_warden(self) -> None:
        if self._warden is not None:
            self._warden.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stderr is not None:
                self._process.stderr.close()

    @property
    def ended_for(self) -> Ended | None:
        """The limit that a program has met, as far as that is known."""
        with self._lock:
            running = list(self._running)
        for program in running:
            program.poll()
            self._ended_for = self._ended_for or program.limit
        return self._ended_for

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
    ) -> Program:
        """Start a program; what it says on standard error is kept, the end of it. Raises RehearsalFailed."""
        assert self._warden is not None
        environment = {**_ENVIRONMENT, "HOME": str(self.folder), "TMPDIR": str(self.folder), **(env or {})}
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        theirs, to_it, from_it = [null], -1, -1
        try:
            inward, outward = null, null
            if stdin == PIPE:
                inward, to_it = os.pipe()
                theirs.append(inward)
            if stdout == PIPE:
                from_it, outward = os.pipe()
                theirs.append(outward)
            errors, errors_out = os.pipe()
            gone, gone_out = os.pipe()
            keeper, keeper_out = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            theirs += [errors_out, gone_out]
            request = json.dumps({"argv": [self._inside(argv[0]), *argv[1:]], "env": environment})
            given = [inward, outward, errors_out, keeper_out.fileno(), gone_out]
            program = Program(Path(argv[0]).name, keeper, gone, errors, to_it, from_it)
            with keeper_out, self._lock:
                self._remember_limits()
                self._running = [p for p in self._running if not p.is_gone] + [program]
                try:
                    socket.send_fds(self._warden, [request.encode()], given)
                except OSError as error:
                    raise RehearsalFailed(f"{program.name} was not started: {error.strerror}") from error
                ended = self._ended
        finally:
            for fd in theirs:
                os.close(fd)
        if ended:
            program.end()
        return program

    def _remember_limits(self) -> None:
        for program in self._running:
            self._ended_for = self._ended_for or program.limit

    def _inside(self, program: str) -> str:
        """The program's path where only folders of programs can be seen. Raises Refused."""
        if not self.plan.confined or program.startswith(PROGRAM_FOLDERS):
            return program
        real = str(Path(program).resolve()) if "/" in program else program
        if "/" in real and not real.startswith(PROGRAM_FOLDERS):
            raise Refused(f"{program} cannot be run confined: programs are looked for in /usr and /opt only")
        return real if "/" in real else f"/usr/bin/{real}"

    def end_all(self) -> None:
        """End everything, and let nothing be started any more. From any thread; again, it does nothing."""
        with self._lock:
            self._ended = True
            running = list(self._running)
        for program in reversed(running):
            program.end()


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
