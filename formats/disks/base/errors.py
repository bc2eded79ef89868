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


class UnclearFormat(ImageRefused):
    """The name says some disk, the content `format`; but a guest can write that into its own raw disk."""

    def __init__(self, name: str, format_: str) -> None:
        super().__init__(
            name,
            f"it begins like a {format_} image, which a guest can also have written into its own raw disk",
        )
        self.format = format_


class UnnamedFile(ImageRefused):
    """An image wants another file, which nobody named; `is_beside`: it is in the image's directory."""

    def __init__(self, name: str, wanted: str, *, is_beside: bool) -> None:
        super().__init__(name, f"wants the file {wanted!r}, which is only read when it is named too")
        self.wanted = wanted
        self.is_beside = is_beside
