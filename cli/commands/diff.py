"""`holdfast diff`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import click

from holdfast.base.errors import NotFound
from holdfast.base.escaping import escape
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.documents import SHORT_ID
from holdfast.cli.base.entries import entry_document
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.guest_options import luks_option
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.render import count, size
from holdfast.cli.base.table import flow
from holdfast.repo.snapshots.select import select_one, split_selector, time_name
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.tasks.snapshot_trees import SnapshotTrees
from holdfast.tree.compare.comparison import Comparison
from holdfast.tree.compare.difference import Change, Difference, State

_TABLES: Final = {
    ("rows",): ["rows changed"],
    ("definition",): ["only definition"],
    ("rows", "definition"): ["rows changed, definition too"],
}
"""What of a table is not the same, in words."""
_SIGNS: Final = {Change.ADDED: "+", Change.REMOVED: "-", Change.MODIFIED: "M"}


@command("diff")
@click.argument("one", metavar="SNAPSHOT[:PATH]")
@click.argument("other", metavar="[SNAPSHOT[:PATH]]", required=False)
@click.argument("path", metavar="[PATH]", required=False)
@click.option("--stat", is_flag=True, help="Only how many, and how much.")
@click.option("--all", "each", is_flag=True, help="Name what is in added and removed folders, too.")
@luks_option
@pass_settings
def diff_command(
    settings: RunSettings,
    *,
    one: str,
    other: str | None,
    path: str | None,
    stat: bool,
    each: bool,
    luks: Sequence[str],
) -> ExitCode:
    """Show what changed between two snapshots: items, tables, and files inside guests.

    \b
    holdfast diff web01                                  # the latest and the one before
    holdfast diff web01@2026-11-16 web01@latest
    holdfast diff web01@2026-11-16 web01@latest files/sda/p1/etc

    + added, - removed, M modified and what: content, mode, owner, time, type, target, device; rows or only
    the definition of a dump's table. A folder that was added or removed is one line; --all names what is in
    it. Content is compared wherever the disks differ beneath a file, so a change with a forged time is shown;
    a file that is stored compressed, encrypted or inside its inode is trusted if its inode and both its times
    are as they were. With --json a change is a line.
    """
    with settings.opened(index=True) as repository:
        found = settings.snapshots(repository).good
        name, inner = split_selector(one)
        before = select_one(found, name)
        if other is None:
            before, after, other_inner = _before(found, before), before, inner
        else:
            name, other_inner = split_selector(other)
            after = select_one(found, name)
        trees = SnapshotTrees.of(repository, luks)
        with trees.open(before) as a, trees.open(after) as b:
            report = _DiffReport(settings, stat=stat, each=each)
            report.begin(before, after)
            comparison = Comparison(trees.reader, trees.files.contents, a, b)
            for difference in comparison.run(
                *(path.strip("/") if path else where for where in (inner, other_inner))
            ):
                report.add(difference)
    return report.end()


def _before(snapshots: Sequence[StoredSnapshot], of: StoredSnapshot) -> StoredSnapshot:
    """The snapshot of the same subject before one."""
    same = [s for s in snapshots if s.snapshot.subject.identity == of.snapshot.subject.identity]
    at = [stored.id for stored in same].index(of.id)
    if not at:
        name = of.snapshot.subject.name
        raise NotFound(f"{name} has no snapshot before that; `holdfast snapshots --name {name}` lists them")
    return same[at - 1]


class _DiffReport:
    """Prints differences as they are found, and sums them up."""

    def __init__(self, settings: RunSettings, *, stat: bool, each: bool) -> None:
        self._output = settings.output
        self._stat = stat
        self._folds = not each and not settings.output.json
        self._folded: _FoldedDirectory | None = None
        self._counts: Counter[Change] = Counter()
        self._bytes: Counter[Change] = Counter()

    def begin(self, before: StoredSnapshot, after: StoredSnapshot) -> None:
        self._output.message("snapshots", before=before.id, after=after.id)
        one, other = (
            escape(f"{s.id[:SHORT_ID]} {s.snapshot.subject.name}@{time_name(s.snapshot.time)}")
            for s in (before, after)
        )
        self._output.summary(flow([f"{one} ->", other], between=" "))

    def add(self, difference: Difference) -> None:
        change = difference.change
        self._counts[change] += 1
        if change is Change.UNREAD:
            self._output.warn(f"{escape(difference.path)}: not compared: {difference.reason}")
            return
        state = difference.after or difference.before
        if state and state.entry:
            self._bytes[change] += state.size
        if self._stat or (self._folded and self._folded.takes(difference)):
            return
        self._unfold()
        if self._folds and change is not Change.MODIFIED and state and state.type == "folder":
            self._folded = _FoldedDirectory(difference)
            return
        self._output.message("change", **_document(difference))
        self._output.result(flow(_parts(difference)))

    def _unfold(self) -> None:
        if self._folded:
            self._output.result(self._folded.line())
            self._folded = None

    def _in_files(self, change: Change) -> str:
        return f" ({size(self._bytes[change])} in files)" if self._bytes[change] else ""

    def end(self) -> ExitCode:
        self._unfold()
        counts = {change.value: self._counts[change] for change in Change}
        size_ = {change.value: self._bytes[change] for change in _SIGNS}
        self._output.message("summary", **counts, bytes_in_files=size_)
        told = ", ".join(
            f"{self._counts[change]:,} {change.value}{self._in_files(change)}"
            for change in _SIGNS
            if self._counts[change]
        )
        show = self._output.result if self._stat else self._output.summary
        show(told or "no difference")
        if self._counts[Change.UNREAD]:
            self._output.note(f"{count(self._counts[Change.UNREAD], 'path')} could not be compared")
            return ExitCode.PARTIAL
        return ExitCode.DONE


class _FoldedDirectory:
    """A folder that was added or removed, and the changes below it that followed: one line for all."""

    def __init__(self, folder: Difference) -> None:
        self._folder = folder
        self._names = self._bytes = 0

    def takes(self, difference: Difference) -> bool:
        """Whether a difference is below the folder; then it is counted."""
        below = difference.path.startswith(self._folder.path + "/")
        if not below or difference.change is not self._folder.change:
            return False
        state = difference.after or difference.before
        self._names += 1
        self._bytes += state.size if state and state.entry else 0
        return True

    def line(self) -> str:
        if not self._names:
            return flow(_parts(self._folder))
        below = f"({count(self._names, 'name')} below, {size(self._bytes)} in files)"
        return flow([*_parts(self._folder), below])


def _parts(difference: Difference) -> list[str]:
    before, after = difference.before, difference.after
    told = [*_TABLES.get(difference.what, ())] or [_what(name, before, after) for name in difference.what]
    if difference.differing and after:
        told.append(f"up to {size(difference.differing)} of {size(after.size)} differ")
    details = [escape(f"({', '.join(told)})")] if told else []
    state = after or before
    slash = "/" if state and state.type == "folder" else ""
    return [f"{_SIGNS[difference.change]} {escape(difference.path)}{slash}", *details]


def _what(name: str, before: State | None, after: State | None) -> str:
    if before is None or after is None or before.entry is None or after.entry is None:
        return name
    a, b = before.entry, after.entry
    match name:
        case "content" if a.size != b.size:
            return f"content, {size(a.size)} -> {size(b.size)}"
        case "mode":
            return f"mode {a.mode:04o} -> {b.mode:04o}"
        case "owner":
            return f"owner {a.uid}:{a.gid} -> {b.uid}:{b.gid}"
        case "type":
            return f"{a.type.value} -> {b.type.value}"
    return name


def _document(difference: Difference) -> dict[str, Any]:
    document: dict[str, Any] = {"change": difference.change.value, "path": difference.path}
    if difference.what:
        document["what"] = list(difference.what)
    if difference.differing:
        document["differing"] = difference.differing
    for name, state in (("before", difference.before), ("after", difference.after)):
        if state is not None and state.entry is not None:
            document[name] = entry_document(state.entry, difference.path)
        elif state is not None:
            document[name] = {"path": difference.path, "type": state.type, "size": state.size}
    return document
