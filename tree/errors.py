"""Errors of paths that cannot be read. They carry data: the command line says which option helps."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.base.errors import Refused


class IsDirectory(Refused):
    """A file is wanted and the path is a directory's."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path or 'that'} is a folder")
        self.path = path


class IsLink(Refused):
    """A file is wanted and the path is a symbolic link's, which is never followed."""

    def __init__(self, path: str, target: str) -> None:
        super().__init__(f"{path} is a symbolic link to {target}; links are not followed")
        self.path = path
        self.target = target


class HasNoContent(Refused):
    """A file is wanted and the path is that of a FIFO, socket or device; `type` is its NodeType's value."""

    def __init__(self, path: str, type_: str) -> None:
        super().__init__(f"{path} is a {type_}: it has no content")
        self.path = path
        self.type = type_


class SeveralFiles(Refused):
    """The snapshot has several files and no path says which one; `paths` are those of its items."""

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__(f"the snapshot holds more than one file ({', '.join(paths[:5])})")
        self.paths = paths
