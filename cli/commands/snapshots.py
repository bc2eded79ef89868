"""`holdfast snapshots`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.base.escaping import escape
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.documents import SHORT_ID, snapshot_document, verdict_document
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.options import command, filter_options, pass_settings
from holdfast.cli.base.render import count, size
from holdfast.cli.base.subjects import SubjectTitles, group_by_subject
from holdfast.cli.base.table import Column, table
from holdfast.repo.snapshots.select import filter_snapshots, time_name
from holdfast.repo.snapshots.snapshot import StoredSnapshot, SubjectKind
from holdfast.servers.base.proof import Outcome, Verdict, Verdicts, latest_verdicts

_COLUMNS = (
    Column("ID"),
    Column("time (UTC)"),
    Column("consistency", leaves=2),
    Column("items", "right", leaves=6),
    Column("size", "right", leaves=3),
    Column("new", "right", leaves=5),
    Column("tags", leaves=4, optional=True),
    Column("proven", leaves=1, optional=True),
    Column("", optional=True),
)


@command("snapshots")
@filter_options
@pass_settings
def snapshots_command(
    settings: RunSettings, *, names: Sequence[str], tags: Sequence[str], kinds: Sequence[str]
) -> ExitCode:
    """List snapshots, grouped by what they are of, oldest first.

    "new" is what a backup had to add, before compression. A partial snapshot is one of a source that
    could not be read everywhere; `holdfast info ID` says where. "proven" is when `holdfast rehearse` last
    tried one, and "failed" if that did not work.
    """
    with settings.opened() as repository:
        found = settings.snapshots(repository)
        proofs = latest_verdicts(repository)
    chosen = filter_snapshots(found.good, names=names, tags=tags, kinds=[SubjectKind(k) for k in kinds])
    settings.output.document(
        {
            "snapshots": [
                snapshot_document(stored) | {"proven": _proven_document(proofs, stored)} for stored in chosen
            ],
            "damaged": [str(error) for error in found.damaged],
        }
    )
    for error in proofs.damaged:
        settings.output.warn(f"a proof cannot be read: {error}; run `holdfast check`")
    titles = SubjectTitles(found.good)
    blocks = [
        table(
            _COLUMNS,
            [_row(stored, proofs) for stored in group],
            title=titles.title(group[-1].snapshot.subject),
        )
        for group in group_by_subject(chosen)
    ]
    settings.output.result("\n\n".join([*blocks, _total(chosen) or _none(found.good, names, tags, kinds)]))
    return ExitCode.DAMAGE if found.damaged else ExitCode.DONE


def proven(verdict: Verdict | None) -> str:
    """`2026-11-25`, `failed 2026-11-24`, `2026-11-25 (a.sql)` for one dump of several, "" for never."""
    if verdict is None:
        return ""
    day = f"{verdict.time:%Y-%m-%d}" + (f" ({verdict.path})" if verdict.path else "")
    return day if verdict.outcome is Outcome.PROVEN else f"failed {day}"


def _proven_document(proofs: Verdicts, stored: StoredSnapshot) -> dict[str, Any] | None:
    verdict = proofs.latest.get(stored.id)
    return verdict_document(verdict) if verdict else None


def _row(stored: StoredSnapshot, proofs: Verdicts) -> list[str]:
    s = stored.snapshot
    return [
        stored.id[:SHORT_ID],
        time_name(s.time),
        s.consistency.value,
        str(len(s.items)),
        size(s.size),
        size(s.stats.new),
        ",".join(s.tags),
        proven(proofs.latest.get(stored.id)),
        "partial" if s.partial else "",
    ]


def _total(snapshots: Sequence[StoredSnapshot]) -> str:
    return count(len(snapshots), "snapshot") if snapshots else ""


def _none(
    there: Sequence[StoredSnapshot], names: Sequence[str], tags: Sequence[str], kinds: Sequence[str]
) -> str:
    """Why there is nothing to list."""
    others = len(filter_snapshots(there))
    if not others:
        return "no snapshots; `holdfast backup` makes one"
    wanted = [
        f"--{option} {value}"
        for option, values in (("name", names), ("tag", tags), ("kind", kinds))
        for value in values
    ]
    return f"no snapshot fits {escape(' '.join(wanted))}; without that there are {others}"
