"""The options of `holdfast backup`, and their values as one object."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from holdfast.cli.base.options import KINDS
from holdfast.formats.disks.open import FORMATS
from holdfast.formats.dumps.engines import ENGINES
from holdfast.ingest.backup.recognise import SourceType, sql_dump
from holdfast.repo.snapshots.histories import HistoryChoice
from holdfast.repo.snapshots.select import TIME_FORMAT
from holdfast.repo.snapshots.snapshot import Consistency, SubjectKind
from holdfast.tasks.inputs import ImageOptions

_GRADES = [grade.value for grade in Consistency if grade is not Consistency.UNKNOWN]
_ENGINE = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_FILE = click.Path(exists=True, dir_okay=False)


def _parse_time(ctx: click.Context, param: click.Parameter, text: str | None) -> datetime | None:
    if text is None:
        return None
    for parse in (datetime.fromisoformat, lambda text: datetime.strptime(text, TIME_FORMAT)):
        try:
            time = parse(text)
        except ValueError:
            continue
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    raise click.UsageError(f"--time: {text!r} is not a time; write 2026-11-22T02:00:00")


def _parse_engine(ctx: click.Context, param: click.Parameter, text: str | None) -> str:
    if text is not None and not _ENGINE.fullmatch(text):
        raise click.UsageError(f"--engine: {text!r}; a name like oracle or sql-server: a-z, 0-9 and -")
    return text or ""


_LABELS = (
    click.option(
        "--name", help="What this is a backup of: a VM, a database. Default: the first file's name."
    ),
    click.option("--kind", type=KINDS, help="Default: what the first source looks like."),
    click.option(
        "--uuid",
        type=click.UUID,
        help="Of a VM, which keeps its history by it; default: what an export says.",
    ),
    click.option(
        "--engine",
        callback=_parse_engine,
        metavar="ENGINE",
        help="Which database system this is of, where nothing shows it: oracle, sql-server, ...",
    ),
    click.option("--same", is_flag=True, help="It is what has this name already, whatever the facts say."),
    click.option("--new-history", is_flag=True, help="It is something else than what has this history."),
    click.option("--tag", "tags", multiple=True, metavar="TAG", help="A label (repeatable)."),
    click.option("--require", type=click.Choice(_GRADES), help="Fail (exit code 20) when less consistent."),
    click.option("--host", default=platform.node, help="Default: this machine's name."),
    click.option(
        "--time",
        callback=_parse_time,
        metavar="TIME",
        help="When the data is from (UTC, ISO 8601); default: now.",
    ),
    click.option(
        "--lock-timeout", type=click.FloatRange(0), default=60.0, metavar="SECONDS", help="Default: 60."
    ),
)
_IMAGES = (
    click.option("--disk-format", type=click.Choice(list(FORMATS)), help="Default: by name and content."),
    click.option(
        "--backing", multiple=True, metavar="FILE", help="A file that an image refers to (repeatable)."
    ),
    click.option(
        "--follow-backing", is_flag=True, help="Read backing files that lie in an image's own folder."
    ),
    click.option(
        "--bitmap", metavar="NAME", help="Of a live disk: the dirty bitmap that tells what changed."
    ),
    click.option("--checkpoint", metavar="NAME", help="The dirty bitmap that began when this data is from."),
)
_FREEZES = (
    click.option("--before", metavar="COMMAND", help="Run it first: make what is read. No shell."),
    click.option("--after", metavar="COMMAND", help="Run it when all is read, whatever happened."),
    click.option("--freeze", metavar="COMMAND", help="It freezes the guest's file systems: your word."),
    click.option("--thaw", metavar="COMMAND", help="It thaws what --freeze froze, whatever happened."),
    click.option("--agent", metavar="SOCKET", help="Freeze the guest through QEMU's guest agent."),
)
_STREAMS = (
    click.option("--stdin", is_flag=True, help="Back up what comes in through a pipe."),
    click.option("--stdin-filename", metavar="FILE", help="Its name in the snapshot."),
    click.option("--stdin-from-command", is_flag=True, help="Run COMMAND and back up what it prints."),
)
_DATABASES = (
    click.option(
        "--format",
        "format_",
        type=click.Choice(ENGINES.names),
        help="It is an SQL dump of this engine; default: by its first lines.",
    ),
    click.option(
        "--all-databases", is_flag=True, help="Of a server: a snapshot of each, and one of users or roles."
    ),
    click.option("--physical", is_flag=True, help="Of PostgreSQL: the cluster's files, for point in time."),
    click.option("--db-password-file", type=_FILE, metavar="FILE", help="Holds the database's password."),
    click.option(
        "--db-password-fd", type=click.IntRange(0), metavar="N", help="Gives the database's password."
    ),
    click.option(
        "--db-defaults-file", type=_FILE, metavar="FILE", help="MySQL's option file; default: ~/.my.cnf."
    ),
    click.option(
        "--db-format",
        type=click.Choice(["plain", "custom", "file"]),
        help="Of pg_dump: plain SQL (default) or custom. Of SQLite: the file alone, without its SQL text.",
    ),
    click.option("--no-globals", is_flag=True, help="Leave out PostgreSQL's roles, or MySQL's users."),
    click.option(
        "--lock-all-tables",
        is_flag=True,
        help="Of MySQL: make writers wait, for tables without transactions.",
    ),
)


def backup_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Every option of `holdfast backup`; its values make a `BackupOptions`."""
    for option in reversed((*_LABELS, *_DATABASES, *_IMAGES, *_FREEZES, *_STREAMS)):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions:
    """The values from the command line, under the options' own names."""

    paths: tuple[str, ...]
    name: str | None
    kind: str | None
    uuid: UUID | None
    engine: str
    same: bool
    new_history: bool
    tags: tuple[str, ...]
    require: str | None
    host: str
    time: datetime | None
    lock_timeout: float
    disk_format: str | None
    backing: tuple[str, ...]
    follow_backing: bool
    bitmap: str | None
    checkpoint: str | None
    before: str | None
    after: str | None
    freeze: str | None
    thaw: str | None
    agent: str | None
    stdin: bool
    stdin_filename: str | None
    stdin_from_command: bool
    format_: str | None
    all_databases: bool
    physical: bool
    db_password_file: str | None
    db_password_fd: int | None
    db_defaults_file: str | None
    db_format: str | None
    no_globals: bool
    lock_all_tables: bool

    @property
    def wanted(self) -> SubjectKind | None:
        return SubjectKind(self.kind) if self.kind else None

    @property
    def choice(self) -> HistoryChoice:
        """Which history the backup continues."""
        if self.same and self.new_history:
            raise click.UsageError("--same and --new-history exclude each other")
        if self.same:
            return HistoryChoice.SAME
        return HistoryChoice.NEW if self.new_history else HistoryChoice.BY_FACTS

    @property
    def required(self) -> Consistency:
        return Consistency(self.require) if self.require else Consistency.UNKNOWN

    @property
    def images(self) -> ImageOptions:
        return ImageOptions(
            self.disk_format,
            tuple(map(Path, self.backing)),
            self.follow_backing,
            self.bitmap or "",
            self.checkpoint or "",
        )

    @property
    def kind_of_sources(self) -> SubjectKind | None:
        """`wanted`; a dump is of a database."""
        if self.format_ is None:
            return self.wanted
        if self.wanted not in (None, SubjectKind.DATABASE):
            raise click.UsageError(f"--format {self.format_} is a dump, not of kind {self.kind}")
        return SubjectKind.DATABASE

    @property
    def said(self) -> SourceType | None:
        """What the sources are, if the user says it."""
        return sql_dump(self.format_) if self.format_ else None

    @property
    def of_databases(self) -> list[str]:
        """The options given that only a database's URL can be given."""
        given = {
            "--all-databases": self.all_databases,
            "--physical": self.physical,
            "--db-password-file": self.db_password_file is not None,
            "--db-password-fd": self.db_password_fd is not None,
            "--db-defaults-file": self.db_defaults_file is not None,
            "--db-format": self.db_format is not None,
            "--no-globals": self.no_globals,
            "--lock-all-tables": self.lock_all_tables,
        }
        return [name for name, said in given.items() if said]
