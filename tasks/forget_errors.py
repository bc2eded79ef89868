"""Why snapshots are not forgotten. Nothing was changed. Data: the command line says which option helps."""

from __future__ import annotations

from holdfast.base.errors import Refused


class LastOfSubject(Refused):
    """A policy would leave no snapshot of a subject; `name` is how it is shown."""

    def __init__(self, name: str) -> None:
        super().__init__(f"nothing of {name} would be left; nothing was changed")
        self.name = name


class SeveralSnapshots(Refused):
    """A name was given of a subject that has several snapshots."""

    def __init__(self, name: str, count: int) -> None:
        super().__init__(
            f"{name!r} has {count} snapshots, and which to forget is not said; nothing was changed"
        )
        self.name = name


class LogsNeeded(Refused):
    """Log files would go that backups need which are kept."""


class ArchiveOrphaned(Refused):
    """No whole backup would be left that a log archive can roll forward; `files` it holds could go, too."""

    def __init__(self, archive: str, files: int) -> None:
        super().__init__(
            f"no whole backup would be left that the log archive {archive} can roll forward; "
            "nothing was changed"
        )
        self.archive = archive
        self.files = files
