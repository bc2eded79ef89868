"""Why a restore does not begin. Nothing was written. Data: the command line says which option helps."""

from __future__ import annotations

from pathlib import Path

from holdfast.base.errors import Refused


class InsideRepository(Refused):
    """The target is in the directory of the repository."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is inside the repository; nothing was written")
        self.path = path


class TargetExists(Refused):
    """Something is at the target, and may not be replaced unless that was confirmed."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists already; nothing was written")
        self.path = path


class NeedsDirectory(Refused):
    """Several files are to go to a path that is no directory; `source` is what they are of, "" for the whole
    snapshot."""

    def __init__(self, target: str, source: str) -> None:
        what = f"{source} is one" if source else "a whole snapshot needs one"
        super().__init__(f"{target} is no folder, and {what}; nothing was written")
        self.target = target
        self.source = source


class DeviceNotConfirmed(Refused):
    """The target is a block device, and overwriting it was not confirmed."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is a block device: all that is on it would be lost; nothing was written")
        self.path = path


class NoImageOnDevice(Refused):
    """The target is a block device, which takes a disk's bytes and no image file of format `format`."""

    def __init__(self, path: Path, format_: str) -> None:
        super().__init__(
            f"{path} is a block device: it takes the disk itself and no {format_} image; nothing was written"
        )
        self.path = path
        self.format = format_


class NoDiskForDevice(Refused):
    """The target is a block device, and what would go there is no disk."""

    def __init__(self, path: Path, source: str) -> None:
        super().__init__(f"{path} is a block device, and {source} is no disk; nothing was written")
        self.path = path
        self.source = source


class NoDisk(Refused):
    """A disk format was asked for, and the path holds no disk."""

    def __init__(self, path: str, format_: str) -> None:
        super().__init__(f"format {format_} is for disks, and none is at {path!r}; nothing was written")
        self.path = path
        self.format = format_


class NoDiskFormat(Refused):
    """A format of disks is wanted of files that are made out of dumps."""

    def __init__(self, path: str, format_: str) -> None:
        super().__init__(f"format {format_} is for disks, and {path} comes of a dump; nothing was written")
        self.path = path
        self.format = format_


class OtherFormat(Refused):
    """The path names a disk in one format and another one is wanted."""

    def __init__(self, path: str, format_: str) -> None:
        super().__init__(f"format {format_} contradicts {path}; nothing was written")
        self.path = path
        self.format = format_


class SeveralArchives(Refused):
    """Several clusters have a WAL archive of that name."""


class NotPhysical(Refused):
    """The snapshot is no physical backup: only physical backups can be recovered to a point in time."""


class TooEarly(Refused):
    """A recovery's target is before the moment from which on a backup is consistent."""
