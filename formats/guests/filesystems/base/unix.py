"""The base of ext, XFS and btrfs, whose inodes hold what `stat` returns."""

from __future__ import annotations

import stat
from abc import abstractmethod
from typing import Generic, Protocol, TypeVar

from holdfast.formats.guests.filesystems.base.directory_tree import TreeFileSystem, node_type
from holdfast.formats.guests.values.values import DiskExtent, Entry, GuestMissing, NodeType

_KINDS = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "symbolic link"}


class UnixInode(Protocol):
    """An inode as a parser read it; `size` and `allocated` in bytes, times in ns since 1970."""

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
    """A file system with such inodes. Its name in messages is `kind`."""

    @abstractmethod
    def _load(self, inode: int) -> Node:
        """Read an inode. Raises GuestMissing when it is not in use."""

    @abstractmethod
    def _extents(self, node: Node) -> tuple[DiskExtent, ...] | None:
        """Where on the disk the bytes of a file lie; None when only the parser can read them."""

    @abstractmethod
    def _device(self, node: Node) -> int:
        """The device number of a device node."""

    def _is_plain(self, node: Node) -> bool:
        """Whether the inode certainly has no extended attributes to show."""
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
        """Read an inode of one file type (`stat.S_IFDIR` ...). Raises GuestMissing for any other type."""
        node = self._load(inode)
        if stat.S_IFMT(node.mode) != kind:
            raise GuestMissing(f"{self.kind} inode {inode} is not a {_KINDS[kind]}")
        return node
