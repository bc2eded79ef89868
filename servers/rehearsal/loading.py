"""Which server takes which form of a backup, and how it gets in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from holdfast.base.types import Buffer, ProgressFunction
from holdfast.repo.core.repository import Repository
from holdfast.servers.base.server_programs import ask_version, find_maria, find_postgres, find_sqlite
from holdfast.servers.confined.clients import converted, watched
from holdfast.servers.confined.confined import Confinement
from holdfast.servers.confined.findings import Findings, Server
from holdfast.servers.mysql import throwaway as maria
from holdfast.servers.postgresql import throwaway as postgres
from holdfast.servers.postgresql.recovered import recovered
from holdfast.servers.postgresql.script import guarded
from holdfast.servers.rehearsal.options import Wishes
from holdfast.servers.rehearsal.subject import PHYSICAL, Material, stored_bytes, to_trailer
from holdfast.servers.sqlite.throwaway import Sqlite


@dataclass(frozen=True, slots=True)
class Stage:
    """What a load happens with. `findings` are filled on the way; `tell` hears of each step."""

    confinement: Confinement
    repository: Repository
    material: Material
    findings: Findings
    progress: ProgressFunction
    tell: Callable[[str], None]


def loaded(stack: ExitStack, stage: Stage, wishes: Wishes) -> Server:
    """A server with the backup in it, until `stack` ends. Raises RehearsalFailed, Refused, Damaged."""
    material = stage.material
    if material.form == PHYSICAL:
        return _cluster(stack, stage, wishes)
    parts = watched(stored_bytes(stage.repository, material.item, material.catalogue), stage.progress)
    if material.catalogue is None and material.form == "sql":
        parts = to_trailer(parts, material.engine)
    if material.engine == "postgresql":
        return _postgres(stack, stage, parts)
    if material.engine == "sqlite":
        return _sqlite(stage, parts)
    return _maria(stack, stage, parts, wishes)


def _cluster(stack: ExitStack, stage: Stage, wishes: Wishes) -> Server:
    assert stage.material.catalogue is not None
    stage.tell("recovering")
    return stack.enter_context(
        recovered(
            *(stage.confinement, stage.repository, stage.material.item, stage.material.catalogue),
            findings=stage.findings,
            recovery=wishes.recovery,
            fetch=wishes.fetch,
            superuser=wishes.superuser,
            progress=stage.progress,
        )
    )


def _postgres(stack: ExitStack, stage: Stage, parts: Iterator[Buffer]) -> Server:
    programs = find_postgres(stage.material.major)
    stage.findings.server = f"PostgreSQL {programs.version}"
    stage.tell("starting a server")
    catalogue = stage.material.catalogue
    bytewise = catalogue is not None and catalogue.extra.get("encoding") == "SQL_ASCII"
    data = postgres.initialise(stage.confinement, programs, "SQL_ASCII" if bytewise else "UTF8")
    server = stack.enter_context(postgres.running(stage.confinement, programs, data))
    stage.tell("loading")
    if stage.material.roles is not None:
        server.load(stored_bytes(stage.repository, stage.material.roles))
    if stage.material.form == "pgdump":
        argv = [programs.path("pg_restore"), "-f", "-"]
        parts = converted(stage.confinement, argv, parts, env={})
    elif catalogue is not None:
        parts = guarded(parts, [section for section in catalogue.sections if section.type == "DROP"])
    server.load(parts)
    return server


def _maria(stack: ExitStack, stage: Stage, parts: Iterator[Buffer], wishes: Wishes) -> Server:
    material = stage.material
    programs = find_maria(material.engine)
    name = "MariaDB" if programs.engine == "mariadb" else "MySQL"
    stage.findings.server = f"{name} {programs.version}"
    if programs.engine != material.engine:
        stage.findings.notes.append(f"the dump is of {material.engine}; here is {name}, which may differ")
    stage.tell("starting a server")
    server = stack.enter_context(maria.running(stage.confinement, programs))
    stage.tell("loading")
    server.load(parts, maria.database_name(wishes.database or material.name))
    return server


def _sqlite(stage: Stage, parts: Iterator[Buffer]) -> Server:
    program = find_sqlite()
    database = Sqlite(stage.confinement, program)
    stage.findings.server = f"SQLite {ask_version(program).partition(' ')[0]}"
    stage.tell("loading")
    if stage.material.form == "sqlite":
        database.put(parts)
    else:
        database.load(parts)
    return database
