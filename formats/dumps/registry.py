"""What files a dump is shown as, by its engine and form; and a table's rows as CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from holdfast.base.errors import Ambiguous, NotFound, Refused
from holdfast.base.types import Buffer
from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.virtual_file import Composed, text
from holdfast.formats.dumps.mysql import files as mysql_files
from holdfast.formats.dumps.postgresql import basebackup_tar as tar
from holdfast.formats.dumps.postgresql import files as postgres_files
from holdfast.formats.dumps.postgresql.custom import files as pgdump_files
from holdfast.formats.dumps.rows import insert_to_csv as insert_rows
from holdfast.formats.dumps.sqlite import files as sqlite_text_files

TABLES: Final = "tables"
SUFFIX: Final = ".sql"
_TOLD: Final = 300
"""Characters of a fault that stand in a file's first line."""

_Files = Callable[[Catalogue, int], dict[str, Composed]]
_FILES: Final[Mapping[tuple[str, str], _Files]] = {
    ("postgresql", "sql"): postgres_files.files,
    ("postgresql", "pgdump"): pgdump_files.files,
    ("postgresql", "tar"): tar.files,
    ("mariadb", "sql"): mysql_files.files,
    ("mysql", "sql"): mysql_files.files,
    ("sqlite", "sql"): sqlite_text_files.files,
}


def files(catalogue: Catalogue, size: int) -> dict[str, Composed]:
    """All files that are made out of a dump of `size` bytes, by path; none for a form that is not known."""
    make = _FILES.get((catalogue.engine, catalogue.form))
    found = make(catalogue, size) if make else {}
    if catalogue.fault and catalogue.form != "tar":
        told = f"-- INCOMPLETE: {' '.join(catalogue.fault.split())[:_TOLD]}\n".encode(errors="replace")
        return {
            name: Composed((text(told), *composed.pieces)) if _is_part(name) else composed
            for name, composed in found.items()
        }
    return found


def _is_part(name: str) -> bool:
    """Whether a file was made of a dump's statements: it loads without an error though the rest is gone."""
    return name.endswith(SUFFIX) and name != "dump.sql"


def find_table(names: Iterable[str], wanted: str) -> str:
    """The path of the file that holds a table.

    `wanted` is its name as it stands in the path, "public.orders", or the last part of it when only one table
    has that. Raises NotFound or Ambiguous.
    """
    tables = [name for name in names if f"/{name}".rpartition(f"/{TABLES}/")[1] and name.endswith(SUFFIX)]
    exact = [name for name in tables if _shown(name) == wanted]
    found = exact or [name for name in tables if _shown(name).rpartition("/")[2].rpartition(".")[2] == wanted]
    if not found:
        there = ", ".join(map(_shown, tables[:5])) or "none"
        more = f" and {len(tables) - 5} more" if len(tables) > 5 else ""
        raise NotFound(f"no table {wanted!r} in this dump; its tables: {there}{more}")
    if len(found) > 1:
        raise Ambiguous(f"{wanted!r} is more than one table: {', '.join(map(_shown, found[:5]))}")
    return found[0]


def _shown(path: str) -> str:
    """`public.orders` for "tables/public.orders.sql", with the dump's folder before it if there is one."""
    above, _, name = f"/{path}".rpartition(f"/{TABLES}/")
    return f"{above.lstrip('/')}{'/' if above else ''}{name.removesuffix(SUFFIX)}"


def table_csv(
    catalogue: Catalogue, path: str, read: Callable[[int, int], Iterable[Buffer]]
) -> Iterator[bytes]:
    """The rows of the table whose file stands at `path` (of `files`), with a header line.

    `read(start, length)` gives a stretch of the stored dump. Raises Refused when they cannot be had as CSV.
    """
    name = path.removesuffix(SUFFIX)
    if catalogue.form == "pgdump":
        return postgres_files.csv(pgdump_files.table_rows(catalogue)[name], read)
    if catalogue.form != "sql":
        raise Refused(f"rows of a dump of form {catalogue.form} cannot be had as CSV")
    if catalogue.engine == "postgresql":
        return postgres_files.csv(postgres_files.table_rows(catalogue)[name], read)
    own = sqlite_text_files if catalogue.engine == "sqlite" else mysql_files
    return insert_rows.csv(own.table_rows(catalogue)[name], read)
