"""`holdfast rehearse`."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from holdfast.base.escaping import escape, escape_message
from holdfast.base.types import ProgressFunction
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.documents import proof_document, snapshot_document
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.progress import progress
from holdfast.cli.base.recovery_options import recovery_of
from holdfast.cli.base.render import count, duration
from holdfast.cli.base.subjects import describe_subject
from holdfast.cli.base.table import Column, table
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.servers.base.proof import Outcome, Proof, QueryResult
from holdfast.servers.confined.stage import RehearsalOptions
from holdfast.tasks.rehearse import RehearsalHandlers, RehearsalReport, rehearse_snapshot
from holdfast.tasks.restore_cluster import pick_backup

_COLUMNS = (Column("database", leaves=1), Column("table"), Column("rows", "right"))
_SHOWN = 40
"""Tables that are shown without -v."""


@command("rehearse")
@click.argument("snapshot", metavar="SNAPSHOT[:PATH]")
@click.option("--query", "queries", multiple=True, metavar="SQL", help="Ask this afterwards (repeatable).")
@click.option("--database", default="", metavar="NAME", help="Of the queries, when there are several.")
@click.option(
    "--until", metavar="TIME|LSN|latest", help="Of a physical backup: recover to there with archived WAL."
)
@click.option("--timeline", metavar="N", help="With --until: the timeline; default: the newest.")
@click.option(
    "--superuser", default="postgres", metavar="NAME", help="Of a physical backup's cluster: who counts."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=3600.0,
    metavar="SECONDS",
    help="Give up then; default: 3600.",
)
@click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the server's private folder is made; default: TMPDIR or /tmp.",
)
@click.option(
    "--allow-meta-commands",
    is_flag=True,
    help="Load a dump with commands for its client (such as \\!), which then run.",
)
@click.option(
    "--unconfined",
    is_flag=True,
    help="Let the dump's SQL reach this machine's files and network; the proof says so.",
)
@click.option("--keep", is_flag=True, help="Leave the folder there, and say how its server is started.")
@click.option("--no-progress", is_flag=True, help="No progress bar.")
@pass_settings
def rehearse_command(
    settings: RunSettings,
    *,
    snapshot: str,
    queries: Sequence[str],
    database: str,
    until: str | None,
    timeline: str | None,
    superuser: str,
    timeout: float,
    scratch: Path | None,
    allow_meta_commands: bool,
    unconfined: bool,
    keep: bool,
    no_progress: bool,
) -> ExitCode:
    """Prove that a database's backup is good: load it into a throw-away server, count all rows, ask queries.

    \b
    holdfast rehearse shop@latest
    holdfast rehearse shop --query 'select max(created) from orders'
    holdfast rehearse shopcluster --until '2026-11-25 14:05'

    The server is one of the snapshot's engine that is installed here. It and its clients run confined: as a
    user that owns nothing (without root: as you), with no network, and they see programs and one private
    folder only. They may use 4 GiB of memory and, unless told otherwise, an hour. Server and folder are gone
    at the end. Where they cannot be confined the rehearsal is refused.

    The result is kept beside the snapshot, and `holdfast snapshots` shows it. Exits with 1 when the
    rehearsal failed, with 3 when the snapshot loads but something of its source could not be read.

    Loading a dump runs the SQL that is in it, in that server and in its client, which may run programs
    there. With --unconfined those can do what their user can on this machine: without root, what you can. A
    dump that holds commands for the client, as no dump tool writes them, is refused without
    --allow-meta-commands.
    """
    began = time.monotonic()
    settings.if_interrupted = "the server and its folder are gone; nothing was recorded; run it again"
    handlers = RehearsalHandlers(
        meter=lambda total: _meter(settings, total, shown=not no_progress),
        tell=lambda step: settings.output.detail(f"{time.monotonic() - began:6.1f} s  {step}"),
        warn=settings.output.warn,
    )
    with settings.opened(index=True) as repository:
        recovery = recovery_of(settings, until, timeline)
        options = RehearsalOptions(
            scratch or Path(tempfile.gettempdir()),
            queries=queries,
            database=database,
            keep=keep,
            timeout=timeout,
            superuser=superuser,
            recovery=recovery,
            client_commands=allow_meta_commands,
            confined=not unconfined,
        )
        if recovery is None:
            stored, path = settings.pick(repository, snapshot)
        else:
            stored, path = pick_backup(settings.snapshots(repository).good, snapshot, recovery)
        report = rehearse_snapshot(repository, stored, path, options, handlers)
    _tell(settings, stored, report)
    return _code(report)


@contextmanager
def _meter(settings: RunSettings, total: int, *, shown: bool) -> Iterator[ProgressFunction]:
    with progress(settings.output, "rehearse", total, shown=shown) as meter:
        yield meter.add


def _code(report: RehearsalReport) -> ExitCode:
    if report.result.damage:
        return ExitCode.DAMAGE
    if report.result.proof.verdict.outcome is Outcome.PROVEN:
        return ExitCode.DONE
    return ExitCode.PARTIAL if report.result.loads and report.subject.fault else ExitCode.FAILED


def _tell(settings: RunSettings, stored: StoredSnapshot, report: RehearsalReport) -> None:
    output, done = settings.output, report.result
    proof = done.proof
    folder = str(done.folder) if done.folder else None
    output.document(
        {
            "message_type": "summary",
            "action": "rehearse",
            "snapshot": snapshot_document(stored, items=False),
            "proof": proof_document(proof),
            "expected_tables": report.subject.expected,
            "kept": folder,
        }
    )
    shown = len(proof.tables) if output.verbose else _SHOWN
    if proof.tables:
        rows = [
            [t.database, f"{t.schema}.{t.name}" if t.schema else t.name, f"{t.rows:,}"] for t in proof.tables
        ]
        output.summary(table(_COLUMNS, rows[:shown]))
        if len(rows) > shown:
            output.summary(f"and {count(len(rows) - shown, 'more table')}; -v shows all")
        output.summary("")
    for query in proof.queries:
        output.result(_describe_query(query) + "\n")
    for note in proof.notes:
        output.note(note)
    output.result(_sentence(stored, proof))
    if done.folder is not None:
        start = shlex.join(report.start_command())
        output.summary(f"kept: {escape(str(done.folder))}; start its server with\n  {escape(start)}")


def _sentence(stored: StoredSnapshot, proof: Proof) -> str:
    v = proof.verdict
    what = f"snapshot {stored.id[:8]} of {escape(describe_subject(stored.snapshot.subject))}"
    if v.path:
        what = f"{escape(v.path)} in {what}"
    counted = f"{count(v.tables, 'table')}, {count(v.rows, 'row')}, in {duration(v.seconds)}"
    if v.outcome is Outcome.PROVEN:
        return f"{what} is proven: {escape(v.server)} took it; {counted}"
    return (
        f"{what} FAILED its rehearsal ({escape(v.server)}, {duration(v.seconds)}):\n{escape_message(v.error)}"
    )


def _describe_query(query: QueryResult) -> str:
    columns = [Column(escape(name), folds=True) for name in query.columns]
    rows = [["NULL" if cell is None else cell for cell in row] for row in query.rows]
    wide = [row[: len(columns)] + [""] * (len(columns) - len(row)) for row in rows]
    more = "\n(and more)" if query.more else ""
    return table(columns, wide, title=query.sql) + more if columns else f"{escape(query.sql)}\n(nothing)"
