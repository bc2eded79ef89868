"""Reports of restores: one line per file, and totals."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from holdfast.base.escaping import escape
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.render import count, duration, rate, size
from holdfast.formats.guests.values.naming import to_text
from holdfast.tasks.restore_plan import RAW, RestoreJob, RestoreOptions
from holdfast.tree.extract.extractor import ExtractEvent, ExtractOutcome

_TOLD: Final = 20
"""Most warnings of a kind on a terminal; JSON has all."""


def tell_files(
    settings: RunSettings, jobs: Sequence[RestoreJob], seconds: float, options: RestoreOptions
) -> ExitCode:
    """Print the summary. Warns of ranges that could not be read at the backup, and then returns PARTIAL."""
    total = sum(job.size for job in jobs)
    allocated = sum(job.allocated for job in jobs)
    settings.output.message(
        "summary",
        action="restore",
        files=[_document(job) for job in jobs],
        size=total,
        allocated=allocated,
        seconds=round(seconds, 3),
        verified=options.verify,
    )
    for job in jobs:
        settings.output.summary(f"{escape(job.source)} -> {escape(str(job.target))}")
    settings.output.summary(
        f"restored {size(total)} ({size(allocated)} of it data) in {count(len(jobs), 'file')}, "
        f"{duration(seconds)} ({rate(allocated, seconds)})"
        f"{'; read back and compared' if options.verify else ''}"
    )
    for job in jobs:
        bad = job.item.bad if job.item else ()
        if any(not one.length for one in bad):
            settings.output.warn(f"{job.target}: its dump is not whole; `holdfast info` says why")
        elif bad:
            lost = sum(one.length for one in bad)
            settings.output.warn(
                f"{job.target}: {lost} bytes could not be read when this was backed up and are zeros now; "
                "`holdfast info` of the snapshot lists them"
            )
    return ExitCode.PARTIAL if any(job.item and job.item.bad for job in jobs) else ExitCode.DONE


def _document(job: RestoreJob) -> dict[str, object]:
    document: dict[str, object] = {
        "path": job.source,
        "target": str(job.target),
        "size": job.size,
        "partial": bool(job.item and job.item.bad),
    }
    return document if job.format == RAW else document | {"format": job.format}


class GuestReport:
    """Counts restored entries of a guest, and reports those that were not restored."""

    def __init__(self, settings: RunSettings, target: str) -> None:
        self._output = settings.output
        self._target = target
        self._counts: Counter[ExtractOutcome] = Counter()
        self._bytes = 0
        self._began = time.monotonic()

    def add(self, event: ExtractEvent) -> None:
        self._counts[event.outcome] += 1
        self._bytes += event.size
        if event.outcome is ExtractOutcome.RESTORED:
            return
        path, kind = to_text(event.path) or ".", event.outcome.value
        if self._output.json:
            self._output.message(kind, path=path, type=event.type.value, reason=event.reason)
            return
        told = self._counts[event.outcome]
        if told > _TOLD and not self._output.verbose:
            return
        tell = self._output.note if event.outcome is ExtractOutcome.SKIPPED else self._output.warn
        words = "" if event.outcome is ExtractOutcome.FLAWED else "not restored: "
        more = "; there may be more: -v shows all" if told == _TOLD and not self._output.verbose else ""
        tell(f"{escape(path)}: {words}{event.reason}{more}")

    def end(self, bits_dropped: int) -> ExitCode:
        """Print the summary. Returns FAILED when nothing could be restored, PARTIAL after any failure."""
        counts, seconds = self._counts, time.monotonic() - self._began
        restored = counts[ExtractOutcome.RESTORED] + counts[ExtractOutcome.FLAWED]
        self._output.message(
            "summary",
            action="restore",
            target=self._target,
            restored=restored,
            flawed=counts[ExtractOutcome.FLAWED],
            skipped=counts[ExtractOutcome.SKIPPED],
            failed=counts[ExtractOutcome.FAILED],
            setuid_dropped=bits_dropped,
            size=self._bytes,
            seconds=round(seconds, 3),
        )
        if counts[ExtractOutcome.SKIPPED]:
            self._output.note(
                f"{count(counts[ExtractOutcome.SKIPPED], 'special file')} left out; --special makes them"
            )
        if bits_dropped:
            self._output.note(
                f"{count(bits_dropped, 'file')} without setuid and setgid bits; --setuid keeps them"
            )
        self._output.summary(
            f"restored {count(restored, 'name')}, {size(self._bytes)} in files, to {escape(self._target)} in "
            f"{duration(seconds)} ({rate(self._bytes, seconds)})"
        )
        if counts[ExtractOutcome.FAILED] and not restored:
            return ExitCode.FAILED
        return (
            ExitCode.PARTIAL
            if counts[ExtractOutcome.FAILED] or counts[ExtractOutcome.FLAWED]
            else ExitCode.DONE
        )
