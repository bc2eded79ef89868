"""`holdfast subject`: what backups are of."""

from __future__ import annotations

from collections.abc import Sequence

import click

from holdfast.base.escaping import escape
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.documents import SHORT_ID
from holdfast.cli.base.forgetting import forget_decided
from holdfast.cli.base.options import SharedOptionsGroup, pass_settings
from holdfast.cli.base.render import iso
from holdfast.cli.base.subject_name import subject_name
from holdfast.cli.base.subjects import SubjectTitles, describe_subject, group_by_subject
from holdfast.cli.base.table import Column, table
from holdfast.repo.snapshots.retention import Decision
from holdfast.repo.snapshots.select import filter_snapshots, select_one, select_subject, time_name
from holdfast.repo.snapshots.snapshot import StoredSnapshot, Subject
from holdfast.repo.snapshots.subjects import Subjects
from holdfast.tasks import subjects

_COLUMNS = (
    Column("name"),
    Column("kind", leaves=2),
    Column("snapshots", "right", leaves=3),
    Column("newest (UTC)", leaves=1),
    Column("from", folds=True),
)


@click.group("subject", cls=SharedOptionsGroup)
def subject_command() -> None:
    """Show what backups are of; give it another name, join histories, split them, drop one.

    A VM is known by its UUID, a database by its server's identifier and its name, anything else by host and
    path, or host and the --name that it was given. Names are labels: where several have one, what sets them
    apart stands before it, as in db1/shop, postgresql/shop or vm/web01.
    """


@subject_command.command("list")
@pass_settings
def list_command(settings: RunSettings) -> None:
    """List all subjects, with the name that means each."""
    with settings.opened() as repository:
        found = settings.snapshots(repository).good
    there = Subjects(found)
    groups = group_by_subject(filter_snapshots(found))
    settings.output.document({"subjects": [_document(there, group) for group in groups]})
    rows = [_row(there, group) for group in groups]
    settings.output.result(table(_COLUMNS, rows) if rows else "no snapshots; `holdfast backup` makes one")


@subject_command.command("rename")
@click.argument("name")
@click.argument("new")
@pass_settings
def rename_command(settings: RunSettings, *, name: str, new: str) -> None:
    """Give a subject another name. It keeps it, whatever later backups are called."""
    new = subject_name(new)
    with settings.opened() as repository:
        subject = select_subject(settings.snapshots(repository).good, name)
        subjects.rename(repository, subject, new)
    _tell(settings, "rename", f"{describe_subject(subject)} is called {new} from now on")


@subject_command.command("join")
@click.argument("name")
@click.argument("into")
@pass_settings
def join_command(settings: RunSettings, *, name: str, into: str) -> None:
    """Make the history of NAME a part of INTO, for all that was backed up and will be.

    \b
    holdfast subject join hv1/web01 web01
    """
    with settings.opened() as repository:
        found = settings.snapshots(repository).good
        one, other = select_subject(found, name), select_subject(found, into)
        title = SubjectTitles(found).title(one)
        subjects.join(repository, one, other)
    _tell(settings, "join", f"{title} is a part of {describe_subject(other)} from now on")


@subject_command.command("split")
@click.argument("name")
@click.argument("snapshots", nargs=-1, metavar="[SNAPSHOT...]")
@pass_settings
def split_command(settings: RunSettings, *, name: str, snapshots: Sequence[str]) -> None:
    """Take SNAPSHOTs out of the history of NAME, as one of their own; without any, what was joined to it.

    Later backups continue the history whose newest snapshot is from the same place.
    """
    with settings.opened() as repository:
        listed = settings.snapshots(repository)
        subject = select_subject(listed.good, name)
        chosen = [select_one(listed.good, selector) for selector in snapshots]
        strangers = [s for s in chosen if s.snapshot.subject.identity != subject.identity]
        if strangers:
            raise click.UsageError(f"{strangers[0].id[:SHORT_ID]} is no snapshot of {escape(name)}")
        subjects.split(repository, listed, subject, chosen)
        parts = Subjects(settings.snapshots(repository).good)
    names = ", ".join(sorted({parts.label(part) for part in parts.named(subject.name)}))
    _tell(settings, "split", f"{describe_subject(subject)} was split; there are now {names}")


@subject_command.command("drop")
@click.argument("name")
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--with-logs", is_flag=True, help="Even if a log archive is of no use then: it goes, too.")
@pass_settings
def drop_command(settings: RunSettings, *, name: str, dry_run: bool, with_logs: bool) -> None:
    """Forget all snapshots of a subject. `holdfast undelete NAME` brings them back until a prune."""
    with settings.opened() as repository:
        listed = settings.snapshots(repository)
        subject = select_subject(listed.good, name)
        decisions = [
            Decision(stored, ())
            for stored in listed.good
            if stored.snapshot.subject.identity == subject.identity
        ]
        forget_decided(settings, repository, listed, decisions, dry_run=dry_run, with_logs=with_logs)


def _tell(settings: RunSettings, action: str, text: str) -> None:
    settings.output.message("summary", action=f"subject {action}", text=text)
    settings.output.summary(escape(text))


def _kind(subject: Subject) -> str:
    return f"{subject.engine} {subject.kind.value}".lstrip()


def _row(there: Subjects, group: Sequence[StoredSnapshot]) -> list[str]:
    newest = group[-1].snapshot
    return [
        there.label(newest.subject),
        _kind(newest.subject),
        str(len(group)),
        time_name(newest.time),
        f"{newest.host}:{newest.source}",
    ]


def _document(there: Subjects, group: Sequence[StoredSnapshot]) -> dict[str, object]:
    newest = group[-1].snapshot
    subject = newest.subject
    return {
        "label": there.label(subject),
        "name": subject.name,
        "kind": subject.kind.value,
        "engine": subject.engine,
        "uuid": subject.uuid,
        "host": subject.origin.host,
        "server": subject.origin.server,
        "place": subject.origin.place,
        "snapshots": len(group),
        "newest": {"id": group[-1].id, "time": iso(newest.time), "source": newest.source},
    }
