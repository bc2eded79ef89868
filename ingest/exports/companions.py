"""Decides which further files an image may open: extents, backing files, parents.

An image requests a file by name. The request is granted if the user named a file of that name. It is also
granted for a plain name in the image's own directory if the image is a VMDK and the file one of its extents,
or if the user allowed backing files. So a crafted image in a directory of downloads cannot copy private
files beside it into the backup.
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
"""Most files of one VMDK: 1 TiB in extents of 2 GiB, and below the usual limit on open files."""
CHAIN_LIMIT: Final = 64
"""Most images in one backing chain."""

_EXTENT_NAME: Final = re.compile(r"(?P<stem>.+)-(flat|[sf]\d{3,})\.vmdk", re.IGNORECASE)


def extent_stem(name: str) -> str | None:
    """The stem of the VMDK that has an extent of this name; None if the name is not that of an extent."""
    match = _EXTENT_NAME.fullmatch(name)
    return match["stem"] if match else None


class ImageCompanions:
    """The `Companions` of one image. The owner of the `OpenedFiles` closes the files that it opens.

    Two requests for an extent return the same file; a second request for a backing file is a loop. Calling
    it raises ImageRefused for a request that is not granted.
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
        """Names of the files that were opened so far."""
        return tuple(file.name for file in self._files.values())

    def __call__(self, name: str) -> ImageFile:
        # Hyper-V writes ".\parent.vhd".
        requested = re.sub(r"\A\.[/\\]", "", name)
        if requested in self._files or requested == self._image:
            if self._is_vmdk and requested != self._image:
                return self._files[requested]
            raise ImageRefused(self._image, f"its chain of images comes back to {requested!r}: a loop")
        limit = EXTENT_LIMIT if self._is_vmdk else CHAIN_LIMIT
        if len(self._files) >= limit:
            raise ImageRefused(self._image, f"wants more than {limit} further files")
        file = self._named.open(requested) or self._in_directory(requested)
        self._files[requested] = file
        return file

    def _in_directory(self, requested: str) -> OpenFile:
        plain = is_plain(requested)
        allowed = self._is_extent(requested) if self._is_vmdk else self._follow_backing
        if plain and allowed:
            return self._folder.open(requested)
        is_beside = plain and not self._is_vmdk and self._folder.holds(requested)
        raise UnnamedFile(self._image, requested, is_beside=is_beside)


class OwnedCompanions:
    """The companions of a single image that the user named, with the files they opened. A context manager."""

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
        """Names of the files that were opened so far."""
        return self._companions.names

    def changed(self) -> list[str]:
        """Names of the files that were written to since they were opened."""
        return self._opened.changed()

    def close(self) -> None:
        self._opened.close()


def companions_for(path: Path, named: Sequence[Path], follow_backing: bool) -> OwnedCompanions:
    """Companions of one image on the command line; the caller closes them.

    They may open the files in `named`, the extents named after a VMDK's own stem in the image's directory,
    and with `follow_backing` any plain file there.
    """
    return OwnedCompanions(path, named, follow_backing=follow_backing)
