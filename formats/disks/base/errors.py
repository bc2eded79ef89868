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
    """The image is whole, but reading it needs a file that nobody named, a key, or an unsupported feature."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class UnclearFormat(ImageRefused):
    """The name fits several formats and the content says `format`, which a guest can write to a raw disk."""

    def __init__(self, name: str, format_: str) -> None:
        super().__init__(
            name,
            f"it begins like a {format_} image, which a guest can also have written into its own raw disk",
        )
        self.format = format_


class UnnamedFile(ImageRefused):
    """An image needs a file that the user did not name. `is_beside`: it is in the image's directory."""

    def __init__(self, name: str, wanted: str, *, is_beside: bool) -> None:
        super().__init__(name, f"wants the file {wanted!r}, which is only read when it is named too")
        self.wanted = wanted
        self.is_beside = is_beside
