r"""Lines of a dump for psql: those that pg_dump writes itself, and files that are kept from any other.

psql takes a backslash outside of quotes for a command, of which `\!` starts programs. So pg_dump (since 18,
17.6, 16.10, 15.14, 14.19, 13.22) begins with `\restrict KEY`, behind which psql takes no command but
`\unrestrict KEY` (CVE-2025-8714). A part of the dump needs that as much as the whole.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.engine import KeyOf
from holdfast.formats.dumps.core.virtual_file import VirtualFile, VirtualRange, stored_range, text

RESTRICT: Final = "restrict"
"""Name of the section (of type META) of a line `\\restrict KEY` or `\\unrestrict KEY`."""

_RESTRICT: Final = re.compile(rb"\\(?:un)?restrict[ \t]+[A-Za-z0-9]+")
# Nothing that psql looks into: backquotes run programs (in the arguments of \unrestrict too), a colon begins
# a variable, and what has `=` or `:` in it names another server.
_CONNECT: Final = re.compile(
    rb"\\c(?:onnect)?[ \t]+(?:-reuse-previous=o(?:n|ff)[ \t]+)?(?:-[ \t]+)?"
    rb"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|\"(?:[^\"=:\\\x00-\x1f]|\"\")+\""
    rb"|\"dbname='(?:[^\"'\\\x00-\x1f]|\"\"|\\['\\])*'\")"
)
_ENCODING: Final = b"\\encoding SQL_ASCII"
"""Stands before the `\\connect` to a database with a name that is no plain word."""
_DATA_END: Final = b"\\."
_QUOTING: Final = b"standard_conforming_strings"
_QUOTING_SET: Final = re.compile(
    rb"SET\s+standard_conforming_strings\s*(?:=|TO\b)\s*'?(?:on|off|true|false)'?\s*;", re.I
)


def is_restrict(line: bytes) -> bool:
    r"""Whether a line is `\restrict KEY` or `\unrestrict KEY`, as pg_dump writes them."""
    return _RESTRICT.fullmatch(line.strip()) is not None


def is_connect(line: bytes) -> bool:
    r"""Whether a line is a `\connect` as pg_dumpall writes it, to another database of the same server, or the
    one that comes before it."""
    return line.strip() == _ENCODING or _CONNECT.fullmatch(line.strip()) is not None


def is_command(line: bytes) -> bool:
    """Whether a line for psql is one that pg_dump never writes."""
    return not (is_restrict(line) or is_connect(line) or line.strip() == _DATA_END)


def misleads(statement: bytes) -> bool:
    r"""Whether psql may read what follows otherwise than a scan does: it drops a line's rest behind a zero
    byte, and what a backslash in '..' means is a setting that functions and other sessions can change."""
    if b"\0" in statement and b"\0" in statement.rstrip(b"\0"):  # a torn file ends with many
        return True
    return _QUOTING in statement.lower() and not _QUOTING_SET.fullmatch(statement)


# ---- files -------------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """A line of the dump's own at [start, end), to be cut out or, if it is a `\\connect`, let through."""

    start: int
    end: int
    is_connect: bool

    def place(self) -> int:
        return self.start


def guarded(catalogue: Catalogue, files: dict[str, VirtualFile], key: KeyOf) -> dict[str, VirtualFile]:
    r"""Files of a plain dump between `\restrict KEY` and `\unrestrict KEY`; as they are when the dump has
    neither such lines nor commands."""
    if not catalogue.extra.get("restricted"):
        return files
    lines = [
        _Line(end - int(s.extra["line"]), end, s.name != RESTRICT or s.type == "CONNECT")
        for s in catalogue.sections
        if "line" in s.extra and (end := s.start + s.length)
    ]
    return {
        path: restricted(_without_lines(file.pieces, lines, key(path)), key(path))
        for path, file in files.items()
    }


def restricted(pieces: Iterable[VirtualRange], key: str) -> VirtualFile:
    """These pieces between the two lines."""
    return VirtualFile((_line("restrict", key), *pieces, text(b"\n"), _line("unrestrict", key)))


def _line(command: str, key: str) -> VirtualRange:
    return text(f"\\{command} {key}\n".encode())


def _without_lines(pieces: Iterable[VirtualRange], lines: list[_Line], key: str) -> Iterator[VirtualRange]:
    """Within a restriction psql refuses the dump's own lines. Each lies within one piece or in none."""
    for piece in pieces:
        at, end = piece.start, piece.start + piece.length
        first = bisect_left(lines, at, key=_Line.place)
        for line in lines[first : bisect_left(lines, end, key=_Line.place)] if piece.data is None else ():
            if line.end <= end:
                yield stored_range(at, line.start - at)
                at = line.end
                if line.is_connect:
                    yield _line("unrestrict", key)
                    yield stored_range(line.start, line.end - line.start)
                    yield text(b"\n")
                    yield _line("restrict", key)
        yield stored_range(at, end - at) if piece.data is None else piece
