"""The files that an archive of pg_dump is shown as: itself again, as SQL, and its tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from holdfast.base.errors import Damaged
from holdfast.formats.dumps.core.catalogue import Catalogue, Section, decode
from holdfast.formats.dumps.core.engine import KeyOf
from holdfast.formats.dumps.core.virtual_file import VirtualFile, VirtualRange, stored_range, text
from holdfast.formats.dumps.postgresql.custom.format import DATA, LARGE, SET, write_integer
from holdfast.formats.dumps.postgresql.custom.unpack import AS_IT_CAME
from holdfast.formats.dumps.postgresql.plain import files as postgres_files
from holdfast.formats.dumps.postgresql.plain.client_lines import restricted
from holdfast.formats.dumps.postgresql.plain.files import Rows
from holdfast.formats.dumps.postgresql.plain.text import as_bytes

_PIECE: Final = 8 << 20
"""Bytes in a piece of a table's data; pg_restore keeps one in memory."""
_WHERE: Final = "catalogue of an archive"


def files(catalogue: Catalogue, size: int) -> dict[str, VirtualFile]:
    """All files of an archive of which `size` bytes are stored, by path. In time linear in their pieces.

    `dump.pgdump` is the archive without compression and with offsets, for pg_restore. `dump.sql` is what
    `pg_restore -f -` makes of it, less `\\restrict` (see `guarded`) and large objects. The others are as of a
    plain dump (see `plain.files.files`). None if it ended within its table of contents. Raises Damaged.
    """
    if AS_IT_CAME in catalogue.extra:
        return {"dump.pgdump": VirtualFile([stored_range(0, size)])}
    if "toc" not in catalogue.extra:
        return {}
    sql = _sql(catalogue, size)
    plain = _plain(catalogue, sql)
    found = {"dump.pgdump": _archive(catalogue, size), "dump.sql": sql}
    for path, file in postgres_files.files(plain, sql.size).items():
        found[path] = VirtualFile(_resolved(file.pieces, sql))
    return found


def guarded(catalogue: Catalogue, files_: dict[str, VirtualFile], key: KeyOf) -> dict[str, VirtualFile]:
    r"""SQL between `\restrict KEY` and `\unrestrict KEY`, as pg_restore writes it since it knows these lines.

    Always: what rows hold was not looked at, and `\.` in them ends them for psql. A psql that does not know
    the lines says so, and goes on.
    """
    return {path: restricted(file.pieces, key(path)) for path, file in files_.items()}


def table_rows(catalogue: Catalogue) -> dict[str, Rows]:
    """As `plain.files.table_rows`, of which `csv` takes them. Raises Damaged."""
    if "toc" not in catalogue.extra:
        return {}
    last = catalogue.sections[-1] if catalogue.sections else Section(0, 0, "")
    sql = _sql(catalogue, last.start + last.length)
    found = {}
    for path, rows in postgres_files.table_rows(_plain(catalogue, sql)).items():
        pieces = _resolved((stored_range(start, length) for start, length in rows.ranges), sql)
        ranges = [(piece.start, piece.length) for piece in pieces if piece.data is None]
        found[path] = Rows(rows.columns, rows.kind, ranges, rows.refused)
    return found


def _sql(catalogue: Catalogue, size: int) -> VirtualFile:
    return VirtualFile(_pieces(catalogue.extra.get("sql"), size))


def _pieces(found: Any, size: int) -> Iterator[VirtualRange]:
    if not isinstance(found, list):
        raise Damaged(_WHERE, "it does not say what its SQL is made of")
    for piece in found:
        if isinstance(piece, str):
            yield text(as_bytes(piece))
        else:
            start, length = _numbers(piece, 2)
            if start + length > size:
                raise Damaged(_WHERE, "its SQL reaches behind the end of what is stored")
            yield stored_range(start, length)


def _plain(catalogue: Catalogue, sql: VirtualFile) -> Catalogue:
    return decode(str(catalogue.extra.get("plain")).encode(errors="replace"), _WHERE, sql.size)


def _resolved(pieces: Iterable[VirtualRange], sql: VirtualFile) -> Iterator[VirtualRange]:
    """Ranges of the SQL as what those are made of."""
    for piece in pieces:
        if piece.data is not None:
            yield piece
            continue
        for part in sql.parts(piece.start, piece.start + piece.length):
            yield stored_range(part.disk, part.length) if part.data is None else text(bytes(part.data))


# ---- dump.pgdump ----------------------------------------------------------------------------------------


def _archive(catalogue: Catalogue, size: int) -> VirtualFile:
    extra = catalogue.extra
    integer, offset, end = _numbers([extra.get(name) for name in ("integer", "offset", "toc")], 3)
    blocks = [section for section in catalogue.sections if "at" in section.extra]
    if integer not in (4, 8) or offset not in (4, 8) or end > size:
        raise Damaged(_WHERE, "impossible sizes")
    frames = [_framed(block, integer) for block in blocks]
    places: dict[int, int] = {}
    place = end
    for block, pieces in zip(blocks, frames, strict=True):
        (at,) = _numbers([block.extra["at"]], 1)
        places[at] = place
        place += sum(piece.length for piece in pieces)
    return VirtualFile([*_contents(places, offset, end), *(piece for pieces in frames for piece in pieces)])


def _contents(places: dict[int, int], offset: int, end: int) -> Iterator[VirtualRange]:
    """The table of contents with the offsets of these entries filled in; one that is too large stays unknown,
    and pg_restore searches."""
    done = 0
    for at, place in sorted(places.items()):
        if not done <= at <= end - 1 - offset:
            raise Damaged(_WHERE, "an offset stands outside of the table of contents")
        if place < 1 << 8 * offset - 1:
            yield stored_range(done, at - done)
            yield text(bytes([SET]) + place.to_bytes(offset, "little"))
            done = at + 1 + offset
    yield stored_range(done, end - done)


def _framed(block: Section, integer: int) -> list[VirtualRange]:
    is_large = block.type == "BLOBS"
    (id_,) = _numbers([block.extra.get("id")], 1)
    head = bytes([LARGE if is_large else DATA]) + write_integer(id_, integer)
    if is_large:
        return [text(head), stored_range(block.start, block.length)]
    pieces = [text(head)]
    for start in range(0, block.length, _PIECE):
        length = min(_PIECE, block.length - start)
        pieces += [text(write_integer(length, integer)), stored_range(block.start + start, length)]
    return [*pieces, text(write_integer(0, integer))]


def _numbers(found: Any, count: int) -> list[int]:
    """As many whole numbers, none negative."""
    if not isinstance(found, list) or len(found) != count:
        raise Damaged(_WHERE, "a number is missing")
    if not all(type(number) is int and 0 <= number < 1 << 62 for number in found):
        raise Damaged(_WHERE, "an impossible number")
    return found
