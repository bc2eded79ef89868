"""Formats entries of guests' file systems as lines and as JSON."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from typing import Any, Final

from holdfast.base.escaping import escape
from holdfast.base.moments import moment
from holdfast.cli.base.render import size
from holdfast.cli.base.table import Column, terminal_width, text_width
from holdfast.formats.guests.values.values import FILE_FORMATS, Entry, NodeType, Volume
from holdfast.repo.snapshots.select import time_name

_COLUMNS: Final = (Column("mode"), Column("owner", "right"), Column("size", "right"), Column("changed (UTC)"))
_WIDTHS: Final = (10, 11, 9, 19)
_LEAVING: Final = (1, 0)
"""Columns that leave on a terminal that is too narrow, in this order."""
_NAME_ROOM: Final = 36
"""Columns that a name has at least, as long as others can leave."""


def exact(nanoseconds: int) -> str:
    """A time for JSON, with nanoseconds."""
    return f"{moment(nanoseconds):%Y-%m-%dT%H:%M:%S}.{nanoseconds % 1_000_000_000:09}Z"


class EntryLines:
    """Lines of entries as in `ls -l`, each made before the next entry is known: mode, owner, size (of files
    only), time and name. The name is never broken: on a narrow terminal it may stand on a line of its own."""

    def __init__(self) -> None:
        self._width = terminal_width()
        self._shown = list(range(len(_COLUMNS)))
        for column in _LEAVING:
            if self._width is not None and self._width - self._room() < _NAME_ROOM:
                self._shown.remove(column)

    def header(self) -> str:
        return self._line([column.title for column in _COLUMNS], "name")

    def line(self, entry: Entry, name: str, target: str = "") -> str:
        mode = stat.filemode(FILE_FORMATS.get(entry.type, 0) | entry.mode)
        length = size(entry.size) if entry.type is NodeType.FILE else "-"
        arrow = f" -> {escape(target)}" if target else ""
        cells = [mode, f"{entry.uid}:{entry.gid}", length, time_name(moment(entry.mtime))]
        return self._line(cells, f"{escape(name)}{arrow}")

    def _room(self) -> int:
        """The width of the columns before the name."""
        return sum(_WIDTHS[n] + 1 for n in self._shown)

    def _line(self, cells: Sequence[str], name: str) -> str:
        before = "".join(
            f"{cells[n]:{'>' if _COLUMNS[n].align == 'right' else '<'}{_WIDTHS[n]}} " for n in self._shown
        )
        is_wide = self._width is not None and text_width(before + name) > self._width
        return f"{before.rstrip()}\n  {name}" if is_wide else before + name


def entry_document(entry: Entry, path: str, target: str = "") -> dict[str, Any]:
    """All properties of a guest's entry. Bytes that are not UTF-8 become lone surrogates."""
    document: dict[str, Any] = {
        "path": path,
        "type": entry.type.value,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "allocated": entry.allocated,
        "links": entry.links,
        "inode": entry.inode,
        "mtime": exact(entry.mtime),
        "ctime": exact(entry.ctime),
    }
    return document | ({"target": target} if target else {})


def volume_document(volume: Volume, path: str) -> dict[str, Any]:
    return {
        "path": path,
        "type": "volume",
        "file_system": volume.file_system,
        "label": volume.label,
        "size": volume.size,
        "text": volume.text,
    }
