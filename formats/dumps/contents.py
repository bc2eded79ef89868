"""The virtual files of a stored dump, whatever its engine; and a table's rows as CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from holdfast.base.errors import Ambiguous, NotFound, Refused
from holdfast.base.types import Buffer
from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.engine import DumpKind, KeyOf
from holdfast.formats.dumps.core.virtual_file import VirtualFile, text
from holdfast.formats.dumps.engines import dump_format

TABLES: Final = "tables"
SUFFIX: Final = ".sql"
_FAULT_LIMIT: Final = 300
"""Characters of a fault in a file's first line."""


def files(catalogue: Catalogue, size: int, key: KeyOf) -> dict[str, VirtualFile]:
    """All virtual files of a dump of which `size` bytes are stored, by path; none for an unknown format.

    Those of SQL are guarded by a `key` (see `DumpFormat.guard`).
    Files made of the statements of a dump that is not whole say so in their first line.
    """
    known = dump_format(catalogue.engine, catalogue.form)
    if known is None:
        return {}
    if "bound" in catalogue.extra and known.kind is DumpKind.TEXT:
        return {}  # see core.scan
    found = known.files(catalogue, size)
    sql = {name: file for name, file in found.items() if name.endswith(SUFFIX)}
    found |= known.guard(catalogue, sql, key)
    if catalogue.fault and known.kind is not DumpKind.PHYSICAL:
        fault = " ".join(catalogue.fault.split())[:_FAULT_LIMIT]
        warning = text(f"-- INCOMPLETE: {fault}\n".encode(errors="replace"))
        return {
            name: VirtualFile((warning, *file.pieces)) if _is_part(name) else file
            for name, file in found.items()
        }
    return found


def whole_name(catalogue: Catalogue) -> str:
    """The virtual file that is the dump as it was backed up, where that is stored taken apart; else ""."""
    known = dump_format(catalogue.engine, catalogue.form)
    return known.file_name if known is not None and known.kind is DumpKind.APART else ""


def _is_part(name: str) -> bool:
    """Whether a file is made of a dump's statements: it loads without an error though the rest is lost."""
    return name.endswith(SUFFIX) and name != "dump.sql"


def find_table(names: Iterable[str], wanted: str) -> str:
    """The path of the file that holds a table.

    `wanted` is its name as in the path, "public.orders", or the last part of it when only one table has
    that. Raises NotFound or Ambiguous.
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
    """`public.orders` for "tables/public.orders.sql", after the dump's directory if there is one."""
    above, _, name = f"/{path}".rpartition(f"/{TABLES}/")
    return f"{above.lstrip('/')}{'/' if above else ''}{name.removesuffix(SUFFIX)}"


def table_csv(
    catalogue: Catalogue, path: str, read: Callable[[int, int], Iterable[Buffer]]
) -> Iterator[bytes]:
    """The rows of the table whose file is `path` (of `files`), with a header line.

    `read(start, length)` gives a range of the stored dump. Raises Refused when they are not available as CSV.
    """
    known = dump_format(catalogue.engine, catalogue.form)
    if known is None or known.csv is None:
        raise Refused(f"dumps of {catalogue.engine} in the format {catalogue.form} have no rows as CSV")
    return known.csv(catalogue, path.removesuffix(SUFFIX), read)
