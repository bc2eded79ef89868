"""What ext, XFS and btrfs have in common: an inode that says of a file what `stat` asks for."""

from __future__ import annotations

import stat
from abc import abstractmethod
from typing import Generic, Protocol, TypeVar

from holdfast.formats.guests.filesystems.base.directory_tree import TreeFileSystem, node_type
from holdfast.formats.guests.values.values import Entry, FileExtent, GuestMissing, NodeType

_KINDS = {stat.S_IFDIR: "folder", stat.S_IFREG: "file", stat.S_IFLNK: "symbolic link"}


class UnixInode(Protocol):
    """An inode as it was read; `allocated` in bytes, times in ns."""

    @property
    def mode(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def links(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def allocated(self) -> int: ...
    @property
    def mtime(self) -> int: ...
    @property
    def ctime(self) -> int: ...
    @property
    def atime(self) -> int: ...


Node = TypeVar("Node", bound=UnixInode)


class UnixFileSystem(TreeFileSystem, Generic[Node]):
    """A file system with such inodes. `family` is what messages call it."""

    family: str

    @abstractmethod
    def _load(self, inode: int) -> Node:
        """Raises GuestMissing for an inode that is not in use."""

    @abstractmethod
    def _extents(self, node: Node) -> tuple[FileExtent, ...] | None:
        """Where a file's data lies on the disk as it is; None when only the parser can read it."""

    @abstractmethod
    def _device(self, node: Node) -> int:
        """The number of a device."""

    def _is_plain(self, node: Node) -> bool:
        """Whether it surely has no attributes to show."""
        return False

    def entry(self, inode: int) -> Entry:
        node = self._load(inode)
        type_ = node_type(node.mode, inode)
        return Entry(
            inode,
            type_,
            node.mode & 0o7777,
            node.uid,
            node.gid,
            node.links,
            node.size,
            node.allocated,
            node.mtime,
            node.ctime,
            node.atime,
            self._device(node) if type_ in (NodeType.CHARACTER, NodeType.BLOCK) else 0,
            self._extents(node) if type_ is NodeType.FILE else None,
            plain=self._is_plain(node),
        )

    def _load_kind(self, inode: int, kind: int) -> Node:
        """An inode of one kind, `stat.S_IFDIR` and so on. Raises GuestMissing for any other."""
        node = self._load(inode)
        if stat.S_IFMT(node.mode) != kind:
            raise GuestMissing(f"{self.family}: inode {inode} is no {_KINDS[kind]}")
        return node
