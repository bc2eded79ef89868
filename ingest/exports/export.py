"""An export: one VM as a hypervisor hands it out, its disks open and its definition files read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from holdfast.base.errors import SourceError
from holdfast.base.types import ProgressFunction
from holdfast.formats.disks.base.files import OpenFile
from holdfast.formats.disks.base.image import Companions, Image, ImageFile
from holdfast.formats.disks.open import open_image
from holdfast.ingest.exports.companions import ImageCompanions
from holdfast.ingest.exports.names import base_name, shown_name, unique_name
from holdfast.ingest.exports.opened import ExportDirectory, NamedFiles, OpenedFiles, read_small

DEFINITION_LIMIT: Final = 16 << 20
"""Bytes of one definition file; they are held in memory."""
_DEFINITIONS_LIMIT: Final = 64 << 20
_DEFINITION_COUNT: Final = 256
_DISKS_LIMIT: Final = 256
_WARNINGS_LIMIT: Final = 100


@dataclass(frozen=True, slots=True)
class ExportDisk:
    """A disk of an export, open. `name` is unique in the export and fit for a path; `files` are the names of
    what it is read from; `bus` says where the VM sees it, "" if unknown; `mtime` is in ns."""

    name: str
    image: Image
    files: tuple[str, ...]
    bus: str = ""
    mtime: int = 0


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition file as delivered. `mtime` is in ns."""

    name: str
    data: bytes
    mtime: int


@dataclass(frozen=True, slots=True)
class VmExport:
    """One VM. A context manager: `close` it when its disks have been read.

    `kind` is `ova`, `ovf`, `vmware`, `hyper-v`, `libvirt`, `virtualbox`, `vzdump` or `folder` (disk images
    without a definition); `uuid` is in canonical lower case, "" where the export has none; `warnings` are
    sentences for the user.
    """

    kind: str
    name: str
    uuid: str
    disks: tuple[ExportDisk, ...]
    definitions: tuple[Definition, ...]
    warnings: tuple[str, ...]
    opened: OpenedFiles

    def __enter__(self) -> VmExport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.opened.close()

    def changed(self) -> list[str]:
        """Names of the files that were written to since they were opened."""
        return self.opened.changed()


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What the user allowed and said. `scratch` is where something may be unpacked, None for nowhere."""

    named: NamedFiles
    follow_backing: bool
    disk_format: str | None
    scratch: Path | None
    progress: ProgressFunction


class ExportBuilder:
    """Collects what an export consists of, under names that are unique and fit for a snapshot."""

    def __init__(self, chosen: Path, permissions: ExportOptions, opened: OpenedFiles) -> None:
        """`chosen` is the path that the user gave."""
        self.source = chosen.name or str(chosen)
        self._chosen = chosen
        self.permissions = permissions
        self.opened = opened
        self._disks: list[ExportDisk] = []
        self._definitions: list[Definition] = []
        self._warnings: list[str] = []
        self._disk_names: set[str] = set()
        self._definition_names: set[str] = set()

    def warn(self, sentence: str) -> None:
        if len(self._warnings) < _WARNINGS_LIMIT:
            self._warnings.append(sentence)

    def open_definition(self, path: Path) -> OpenFile:
        """Open the file that defines the VM: as it is where the user named it, else as a plain file of its
        folder, for it may have become a link since it was found there. Raises SourceError, ImageRefused."""
        if path == self._chosen:
            return self.opened.add(OpenFile(path))
        return ExportDirectory(path.parent, self.opened).open(path.name)

    def add_definition(self, name: str, data: bytes, mtime: int) -> None:
        """Raises SourceError when the definitions together are too large to be any."""
        if sum(len(d.data) for d in self._definitions) + len(data) > _DEFINITIONS_LIMIT:
            raise SourceError(
                f"{self.source}: its definition files have more than {_DEFINITIONS_LIMIT} bytes"
            )
        if len(self._definitions) >= _DEFINITION_COUNT:
            raise SourceError(f"{self.source}: more than {_DEFINITION_COUNT} definition files")
        unique = unique_name(shown_name(name, "definition"), self._definition_names)
        self._definitions.append(Definition(unique, data, mtime))

    def add_definition_file(self, folder: ExportDirectory, name: str) -> None:
        """Take a file of the folder along; one that is too large is left out with a warning."""
        file = folder.open(name)
        if file.size > DEFINITION_LIMIT:
            self.warn(f"{name} was left out: {file.size} bytes are too many for a definition file")
            return
        data = read_small(file, DEFINITION_LIMIT, "a definition file")
        self.add_definition(name, data, file.status.st_mtime_ns)

    def add_disk(
        self,
        name: str,
        file: ImageFile,
        companions: Companions,
        format_: str | None,
        *,
        mtime: int,
        files: Callable[[], Sequence[str]],
        bus: str = "",
    ) -> Image:
        """Open the disk image in the file called `name`. What the user said of its format goes before
        `format_`, what the definition says of it; with neither, name and content decide."""
        image = open_image(file, companions, self.permissions.disk_format or format_)
        self.add_image(PurePath(name).stem, image, tuple(files()), bus, mtime)
        return image

    def add_image(self, name: str, image: Image, files: tuple[str, ...], bus: str, mtime: int) -> None:
        """Add a disk that is open. Raises SourceError for more disks than any VM has."""
        if len(self._disks) >= _DISKS_LIMIT:
            raise SourceError(f"{self.source}: more than {_DISKS_LIMIT} disks")
        unique = unique_name(shown_name(name, "disk"), self._disk_names)
        self._disks.append(ExportDisk(unique, image, files, bus, mtime))

    def add_disk_file(
        self, folder: ExportDirectory, location: str, format_: str | None, bus: str = ""
    ) -> Image:
        """Open the disk that a definition names: of its path only the last part counts, and is looked for
        among the files that the user named, then in the export's folder. Raises SourceError, ImageRefused."""
        file = self.find(folder, location)
        companions = ImageCompanions(
            file.name,
            folder,
            self.permissions.named,
            follow_backing=self.permissions.follow_backing,
            is_extent=lambda name: name.lower().endswith(".vmdk"),
        )
        return self.add_disk(
            file.name,
            file,
            companions,
            format_,
            mtime=file.status.st_mtime_ns,
            files=lambda: (file.name, *companions.names),
            bus=bus,
        )

    def find(self, folder: ExportDirectory, location: str) -> OpenFile:
        """Open the file that a definition names, as `add_disk_file` looks for it."""
        name = base_name(location)
        named = self.permissions.named.open(name)
        if named is None and not folder.holds(name):
            raise SourceError(
                f"{self.source} names the disk {location!r}, and there is no {name!r} in {folder.path}; "
                "put it there, or name that file too"
            )
        return named or folder.open(name)

    def finish(self, kind: str, name: str, uuid: str = "") -> VmExport:
        """Raises SourceError when there is no disk."""
        if not self._disks:
            why = "; ".join(self._warnings)
            raise SourceError(
                f"{self.source} has no disk that could be backed up" + (f": {why}" if why else "")
            )
        name = shown_name(name, "vm")
        return VmExport(
            kind, name, uuid, tuple(self._disks), tuple(self._definitions), tuple(self._warnings), self.opened
        )
