"""OVF packages: a descriptor with its files, in a directory or in one tar archive (`.ova`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Final, Protocol
from urllib.parse import unquote

from holdfast.base.errors import Refused, SourceError
from holdfast.formats.disks.base.errors import ImageRefused
from holdfast.formats.disks.base.files import FilePart, OpenFile, read_exactly
from holdfast.formats.disks.base.image import ImageFile
from holdfast.formats.disks.open import suffix_format
from holdfast.ingest.exports.companions import EXTENT_LIMIT
from holdfast.ingest.exports.export import DEFINITION_LIMIT, ExportBuilder, VmExport
from holdfast.ingest.exports.joined import JoinedFile
from holdfast.ingest.exports.manifest import MANIFEST_LIMIT, parse_manifest, verify
from holdfast.ingest.exports.names import is_plain
from holdfast.ingest.exports.opened import ExportDirectory
from holdfast.ingest.exports.ovf import OvfDisk, OvfFile, parse_ovf
from holdfast.ingest.exports.safe_xml import XML_LIMIT
from holdfast.ingest.exports.tar_index import tar_members
from holdfast.ingest.exports.unpacked import unpack

_CHUNK_LIMIT: Final = 512
_SPARE: Final = 64 << 20
_SPARE_SHARE: Final = 16
"""What a format's tables may add to a disk: so many bytes, and this part of the disk."""
_SMALL_SUFFIXES: Final = (".nvram", ".cert", ".vmsd", ".vmxf", ".xml")
"""Files of a package that describe the VM; others that are no disks (install media) are left out."""


class Package(Protocol):
    """The files of a package by their plain names."""

    def names(self) -> Sequence[str]: ...

    def file(self, name: str) -> ImageFile:
        """Open the file of one of the `names`. Raises SourceError, ImageRefused."""
        ...

    def mtime(self, name: str) -> int:
        """Modification time in ns of a file that was opened."""
        ...


class DirectoryPackage:
    """The files of a directory."""

    def __init__(self, folder: ExportDirectory) -> None:
        self._folder = folder
        self._names = folder.names()
        self._files: dict[str, OpenFile] = {}

    def names(self) -> Sequence[str]:
        return self._names

    def file(self, name: str) -> ImageFile:
        if name not in self._files:
            self._files[name] = self._folder.open(name)
        return self._files[name]

    def mtime(self, name: str) -> int:
        return self._files[name].status.st_mtime_ns


class TarPackage:
    """The members of an archive, read in place."""

    def __init__(self, archive: OpenFile) -> None:
        self._archive = archive
        self._members = {member.name: member for member in tar_members(archive)}

    def names(self) -> Sequence[str]:
        return list(self._members)

    def file(self, name: str) -> ImageFile:
        member = self._members[name]
        return FilePart(self._archive, member.start, member.size, f"{self._archive.name}:{name}")

    def mtime(self, name: str) -> int:
        return self._members[name].mtime


def read_ova(path: Path, builder: ExportBuilder) -> VmExport:
    """Read an OVA archive.

    Raises SourceError for damage or a mismatch with the manifest, ImageRefused for members that are not
    regular files.
    """
    package = TarPackage(builder.open_definition(path))
    descriptors = [name for name in package.names() if name.lower().endswith(".ovf")]
    if len(descriptors) != 1:
        raise SourceError(f"{path.name} holds {len(descriptors)} OVF descriptors; an OVA has one")
    return _PackageReader(package, descriptors[0], builder).read("ova")


def read_ovf(path: Path, builder: ExportBuilder) -> VmExport:
    """Read a descriptor and its files in the same directory. Raises as `read_ova`."""
    package = DirectoryPackage(ExportDirectory(path.parent, builder.opened))
    return _PackageReader(package, path.name, builder).read("ovf")


class _PackageReader:
    def __init__(self, package: Package, descriptor: str, builder: ExportBuilder) -> None:
        self._package = package
        self._descriptor = descriptor
        self._builder = builder
        self._names = set(package.names())
        self._digests: dict[str, tuple[str, str]] = {}

    def read(self, kind: str) -> VmExport:
        data = self._definition(self._descriptor, XML_LIMIT)
        descriptor = parse_ovf(data, self._descriptor)
        stem = PurePath(self._descriptor).stem
        self._verify(f"{stem}.mf")
        if f"{stem}.cert" in self._names:
            self._definition(f"{stem}.cert", DEFINITION_LIMIT)
        for warning in descriptor.warnings:
            self._builder.warn(warning)
        for disk in descriptor.disks:
            self._add_disk(disk)
        for other in descriptor.others:
            self._add_other(other)
        return self._builder.finish(kind, descriptor.name or stem, descriptor.uuid)

    def _definition(self, name: str, limit: int) -> bytes:
        file = self._package.file(name)
        if file.size > limit:
            raise SourceError(f"{file.name} has {file.size} bytes, more than the {limit} that are read of it")
        data = read_exactly(file, 0, file.size, "the file")
        self._builder.add_definition(name, data, self._package.mtime(name))
        return data

    def _verify(self, manifest: str) -> None:
        """Check that every file of the manifest exists and has its digest, before any file is parsed."""
        if manifest not in self._names:
            return
        self._digests = parse_manifest(self._definition(manifest, MANIFEST_LIMIT), manifest)
        for name, (algorithm, digest) in self._digests.items():
            if name not in self._names:
                raise SourceError(f"{manifest} lists {name!r}, which is not there")
            verify(self._package.file(name), algorithm, digest, self._builder.permissions.progress)
        if self._descriptor not in self._digests:
            self._builder.warn(f"{manifest} has no digest of {self._descriptor}")

    def _add_disk(self, disk: OvfDisk) -> None:
        names = self._file_names(disk.file)
        for name in names:
            if self._digests and name not in self._digests:
                self._builder.warn(f"the manifest has no digest of {name}")
        title, file = self._unpacked(disk, names)
        companions = _PackageExtents(self._package, self._builder.source)
        image = self._builder.add_disk(
            title,
            file,
            companions,
            # Suffixes are checked against the content. URIs are unreliable: some say "vhd" for VHDX.
            None if suffix_format(file.name) else disk.format,
            mtime=self._package.mtime(names[0]),
            files=lambda: (*names, *companions.files),
            bus=disk.bus,
        )
        if disk.capacity is not None and disk.capacity != image.size:
            self._builder.warn(
                f"the disk {disk.file.href} has {image.size} bytes, not the {disk.capacity} of its descriptor"
            )

    def _unpacked(self, disk: OvfDisk, names: Sequence[str]) -> tuple[str, ImageFile]:
        """(name, file) of a disk's entry, after joining and unpacking its files. A file that unpacks to more
        than the descriptor's own statement allows is a bomb, or not that disk's."""
        entry = disk.file
        parts = [self._package.file(name) for name in names]
        size = sum(part.size for part in parts)
        if entry.size is not None and entry.size != size:
            self._builder.warn(f"{entry.href} has {size} bytes, not the {entry.size} of its descriptor")
        title = unquote(entry.href)
        file = parts[0] if len(parts) == 1 else JoinedFile(parts, f"{self._builder.source}:{title}")
        if not entry.packing:
            return title, file
        title = title.removesuffix(".gz")
        permissions = self._builder.permissions
        limit = None if disk.capacity is None else disk.capacity + disk.capacity // _SPARE_SHARE + _SPARE
        unpacked = unpack(file, entry.packing, permissions.scratch, title, permissions.progress, limit=limit)
        return title, self._builder.opened.add(unpacked)

    def _file_names(self, file: OvfFile) -> list[str]:
        """Names of the package's files that hold an entry. Raises SourceError when one is missing."""
        base = next((name for name in (file.href, unquote(file.href)) if is_plain(name)), None)
        if base is None:
            raise ImageRefused(
                self._descriptor, f"it names the file {file.href!r}, which is no plain file name"
            )
        if file.chunk_size is None:
            found = next((name for name in (file.href, unquote(file.href)) if name in self._names), None)
            if found is None:
                raise SourceError(f"{self._descriptor} names the file {file.href!r}, which is not there")
            return [found]
        chunks: list[str] = []
        while (name := f"{base}.{len(chunks):09d}") in self._names:
            chunks.append(name)
            if len(chunks) > _CHUNK_LIMIT:
                raise Refused(f"{self._descriptor}: {file.href!r} is in more than {_CHUNK_LIMIT} chunks")
        sizes = [self._package.file(name).size for name in chunks]
        whole = bool(sizes) and set(sizes[:-1]) <= {file.chunk_size} and sizes[-1] <= file.chunk_size
        if not whole or (file.size is not None and sum(sizes) != file.size):
            raise SourceError(
                f"{self._descriptor}: the {len(chunks)} chunks of {file.href!r} that are here are not all"
            )
        return chunks

    def _add_other(self, file: OvfFile) -> None:
        name = unquote(file.href)
        if is_plain(name) and name in self._names and name.lower().endswith(_SMALL_SUFFIXES):
            self._definition(name, DEFINITION_LIMIT)
        else:
            self._builder.warn(f"{file.href!r} is no disk of the VM and was left out")


class _PackageExtents:
    """The companions of a disk in a package: only a VMDK's extents among the package's files."""

    def __init__(self, package: Package, source: str) -> None:
        self._package = package
        self._source = source
        self.files: list[str] = []

    def __call__(self, name: str) -> ImageFile:
        if not is_plain(name) or not name.lower().endswith(".vmdk") or name not in self._package.names():
            raise ImageRefused(
                self._source, f"a disk wants the file {name!r}, which is no part of the export"
            )
        if name not in self.files:
            self.files.append(name)
        if len(self.files) > EXTENT_LIMIT:
            raise ImageRefused(self._source, f"a disk wants more than {EXTENT_LIMIT} further files")
        return self._package.file(name)
