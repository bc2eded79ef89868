"""Commands of the user's around the reading of a source: they make and remove what is read, or freeze it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final

from holdfast.base.errors import Refused, StreamFailed
from holdfast.base.processes import how_it_ended, last_words
from holdfast.ingest.freeze.hooks import FAILED, FreezeResult, uninterrupted
from holdfast.repo.snapshots.snapshot import Consistency

_BREATH: Final = 5.0
"""Seconds that a command gets to end after SIGTERM."""
_OPERATORS: Final = frozenset("&|;<>()`$*\n")
"""What only a shell would act upon where it is not quoted."""
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*=", re.ASCII)


class ShellSyntax(Refused):
    """A command has in it what only a shell would act upon; it would be handed on as an argument."""

    def __init__(self, command: str, found: str) -> None:
        super().__init__(f"{command!r}: commands have no shell, which {found!r} is for; nothing was run")
        self.command = command


@dataclass(frozen=True, slots=True)
class HookFacts:
    """Facts for the environment of commands, as far as they are known before the source is open."""

    name: str = ""
    kind: str = ""
    repository: str = ""

    def environment(self, phase: str, result: str = "") -> dict[str, str]:
        """The environment of a command: ours, without secrets, and the facts."""
        told = {
            "HOLDFAST_HOOK_PHASE": phase,
            "HOLDFAST_HOOK_NAME": self.name,
            "HOLDFAST_HOOK_KIND": self.kind,
            "HOLDFAST_HOOK_RESULT": result,
            "HOLDFAST_HOOK_REPOSITORY": self.repository,
        }
        return {**os.environ, **told}


class CommandHooks:
    """Runs a command before and one after; either may be "". They have no shell and an empty input.

    What they do is not known here, so they give no consistency, unless `freezes`: then whoever gave the
    commands says that they freeze the source and thaw it. Each command has its own process group, because a
    Ctrl-C at the terminal must not kill the command that thaws. Their output is kept for messages. `limit` is
    in seconds, for each command; a command that reaches it has `breath` seconds to end itself, and `breath`
    more after it was killed.
    """

    def __init__(
        self,
        before: str,
        after: str,
        facts: HookFacts | None = None,
        *,
        freezes: bool = False,
        limit: float = 300.0,
        breath: float = _BREATH,
    ) -> None:
        """Raises ShellSyntax, or StreamFailed when a command line cannot be split into words."""
        self._before = _split(before)
        self._after = _split(after)
        self._facts = facts or HookFacts()
        self._freezes = freezes
        self._phases = ("freeze", "thaw") if freezes else ("before", "after")
        self._limit = limit
        self._breath = breath

    def start(self) -> None:
        """Run `before`. If it fails, run `after` too, as it may have frozen something; raise StreamFailed."""
        if not self._before:
            return
        try:
            process, output = _launch(self._before, self._facts.environment(self._phases[0]))
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
                    self._run_after(FAILED)
                raise
        if fault:
            after = self._run_after(FAILED)
            raise StreamFailed("; ".join([fault, *([after] if after else []), "nothing was committed"]))

    def end(self, result: str) -> FreezeResult:
        fault = self._run_after(result)
        if not self._freezes:
            return self._tell(fault)
        name = f"`{self._before[0]}`" if self._before else "nothing"
        if fault:
            left = f"{fault}: what it should have let go may still be held"
            return FreezeResult(Consistency.CRASH, f"frozen by {name}, but not thawed", (left,), failed=True)
        thawed = ", thawed after" if self._after else ""
        told = f"frozen by {name}, as whoever gave the command says{thawed}"
        return FreezeResult(Consistency.FILESYSTEM, told)

    def _tell(self, fault: str) -> FreezeResult:
        """The result of commands that freeze nothing."""
        told = [f"`{self._before[0]}` was run before"] if self._before else []
        if fault:
            told.append(f"afterwards {fault}")
            left = f"{fault}: what it should have tidied up may be left"
            return FreezeResult(None, "; ".join(told), (left,), failed=True)
        told += [f"`{self._after[0]}` was run afterwards"] if self._after else []
        return FreezeResult(None, ", ".join(told))

    def _run_after(self, result: str) -> str:
        """Run `after`. Returns the error, "" for success. Delays an interrupt until the command has ended."""
        if not self._after:
            return ""
        try:
            process, output = _launch(self._after, self._facts.environment(self._phases[1], result))
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


def shell_syntax(command: str) -> str:
    """The first thing in a command that only a shell would act upon, "" for none. Quoted it is an argument,
    but for what a shell replaces between double quotes, too."""
    if _ASSIGNMENT.match(command.lstrip()):
        return command.lstrip().partition("=")[0] + "="
    quote, escaped = "", False
    for at, letter in enumerate(command):
        if escaped:
            escaped = False
        elif quote == "'":
            quote = "" if letter == "'" else quote
        elif letter == "\\":
            escaped = True
        elif quote:
            if letter in "`$":
                return letter
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in _OPERATORS:
            return command[at : at + 2] if command[at : at + 2] in ("&&", "||", ">>", "$(") else letter
    return ""


def _split(command: str) -> list[str]:
    if found := shell_syntax(command):
        raise ShellSyntax(command, found)
    try:
        return shlex.split(command)
    except ValueError as error:
        raise StreamFailed(f"cannot understand the command {command!r}: {error}") from None


def _launch(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    output = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0, env=environment
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
