"""`holdfast rehearse`."""

from __future__ import annotations

import shlex
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from holdfast import __version__
from holdfast.base.errors import Refused
from holdfast.base.escaping import escape, escape_lines
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.documents import proof_document, snapshot_document
from holdfast.cli.base.exits import ExitCode
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import Column, count, duration, table
from holdfast.cli.base.subjects import describe_subject
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.servers.base.proof import Outcome, Proof, QueryResult, keep_proof
from holdfast.servers.rehearsal.options import Wishes
from holdfast.servers.rehearsal.rehearsal import Rehearsed, rehearse
from holdfast.servers.rehearsal.subject import PHYSICAL, Material, find_material

_COLUMNS = (Column("database"), Column("table"), Column("rows", "right"))
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
@click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Give up then.")
@click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the server's private folder is made; default: TMPDIR or /tmp.",
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
    timeout: float | None,
    scratch: Path | None,
    keep: bool,
    no_progress: bool,
) -> ExitCode:
    """Prove that a database's backup is good: load it into a throw-away server, count all rows, ask queries.

    \b
    holdfast rehearse shop@latest
    holdfast rehearse shop --query 'select max(created) from orders'
    holdfast rehearse shopcluster --until '2026-11-25 14:05'

    The server is one of the snapshot's engine that is installed here. It runs in a private folder, with a
    private socket and no network; a server that runs already is not touched. As root it runs as the
    database's own user. Server and folder are gone at the end.

    The result is kept beside the snapshot, and `holdfast snapshots` shows it. Exits with 1 when the
    rehearsal failed, with 3 when the snapshot loads but something of its source could not be read.

    Loading a dump runs the SQL that is in it, in that server and in its client, which may run programs:
    without root those can do what you can. Rehearse backups of databases that you trust so far.
    """
    began = time.monotonic()
    settings.if_interrupted = "the server and its folder are gone; nothing was recorded; run it again"
    with settings.opened(index=True) as repository, ExitStack() as stack:
        stored, path, more = _chosen(settings, repository, snapshot, until, timeline)
        material = find_material(repository, stored, path)
        if until is not None and material.form != PHYSICAL:
            raise Refused(f"snapshot {stored.id[:8]} is no physical backup, and --until needs one")
        wishes = Wishes(
            scratch or Path(tempfile.gettempdir()),
            queries=queries,
            database=database,
            keep=keep,
            timeout=timeout,
            superuser=superuser,
            **more,
        )
        meter = stack.enter_context(
            progress(settings.output, "rehearse", material.item.size, shown=not no_progress)
        )
        done = rehearse(
            *(repository, stored, material, wishes),
            time=datetime.now(UTC),
            host=socket.gethostname(),
            program=f"holdfast {__version__}",
            clock=time.monotonic,
            progress=meter.add,
            tell=lambda step: settings.output.detail(f"{time.monotonic() - began:6.1f} s  {step}"),
        )
        stack.close()
        keep_proof(repository, done.proof)
    _tell(settings, stored, material, done)
    if done.damage:
        return ExitCode.DAMAGE
    if done.proof.verdict.outcome is Outcome.PROVEN:
        return ExitCode.DONE
    return ExitCode.PARTIAL if done.loads and material.fault else ExitCode.FAILED


def _chosen(
    settings: RunSettings, repository: Repository, selector: str, until: str | None, timeline: str | None
) -> tuple[StoredSnapshot, str, dict[str, Any]]:
    """(snapshot, path inside, what a recovery needs)."""
    if until is None:
        if timeline is not None:
            raise click.UsageError("--timeline says which way to go to --until; give that too")
        return (*settings.pick(repository, selector), {})
    # Here and not above: dumps need nothing of it.
    from holdfast.cli.commands.restore_physical import pick_backup, recovery_of  # noqa: PLC0415
    from holdfast.cli.commands.wal import write_log  # noqa: PLC0415
    from holdfast.formats.dumps.core.facts import facts_of  # noqa: PLC0415
    from holdfast.formats.dumps.logs.required_logs import item_reader  # noqa: PLC0415
    from holdfast.formats.dumps.postgresql.recovery_logs import check_logs  # noqa: PLC0415
    from holdfast.formats.dumps.postgresql.required_wal import archive_subject, read_histories  # noqa: PLC0415
    from holdfast.repo.records.log_archive import LogReading  # noqa: PLC0415

    recovery = recovery_of(settings, until, timeline)
    assert recovery is not None
    stored, path = pick_backup(settings, repository, selector, recovery)
    facts = facts_of(stored.snapshot)
    reading = LogReading(repository)
    archive = reading.archive(archive_subject(facts.system_id).identity)
    histories = read_histories(archive, item_reader(repository)) if archive else {}
    try:
        # A server takes the first file that is not there for the end of the log, and is content.
        note = check_logs(archive, histories, facts, recovery)
    except Refused:
        if reading.damaged:
            raise reading.damaged[0] from None  # it may be the one that holds what is missing
        raise
    assert archive is not None
    if note:
        settings.output.warn(note)

    def fetch(name: str, target: Path) -> bool:
        item = archive.get(name)
        if item is None:
            if reading.damaged:
                raise reading.damaged[0]  # it may be the one that holds the file
            return False
        write_log(repository, item, target)
        return True

    return stored, path, {"recovery": recovery, "fetch": fetch}


def _tell(settings: RunSettings, stored: StoredSnapshot, material: Material, done: Rehearsed) -> None:
    output = settings.output
    proof = done.proof
    folder = str(done.folder) if done.folder else None
    output.document(
        {
            "message_type": "summary",
            "action": "rehearse",
            "snapshot": snapshot_document(stored, items=False),
            "proof": proof_document(proof),
            "expected_tables": material.expected,
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
        output.summary(
            f"kept: {escape(str(done.folder))}; start its server with\n  {escape(_start(material, done))}"
        )


def _sentence(stored: StoredSnapshot, proof: Proof) -> str:
    v = proof.verdict
    what = f"snapshot {stored.id[:8]} of {escape(describe_subject(stored.snapshot.subject))}"
    if v.path:
        what = f"{escape(v.path)} in {what}"
    counted = f"{count(v.tables, 'table')}, {count(v.rows, 'row')}, in {duration(v.seconds)}"
    if v.outcome is Outcome.PROVEN:
        return f"{what} is proven: {escape(v.server)} took it; {counted}"
    return (
        f"{what} FAILED its rehearsal ({escape(v.server)}, {duration(v.seconds)}):\n{escape_lines(v.error)}"
    )


def _describe_query(query: QueryResult) -> str:
    columns = [Column(escape(name)) for name in query.columns]
    rows = [["NULL" if cell is None else cell for cell in row] for row in query.rows]
    wide = [row[: len(columns)] + [""] * (len(columns) - len(row)) for row in rows]
    more = "\n(and more)" if query.more else ""
    return table(columns, wide, title=query.sql) + more if columns else f"{escape(query.sql)}\n(nothing)"


def _start(material: Material, done: Rehearsed) -> str:
    assert done.folder is not None
    folder = done.folder
    data = str(folder / "data")
    words: Callable[[], list[str]] = {
        "postgresql": lambda: ["postgres", "-D", data, "-c", f"config_file={folder / 'postgresql.conf'}"],
        "sqlite": lambda: ["sqlite3", str(folder / "database.sqlite")],
    }.get(
        material.engine,
        lambda: [
            "mariadbd",
            "--no-defaults",
            f"--datadir={data}",
            f"--socket={folder / 'socket'}",
            "--skip-networking",
        ],
    )
    return shlex.join(words())
