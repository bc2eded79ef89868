"""Formats entries of guests' file systems as lines and as JSON."""

from __future__ import annotations

import stat
from typing import Any, Final

from holdfast.base.escaping import escape
from holdfast.base.moments import moment
from holdfast.cli.base.render import size
from holdfast.formats.guests.values.values import FILE_FORMATS, Entry, NodeType, Volume
from holdfast.repo.snapshots.select import time_name

HEADER: Final = f"{'mode':10} {'owner':>11} {'size':>9} {'changed (UTC)':19} name"


def exact(nanoseconds: int) -> str:
    """A time for JSON, with nanoseconds."""
    return f"{moment(nanoseconds):%Y-%m-%dT%H:%M:%S}.{nanoseconds % 1_000_000_000:09}Z"


def entry_line(entry: Entry, name: str, target: str = "") -> str:
    """Mode, owner, size (of files only), time and name, as in `ls -l`."""
    mode = stat.filemode(FILE_FORMATS.get(entry.type, 0) | entry.mode)
    length = size(entry.size) if entry.type is NodeType.FILE else "-"
    arrow = f" -> {escape(target)}" if target else ""
    owner = f"{entry.uid}:{entry.gid}"
    return f"{mode} {owner:>11} {length:>9} {time_name(moment(entry.mtime))} {escape(name)}{arrow}"


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
