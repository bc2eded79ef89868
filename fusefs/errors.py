"""What goes wrong in mounting only."""

from __future__ import annotations

from holdfast.base.errors import HoldfastError


class MountFailed(HoldfastError):
    """The operating system or the FUSE tools did not do as asked; the message says what to type."""
