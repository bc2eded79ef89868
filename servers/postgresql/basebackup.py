"""A whole PostgreSQL cluster, file by file, with the log that makes it consistent: through pg_basebackup.

Options that were chosen, and why: one tar on standard output, which is stored as it comes; -X fetch, because
nothing else can go into that stream, so the server must keep the log of the backup's duration (it fails, and
says so, when it did not: `wal_keep_size`); a fast checkpoint, because else minutes pass before the backup
begins; SHA-256 in the manifest, which is compared while the stream passes
(`formats.dumps.postgresql.physical.basebackup`). The server verifies its own page checksums on the way out.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Final

from holdfast.base.errors import StreamFailed
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.formats.dumps.postgresql.physical.required_wal import cluster_identity
from holdfast.formats.dumps.postgresql.plain.marks import NAME as ENGINE
from holdfast.ingest.backup.plan import plan_items
from holdfast.repo.snapshots.snapshot import SubjectKind
from holdfast.servers.base.connection import place_of
from holdfast.servers.base.errors import NoPhysicalBackup
from holdfast.servers.base.prepared import Prepared
from holdfast.servers.base.secrets import Access
from holdfast.servers.base.tool_source import ToolSource, ask_program, tool_version
from holdfast.servers.postgresql.connection import conninfo
from holdfast.servers.postgresql.programs import find_client
from holdfast.servers.postgresql.psql import psql_arguments

ITEM: Final = "base.tar"
_OLDEST: Final = 13
"""The first release that writes a manifest."""
_QUESTIONS: Final = "IDENTIFY_SYSTEM;\nSHOW server_version;\nSHOW cluster_name;\n"
_SEVERAL: Final = re.compile("can only write single tablespace to stdout")
_EVIDENCE: Final = "pg_basebackup exited with 0; its manifest was there, and files and log are what it says"


class PhysicalSource(ToolSource):
    """pg_basebackup's tar. `finish` raises StreamFailed unless it is whole: the tool's exit status and the
    manifest decide, and the cluster must be the one that was asked before."""

    def __init__(self, access: Access, argv: list[str], system_id: str) -> None:
        self._system_id = system_id
        super().__init__(access, argv, ITEM, evidence=_EVIDENCE)

    def judge(self, fault: str, facts: DumpFacts) -> None:
        """Judge the scan's result before the commit. Raises StreamFailed when the backup is not whole."""
        if not fault and facts.system_id != self._system_id:
            fault = f"it is of the cluster with system identifier {facts.system_id}, not {self._system_id}"
        if fault:
            raise StreamFailed(f"{self.name}: the backup is not whole: {fault}; nothing was committed")

    def finish(self) -> str:
        try:
            return super().finish()
        except StreamFailed as error:
            if _SEVERAL.search(str(error)) is None:
                raise
            raise NoPhysicalBackup(
                "this cluster has tablespaces, whose files pg_basebackup cannot write into one stream; "
                "nothing was stored"
            ) from None


def prepare_physical(stack: ExitStack, access: Access) -> Prepared:
    """Start pg_basebackup for the connection's cluster; it is stopped when `stack` ends.

    Needs a role with REPLICATION and a `replication` line in pg_hba.conf, no database. The subject's
    identity is `cluster_identity`. Raises StreamFailed, NoPhysicalBackup, NotFound.
    """
    system_id, version, cluster = _ask(access)
    major = re.match(r"[0-9]+", version)
    if major is None or int(major[0]) < _OLDEST:
        raise NoPhysicalBackup(
            f"the server is PostgreSQL {version}, which gives no manifest to verify a physical backup by: "
            f"that came with {_OLDEST}; nothing was stored"
        )
    program = find_client("pg_basebackup")
    argv = [program, "--pgdata=-", "--format=tar", "--wal-method=fetch", "--checkpoint=fast"]
    argv += ["--manifest-checksums=SHA256", "--no-password", "--label=holdfast"]
    argv.append(f"--dbname={conninfo(access.connection)}")
    source = PhysicalSource(access, argv, system_id)
    stack.callback(source.close)
    facts = DumpFacts(
        physical=True,
        system_id=system_id,
        server=f"PostgreSQL {version}",
        tool=tool_version(access, program),
    )
    name = _name(access, cluster)
    return Prepared(
        plan_items([source], SubjectKind.DATABASE),
        name,
        ENGINE,
        access.connection.to("").origin,
        facts,
        uuid=cluster_identity(system_id),
        where=place_of(access.connection.to(""), system_id),
    )


def _ask(access: Access) -> tuple[str, str, str]:
    """(system identifier, version, cluster name), asked over a replication connection."""
    database = conninfo(access.connection.to(""), replication="yes")
    argv = psql_arguments(find_client("psql"), database, "-A", "-t")
    lines = ask_program(access, argv, stdin=_QUESTIONS).decode(errors="replace").splitlines()
    system = re.match(r"[0-9]{1,20}(?=\|)", lines[0]) if lines else None
    if system is None or len(lines) < 2:
        raise StreamFailed(f"{access.connection.origin}: the server's answer cannot be understood")
    return system[0], lines[1].strip(), lines[2].strip() if len(lines) > 2 else ""


def _name(access: Access, cluster: str) -> str:
    """The subject's name unless the user gives one: the cluster's own, else the host's, else the system's."""
    host = access.connection.host
    if cluster:
        return re.sub(r"[/:@\s]", "-", cluster)
    return ENGINE if not host or host.startswith(("/", "@")) else host.split(",")[0]
