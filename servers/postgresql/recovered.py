"""A physical backup of a PostgreSQL cluster, recovered as it would be after a loss, in a private folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from holdfast.base.types import ProgressFunction
from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.postgresql.physical.recovery import AUTO_CONF, SIGNAL, STANDBY_SIGNAL, Recovery
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import Item
from holdfast.servers.confined.clients import ask
from holdfast.servers.confined.confined import Confinement
from holdfast.servers.confined.errors import RehearsalFailed
from holdfast.servers.confined.findings import Findings
from holdfast.servers.confined.stage import FetchLog
from holdfast.servers.postgresql.data_directory import Changes, restore_data_directory
from holdfast.servers.postgresql.programs import find_release
from holdfast.servers.postgresql.throwaway import DATA_FOLDER, RestoredCluster, ThrowawayPostgres, running
from holdfast.servers.postgresql.wal_relay import WalRelay

_RECOVERY_SECONDS: Final = 1e9
"""A recovery takes as long as it takes; the rehearsal as a whole may have a limit."""
_CONTROL: Final = {
    "max_connections": "max_connections setting",
    "max_worker_processes": "max_worker_processes setting",
    "max_wal_senders": "max_wal_senders setting",
    "max_prepared_transactions": "max_prepared_xacts setting",
    "max_locks_per_transaction": "max_locks_per_xact setting",
}
"""A recovering server refuses to start with smaller values than the log's: what pg_controldata calls them."""


@contextmanager
def recovered(
    confinement: Confinement,
    repository: Repository,
    item: Item,
    catalogue: Catalogue,
    *,
    findings: Findings,
    recovery: Recovery | None,
    fetch: FetchLog | None,
    superuser: str,
    progress: ProgressFunction,
) -> Iterator[ThrowawayPostgres]:
    """The cluster in `item`, recovered to the end of the backup, or as far as `recovery` says with archived
    log from `fetch`. Raises Refused when no server of its release is here, RehearsalFailed."""
    programs = find_release(_major(repository, item, catalogue), exactly=True)
    findings.server = f"PostgreSQL {programs.version}"
    user = confinement.user
    owner = (user.uid, user.gid)
    added = {AUTO_CONF: b""}
    with ExitStack() as stack:
        relay = None
        if recovery is not None and fetch is not None:
            relay = stack.enter_context(WalRelay(confinement.folder, user, fetch))
            added = {AUTO_CONF: replace(recovery, command=relay.command).settings(), SIGNAL: b""}
        changes = Changes({}, added, frozenset({AUTO_CONF, STANDBY_SIGNAL, "recovery.conf"}), owner)
        data = confinement.folder / DATA_FOLDER
        restore_data_directory(repository, item, catalogue, data, changes=changes, progress=progress)
        settings = _settings(confinement, programs.path("pg_controldata"), data)
        try:
            server = stack.enter_context(
                running(
                    *(confinement, programs, data),
                    superuser=superuser,
                    settings=settings,
                    patience=_RECOVERY_SECONDS,
                    kind=RestoredCluster,
                )
            )
        except RehearsalFailed as error:
            if relay is not None and relay.trouble is not None:
                raise relay.trouble from error
            raise
        if relay is not None:
            relay.close()  # a server that takes writes needs no more log; what it runs from now on gets none
            if relay.trouble is not None:
                raise relay.trouble
        if recovery is not None:
            files = relay.files if relay else 0
            findings.notes.append(f"recovered to {recovery.target} with {files} archived log files")
        yield server


def _major(repository: Repository, item: Item, catalogue: Catalogue) -> int | None:
    section = next((s for s in catalogue.sections if s.name == "PG_VERSION"), None)
    if section is None or section.length > 100:
        raise RehearsalFailed("there is no PG_VERSION in the backup: which release it is of is not known")
    reader = Reader(repository)
    text = reader.read(reader.recipe(item), section.start, section.length).decode("ascii", "replace")
    match = re.match(r"\d+", text)
    return int(match[0]) if match else None


def _settings(confinement: Confinement, pg_controldata: str, data: Path) -> dict[str, str]:
    answer, _ = ask(confinement, [pg_controldata, "-D", str(data)], b"", env={}, limit=1 << 16)
    lines = dict(line.split(":", 1) for line in answer.decode(errors="replace").splitlines() if ":" in line)
    found = {name: lines.get(words, "").strip() for name, words in _CONTROL.items()}
    # Else it would be called ready as soon as it lets readers in, long before the recovery is done.
    return {"hot_standby": "off"} | {name: value for name, value in found.items() if value.isdecimal()}
