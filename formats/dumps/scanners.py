"""Which scanner a recognised dump is looked through with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from holdfast.formats.dumps.core.scan import Scanner
from holdfast.formats.dumps.mysql.scan import MysqlVisitor
from holdfast.formats.dumps.postgresql.basebackup_tar import TarScanner
from holdfast.formats.dumps.postgresql.scan import PostgresVisitor
from holdfast.formats.dumps.sqlite.scan import SqliteVisitor

AnyScanner = Scanner | TarScanner

_SCANNERS: Final[dict[tuple[str, str], Callable[[], AnyScanner]]] = {
    ("postgresql", "sql"): lambda: Scanner(PostgresVisitor()),
    ("postgresql", "tar"): TarScanner,
    ("mariadb", "sql"): lambda: Scanner(MysqlVisitor()),
    ("mysql", "sql"): lambda: Scanner(MysqlVisitor()),
    ("sqlite", "sql"): lambda: Scanner(SqliteVisitor()),
}


def scanner_for(engine: str, form: str) -> AnyScanner | None:
    """A new scanner; None for a form that is stored as it is, unseen."""
    make = _SCANNERS.get((engine, form))
    return make() if make else None
