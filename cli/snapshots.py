"""`holdfast snapshots`."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.cli.context import Settings
from holdfast.cli.documents import SHORT_ID, snapshot_document
from holdfast.cli.exits import ExitCode
from holdfast.cli.options import command, filter_options, pass_settings
from holdfast.cli.render import Column, count, size, table
from holdfast.repo.select import filter_snapshots, time_name
from holdfast.repo.snapshot import StoredSnapshot, Subject, SubjectKind

_COLUMNS = (
    Column("ID"),
    Column("time (UTC)"),
    Column("consistency"),
    Column("items", "right"),
    Column("size", "right"),
    Column("new", "right"),
    Column("tags"),
    Column(""),
)


@command("snapshots")
@filter_options
@pass_settings
def snapshots_command(
    settings: Settings, *, names: Sequence[str], tags: Sequence[str], kinds: Sequence[str]
) -> ExitCode:
    """List snapshots, grouped by what they are of, oldest first.

    "new" is what a backup had to add, before compression. A partial snapshot is one of a source that
    could not be read everywhere; `holdfast info ID` says where.
    """
    with settings.opened() as repository:
        found = settings.snapshots(repository)
    chosen = filter_snapshots(found.good, names=names, tags=tags, kinds=[SubjectKind(k) for k in kinds])
    settings.output.document(
        {
            "snapshots": [snapshot_document(stored) for stored in chosen],
            "damaged": [str(error) for error in found.damaged],
        }
    )
    blocks = [
        table(_COLUMNS, map(_row, group), title=describe_subject(group[-1].snapshot.subject))
        for group in group_by_subject(chosen)
    ]
    settings.output.result("\n\n".join([*blocks, _total(chosen)]))
    return ExitCode.DAMAGE if found.damaged else ExitCode.DONE


def group_by_subject(snapshots: Sequence[StoredSnapshot]) -> list[list[StoredSnapshot]]:
    """By identity, sorted by name; a renamed subject stands under its latest name."""
    groups: dict[tuple[str, str], list[StoredSnapshot]] = {}
    for stored in snapshots:
        groups.setdefault(stored.snapshot.subject.identity, []).append(stored)
    return sorted(groups.values(), key=lambda group: describe_subject(group[-1].snapshot.subject))


def describe_subject(subject: Subject) -> str:
    """`web01 (vm)`, `shop (postgresql database)`."""
    kind = f"{subject.engine} {subject.kind.value}" if subject.engine else subject.kind.value
    return f"{subject.name} ({kind})"


def _row(stored: StoredSnapshot) -> list[str]:
    s = stored.snapshot
    return [
        stored.id[:SHORT_ID],
        time_name(s.time),
        s.consistency.value,
        str(len(s.items)),
        size(s.size),
        size(s.stats.new),
        ",".join(s.tags),
        "partial" if s.partial else "",
    ]


def _total(snapshots: Sequence[StoredSnapshot]) -> str:
    return count(len(snapshots), "snapshot") if snapshots else "no snapshots; `holdfast backup` makes one"
