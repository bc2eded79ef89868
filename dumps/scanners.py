"""Which scanner a recognised dump is looked through with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from holdfast.dumps.mysql import MysqlVisitor
from holdfast.dumps.postgres import PostgresVisitor
from holdfast.dumps.scan import Scanner
from holdfast.dumps.sqlite_text import SqliteVisitor
from holdfast.dumps.tar import TarScanner

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
