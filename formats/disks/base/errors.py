"""What is wrong with a disk image.

SourceError                  (repo.errors) the thing being backed up
`-- ImageDamaged             truncated, corrupt or contradicting itself: file and offset
Refused                      (repo.errors) would not be safe
`-- ImageRefused             wants a file nobody named, a key, or a feature that cannot be honoured
"""

from __future__ import annotations

from holdfast.base.errors import Refused, SourceError


class ImageDamaged(SourceError):
    """An image is not what its format promises. `offset` is in bytes of the file called `name`."""

    def __init__(self, name: str, reason: str, *, offset: int) -> None:
        super().__init__(f"{name}: damaged at offset {offset}: {reason}")
        self.name = name
        self.reason = reason
        self.offset = offset


class ImageRefused(Refused):
    """An image is whole, but reading it would need what it must not get or what nobody here can do."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason
