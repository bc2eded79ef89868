"""An export of one VM by a hypervisor, with its disks open and its definition files read."""

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
"""Most bytes of one definition file, which is held in memory."""
_DEFINITIONS_LIMIT: Final = 64 << 20
_DEFINITION_COUNT: Final = 256
_DISKS_LIMIT: Final = 256
_WARNINGS_LIMIT: Final = 100


@dataclass(frozen=True, slots=True)
class ExportDisk:
    """An open disk of an export.

    `name` is unique in the export and valid in paths; `files` are the names of the files that it is read
    from; `bus` is its address in the VM (`scsi0:0`), "" if unknown; `mtime` is in ns.
    """

    name: str
    image: Image
    files: tuple[str, ...]
    bus: str = ""
    mtime: int = 0


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition file with its unchanged content. `mtime` is in ns."""

    name: str
    data: bytes
    mtime: int


@dataclass(frozen=True, slots=True)
class VmExport:
    """The disks and definition files of one VM. A context manager; close it after reading the disks.

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
    """Options of the user. `scratch` is the directory to unpack archives into; None forbids unpacking.

    `disk_format` is the format of all disks, None to detect it; `named` are further files that may be opened.
    """

    named: NamedFiles
    follow_backing: bool
    disk_format: str | None
    scratch: Path | None
    progress: ProgressFunction


class ExportBuilder:
    """Collects the disks and definitions of an export, under unique names that a snapshot accepts."""

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
        """Open the file that defines the VM. Raises SourceError, ImageRefused.

        Follows links only if the user named this path: else it may have become a link since it was listed.
        """
        if path == self._chosen:
            return self.opened.add(OpenFile(path))
        return ExportDirectory(path.parent, self.opened).open(path.name)

    def add_definition(self, name: str, data: bytes, mtime: int) -> None:
        """Add a definition file. Raises SourceError when there are too many or too large ones."""
        if sum(len(d.data) for d in self._definitions) + len(data) > _DEFINITIONS_LIMIT:
            raise SourceError(
                f"{self.source}: its definition files have more than {_DEFINITIONS_LIMIT} bytes"
            )
        if len(self._definitions) >= _DEFINITION_COUNT:
            raise SourceError(f"{self.source}: more than {_DEFINITION_COUNT} definition files")
        unique = unique_name(shown_name(name, "definition"), self._definition_names)
        self._definitions.append(Definition(unique, data, mtime))

    def add_definition_file(self, folder: ExportDirectory, name: str) -> None:
        """Add a file of the directory as a definition; warn instead if it is too large."""
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
        """Open the disk image in the file called `name` and add it.

        Its format is the one that the user gave, else `format_` from the definition, else detected from name
        and content.
        """
        image = open_image(file, companions, self.permissions.disk_format or format_)
        self.add_image(PurePath(name).stem, image, tuple(files()), bus, mtime)
        return image

    def add_image(self, name: str, image: Image, files: tuple[str, ...], bus: str, mtime: int) -> None:
        """Add an open disk. Raises SourceError when there are too many disks."""
        if len(self._disks) >= _DISKS_LIMIT:
            raise SourceError(f"{self.source}: more than {_DISKS_LIMIT} disks")
        unique = unique_name(shown_name(name, "disk"), self._disk_names)
        self._disks.append(ExportDisk(unique, image, files, bus, mtime))

    def add_disk_file(
        self, folder: ExportDirectory, location: str, format_: str | None, bus: str = ""
    ) -> Image:
        """Open the disk that a definition names. Raises SourceError, ImageRefused.

        Uses only the last component of its path, and looks for it among the files that the user named, then
        in the export's directory.
        """
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
        """Open the file that a definition names, in the places where `add_disk_file` looks."""
        name = base_name(location)
        named = self.permissions.named.open(name)
        if named is None and not folder.holds(name):
            raise SourceError(
                f"{self.source} names the disk {location!r}, and there is no {name!r} in {folder.path}; "
                "put it there, or name that file too"
            )
        return named or folder.open(name)

    def finish(self, kind: str, name: str, uuid: str = "") -> VmExport:
        """The complete export. Raises SourceError when it has no disk."""
        if not self._disks:
            why = "; ".join(self._warnings)
            raise SourceError(
                f"{self.source} has no disk that could be backed up" + (f": {why}" if why else "")
            )
        name = shown_name(name, "vm")
        return VmExport(
            kind, name, uuid, tuple(self._disks), tuple(self._definitions), tuple(self._warnings), self.opened
        )
