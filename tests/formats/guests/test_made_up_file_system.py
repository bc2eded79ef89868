"""A file system is one folder and one line in the table: a made-up one does all that the others do."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace

import pytest

from holdfast.formats.guests.client.guest import GuestDisk
from holdfast.formats.guests.client.stored import StoredDisk
from holdfast.formats.guests.values.values import GuestDamaged, GuestMissing, NodeType
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.snapshots.snapshot import ItemKind
from holdfast.tree.content import NodeReader
from holdfast.tree.nodes import GuestNode
from holdfast.tree.snapshot_tree import SnapshotTree
from holdfast.tree.walk import Found, walk
from support.basics import make_snapshot, make_stored, put_item, random_bytes
from support.guest import MemoryDisk
from support.made_up_file_system.filesystem import MAX_RECORDS, RECORD, RECORDS, Thing, make_shelf

TABLE = "support.made_up_file_system.table"
MIB = 1 << 20
START = MIB
"""Where the disk's only partition begins."""
BOOK, NOTES = random_bytes(70_000, 1), b"written backwards\n" * 100
TREE = (
    Thing(0, b"", stat.S_IFDIR | 0o755),
    Thing(1, b"books", stat.S_IFDIR | 0o700),
    Thing(2, b"novel", stat.S_IFREG | 0o644, BOOK),
    Thing(2, b"notes", stat.S_IFREG | 0o600, NOTES, backwards=True),
    Thing(1, b"best", stat.S_IFLNK | 0o777, b"books/novel"),
)


def disk_with(shelf: bytes | bytearray) -> MemoryDisk:
    """A disk with a partition table of the PC and the shelf in its first partition."""
    raw = bytearray(START + len(shelf))
    raw[446:462] = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + b"".join(
        (n // 512).to_bytes(4, "little") for n in (START, len(shelf))
    )
    raw[510:512] = b"\x55\xaa"
    raw[START:] = shelf
    return MemoryDisk(bytes(raw))


@pytest.fixture
def disk() -> MemoryDisk:
    return disk_with(make_shelf(MIB, *TREE, label=b"upstairs"))


@pytest.fixture
def guest(disk: MemoryDisk) -> Iterator[GuestDisk]:
    """Through a real worker, locked in as always."""
    with GuestDisk(disk, name="sda", opener=TABLE) as guest:
        yield guest


def test_it_is_recognised_by_its_line_alone(guest: GuestDisk, disk: MemoryDisk) -> None:
    (volume,) = guest.volumes()
    assert (volume.path, volume.file_system, volume.label, volume.offset) == (
        "p1",
        "shelf",
        "upstairs",
        START,
    )
    assert (volume.size, volume.text) == (MIB, "")
    with GuestDisk(disk, name="sda") as without:
        (volume,) = without.volumes()
    assert (volume.file_system, volume.text) == ("", "no file system that is known here")


def test_it_is_listed_and_its_inodes_are_told(guest: GuestDisk) -> None:
    root = guest.root("p1")
    assert (root.type, root.mode) == (NodeType.FOLDER, 0o755)
    top = dict(guest.list("p1", root.inode))
    assert sorted(top) == [b"best", b"books"]
    assert guest.readlink("p1", top[b"best"].inode) == b"books/novel"
    books = dict(guest.list("p1", top[b"books"].inode))
    assert sorted(books) == [b"notes", b"novel"]
    novel = guest.lookup("p1", top[b"books"].inode, b"novel")
    assert novel == books[b"novel"] == guest.entry("p1", novel.inode)
    assert (novel.size, novel.mode, novel.mtime) == (len(BOOK), 0o644, 1_600_000_002 * 10**9)
    assert guest.xattrs("p1", novel.inode) == {b"user.shelf": b"record 3"}
    with pytest.raises(GuestMissing, match="b'poems'"):
        guest.lookup("p1", top[b"books"].inode, b"poems")


def test_its_files_are_read_by_the_parser_and_from_the_disk(guest: GuestDisk, disk: MemoryDisk) -> None:
    books = dict(guest.list("p1", guest.lookup("p1", 1, b"books").inode))
    (extent,) = books[b"novel"].extents or ()
    assert disk.content[extent.disk : extent.disk + extent.length] == BOOK
    assert guest.read("p1", books[b"novel"].inode, 0, 1 << 20) == BOOK
    assert books[b"notes"].extents is None, "only the parser can read them"
    assert guest.read("p1", books[b"notes"].inode, 8, 9) == NOTES[8:17]


def test_its_damage_is_told_by_structure_field_value_and_limit() -> None:
    shelf = make_shelf(MIB, *TREE)
    shelf[24:28] = (MAX_RECORDS + 1).to_bytes(4, "little")
    with GuestDisk(disk_with(shelf), name="sda", opener=TABLE) as guest:
        (volume,) = guest.volumes()
    assert volume.text == (
        "damaged or unknown shelf file system: "
        "shelf superblock: number of records is 1001; it must be 1 to 1000"
    )
    shelf = make_shelf(MIB, *TREE)
    mode = RECORDS + 2 * RECORD.size + 4
    shelf[mode : mode + 4] = b"\xff\xff\0\0"
    with GuestDisk(disk_with(shelf), name="sda", opener=TABLE) as guest:
        with pytest.raises(GuestDamaged, match="inode 3: mode is 0o177777; it must be of a known file type"):
            guest.entry("p1", 3)
        listed = dict(guest.list("p1", 2))
        assert listed[b"novel"].type is NodeType.DAMAGED
        assert guest.read("p1", listed[b"notes"].inode, 0, len(NOTES)) == NOTES


def test_the_tree_of_a_snapshot_shows_it(memory_repository: Repository, disk: MemoryDisk) -> None:
    with Writer(memory_repository) as writer:
        item = replace(
            put_item(writer, memory_repository, [disk.content], "disks/sda.raw"), kind=ItemKind.DISK
        )
        writer.commit(make_snapshot(item))
    reader = Reader(memory_repository, chunk_cache=1 << 20)
    files = NodeReader(memory_repository, reader)

    def open_guest(stored: StoredDisk, name: str) -> GuestDisk:
        return GuestDisk(stored, name=name, opener=TABLE)

    with SnapshotTree(reader, make_stored(item), open_guest) as tree:
        for path, content in (("books/novel", BOOK), ("books/notes", NOTES)):
            data = files.open(tree, tree.resolve(f"files/sda/p1/{path}")).data
            assert b"".join(bytes(part) for part in data) == content
        node = tree.resolve("files/sda/p1")
        assert isinstance(node, GuestNode)
        found = list(walk(tree.opened(node.disk).guest, "p1", node.entry))
    assert [step.path for step in found] == [b"best", b"books", b"books/notes", b"books/novel"]
    assert all(isinstance(step, Found) for step in found)
