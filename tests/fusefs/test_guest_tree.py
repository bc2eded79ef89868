"""Guests in the mount without a mount: what is kept of them, what is let go, who waits for whom."""

from __future__ import annotations

import errno
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pyfuse3
import pytest
import trio
import trio.testing

from holdfast.base.types import ChunkID, SnapshotID
from holdfast.formats.guests.client.open_disk import Guest
from holdfast.formats.guests.values.values import DiskExtent, NodeType, Volume
from holdfast.fusefs import guest_disks
from holdfast.fusefs.attributes import Ownership, attributes_of_entry
from holdfast.fusefs.bridge import Bridge
from holdfast.fusefs.guest_disks import DiskKey, GuestDisks
from holdfast.fusefs.guest_file import DiskHandle
from holdfast.fusefs.guest_folder import GuestFolder, Page
from holdfast.fusefs.guest_tree import GuestTree
from holdfast.fusefs.inodes import Inodes
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import Item, ItemKind, StoredSnapshot, Subject, SubjectKind
from holdfast.tree.build import build_tree
from holdfast.tree.nodes import DirectoryNode, DiskNode, GuestNode, TextNode
from support.basics import make_item, make_snapshot
from support.memory_guest import MemoryGuest, make_entry

T = TypeVar("T")
ITEM = replace(make_item(ChunkID(bytes(32)), 1000, path="disks/sda.raw"), kind=ItemKind.DISK)
STORED = StoredSnapshot(
    SnapshotID("a" * 64),
    replace(make_snapshot(ITEM), subject=Subject(kind=SubjectKind.VM, name="web01")),
)


class Direct(GuestDisks):
    """Asks one guest, in the event loop."""

    def __init__(self, guest: MemoryGuest) -> None:
        self.guest = guest

    async def run(self, key: DiskKey, item: Item, work: Callable[[Guest], T]) -> T:
        await trio.lowlevel.checkpoint()
        return work(self.guest)


def open_tree(guest: MemoryGuest) -> GuestTree:
    def no_disk(item: Item) -> DiskHandle:
        raise AssertionError

    return GuestTree(Direct(guest), no_disk)


def disk_files() -> DiskNode:
    return DiskNode("files/sda", "snapshot a/files/sda", STORED.id, ITEM)


async def root_of(tree: GuestTree) -> int:
    root = (await tree.volumes(disk_files()))["p1"]
    assert isinstance(root, GuestNode)
    return tree.number(root)


# ---- what is kept -------------------------------------------------------------------------------------


def test_files_in_many_pieces_do_not_pile_up() -> None:
    pieces = tuple(DiskExtent(n, 1, 2 * n) for n in range(50_000))
    entry = make_entry(0, NodeType.FILE, size=len(pieces), extents=pieces)
    guest = MemoryGuest()
    inodes = [guest.file(2, b"%d" % n) for n in range(20)]
    for inode in inodes:
        guest.entries[inode] = replace(entry, inode=inode)

    async def main() -> None:
        tree = open_tree(guest)
        number = await root_of(tree)
        folder = tree.folder(number)
        position = 0
        while names := await folder.names_from(position):
            position += len(names)
        assert position == len(inodes)
        kept = [tree._entries.get(number - 2 + inode) for inode in inodes]
        assert sum(len(found.extents or ()) for found in kept if found) <= 200_000

    trio.run(main)


def test_attributes_are_asked_for_only_where_there_may_be_some() -> None:
    guest = MemoryGuest()
    plain = guest.file(2, b"plain", plain=True)
    other = guest.file(2, b"other")
    guest.attributes = {plain: {b"user.never": b"asked"}, other: {b"user.a": b"b", b"system.x": b"c"}}

    async def main() -> None:
        tree = open_tree(guest)
        root = await root_of(tree)
        await tree.folder(root).names_from(0)
        assert await tree.xattrs(root - 2 + plain) == {}
        assert await tree.xattrs(root - 2 + other) == {b"user.a": b"b"}

    trio.run(main)


def test_a_snapshot_that_goes_takes_along_what_was_shown_of_its_disks() -> None:
    swap = Volume("p2", 4096, 8192, "", "", "swap space")
    guest = MemoryGuest(others=(swap, Volume("lvm/vg/home", 1, -1, "", "", "unknown")))
    old, new = build_tree([STORED]), build_tree([])
    inodes = Inodes()
    inodes.replace(None, old)

    def show(folder: DirectoryNode) -> DiskNode:
        below = folder.children["files"]
        assert isinstance(below, DirectoryNode)
        disk = below.children["sda"]
        assert isinstance(disk, DiskNode)
        for node in (below, disk):
            inodes.number(node)
        return disk

    async def main() -> list[int]:
        disk = show(old.snapshots[STORED.id])
        volumes = await open_tree(guest).volumes(disk)
        lvm = volumes["lvm"]
        assert isinstance(lvm, DirectoryNode)
        vg = lvm.children["vg"]
        assert isinstance(vg, DirectoryNode)
        home = vg.children["home.txt"]
        assert isinstance(home, TextNode)
        return [inodes.number(node) for node in (disk, volumes["p2.txt"], lvm, vg, home)]

    numbers = trio.run(main)
    assert all(inodes.node(number) for number in numbers)
    inodes.replace(old, new)
    assert not any(inodes.node(number) for number in numbers)


@pytest.mark.parametrize("time", [0, -1, -(2**63), 2**62 + 5, 2**63 - 1])
def test_times_are_shown_as_the_guest_has_them(time: int) -> None:
    entry = make_entry(5, NodeType.FILE, mtime=time, ctime=time, atime=time)
    shown = attributes_of_entry(entry, 1 << 62, Ownership(0, 0, everybody=False))
    assert (shown.st_mtime_ns, shown.st_ctime_ns, shown.st_atime_ns) == (max(time, 1 - 2**63),) * 3


# ---- an open folder -----------------------------------------------------------------------------------


def pages_of(total: int, page: int, asked: list[int]) -> Callable[[int], Awaitable[Page]]:
    """A folder of so many names that come so many at a time."""

    async def load(position: int) -> Page:
        asked.append(position)
        await trio.lowlevel.checkpoint()
        stop = min(position + page, total)
        names = [(b"%d" % n, n, make_entry(n, NodeType.FILE)) for n in range(position, stop)]
        return names, stop == total

    return load


@pytest.mark.parametrize("total", [0, 1, 9, 10, 11, 35])
def test_an_open_folder_has_all_its_names_in_any_order_of_reading(total: int) -> None:
    async def main() -> None:
        asked: list[int] = []
        folder = GuestFolder(pages_of(total, 10, asked))
        for start in (0, 3, total, 0, total // 2, total + 5):
            position = start
            while names := await folder.names_from(position):
                assert [number for _, number, _ in names] == list(range(position, position + len(names)))
                position += len(names)
            assert position == max(start, total)

    trio.run(main)


def test_a_large_folder_is_read_once_and_a_page_of_it_is_held() -> None:
    async def main() -> None:
        asked: list[int] = []
        folder = GuestFolder(pages_of(1000, 10, asked))
        position = 0
        while names := await folder.names_from(position):
            position += min(len(names), 3)  # the kernel has room for three
            assert len(names) <= 10
        assert asked == list(range(0, 1000, 10))

    trio.run(main)


def test_several_who_read_one_open_folder_do_not_confuse_it() -> None:
    async def main() -> None:
        folder = GuestFolder(pages_of(100, 10, []))
        seen: dict[int, list[int]] = {0: [], 25: [], 60: []}

        async def read(start: int, into: list[int]) -> None:
            while names := await folder.names_from(start + len(into)):
                into += [number for _, number, _ in names]

        async with trio.open_nursery() as nursery:
            for start, into in seen.items():
                nursery.start_soon(read, start, into)
        assert seen == {start: list(range(start, 100)) for start in seen}

    trio.run(main)


# ---- disks that are let go ----------------------------------------------------------------------------


class SlowToClose(MemoryGuest):
    """Its process takes long to die."""

    def __init__(self) -> None:
        super().__init__()
        self.may_end = threading.Event()
        self.ended = threading.Event()

    def close(self) -> None:
        assert self.may_end.wait(120)
        self.ended.set()


def test_the_event_loop_does_not_wait_for_a_disk_that_is_let_go(memory_repository: Repository) -> None:
    now = [0.0]
    guest = SlowToClose()

    async def main() -> None:
        with Bridge(1) as bridge, trio.fail_after(30):
            disks = GuestDisks(
                Reader(memory_repository),
                lambda disk, name: guest,
                bridge,
                clock=lambda: now[0],
                look=0.001,
            )
            key = STORED.id, ITEM.path
            assert len(await disks.run(key, ITEM, lambda asked: asked.volumes())) == 1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(disks.watch)
                now[0] = 1000
                while disks._open:  # nobody asks anything, and yet it is let go
                    await trio.sleep(0.001)
                assert not guest.ended.is_set()
                guest.may_end.set()
                while disks._closing:
                    await trio.sleep(0.001)
                assert guest.ended.is_set()
                nursery.cancel_scope.cancel()
            disks.close()

    trio.run(main)


def test_the_end_waits_for_disks_that_are_just_being_let_go(memory_repository: Repository) -> None:
    guest = SlowToClose()
    guest.may_end.set()

    async def main() -> None:
        with Bridge(1) as bridge, trio.fail_after(30):
            disks = GuestDisks(Reader(memory_repository), lambda disk, name: guest, bridge, clock=lambda: 0.0)
            await disks.run((STORED.id, ITEM.path), ITEM, lambda asked: asked.volumes())
            disks._close(disks._open.popitem()[1])
            disks.close()
            assert guest.ended.is_set()

    trio.run(main)


def test_only_so_many_wait_for_one_disk(memory_repository: Repository) -> None:
    guest = SlowToClose()
    guest.may_end.set()
    key, go_on = (STORED.id, ITEM.path), threading.Event()

    async def main() -> None:
        with Bridge(1) as bridge, trio.fail_after(30):
            disks = GuestDisks(Reader(memory_repository), lambda disk, name: guest, bridge, clock=lambda: 0.0)
            async with trio.open_nursery() as nursery:
                for _ in range(guest_disks.WAITING):
                    nursery.start_soon(disks.run, key, ITEM, lambda asked: go_on.wait(120))
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(pyfuse3.FUSEError) as caught:
                    await disks.run(key, ITEM, lambda asked: asked.volumes())
                assert caught.value.errno == errno.EAGAIN
                other = (SnapshotID("b" * 64), ITEM.path)
                assert await disks.run(other, ITEM, lambda asked: asked.volumes())
                go_on.set()
            assert await disks.run(key, ITEM, lambda asked: asked.volumes())
            disks.close()

    trio.run(main)
