"""Restoring files and folders out of guests' disks."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from holdfast.base.errors import Refused
from holdfast.base.target_folder import TargetFolder
from holdfast.cli.base.context import Settings
from holdfast.cli.base.exits import ExitCode
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import count, duration, escape, rate, size
from holdfast.formats.guests.values.naming import to_bytes, to_text
from holdfast.formats.guests.values.values import NodeType
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.tasks.guest_files import Guests, explained
from holdfast.tree.extract import Event, ExtractOptions, Extractor, Outcome
from holdfast.tree.paths import FolderNode, GuestNode, Inside, Node, TextNode

_TOLD: Final = 20
"""Warnings of a kind on a terminal; JSON has all."""


def restore_guest(
    settings: Settings,
    repository: Repository,
    stored: StoredSnapshot,
    path: str,
    *,
    target: str,
    options: ExtractOptions,
    luks: Sequence[str],
    shown: bool,
) -> ExitCode:
    """Restore what is at a path below `files/`; `shown`: progress."""
    settings.if_interrupted = "what was restored is complete; run it again with --overwrite"
    report = _Report(settings, target)
    guests = Guests.of(repository, luks)
    with explained(), guests.inside(stored.snapshot) as inside:
        node = inside.resolve(path)
        place, name = _place(node, target, overwrite=options.overwrite)
        if place.resolve().is_relative_to(settings.root.resolve()):
            raise Refused(f"{target} is inside the repository; nothing was written")
        total = node.entry.size if isinstance(node, GuestNode) and name else None
        with (
            progress(settings.output, "restore", total, shown=shown) as meter,
            closing(TargetFolder.top(place, overwrite=options.overwrite)) as top,
        ):
            extractor = Extractor(guests.contents, top, options, meter.add)
            for event in _events(extractor, inside, node, name):
                report.add(event)
    return report.end(extractor.bits_dropped)


def _place(node: Node, target: str, *, overwrite: bool) -> tuple[Path, bytes]:
    """(folder to restore into, name in it); no name for a folder, whose content goes into the target."""
    place = Path(target)
    if isinstance(node, FolderNode) or (isinstance(node, GuestNode) and node.entry.type is NodeType.FOLDER):
        if place.exists() and not place.is_dir():
            raise Refused(f"{target} is no folder, and {node.path} is one; nothing was written")
        return place, b""
    if target.endswith("/") or place.is_dir():
        place /= node.path.rpartition("/")[2]
    if not place.parent.is_dir():
        raise Refused(f"{place.parent} is no folder; nothing was written")
    if os.path.lexists(place):
        if not (place.is_symlink() or place.is_file()):
            raise Refused(f"{place} is neither a file nor a link; nothing was written")
        if not overwrite:
            raise Refused(f"{place} exists already; --overwrite replaces it; nothing was written")
    return place.parent, to_bytes(place.name)


def _events(extractor: Extractor, inside: Inside, node: Node, name: bytes) -> Iterator[Event]:
    if isinstance(node, FolderNode):
        return extractor.everything(inside, node)
    if isinstance(node, TextNode):
        return extractor.text(node, name)
    assert isinstance(node, GuestNode)
    return extractor.single(node, name) if name else extractor.folder(node)


class _Report:
    """Counts what is restored; tells what is not."""

    def __init__(self, settings: Settings, target: str) -> None:
        self._output = settings.output
        self._target = target
        self._counts: Counter[Outcome] = Counter()
        self._bytes = 0
        self._began = time.monotonic()

    def add(self, event: Event) -> None:
        self._counts[event.outcome] += 1
        self._bytes += event.size
        if event.outcome is Outcome.RESTORED:
            return
        path, kind = to_text(event.path) or ".", event.outcome.value
        if self._output.json:
            self._output.message(kind, path=path, type=event.type.value, reason=event.reason)
            return
        told = self._counts[event.outcome]
        if told > _TOLD and not self._output.verbose:
            return
        tell = self._output.note if event.outcome is Outcome.SKIPPED else self._output.warn
        words = "" if event.outcome is Outcome.FLAWED else "not restored: "
        more = "; there may be more: -v shows all" if told == _TOLD and not self._output.verbose else ""
        tell(f"{escape(path)}: {words}{event.reason}{more}")

    def end(self, bits_dropped: int) -> ExitCode:
        """The summary. FAILED when there was nothing that could be restored."""
        counts, seconds = self._counts, time.monotonic() - self._began
        restored = counts[Outcome.RESTORED] + counts[Outcome.FLAWED]
        self._output.message(
            "summary",
            action="restore",
            target=self._target,
            restored=restored,
            flawed=counts[Outcome.FLAWED],
            skipped=counts[Outcome.SKIPPED],
            failed=counts[Outcome.FAILED],
            setuid_dropped=bits_dropped,
            size=self._bytes,
            seconds=round(seconds, 3),
        )
        if counts[Outcome.SKIPPED]:
            self._output.note(
                f"{count(counts[Outcome.SKIPPED], 'special file')} left out; --special makes them"
            )
        if bits_dropped:
            self._output.note(
                f"{count(bits_dropped, 'file')} without setuid and setgid bits; --setuid keeps them"
            )
        self._output.summary(
            f"restored {count(restored, 'name')}, {size(self._bytes)} in files, to {escape(self._target)} in "
            f"{duration(seconds)} ({rate(self._bytes, seconds)})"
        )
        if counts[Outcome.FAILED] and not restored:
            return ExitCode.FAILED
        return ExitCode.PARTIAL if counts[Outcome.FAILED] or counts[Outcome.FLAWED] else ExitCode.DONE
