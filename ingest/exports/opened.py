"""Opens the files of an export. All files of exports are opened here.

A path in a definition is not trusted. A file may be opened only if it is a regular file directly in a
directory of the export, or if the user named it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from holdfast.base.errors import SourceError
from holdfast.formats.disks.base.errors import ImageRefused
from holdfast.formats.disks.base.files import OpenFile, read_exactly
from holdfast.ingest.exports.names import base_name, is_plain

FOLDER_LIMIT: Final = 10_000
"""Most entries of an export's directory."""


class OpenedFiles:
    """All open files of one export or image; closes them together."""

    def __init__(self) -> None:
        self._files: list[OpenFile] = []

    def add(self, file: OpenFile) -> OpenFile:
        self._files.append(file)
        return file

    def changed(self) -> list[str]:
        """Names of the files that were written to since they were opened."""
        return [file.name for file in self._files if file.changed()]

    def close(self) -> None:
        while self._files:
            self._files.pop().close()


class ExportDirectory:
    """A directory whose regular files may be opened. Keeps no descriptor open."""

    def __init__(self, path: Path, opened: OpenedFiles, *, follow_links: bool = True) -> None:
        """`follow_links`: whether `path` itself may be a symbolic link, as one that the user chose may."""
        self.path = path
        self._opened = opened
        self._follow_links = follow_links

    def names(self) -> list[str]:
        """Names of all entries, sorted. Raises SourceError."""
        try:
            names = sorted(entry.name for entry in self.path.iterdir())
        except OSError as error:
            raise SourceError(f"cannot read {self.path}: {error.strerror}") from error
        if len(names) > FOLDER_LIMIT:
            raise SourceError(f"{self.path} has {len(names)} entries: that is no export of a VM")
        return names

    def files(self) -> list[str]:
        """Names of the regular files, without symbolic links. Raises SourceError."""
        return [name for name in self.names() if stat.S_ISREG(self._mode(name))]

    def folder(self, name: str) -> ExportDirectory | None:
        """The subdirectory of that name, ignoring case; None when there is none. Links do not count."""
        for found in self.names():
            if found.casefold() == name.casefold() and stat.S_ISDIR(self._mode(found)):
                return ExportDirectory(self.path / found, self._opened, follow_links=False)
        return None

    def holds(self, name: str) -> bool:
        """Whether the directory has an entry of that plain name; links count."""
        return is_plain(name) and self._mode(name) != 0

    def open(self, name: str) -> OpenFile:
        """Open a regular file of this directory; `OpenedFiles` closes it.

        Raises ImageRefused for a path, a link or another kind of file, SourceError when it cannot be read.
        """
        if not is_plain(name):
            raise ImageRefused(self.path.name, f"it names {name!r}, which is no plain file name")
        if stat.S_ISLNK(self._mode(name)):
            raise ImageRefused(name, f"is a symbolic link in {self.path}; links are not followed")
        file = OpenFile(self.path / name, follow_links=False)
        if not stat.S_ISREG(file.status.st_mode):
            file.close()
            raise ImageRefused(name, "is no regular file")
        if not self._follow_links and not self._has(name, file):
            file.close()
            raise ImageRefused(name, f"{self.path} became a symbolic link; links are not followed")
        return self._opened.add(file)

    def peek(self, name: str, limit: int) -> bytes | None:
        """Read a whole file of at most `limit` bytes and close it; None for a larger one."""
        alone = OpenedFiles()
        try:
            file = ExportDirectory(self.path, alone).open(name)
            return read_small(file, limit, "a definition") if file.size <= limit else None
        finally:
            alone.close()

    def _has(self, name: str, file: OpenFile) -> bool:
        """Whether the open file is in this directory and not behind a link that replaced the directory."""
        try:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            return os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), file.status)
        except OSError:
            return False
        finally:
            os.close(folder)

    def _mode(self, name: str) -> int:
        try:
            return (self.path / name).lstat().st_mode
        except OSError:
            return 0


class NamedFiles:
    """Files that the user named in addition to the export. Follows links: the user chose the paths."""

    def __init__(self, paths: Sequence[Path], opened: OpenedFiles) -> None:
        self._opened = opened
        self._paths: dict[str, Path] = {}
        for path in paths:
            if self._paths.setdefault(path.name, path) != path:
                raise SourceError(f"{self._paths[path.name]} and {path} have the same name: name one of them")

    def holds(self, name: str) -> bool:
        return name in self._paths

    def open(self, location: str) -> OpenFile | None:
        """Open the named file with the name that `location` ends in; None if there is none."""
        path = self._paths.get(base_name(location))
        return self._opened.add(OpenFile(path)) if path else None


def read_small(file: OpenFile, limit: int, what: str) -> bytes:
    """Read a whole file of at most `limit` bytes. Raises SourceError; `what` names its kind in messages."""
    if file.size > limit:
        raise SourceError(f"{file.name} has {file.size} bytes: too much for {what} ({limit} at most)")
    try:
        return read_exactly(file, 0, file.size, what)
    except OSError as error:
        raise SourceError(f"cannot read {file.name}: {error.strerror}") from error
