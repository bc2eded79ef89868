"""How things look: names made harmless, sizes, times, tables."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from holdfast.base.escaping import escape, escape_lines

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: float) -> str:
    """A number of bytes with a unit: `912 B`, `45.1 MiB`."""
    if abs(count) < 1024:
        return f"{count:.0f} B"
    for unit in _UNITS:
        count /= 1024
        if abs(count) < 1024 or unit == _UNITS[-1]:
            break
    return f"{count:.1f} {unit}" if abs(count) < 100 else f"{count:.0f} {unit}"


def rate(count: int, seconds: float) -> str:
    """Bytes per second with a unit; "-" for no time."""
    return f"{size(count / seconds)}/s" if seconds > 0 else "-"


def duration(seconds: float) -> str:
    """`0.8 s`, `12 s`, `3:05 min`, `2:10 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds) // 60
    if minutes < 60:
        return f"{minutes}:{round(seconds) % 60:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def iso(time: datetime) -> str:
    """A time in JSON: UTC, ISO 8601."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def count(number: int, thing: str) -> str:
    """`1 snapshot`, `3 snapshots`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


class Column(NamedTuple):
    """A column of a table. `table` escapes its cells. `folds`: on a narrow terminal its cells take several
    lines; `optional`: it is left out where it is empty in every row."""

    title: str
    align: Literal["left", "right"] = "left"
    folds: bool = True
    optional: bool = False


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, title: str = "") -> str:
    """A table as text. On a terminal it has colours and wraps to the width; in a pipe each row is a line."""
    # Imported here, because it takes 50 ms that commands without a table do not need.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    terminal = sys.stdout.isatty()
    cells = list(rows)
    shown = [n for n, column in enumerate(columns) if not column.optional or any(row[n] for row in cells)]
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold" if terminal else "")
    for column in (columns[n] for n in shown):
        kept = not terminal or not column.folds
        grid.add_column(column.title, justify=column.align, no_wrap=kept, overflow="fold")
    for row in cells:
        grid.add_row(*(Text(escape(row[n])) for n in shown))
    width = shutil.get_terminal_size().columns if terminal else 10_000
    console = Console(width=width, force_terminal=terminal, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        if title:
            console.print(Text(escape(title), style="bold" if terminal else ""))
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def fields(pairs: Iterable[tuple[str, str]]) -> str:
    """Lines `name   value`. Indents the lines of multi-line values and omits empty values."""
    known = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in known), default=0) + 2
    indented = f"\n{'':{width}}"
    return "\n".join(
        f"{name:<{width}}{escape_lines(value).replace(chr(10), indented)}" for name, value in known
    )
