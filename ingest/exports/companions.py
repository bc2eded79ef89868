"""Which further files an image may have: extents, backing files, parents.

An image's wish is a name. It is granted when it is a plain name in the image's own folder and
the image is a VMDK that asks for a `.vmdk` (its extents), or when the user allowed backing files there, or
when the user named a file of that name. A crafted image in a folder of downloads must not be able to carry
off the letters beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Final

from holdfast.formats.disks.base.errors import ImageRefused, UnnamedFile
from holdfast.formats.disks.base.files import OpenFile
from holdfast.formats.disks.base.image import ImageFile
from holdfast.formats.disks.open import suffix_format
from holdfast.ingest.exports.names import is_plain
from holdfast.ingest.exports.opened import ExportDirectory, NamedFiles, OpenedFiles

EXTENT_LIMIT: Final = 512
"""Files of one VMDK: 1 TiB in extents of 2 GiB, and few enough for the usual limit on open files."""
CHAIN_LIMIT: Final = 64
"""Images in one backing chain."""

_EXTENT_NAME: Final = re.compile(r"(?P<stem>.+)-(flat|[sf]\d{3,})\.vmdk", re.IGNORECASE)


def extent_stem(name: str) -> str | None:
    """The stem of the VMDK whose extent a file of this name would be; None for any other name."""
    match = _EXTENT_NAME.fullmatch(name)
    return match["stem"] if match else None


class ImageCompanions:
    """The `Companions` of one image. What it opens is closed by whoever owns the `OpenedFiles`.

    An extent that is asked for twice is the same file; a backing file that is asked for twice is a loop.
    """

    def __init__(
        self,
        image: str,
        folder: ExportDirectory,
        named: NamedFiles,
        *,
        follow_backing: bool,
        is_extent: Callable[[str], bool],
    ) -> None:
        self._image = image
        self._folder = folder
        self._named = named
        self._follow_backing = follow_backing
        self._is_extent = is_extent
        self._files: dict[str, OpenFile] = {}
        self._is_vmdk = suffix_format(image) == "vmdk"

    @property
    def names(self) -> tuple[str, ...]:
        """The files handed out so far."""
        return tuple(file.name for file in self._files.values())

    def __call__(self, name: str) -> ImageFile:
        # Hyper-V writes ".\parent.vhd".
        wish = re.sub(r"\A\.[/\\]", "", name)
        if wish in self._files or wish == self._image:
            if self._is_vmdk and wish != self._image:
                return self._files[wish]
            raise ImageRefused(self._image, f"its chain of images comes back to {wish!r}: a loop")
        limit = EXTENT_LIMIT if self._is_vmdk else CHAIN_LIMIT
        if len(self._files) >= limit:
            raise ImageRefused(self._image, f"wants more than {limit} further files")
        file = self._named.open(wish) or self._in_folder(wish)
        self._files[wish] = file
        return file

    def _in_folder(self, wish: str) -> OpenFile:
        plain = is_plain(wish)
        allowed = self._is_extent(wish) if self._is_vmdk else self._follow_backing
        if plain and allowed:
            return self._folder.open(wish)
        is_beside = plain and not self._is_vmdk and self._folder.holds(wish)
        raise UnnamedFile(self._image, wish, is_beside=is_beside)


class OwnedCompanions:
    """The companions of a single image that the user named, and what they opened. A context manager."""

    def __init__(self, path: Path, named: Sequence[Path], *, follow_backing: bool) -> None:
        stem = PurePath(path.name).stem.casefold()

        def is_extent(name: str) -> bool:
            return (extent_stem(name) or "").casefold() == stem

        self._opened = OpenedFiles()
        self._companions = ImageCompanions(
            path.name,
            ExportDirectory(path.parent, self._opened),
            NamedFiles(named, self._opened),
            follow_backing=follow_backing,
            is_extent=is_extent,
        )

    def __enter__(self) -> OwnedCompanions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, name: str) -> ImageFile:
        return self._companions(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The files handed out so far."""
        return self._companions.names

    def changed(self) -> list[str]:
        """Names of the files that were written to since they were opened."""
        return self._opened.changed()

    def close(self) -> None:
        self._opened.close()


def companions_for(path: Path, named: Sequence[Path], follow_backing: bool) -> OwnedCompanions:
    """Companions for one image on the command line: the files in `named`; in the image's folder the extents
    named after a VMDK's own stem; with `follow_backing` any plain name there. The caller closes them."""
    return OwnedCompanions(path, named, follow_backing=follow_backing)
