"""Going into the background, and telling the parent how it went.

The parent waits on a pipe. The daemon sends one JSON document a line: its pid, progress, and at last
"ready" or the error it ends with.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from holdfast.base import errors
from holdfast.base.errors import HoldfastError
from holdfast.base.escaping import EscapingFormatter
from holdfast.fusefs.errors import MountFailed
from holdfast.repo.core.repository import IndexProgress

_LOG_LIMIT = 1 << 20
"""A log this long is started afresh by the next mount."""


class Reporter:
    """The daemon's end of the pipe."""

    def __init__(self, pipe: IO[str]) -> None:
        self._pipe = pipe

    def progress(self, done: int, total: int) -> None:
        self._send({"progress": [done, total]})

    def ready(self) -> None:
        self._send({"ready": True})
        self._pipe.close()

    def failed(self, error: BaseException) -> None:
        if not self._pipe.closed:
            self._send({"error": describe_error(error)})
            self._pipe.close()

    def started(self) -> None:
        self._send({"pid": os.getpid()})

    def _send(self, document: dict[str, Any]) -> None:
        try:
            self._pipe.write(json.dumps(document) + "\n")
            self._pipe.flush()
        except BrokenPipeError:  # the parent was interrupted; it kills us or means us to go on
            pass


def start_daemon(work: Callable[[Reporter], None], log: Path, progress: IndexProgress | None) -> int:
    """Run `work` in a process of its own session; returns its pid once it has called `ready`.

    Forks: the caller must have no threads and no open LMDB. Raises the error that `work` raised before
    that.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _detach_and_run(work, log, reading, writing)
    os.close(writing)
    os.waitpid(child, 0)
    pid = 0
    with os.fdopen(reading, encoding="utf-8") as pipe:
        try:
            for line in pipe:
                message = json.loads(line)
                if "pid" in message:
                    pid = message["pid"]
                elif "progress" in message and progress is not None:
                    progress(*message["progress"])
                elif "error" in message:
                    raise rebuild_error(message["error"])
                elif "ready" in message:
                    return pid
        except KeyboardInterrupt:
            if pid:
                os.kill(pid, signal.SIGTERM)
            raise
    raise MountFailed(f"the mount's daemon ended without a word; its log is {log}")


def _detach_and_run(work: Callable[[Reporter], None], log: Path, reading: int, writing: int) -> None:
    """Run the daemon in the forked child; never returns. Forks again, so that the daemon leaves no zombie."""
    code = 1
    try:
        os.close(reading)
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        os.umask(0o077)
        _redirect(log)
        reporter = Reporter(os.fdopen(writing, "w", encoding="utf-8"))
        reporter.started()
        try:
            work(reporter)
            code = 0
        except BaseException as error:
            logging.getLogger("holdfast.fusefs").exception("the mount ends")
            reporter.failed(error)
            raise
    except BaseException:  # noqa: BLE001  a forked child must not run its parent's handlers
        traceback.print_exc()
    finally:
        os._exit(code)


def _redirect(log: Path) -> None:
    """Input and output to nowhere, errors (ours, libfuse's, the interpreter's) to the log, if there can be
    one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > _LOG_LIMIT:
            flags |= os.O_TRUNC
        file = os.open(log, flags, 0o600)
    except OSError:  # a home that is read-only or full
        file = os.open(os.devnull, os.O_WRONLY)
    null = os.open(os.devnull, os.O_RDWR)
    for source, target in ((null, 0), (null, 1), (file, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(file)
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115  for the life of the process
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115  as above
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EscapingFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def describe_error(error: BaseException) -> dict[str, Any]:
    """An error as JSON, its attributes included where they are plain."""
    attributes = {k: v for k, v in vars(error).items() if isinstance(v, str | int | None)}
    return {"class": type(error).__name__, "message": str(error), "attributes": attributes}


def rebuild_error(document: dict[str, Any]) -> HoldfastError:
    """The error that was described: of the same class when that is one of ours."""
    found = {"MountFailed": MountFailed, **vars(errors)}.get(document["class"])
    if not (isinstance(found, type) and issubclass(found, HoldfastError)):
        return MountFailed(f"the mount's daemon failed: {document['class']}: {document['message']}")
    error = found.__new__(found, document["message"])  # constructors differ; the message is made already
    error.__dict__.update(document["attributes"])
    return error
