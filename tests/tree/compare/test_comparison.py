"""Comparing guests that are not honest, not whole, or not read from the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from holdfast.formats.guests.client.content import Contents
from holdfast.formats.guests.values.values import NodeType, Volume, WorkerFailed
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.snapshots.snapshot import BadRange, Item, ItemKind
from holdfast.tree.compare.comparison import Comparison
from holdfast.tree.compare.difference import Change
from holdfast.tree.compare.same_content import equal_streams
from holdfast.tree.snapshot_tree import SnapshotTree
from support.basics import make_snapshot, make_stored, put_item, random_bytes
from support.memory_guest import HOUR, MTIME, MemoryGuest, damaged, extents

CHUNK = 64 << 10
BEFORE = [random_bytes(CHUNK, seed) for seed in range(8)]
AFTER = [*BEFORE[:3], random_bytes(CHUNK, 99), *BEFORE[4:]]
"""Chunk 3 is another one."""

Compare = Callable[..., dict[str, tuple[str, ...]]]


@pytest.fixture
def compare(memory_repository: Repository) -> Compare:
    """Compares two guests on disks that differ in chunk 3: path in the volume -> what was told."""

    def store(parts: list[bytes]) -> Item:
        with Writer(memory_repository) as writer:
            item = replace(put_item(writer, memory_repository, parts, "disks/sda.raw"), kind=ItemKind.DISK)
            writer.commit(make_snapshot(item))
        return item

    reader = Reader(memory_repository, chunk_cache=1 << 20)
    items = store(BEFORE), store(AFTER)

    def call(
        one: MemoryGuest, other: MemoryGuest, path: str = "files/sda", bad: tuple[BadRange, ...] = ()
    ) -> dict[str, tuple[str, ...]]:
        before, after = (make_stored(replace(item, bad=bad)) for item in items)
        with (
            SnapshotTree(reader, before, lambda disk, name: one) as a,
            SnapshotTree(reader, after, lambda disk, name: other) as b,
        ):
            found = Comparison(reader, Contents(memory_repository, reader), a, b).run(path, path)
            return {
                difference.path.removeprefix("files/sda/"): (difference.change.value, *difference.what)
                for difference in found
            }

    return call


def guest(**volume: object) -> MemoryGuest:
    # In several pieces: nothing is concluded from where it lies.
    return MemoryGuest(volume=replace(Volume("p1", 1, -1, "ext4", "", ""), **volume))  # type: ignore[arg-type]


def test_content_counts_only_where_the_disk_differs_beneath_a_file(compare: Compare) -> None:
    one, other = guest(), guest()
    other_chunk = AFTER[3]
    assert BEFORE[3][100] != other_chunk[100]
    for it in (one, other):
        it.file(2, b"beside", size=1000, extents=extents((0, 1000, 2 * CHUNK + 10)))
        it.file(2, b"in it", size=CHUNK, extents=extents((0, CHUNK, 3 * CHUNK)))
        it.file(2, b"hole", size=CHUNK, extents=extents((0, CHUNK, -1)))
    assert compare(one, other) == {"p1/in it": ("modified", "content")}


def test_what_could_not_be_read_at_the_backup_is_no_change(compare: Compare) -> None:
    one, other = guest(), guest()
    for it in (one, other):
        it.file(2, b"beside", size=1000, extents=extents((0, 1000, 2 * CHUNK + 10)))
        it.file(2, b"in it", size=CHUNK, extents=extents((0, CHUNK, 3 * CHUNK)))
    bad = (BadRange(3 * CHUNK, 512, "Input/output error"),)
    assert compare(one, other, bad=bad) == {"p1/in it": ("unread",)}


def test_a_file_that_moved_is_read_and_found_the_same(compare: Compare) -> None:
    one, other = guest(), guest()
    one.file(2, b"moved", size=10, extents=extents((0, 10, 5)))
    other.file(2, b"moved", size=10, extents=extents((0, 4, 5), (4, 6, 9)))
    one.file(2, b"differs", size=10, extents=extents((0, 10, 0)))
    other.file(2, b"differs", size=10, extents=extents((0, 10, CHUNK)))
    one.file(2, b"punched", size=10, extents=extents((0, 10, 0)))
    other.file(2, b"punched", size=10, extents=extents((0, 10, -1)))
    assert compare(one, other) == {
        "p1/differs": ("modified", "content"),
        "p1/punched": ("modified", "content"),
    }


def test_what_only_the_parser_reads_is_trusted_if_all_numbers_agree(compare: Compare) -> None:
    one, other = guest(), guest()
    for it, content in ((one, b"one"), (other, b"two")):
        it.file(2, b"trusted", content)
        it.file(2, b"differs", content, ctime=MTIME + len(it.entries) * (1 if it is one else 2))
        it.file(2, b"same", b"same", ctime=MTIME + (1 if it is one else 2))
    assert compare(one, other) == {"p1/differs": ("modified", "content")}
    one.contents[3] = b"not as long as it says"
    other.entries[3] = replace(other.entries[3], ctime=0)
    one.entries[3] = replace(one.entries[3], size=100)
    other.entries[3] = replace(other.entries[3], size=100)
    assert compare(one, other)["p1/trusted"] == ("unread",)


def test_every_property_is_told(compare: Compare) -> None:
    one, other = guest(), guest()
    one.special(2, b"dev", NodeType.BLOCK, device=5)
    other.special(2, b"dev", NodeType.BLOCK, device=6, mode=0o777, uid=1, mtime=MTIME + HOUR)
    one.link(2, b"link", b"a")
    other.link(2, b"link", b"b", ctime=MTIME + 1)
    one.file(one.folder(2, b"type"), b"x")
    other.file(2, b"type")
    one.folder(2, b"folder", mtime=5)
    other.folder(2, b"folder")
    assert compare(one, other) == {
        "p1/dev": ("modified", "device", "mode", "owner", "time"),
        "p1/link": ("modified", "target"),
        "p1/type": ("modified", "type"),
        "p1/type/x": ("removed",),
    }


def test_loops_and_impossible_names_end(compare: Compare) -> None:
    one, other = guest(), guest()
    for it in (one, other):
        it.again(it.folder(2, b"a"), b"loop", 2)
        it.file(2, b"..")
    assert compare(one, other) == {"p1/..": ("unread",), "p1/a/loop": ("unread",)}


def test_a_damaged_folder_costs_itself_only(compare: Compare) -> None:
    one, other = guest(), guest()
    for it in (one, other):
        it.folder(2, b"a")
        it.file(2, b"b", b"x", mode=0o600 if it is one else 0o640)
    other.broken[3] = damaged()
    assert compare(one, other) == {"p1/a": ("unread",), "p1/b": ("modified", "mode")}


def test_a_parser_that_keeps_failing_costs_its_volume(compare: Compare) -> None:
    one, other = guest(), guest()
    for it in (one, other):
        for name in (b"a", b"b", b"c", b"d"):
            it.folder(2, name)
    other.broken |= {inode: WorkerFailed("it hangs") for inode in (3, 4, 5)}
    assert compare(one, other)["p1"] == ("unread",)
    assert "p1/d" not in compare(one, other)


def test_volumes_come_go_and_change(compare: Compare) -> None:
    one, other = guest(), guest()
    one.others = (Volume("p2", 1, 0, "", "", "swap"), Volume("p3", 1, 0, "xfs", "", ""))
    other.others = (Volume("p2", 1, 0, "", "", "LUKS"), Volume("lvm/vg/a", 1, -1, "xfs", "", ""))
    assert compare(one, other) == {
        "lvm/vg/a": (Change.ADDED.value,),
        "p2.txt": ("modified", "content"),
        "p3": (Change.REMOVED.value,),
    }
    assert compare(one, other, "files/sda/lvm/vg/a") == {"lvm/vg/a": ("added",)}


def test_a_volume_that_lies_where_nothing_differs_is_not_walked(compare: Compare) -> None:
    one, other = guest(offset=4 * CHUNK, size=4 * CHUNK), guest(offset=4 * CHUNK, size=4 * CHUNK)
    assert compare(one, other) == {}
    assert not [line for line in one.asked if line.startswith("list")]
    one, other = guest(offset=3 * CHUNK, size=CHUNK), guest(offset=3 * CHUNK, size=CHUNK)
    compare(one, other)
    assert [line for line in one.asked if line.startswith("list")]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([b"ab", b"", b"c"], [b"a", b"bc"], True),
        ([], [b""], True),
        ([b"abc"], [b"ab"], False),
        ([b"ab"], [b"abc"], False),
        ([b"abc", b"d"], [b"abx", b"d"], False),
    ],
)
def test_streams_are_equal_in_whatever_pieces(one: list[bytes], other: list[bytes], same: bool) -> None:
    assert equal_streams(iter(one), iter(other)) is same
