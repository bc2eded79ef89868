"""Errors that only mounting has."""

from __future__ import annotations

from pathlib import Path

from holdfast.base.errors import HoldfastError, NotFound, Refused


class MountFailed(HoldfastError):
    """The operating system or the FUSE tools did not do as asked; the message says what to type."""


class NoBinding(MountFailed):
    """The Python binding of FUSE, which only the mount needs, is not installed or cannot be loaded."""


class NotMounted(NotFound):
    """Nothing of ours is mounted at a place."""


class MountTaken(Refused):
    """There is a mount of ours already."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is mounted already")
        self.path = path


class MountDead(Refused):
    """There is a mount of ours already, whose daemon is gone."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"the mount at {path} has lost its daemon")
        self.path = path
