"""Freezes a source while it is read, and grades the resulting consistency."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from holdfast.repo.snapshots.snapshot import Consistency

READ: Final = "read"
FAILED: Final = "failed"
"""What commands are told of the reading."""


@dataclass(frozen=True, slots=True)
class FreezeResult:
    """Result of a freeze: the consistency that it gives (None: it claims none), the evidence and warnings.
    `failed`: a command did not end well, and something may be left as it should not be."""

    grade: Consistency | None
    evidence: str
    warnings: tuple[str, ...] = ()
    failed: bool = False


class Freeze(Protocol):
    """A way to freeze a source."""

    def start(self) -> None:
        """Freeze. When that fails, thaws everything again and raises StreamFailed."""
        ...

    def end(self, result: str) -> FreezeResult:
        """Thaw. Completes all attempts before it raises anything, KeyboardInterrupt included. `result` says
        how the reading in between ended: READ or FAILED."""
        ...


@dataclass(slots=True)
class Frozen:
    """The freezes of one backup and their results, which are complete after `thaw`."""

    ended: list[FreezeResult] = field(default_factory=list)
    result: str = READ
    _started: ExitStack = field(default_factory=ExitStack)

    def start(self, freeze: Freeze) -> None:
        freeze.start()
        self._started.callback(lambda: self.ended.append(freeze.end(self.result)))

    def thaw(self) -> None:
        """End all started freezes, in reverse order. A second call does nothing."""
        self._started.close()

    @property
    def grade(self) -> Consistency:
        """The worst consistency that a freeze claims; CRASH if none claims any."""
        claimed = (end.grade for end in self.ended if end.grade is not None)
        return max(claimed, key=list(Consistency).index, default=Consistency.CRASH)

    @property
    def failed(self) -> bool:
        """Whether a command that was to thaw or tidy up did not end well."""
        return any(end.failed for end in self.ended)

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
        except BaseException:
            held.result = FAILED
            raise
        finally:
            held.thaw()
    except BaseException as error:
        for warning in held.warnings:
            error.add_note(warning)
        raise


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
