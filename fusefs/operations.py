"""What the kernel asks for, and the answers."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

import pyfuse3
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FileNameT, FUSEError, InodeT, RequestContext

from holdfast.fusefs.attributes import Ownership, attributes_of
from holdfast.fusefs.guard import handler
from holdfast.fusefs.live_tree import LiveTree
from holdfast.fusefs.nodes import Document, Folder, Link, Node, StoredFile
from holdfast.repo.snapshot import Item
from holdfast.repo.types import Buffer

_BLOCK = 4096
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class OpenFile(Protocol):
    """Something that is open for reading."""

    async def read(self, offset: int, length: int) -> Buffer: ...

    def close(self) -> None: ...


class OpenDocument:
    """A document that is open; its bytes are in memory anyway."""

    def __init__(self, document: Document) -> None:
        self._data = document.data

    async def read(self, offset: int, length: int) -> Buffer:
        return self._data[offset : offset + length]

    def close(self) -> None:
        pass


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
        open_item: Callable[[Item], OpenFile],
        stored_bytes: Callable[[], int],
    ) -> None:
        super().__init__()
        self._live = live
        self._inodes = live.inodes
        self._owner = owner
        self._open_item = open_item
        self._stored_bytes = stored_bytes
        self._attributes: dict[int, EntryAttributes] = {}
        self._generation = live.generation
        self._files: dict[int, OpenFile] = {}
        self._listings: dict[int, list[tuple[bytes, Node]]] = {}
        self._next_handle = 1

    @handler
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        folder = await self._folder(parent_inode)
        child = folder.children.get(name.decode(errors="surrogateescape"))
        if child is None:
            raise FUSEError(errno.ENOENT)
        return self._stat(child)

    @handler
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        node = self._node(inode)
        if isinstance(node, Folder) and node.growing:
            node = await self._folder(inode)
        return self._stat(node)

    @handler
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        await self._live.look()
        node = self._node(inode)
        if not isinstance(node, Link):
            raise FUSEError(errno.EINVAL)
        return FileNameT(node.target.encode())

    @handler
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        folder = await self._folder(inode)
        handle = self._handle()
        self._listings[handle] = [(name.encode(), node) for name, node in folder.children.items()]
        return handle

    @handler
    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._listings[fh]
        for n in range(start_id, len(listing)):
            name, node = listing[n]
            if not pyfuse3.readdir_reply(token, FileNameT(name), self._stat(node), n + 1):
                return

    @handler
    async def releasedir(self, fh: FileHandleT) -> None:
        self._listings.pop(fh, None)

    @handler
    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        node = self._node(inode)
        if flags & _WRITING:
            raise FUSEError(errno.EROFS)
        if isinstance(node, StoredFile):
            file = self._open_item(node.item)
        elif isinstance(node, Document):
            file = OpenDocument(node)
        else:
            raise FUSEError(errno.EISDIR)
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
        raise FUSEError(pyfuse3.ENOATTR)

    @handler
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[pyfuse3.XAttrNameT]:
        return []

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

    async def _folder(self, inode: int) -> Folder:
        """The folder as it is now."""
        node = self._node(inode)
        if isinstance(node, Folder) and node.growing:
            await self._live.look()
            node = self._node(inode)
        if not isinstance(node, Folder):
            raise FUSEError(errno.ENOTDIR)
        return node

    def _stat(self, node: Node) -> EntryAttributes:
        if self._generation != self._live.generation:
            self._attributes.clear()
            self._generation = self._live.generation
        number = self._inodes.number(node)
        found = self._attributes.get(number)
        if found is None:
            found = self._attributes[number] = attributes_of(node, number, self._owner)
        return found

    def _handle(self) -> FileHandleT:
        self._next_handle += 1
        return FileHandleT(self._next_handle)
