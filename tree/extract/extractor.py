"""Restoring files and directories of a guest: what they held, how they were, nothing outside the target."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from holdfast.base.durable_files import write_all_at
from holdfast.base.errors import RepositoryError, TargetError
from holdfast.base.target_folder import TargetFolder
from holdfast.base.types import ProgressFunction
from holdfast.formats.guests.client.content import Contents, lost
from holdfast.formats.guests.client.open_disk import OpenDisk
from holdfast.formats.guests.values.naming import to_bytes
from holdfast.formats.guests.values.values import FILE_FORMATS, Entry, GuestError, NodeType, WorkerFailed
from holdfast.repo.chunks.chunker import is_zero
from holdfast.tree.extract.host_attributes import Attributes
from holdfast.tree.nodes import DirectoryNode, DiskNode, GuestNode, Node, TextNode
from holdfast.tree.snapshot_tree import SnapshotTree
from holdfast.tree.walk import DirectoryGuard, Found, Unread, listed, told

_HOPELESS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""What the next file would meet too."""


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """`owners` and `setuid`: see Attributes. `special`: make FIFOs, sockets and devices. `overwrite`: replace
    what is there. `sparse`: leave zeros out."""

    owners: bool = False
    setuid: bool = False
    special: bool = False
    overwrite: bool = False
    sparse: bool = True


class ExtractOutcome(Enum):
    """How the restore of a name ended."""

    RESTORED = "restored"
    FLAWED = "flawed"
    """It is there, but for what the reason says."""
    SKIPPED = "skipped"
    FAILED = "failed"
    """It is not there; of a directory: not everything in it."""


@dataclass(frozen=True, slots=True)
class ExtractEvent:
    """Something was restored, or not. `path` is below the target."""

    outcome: ExtractOutcome
    path: bytes
    type: NodeType
    size: int = 0
    reason: str = ""


@dataclass(slots=True)
class _Level:
    """A directory that is being filled."""

    folder: TargetFolder
    path: bytes
    entry: Entry
    names: Iterator[Found | Unread]


@dataclass(slots=True)
class _VolumeState:
    """The state of a volume's restore. `names` has the files with names still to come: where the first name
    was restored, which file it is, how many names are left."""

    disk: OpenDisk
    name: str
    guard: DirectoryGuard = field(default_factory=DirectoryGuard)
    names: dict[int, tuple[bytes, os.stat_result, int]] = field(default_factory=dict)


class Extractor:
    """Restores into one directory. Yields an ExtractEvent for each name, also for one that fails.

    Raises TargetError when the target's file system is full or broken, GuestError when a parser keeps
    failing. A file that fails, or that an interruption catches, is removed; directories get their attributes
    last, when nothing in them changes any more.
    """

    def __init__(
        self, contents: Contents, top: TargetFolder, options: ExtractOptions, add: ProgressFunction
    ) -> None:
        self._contents = contents
        self._top = top
        self._options = options
        self._attributes = Attributes(owners=options.owners, setuid=options.setuid)
        self._add = add
        self.bits_dropped = 0
        """Files and directories that have lost their setuid or setgid bit."""

    def run(self, tree: SnapshotTree, node: Node, name: bytes = b"") -> Iterator[ExtractEvent]:
        """Restore a node that leads into a guest: to `name` in the top directory, or what a directory holds
        into the top directory itself, which becomes that directory if it was not there."""
        if isinstance(node, TextNode):
            yield from self._text(node, self._top, name, name)
        elif isinstance(node, DirectoryNode | DiskNode):
            yield from self._volumes(tree, node, self._top, b"")
        elif isinstance(node, GuestNode) and not node.is_directory:
            volume = _VolumeState(tree.opened(node.disk), node.volume.path)
            yield from self._one(volume, self._top, Found(name, node.entry))
        elif isinstance(node, GuestNode):
            into = self._top.below([])
            into.made = self._top.made
            yield from self._tree(tree, node, into, b"", own=into.made)

    def _volumes(
        self, tree: SnapshotTree, node: DirectoryNode | DiskNode, folder: TargetFolder, path: bytes
    ) -> Iterator[ExtractEvent]:
        """`files`, a disk or `lvm` in it: a directory for each volume."""
        for text, child in sorted(tree.children(node).items()):
            name = to_bytes(text)
            below = path + b"/" + name if path else name
            try:
                if isinstance(child, DirectoryNode | DiskNode):
                    with closing(folder.folder(name)) as deeper:
                        yield from self._volumes(tree, child, deeper, below)
                elif isinstance(child, TextNode):
                    yield from self._text(child, folder, name, below)
                elif isinstance(child, GuestNode):
                    yield from self._tree(tree, child, folder.folder(name), below, own=True)
            except (GuestError, RepositoryError) as error:
                yield _failed(below, NodeType.FOLDER, error)
            except OSError as error:
                yield _failed(below, NodeType.FOLDER, _bearable(error))

    def _text(self, node: TextNode, folder: TargetFolder, name: bytes, path: bytes) -> Iterator[ExtractEvent]:
        try:
            with folder.new_file(name) as fd:
                write_all_at(fd, 0, node.data)
                os.fchmod(fd, 0o644)
        except OSError as error:
            yield _failed(path, NodeType.FILE, _bearable(error))
            return
        yield ExtractEvent(ExtractOutcome.RESTORED, path, NodeType.FILE, len(node.data))

    def _tree(
        self, tree: SnapshotTree, node: GuestNode, into: TargetFolder, path: bytes, *, own: bool
    ) -> Iterator[ExtractEvent]:
        """A directory with all below it. Closes `into`, which gets its attributes if it is `own`."""
        volume = _VolumeState(tree.opened(node.disk), node.volume.path)
        stack: list[_Level] = []
        try:
            stack.append(self._level(volume, into, path, node.entry, 0))
            while stack:
                level = stack[-1]
                step = next(level.names, None)
                if step is None:
                    if own or len(stack) > 1:
                        yield self._leave(volume, level)
                    stack.pop().folder.close()
                elif isinstance(step, Unread):
                    yield _failed(step.path, NodeType.FILE, step.error)
                elif step.entry.type is NodeType.FOLDER:
                    yield from self._enter(volume, stack, step)
                else:
                    yield from self._one(volume, level.folder, step)
        finally:
            for level in stack:
                level.folder.close()

    def _level(
        self, volume: _VolumeState, folder: TargetFolder, path: bytes, entry: Entry, depth: int
    ) -> _Level:
        try:
            volume.guard.enter(entry.inode, depth)
            names = told(listed(volume.disk.guest, volume.name, entry.inode), path + b"/" if path else b"")
        except BaseException:
            folder.close()
            raise
        return _Level(folder, path, entry, names)

    def _enter(self, volume: _VolumeState, stack: list[_Level], found: Found) -> Iterator[ExtractEvent]:
        try:
            folder = stack[-1].folder.folder(_name(found))
        except OSError as error:
            yield _failed(found.path, NodeType.FOLDER, _bearable(error))
            return
        try:
            stack.append(self._level(volume, folder, found.path, found.entry, len(stack)))
        except (GuestError, RepositoryError) as error:
            volume.guard.failed(error)
            yield _failed(found.path, NodeType.FOLDER, error)

    def _leave(self, volume: _VolumeState, level: _Level) -> ExtractEvent:
        """A directory is complete: its attributes. One that was there before keeps its own unless it may be
        overwritten."""
        flaws: list[str] = []
        if level.folder.made or self._options.overwrite:
            xattrs = self._xattrs(volume, level.entry, flaws)
            flaws += self._attributes.of_open(level.folder.fd, level.entry, xattrs)
            self.bits_dropped += self._attributes.drops(level.entry)
        return _done(level.path, level.entry, flaws)

    def _one(self, volume: _VolumeState, folder: TargetFolder, found: Found) -> Iterator[ExtractEvent]:
        """Anything but a directory."""
        path, entry = found
        try:
            if entry.type is NodeType.FILE:
                yield self._file(volume, folder, found)
            elif entry.type is NodeType.LINK:
                folder.link(_name(found), volume.disk.guest.readlink(volume.name, entry.inode))
                yield _done(path, entry, self._attributes.of_link(folder, _name(found), entry))
            elif self._options.special:
                folder.node(_name(found), FILE_FORMATS[entry.type] | 0o600, entry.device)
                yield _done(path, entry, self._attributes.of_special(folder, _name(found), entry))
            else:
                yield ExtractEvent(
                    ExtractOutcome.SKIPPED, path, entry.type, reason=f"is a {entry.type.value}"
                )
        except (GuestError, RepositoryError) as error:
            volume.guard.failed(error)
            yield _failed(path, entry.type, error)
        except ValueError as error:  # a link's target with a NUL in it
            yield _failed(path, entry.type, error)
        except OSError as error:
            yield _failed(path, entry.type, _bearable(error))

    def _file(self, volume: _VolumeState, folder: TargetFolder, found: Found) -> ExtractEvent:
        path, entry = found
        if entry.inode in volume.names and self._second_name(volume, folder, found):
            return ExtractEvent(ExtractOutcome.RESTORED, path, entry.type)
        with folder.new_file(_name(found)) as fd:
            os.ftruncate(fd, entry.size)
            if not self._options.sparse and entry.size:
                os.posix_fallocate(fd, 0, entry.size)
            self._fill(fd, volume, entry)
            flaws: list[str] = []
            xattrs = self._xattrs(volume, entry, flaws)
            flaws += self._attributes.of_open(fd, entry, xattrs)
            status = os.fstat(fd)
        self.bits_dropped += self._attributes.drops(entry)
        if entry.links > 1:
            volume.names[entry.inode] = path, status, entry.links - 1
        if zeros := lost(volume.disk, entry):
            flaws.append(f"{zeros} bytes could not be read when this was backed up, and are zeros")
        return _done(path, entry, flaws)

    def _fill(self, fd: int, volume: _VolumeState, entry: Entry) -> None:
        written = 0
        for start, data in self._contents.pieces(volume.disk, volume.name, entry):
            if not is_zero(data):
                write_all_at(fd, start, data)
            written += len(data)
            self._add(len(data))
        self._add(entry.size - written)

    def _second_name(self, volume: _VolumeState, folder: TargetFolder, found: Found) -> bool:
        """Another name of a file that was restored already. False when its first one is not there any more:
        then it is restored anew."""
        first, status, left = volume.names[found.entry.inode]
        *above, name = first.split(b"/")
        try:
            with closing(self._top.below(above)) as source:
                folder.second_name(_name(found), source, name, status)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            if error.errno in (errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ELOOP):
                return False
            raise
        if left > 1:
            volume.names[found.entry.inode] = first, status, left - 1
        else:
            del volume.names[found.entry.inode]
        return True

    def _xattrs(self, volume: _VolumeState, entry: Entry, flaws: list[str]) -> Mapping[bytes, bytes]:
        if entry.plain:
            return {}
        try:
            return volume.disk.guest.xattrs(volume.name, entry.inode)
        except WorkerFailed:
            raise
        except GuestError as error:
            flaws.append(f"extended attributes not read: {error}")
            return {}


def _name(found: Found) -> bytes:
    return found.path.rpartition(b"/")[2]


def _done(path: bytes, entry: Entry, flaws: list[str]) -> ExtractEvent:
    outcome = ExtractOutcome.FLAWED if flaws else ExtractOutcome.RESTORED
    size = entry.size if entry.type is NodeType.FILE else 0
    return ExtractEvent(outcome, path, entry.type, size, "; ".join(flaws))


def _failed(path: bytes, type_: NodeType, error: Exception) -> ExtractEvent:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ExtractEvent(ExtractOutcome.FAILED, path, type_, reason=reason)


def _bearable(error: OSError) -> OSError:
    """The error back, if the next file may fare better. Raises TargetError if not."""
    if error.errno in _HOPELESS:
        raise TargetError(f"cannot write: {error.strerror}; what was restored so far is complete") from error
    return error
