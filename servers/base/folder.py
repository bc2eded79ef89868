"""A folder that a database's own tool wrote, file by file: RMAN's pieces, pg_dump's directory, mydumper's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

from holdfast.base.errors import Refused, SourceError
from holdfast.ingest.backup.plan import PlannedItem
from holdfast.ingest.backup.recognise import SourceType, recognise
from holdfast.ingest.sources.source import FileSource, SourceExtent
from holdfast.repo.chunks.chunker import DUMP, STREAM
from holdfast.repo.snapshots.snapshot import BadRange, ItemKind, check_item_path

_TEXT: Final = (".sql", ".dat", ".csv", ".tsv", ".txt", ".json", ".xml")
"""Rows as text deduplicate best in the small chunks of dumps."""


class FolderFile:
    """One file of many: open only while it is read. `name` is its path in the folder."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        with closing(FileSource(path)) as file:
            self.size: int | None = file.size
            self.mtime = file.mtime
            self.head = file.head
        self._file: FileSource | None = None
        self._bad: list[BadRange] = []

    @property
    def bad(self) -> list[BadRange]:
        return self._file.bad if self._file else self._bad

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        yield from self._opened().extents(holes=holes)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        return self._opened().read_into(buffer, offset)

    def finish(self) -> str:
        file = self._opened()
        changed = (file.size, file.mtime) != (self.size, self.mtime)
        note = f"{self.path} was written to before it was read" if changed else file.finish()
        self._bad = file.bad
        self.close()
        return note

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> FileSource:
        if self._file is None:
            self._file = FileSource(self.path)
            if self._file.size != self.size:
                self.close()
                raise SourceError(f"{self.path} was written to while the backup ran; nothing was committed")
        return self._file


def plan_folder(folder: Path) -> tuple[tuple[PlannedItem, ...], tuple[str, ...]]:
    """(a part for every file below `folder`, in order of paths; warnings). Links and special files are not
    followed and are named in the warnings.

    Raises Refused for an empty folder or a name that no snapshot can hold, SourceError for what cannot be
    read.
    """
    items: list[PlannedItem] = []
    left_out: list[str] = []
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if not stat.S_ISREG(path.lstat().st_mode):
            left_out.append(name)
            continue
        try:
            check_item_path(name)
        except (ValueError, UnicodeEncodeError) as error:
            raise Refused(f"{folder}: a file's name cannot be kept ({error}); nothing was stored") from None
        source = FolderFile(path, name)
        items.append(PlannedItem(source, _source_type(source), name))
    if not items:
        raise Refused(f"{folder} has no files in it; nothing was stored")
    some = ", ".join(left_out[:5]) + (f" and {len(left_out) - 5} more" if left_out[5:] else "")
    return tuple(items), ((f"left out, being links or special files: {some}",) if left_out else ())


def _source_type(source: FolderFile) -> SourceType:
    found = recognise(source.head, source.name, source.size)
    if found.item is ItemKind.DUMP and found.engine != "other":
        return found
    text = source.name.lower().endswith(_TEXT)
    return replace(found, item=ItemKind.FILE, chunker=DUMP if text else STREAM, engine="")


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below that is no directory, in order."""

    def fail(error: OSError) -> None:
        raise SourceError(f"cannot read {error.filename}: {error.strerror}; nothing was stored") from error

    for parent, folders, files in os.walk(folder, onerror=fail):
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        folders[:] = sorted(set(folders) - set(linked))
        yield from (Path(parent, name) for name in sorted([*files, *linked]))
