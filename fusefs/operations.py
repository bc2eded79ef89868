"""Answers the kernel's requests."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import pyfuse3
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FileNameT, FUSEError, InodeT, RequestContext

from holdfast.base.lru import Lru
from holdfast.base.types import Buffer
from holdfast.formats.guests.values.values import Entry
from holdfast.fusefs.attributes import Ownership, attributes_of, attributes_of_entry
from holdfast.fusefs.guard import handler
from holdfast.fusefs.guest_inodes import is_guest
from holdfast.fusefs.guest_tree import GuestTree
from holdfast.fusefs.live_tree import LiveTree
from holdfast.tree.nodes import DirectoryNode, DiskNode, GuestNode, LinkNode, Node, TextNode, is_directory

_BLOCK = 4096
_AT_ONCE = 1000
"""Names; the kernel takes some hundred at a time."""
_REMEMBERED = 16_384
"""Nodes whose attributes are kept made."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


_Name = tuple[bytes, int, Node | Entry]
"""A name in a listing, its inode number, and what it stands for."""


class DirectoryHandle(Protocol):
    """Something that is open for reading its names."""

    async def names_from(self, position: int) -> Sequence[_Name]:
        """Names from a position on, not all of them perhaps; none where they end."""
        ...


class FileHandle(Protocol):
    """Something that is open for reading."""

    async def read(self, offset: int, length: int) -> Buffer: ...

    def close(self) -> None: ...


class Opener(Protocol):
    """Opens stored content for reading."""

    def open(self, node: Node) -> FileHandle:
        """A file that is neither a text nor in a guest."""
        ...

    async def load(self, directory: DirectoryNode) -> None:
        """Read what must be known before a directory's children can be made."""
        ...


class OpenText:
    """A text that is open; its bytes are in memory anyway."""

    def __init__(self, node: TextNode) -> None:
        self._data = node.data

    async def read(self, offset: int, length: int) -> Buffer:
        return self._data[offset : offset + length]

    def close(self) -> None:
        pass


class OpenNames:
    """A directory of the tree that is open, as it was then."""

    def __init__(self, names: Sequence[_Name]) -> None:
        self._names = names

    async def names_from(self, position: int) -> Sequence[_Name]:
        return self._names[position : position + _AT_ONCE]


class ReadOnly(pyfuse3.Operations):
    """Every operation that would change something. The kernel stops most of them at the `ro` flag."""

    async def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise FUSEError(errno.EROFS)

    setattr = mknod = mkdir = unlink = rmdir = symlink = rename = link = _refuse
    write = create = setxattr = removexattr = _refuse


class HoldfastOperations(ReadOnly):
    """The handlers. Each wears `handler`; none waits for a disk in the event loop."""

    supports_dot_lookup = False

    def __init__(
        self,
        live: LiveTree,
        owner: Ownership,
        opener: Opener,
        guests: GuestTree,
        stored_bytes: Callable[[], int],
    ) -> None:
        super().__init__()
        self._live = live
        self._inodes = live.inodes
        self._owner = owner
        self._opener = opener
        self._guests = guests
        self._stored_bytes = stored_bytes
        self._attributes: Lru[int, EntryAttributes] = Lru(_REMEMBERED)
        self._generation = live.generation
        self._files: dict[int, FileHandle] = {}
        self._folders: dict[int, DirectoryHandle] = {}
        self._next_handle = 1

    @handler
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        if is_guest(parent_inode):
            number, entry = await self._guests.lookup(parent_inode, name)
            return attributes_of_entry(entry, number, self._owner)
        children = await self._children(parent_inode)
        child = children.get(name.decode(errors="surrogateescape"))
        if child is None:
            raise FUSEError(errno.ENOENT)
        return self._stat(child)

    @handler
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        if is_guest(inode):
            return attributes_of_entry(await self._guests.entry(inode), inode, self._owner)
        return self._stat(await self._current(inode))

    @handler
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        if is_guest(inode):
            return FileNameT(await self._guests.readlink(inode))
        await self._live.look()
        node = self._node(inode)
        if not isinstance(node, LinkNode):
            raise FUSEError(errno.EINVAL)
        return FileNameT(node.target.encode(errors="surrogateescape"))

    @handler
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        folder: DirectoryHandle
        if is_guest(inode):
            folder = self._guests.folder(inode)
            await folder.names_from(0)  # what cannot be read is better told now
        else:
            children = await self._children(inode)
            names = [(name.encode(), self._number(node), node) for name, node in children.items()]
            folder = OpenNames(names)
        handle = self._handle()
        self._folders[handle] = folder
        return handle

    @handler
    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        folder, position = self._folders[fh], start_id
        while names := await folder.names_from(position):
            for name, number, what in names:
                position += 1
                if isinstance(what, Entry):
                    attributes = attributes_of_entry(what, number, self._owner)
                else:
                    attributes = self._stat(what)
                if not pyfuse3.readdir_reply(token, FileNameT(name), attributes, position):
                    return

    @handler
    async def releasedir(self, fh: FileHandleT) -> None:
        self._folders.pop(fh, None)

    @handler
    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        if flags & _WRITING:
            raise FUSEError(errno.EROFS)
        file = await self._guests.open(inode) if is_guest(inode) else self._open(self._node(inode))
        handle = self._handle()
        self._files[handle] = file
        return FileInfo(fh=handle, keep_cache=True)

    @handler
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        # Any buffer will do for the kernel; pyfuse3's annotation knows bytes only.
        return await self._files[fh].read(off, size)  # type: ignore[return-value]

    @handler
    async def flush(self, fh: FileHandleT) -> None:
        pass

    @handler
    async def release(self, fh: FileHandleT) -> None:
        file = self._files.pop(fh, None)
        if file is not None:
            file.close()

    @handler
    async def access(self, inode: InodeT, mode: int, ctx: RequestContext) -> bool:
        return True  # the kernel decides, by `default_permissions`

    @handler
    async def getxattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> bytes:
        found = None
        if is_guest(inode) and name.startswith(b"user."):
            found = (await self._guests.xattrs(inode)).get(name)
        if found is None:
            raise FUSEError(pyfuse3.ENOATTR)
        return found

    @handler
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[pyfuse3.XAttrNameT]:
        if not is_guest(inode):
            return []
        return [pyfuse3.XAttrNameT(name) for name in await self._guests.xattrs(inode)]

    @handler
    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        """`df` shows what the repository's packs take, all of it used."""
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK
        data.f_blocks = -(-self._stored_bytes() // _BLOCK)
        data.f_bfree = data.f_bavail = data.f_files = data.f_ffree = data.f_favail = 0
        data.f_namemax = 255
        return data

    def _node(self, inode: int) -> Node:
        node = self._inodes.node(inode)
        if node is None:  # of a snapshot that was removed
            raise FUSEError(errno.ESTALE)
        return node

    async def _current(self, inode: int) -> Node:
        """The node as it is now."""
        node = self._node(inode)
        if isinstance(node, DirectoryNode) and node.growing:
            await self._live.look()
            node = self._node(inode)
        return node

    async def _children(self, inode: int) -> Mapping[str, Node]:
        """The children of a directory, as it is now."""
        node = await self._current(inode)
        if isinstance(node, DiskNode):
            return await self._guests.volumes(node)
        if not isinstance(node, DirectoryNode):
            raise FUSEError(errno.ENOTDIR)
        if node.load is not None:
            await self._opener.load(node)
        return node.children

    def _open(self, node: Node) -> FileHandle:
        if is_directory(node):
            raise FUSEError(errno.EISDIR)
        return OpenText(node) if isinstance(node, TextNode) else self._opener.open(node)

    def _number(self, node: Node) -> int:
        return self._guests.number(node) if isinstance(node, GuestNode) else self._inodes.number(node)

    def _stat(self, node: Node) -> EntryAttributes:
        if self._generation != self._live.generation:
            self._attributes.clear()
            self._generation = self._live.generation
        number = self._number(node)
        found = self._attributes.get(number)
        if found is None:
            found = attributes_of(node, number, self._owner)
            self._attributes.put(number, found)
        return found

    def _handle(self) -> FileHandleT:
        self._next_handle += 1
        return FileHandleT(self._next_handle)
