"""Freezes a source while it is read, by commands before and after, and grades the resulting consistency."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Protocol

from holdfast.base.errors import StreamFailed
from holdfast.base.processes import how_it_ended, last_words
from holdfast.repo.snapshots.snapshot import Consistency

"""Bytes of a command's output that an error quotes."""
_BREATH = 5.0
"""Seconds that a command gets to end after SIGTERM."""


@dataclass(frozen=True, slots=True)
class FreezeResult:
    """Result of a freeze: the consistency that it gives (None: it claims none), the evidence and warnings."""

    grade: Consistency | None
    evidence: str
    warnings: tuple[str, ...] = ()


class Freeze(Protocol):
    """A way to freeze a source."""

    def start(self) -> None:
        """Freeze. When that fails, thaws everything again and raises StreamFailed."""
        ...

    def end(self) -> FreezeResult:
        """Thaw. Completes all attempts before it raises anything, KeyboardInterrupt included."""
        ...


@dataclass(slots=True)
class Frozen:
    """The freezes of one backup and their results, which are complete after `thaw`."""

    ended: list[FreezeResult] = field(default_factory=list)
    _started: ExitStack = field(default_factory=ExitStack)

    def start(self, freeze: Freeze) -> None:
        freeze.start()
        self._started.callback(lambda: self.ended.append(freeze.end()))

    def thaw(self) -> None:
        """End all started freezes, in reverse order. A second call does nothing."""
        self._started.close()

    @property
    def grade(self) -> Consistency:
        """The worst consistency that a freeze claims; CRASH if none claims any."""
        claimed = (end.grade for end in self.ended if end.grade is not None)
        return max(claimed, key=list(Consistency).index, default=Consistency.CRASH)

    @property
    def evidence(self) -> str:
        return "; ".join(dict.fromkeys(end.evidence for end in self.ended if end.evidence))

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(warning for end in self.ended for warning in end.warnings)


@contextmanager
def frozen(freezes: Sequence[Freeze]) -> Iterator[Frozen]:
    """Start the freezes in order; end all started ones when the block ends or raises.

    Raises what `start` and the block raise, after all freezes ended, with their warnings as notes
    (`__notes__`): something may still be frozen.
    """
    held = Frozen()
    try:
        try:
            for freeze in freezes:
                held.start(freeze)
            yield held
        finally:
            held.thaw()
    except BaseException as error:
        for warning in held.warnings:
            error.add_note(warning)
        raise


# ---- commands -----------------------------------------------------------------------------------------


class CommandHooks:
    """Runs a command before and one after; either may be "". They have no shell and an empty input.

    Each command has its own process group, because a Ctrl-C at the terminal must not kill the command that
    thaws. Their output is kept for messages. `limit` is in seconds, for each command; a
    command that reaches it has `breath` seconds to end itself, and `breath` more after it was killed.
    """

    def __init__(self, before: str, after: str, *, limit: float = 300.0, breath: float = _BREATH) -> None:
        """Raises StreamFailed when a command line cannot be split into words."""
        self._before = _split(before)
        self._after = _split(after)
        self._limit = limit
        self._breath = breath

    def start(self) -> None:
        """Run `before`. If it fails, run `after` too, as it may have frozen something; raise StreamFailed."""
        if not self._before:
            return
        try:
            process, output = _launch(self._before)
        except OSError as error:
            raise StreamFailed(
                f"cannot run {self._before[0]}: {error.strerror}; nothing was committed"
            ) from error
        with output:
            try:
                fault = self._outcome(self._before, process, output)
            except BaseException:
                try:
                    _stop(process, self._breath)
                finally:
                    self._run_after()
                raise
        if fault:
            after = self._run_after()
            raise StreamFailed("; ".join([fault, *([after] if after else []), "nothing was committed"]))

    def end(self) -> FreezeResult:
        fault = self._run_after()
        name = f"`{(self._before or self._after or [''])[0]}`"
        if not self._before:
            told = f"{name} was run afterwards" if self._after and not fault else ""
            return FreezeResult(None, told, (fault,) if fault else ())
        if fault:
            left = f"{fault}: what it should have let go may still be held"
            return FreezeResult(Consistency.CRASH, f"frozen by {name}, but not thawed", (left,))
        thawed = ", thawed after" if self._after else ""
        return FreezeResult(Consistency.FILESYSTEM, f"frozen by {name}{thawed}")

    def _run_after(self) -> str:
        """Run `after`. Returns the error, "" for success. Delays an interrupt until the command has ended."""
        if not self._after:
            return ""
        try:
            process, output = _launch(self._after)
        except OSError as error:
            return f"cannot run {self._after[0]}: {error.strerror}"
        with output:
            return uninterrupted(lambda: self._outcome(self._after, process, output))

    def _outcome(self, argv: Sequence[str], process: subprocess.Popen[bytes], output: IO[bytes]) -> str:
        """Wait for a command and say what went wrong, "" for nothing. May be called again."""
        try:
            code = process.wait(self._limit)
        except subprocess.TimeoutExpired:
            _stop(process, self._breath)
            return f"`{argv[0]}` took longer than {self._limit:g} s and was stopped{_quoted(output)}"
        if not code:
            return ""
        return f"`{argv[0]}` {how_it_ended(code)}{_quoted(output)}"


def uninterrupted(action: Callable[[], str]) -> str:
    """Run the action, again after each KeyboardInterrupt; raise that interrupt after it has completed."""
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            result = action()
        except KeyboardInterrupt as error:
            interrupt = error
            continue
        if interrupt is not None:
            raise interrupt
        return result


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise StreamFailed(f"cannot understand the command {command!r}: {error}") from None


def _launch(argv: Sequence[str]) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    output = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
        )
    except OSError:
        output.close()
        raise
    return process, output


def _stop(process: subprocess.Popen[bytes], breath: float) -> None:
    """Signal the command and its children to end, and wait `breath` seconds after each of two signals.

    Children of sudo do not accept our signals, and processes that hang in the kernel accept none; the thaw
    must not wait for them.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(breath)


def _quoted(output: IO[bytes]) -> str:
    said = last_words(output)
    return f": {said}" if said else ""
