"""Recognises which hypervisor wrote the export at a path, and opens it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Final

from holdfast.base.errors import Refused, SourceError
from holdfast.base.types import ProgressFunction
from holdfast.formats.disks.open import suffix_format
from holdfast.ingest.exports.companions import extent_stem
from holdfast.ingest.exports.export import ExportBuilder, ExportOptions, VmExport
from holdfast.ingest.exports.hyperv import machine_files, read_hyperv
from holdfast.ingest.exports.libvirt import parse_domain, read_libvirt
from holdfast.ingest.exports.opened import ExportDirectory, NamedFiles, OpenedFiles
from holdfast.ingest.exports.ovf_package import read_ova, read_ovf
from holdfast.ingest.exports.safe_xml import XML_LIMIT
from holdfast.ingest.exports.virtualbox import read_vbox
from holdfast.ingest.exports.vmx import read_vmx
from holdfast.ingest.exports.vzdump import is_vzdump, read_vzdump

_READERS: Final[dict[str, Callable[[Path, ExportBuilder], VmExport | None]]] = {
    ".ova": read_ova,
    ".ovf": read_ovf,
    ".vmx": read_vmx,
    ".vbox": read_vbox,
    ".xml": read_libvirt,
}
_DISK_SUFFIXES: Final = (".img", ".bin", ".image")
"""Suffixes of disk images that do not name a format."""
_NAMES_SHOWN: Final = 10


def _no_progress(count: int) -> None: ...


def find_export(
    path: Path,
    *,
    follow_backing: bool = False,
    named: Sequence[Path] = (),
    disk_format: str | None = None,
    scratch: Path | None = None,
    progress: ProgressFunction = _no_progress,
) -> VmExport | None:
    """Open the export at a path: a directory, or a file that defines a VM. None for any other file.

    `named` are further files of the user, `follow_backing` allows backing files in the export's directory,
    `disk_format` is the format of the disks if the user gave one, `scratch` is the directory to unpack
    archives into. Calls `progress` with bytes that are read for checksums or to unpack. The caller closes the
    export.

    Raises SourceError for a damaged or incomplete export or a directory that is none; Refused for several
    VMs or a file that the user must name; ImageDamaged and ImageRefused from the disks.
    """
    opened = OpenedFiles()
    try:
        permissions = ExportOptions(NamedFiles(named, opened), follow_backing, disk_format, scratch, progress)
        export = _find(path, ExportBuilder(path, permissions, opened))
    except OSError as error:
        opened.close()
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    except BaseException:
        opened.close()
        raise
    if export is None:
        opened.close()
    return export


def is_export(path: Path) -> bool:
    """Whether a path is by its name what a hypervisor exports: a directory, an archive or a definition."""
    return path.is_dir() or is_vzdump(path.name) or path.suffix.lower() in _READERS


def is_whole_export(path: Path) -> bool:
    """Whether it holds its disks itself, so that no other path can belong to it."""
    return path.is_dir() or is_vzdump(path.name) or path.suffix.lower() == ".ova"


def exports_in(path: Path) -> tuple[list[Path], list[Path]]:
    """(exports that lie in a directory, each for itself; what else is in it), both empty when the directory
    is one export, or none. Looks one level deep. Raises SourceError."""
    opened = OpenedFiles()
    try:
        folder = ExportDirectory(path, opened)
        listed = [name for name in sorted(folder.names()) if not name.startswith(".")]
        # A link in an export may lead anywhere: the user named the export, not the link's target.
        names = [name for name in listed if not (path / name).is_symlink()]
        definitions = [name for name in folder.files() if _is_definition(folder, name)]
        own = [name for name in definitions if not is_whole_export(path / name)]
        if machine_files(folder) or len(own) == 1:
            return [], []
        folders = [name for name in names if (path / name).is_dir() and _holds_export(path / name, opened)]
    finally:
        opened.close()
    inner = sorted({*folders, *definitions})
    if not folders and len(inner) < 2:
        return [], []
    others = [name for name in listed if name not in inner and not (own and _is_disk(name))]
    return [path / name for name in inner], [path / name for name in others]


def _holds_export(path: Path, opened: OpenedFiles) -> bool:
    folder = ExportDirectory(path, opened)
    files = [name for name in folder.files() if not name.startswith(".")]
    return bool(machine_files(folder)) or any(_is_definition(folder, n) or _is_disk(n) for n in files)


def _find(path: Path, builder: ExportBuilder) -> VmExport | None:
    if path.is_dir():
        return _read_folder(path, builder)
    if is_vzdump(path.name):
        return read_vzdump(path, builder)
    reader = _READERS.get(path.suffix.lower())
    return reader(path, builder) if reader else None


def _read_folder(path: Path, builder: ExportBuilder) -> VmExport | None:
    folder = ExportDirectory(path, builder.opened)
    files = [name for name in folder.files() if not name.startswith(".")]
    definitions = [name for name in files if _is_definition(folder, name)]
    machines = machine_files(folder)
    if len(definitions) + bool(machines) > 1:
        them = ", ".join((definitions + machines[:1])[:_NAMES_SHOWN])
        raise Refused(f"{path} holds the definitions of several VMs ({them}); name one of them")
    if machines:
        return read_hyperv(path, builder)
    if definitions:
        return _find(path / definitions[0], builder)
    return _read_disks(path, folder, files, builder)


def _is_definition(folder: ExportDirectory, name: str) -> bool:
    suffix = PurePath(name).suffix.lower()
    if suffix != ".xml":
        return suffix in _READERS or is_vzdump(name)
    data = folder.peek(name, XML_LIMIT)
    return data is not None and parse_domain(data, name) is not None


def _read_disks(
    path: Path, folder: ExportDirectory, files: Sequence[str], builder: ExportBuilder
) -> VmExport:
    """Read a directory that has only disk images, as the disks of one VM."""
    disks = [name for name in files if _is_disk(name)]
    others = [name for name in folder.names() if not name.startswith(".") and name not in disks]
    if not disks or others:
        what = f"besides disk images it holds {others[0]!r}" if disks else "it holds no disk images"
        raise SourceError(
            f"{path} is no export of a VM that is known here: there is no .ovf, .ova, .vmx, .vbox, .vma, "
            f"libvirt XML or Hyper-V export in it, and {what}. Name the files to back up one by one"
        )
    stems = {PurePath(name).stem.casefold() for name in disks if suffix_format(name) == "vmdk"}
    for name in disks:
        if (extent_stem(name) or "").casefold() not in stems:
            builder.add_disk_file(folder, name, None)
    return builder.finish("folder", path.resolve().name)


def _is_disk(name: str) -> bool:
    return suffix_format(name) is not None or name.lower().endswith(_DISK_SUFFIXES)
