"""How things look in text: sizes, times, counts, lists of named values."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from holdfast.base.escaping import escape_lines

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


def fields(pairs: Iterable[tuple[str, str]]) -> str:
    """Lines `name   value`. Indents the lines of multi-line values and omits empty values."""
    known = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in known), default=0) + 2
    indented = f"\n{'':{width}}"
    return "\n".join(
        f"{name:<{width}}{escape_lines(value).replace(chr(10), indented)}" for name, value in known
    )
