"""Tables and lines that fit a terminal. Words that are typed in the next command are never broken: other
columns are left out, and free text is wrapped."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from holdfast.base.escaping import escape

_BETWEEN: Final = "  "
_LEAST: Final = 16
"""Columns that free text keeps when it folds."""
_LEFT_OUT: Final = "  ..."
"""Behind the titles of a table of which columns left."""


class Column(NamedTuple):
    """A column of a table. `table` escapes its cells.

    `leaves`: on a terminal that is too narrow, columns are left out, those with the highest number first; 0
    is never left out. `folds`: its cells are free text, from which nothing is typed, and may take several
    lines. `optional`: it is left out where it is empty in every row.
    """

    title: str
    align: Literal["left", "right"] = "left"
    leaves: int = 0
    folds: bool = False
    optional: bool = False


def terminal_width() -> int | None:
    """Columns of the terminal that standard output is; None when it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def text_width(text: str) -> int:
    """How many columns a terminal needs for it."""
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, title: str = "") -> str:
    """A table as text. In a pipe each row is a line with all columns; on a terminal it fits the width."""
    cells = [[escape(cell) for cell in row] for row in rows]
    shown = [n for n, column in enumerate(columns) if not column.optional or any(row[n] for row in cells)]
    width = terminal_width()
    natural = {n: _natural(columns[n].title, [row[n] for row in cells], width) for n in shown}
    more = ""
    if width is not None:
        kept = _stay(columns, natural, width)
        more = _LEFT_OUT if len(kept) < len(shown) else ""
        shown = kept
        _fold_columns(columns, natural, shown, width)
    head = _line(columns, shown, natural, {n: columns[n].title for n in shown})
    lines = [_bold(escape(title))] if title else []
    lines.append(_bold(head + more if text_width(head + more) <= (width or 0) else head))
    for row in cells:
        folded = {n: _folded(row[n], natural[n]) if columns[n].folds else [row[n]] for n in shown}
        for at in range(max(map(len, folded.values()), default=0)):
            part = {n: texts[at] if at < len(texts) else "" for n, texts in folded.items()}
            lines.append(_line(columns, shown, natural, part))
    return "\n".join(lines)


def _natural(title: str, cells: Sequence[str], limit: int | None) -> int:
    """The width of a column. Cells that are wider than the terminal do not count: nothing helps them."""
    widths = [text_width(cell) for cell in (title, *cells)]
    return max((width for width in widths if limit is None or width <= limit), default=0)


def _stay(columns: Sequence[Column], natural: dict[int, int], width: int) -> list[int]:
    """The columns for which there is room."""
    shown = list(natural)

    def least(n: int) -> int:
        return min(natural[n], _LEAST) if columns[n].folds else natural[n]

    while sum(map(least, shown)) + len(_BETWEEN) * (len(shown) - 1) > width:
        last = max(shown, key=lambda n: (columns[n].leaves, n))
        if not columns[last].leaves:
            break
        shown.remove(last)
    return shown


def _fold_columns(
    columns: Sequence[Column], natural: dict[int, int], shown: Sequence[int], width: int
) -> None:
    """Make columns of free text as narrow as they must be, the widest first."""
    folding = [n for n in shown if columns[n].folds]
    excess = sum(natural[n] for n in shown) + len(_BETWEEN) * (len(shown) - 1) - width
    while excess > 0 and folding:
        widest = max(folding, key=lambda n: natural[n])
        if natural[widest] <= _LEAST:
            break
        natural[widest] -= 1
        excess -= 1


def _folded(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 1), break_on_hyphens=False) or [""]


def _line(
    columns: Sequence[Column], shown: Sequence[int], widths: dict[int, int], cells: dict[int, str]
) -> str:
    padded = []
    for n in shown:
        room = " " * (widths[n] - text_width(cells[n]))
        padded.append(room + cells[n] if columns[n].align == "right" else cells[n] + room)
    return _BETWEEN.join(padded).rstrip()


def _bold(text: str) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return text if plain or not sys.stdout.isatty() else f"\x1b[1m{text}\x1b[0m"


def flow(parts: Iterable[str], *, indent: str = "", between: str = _BETWEEN) -> str:
    """Parts of a line; on a terminal it goes on in the next one, further in, where a part does not fit.
    Names in the parts must be escaped already."""
    width = terminal_width()
    lines: list[str] = []
    line = indent
    for part in parts:
        longer = line + part if line.isspace() or not line else line + between + part
        if width is not None and text_width(longer) > width and line.strip():
            lines.append(line)
            longer = f"{indent}{_BETWEEN}{part}"
        line = longer
    return "\n".join([*lines, line])
