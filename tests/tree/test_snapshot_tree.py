"""The tree of a snapshot: items, views, disks, volumes, files of guests; walking it; what it is called."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import NotFound
from holdfast.base.escaping import escape, unescape
from holdfast.formats.guests.client.content import Contents
from holdfast.formats.guests.client.stored import StoredDisk
from holdfast.formats.guests.values.naming import (
    layout,
    noted,
    text_document,
    to_bytes,
    to_text,
)
from holdfast.formats.guests.values.values import Entry, GuestDamaged, NodeType, Volume, WorkerFailed
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.snapshots.snapshot import BadRange, Item, ItemKind
from holdfast.tree.nodes import DirectoryNode, GuestNode, ImageNode, ItemNode, TextNode, items_behind
from holdfast.tree.snapshot_tree import SnapshotTree
from holdfast.tree.walk import DEPTH, Found, Unread, walk
from support.basics import make_snapshot, make_stored, put_item, random_bytes
from support.memory_guest import MemoryGuest, damaged, extents

SWAP = Volume("p2", 4096, 8192, "", "", "swap space")
DISK: list[bytes | int] = [random_bytes(100_000, 1), 200_000, random_bytes(50_000, 2)]


def store_disk(repository: Repository, path: str = "disks/sda.raw") -> Item:
    with Writer(repository) as writer:
        item = replace(put_item(writer, repository, DISK, path), kind=ItemKind.DISK)
        writer.commit(make_snapshot(item))
    return item


@contextmanager
def opened(repository: Repository, guest: MemoryGuest, *more: Item) -> Iterator[SnapshotTree]:
    item = store_disk(repository)
    reader = Reader(repository, chunk_cache=1 << 20)
    stored = make_stored(item, *more)
    with SnapshotTree(reader, stored, lambda disk, name: guest) as opened:
        yield opened


def example() -> MemoryGuest:
    guest = MemoryGuest(others=(SWAP, Volume("lvm/vg/root", 1 << 20, -1, "xfs", "", "")))
    etc = guest.folder(2, b"etc")
    guest.file(etc, b"passwd", b"root")
    guest.file(etc, b"\xff\x1b", b"strange")
    guest.link(2, b"conf", b"etc")
    return guest


# ---- paths ----------------------------------------------------------------------------------------------


def test_every_kind_of_path_leads_to_what_it_names(memory_repository: Repository) -> None:
    with opened(memory_repository, example()) as tree:
        assert tree.resolve("") is tree.root
        assert isinstance(tree.resolve("disks/sda.raw"), ItemNode)
        view = tree.resolve("/disks/sda.qcow2/")
        assert isinstance(view, ImageNode)
        assert view.format == "qcow2"
        assert isinstance(tree.resolve("files/sda/lvm/vg"), DirectoryNode)
        swap = tree.resolve("files/sda/p2.txt")
        assert isinstance(swap, TextNode)
        assert (swap.data, swap.volume, swap.damaged) == (b"swap space\n", SWAP, False)
        assert isinstance(tree.resolve("snapshot.json"), TextNode)
        passwd = tree.resolve("files/sda/p1//etc/passwd")
        assert isinstance(passwd, GuestNode)
        assert (passwd.path, passwd.inner) == ("files/sda/p1/etc/passwd", b"etc/passwd")


def names_in(tree: SnapshotTree, path: str) -> list[str]:
    return sorted(tree.children(tree.resolve(path)))


def test_folders_that_no_guest_has_know_what_is_in_them(memory_repository: Repository) -> None:
    with opened(memory_repository, example()) as tree:
        assert names_in(tree, "") == ["disks", "files", "snapshot.json"]
        assert names_in(tree, "disks") == ["sda.qcow2", "sda.raw"], "it is no multiple of 512 bytes"
        assert names_in(tree, "files") == ["sda"]
        assert names_in(tree, "files/sda") == ["lvm", "p1", "p2.txt"]
        assert names_in(tree, "files/sda/lvm") == ["vg"]
        assert names_in(tree, "files/sda/p1") == []


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", ["disks/sda.raw", "disks/sdb.raw", "disks.txt"]),
        ("disks", ["disks/sda.raw", "disks/sdb.raw"]),
        ("/disks/", ["disks/sda.raw", "disks/sdb.raw"]),
        ("disks/sda.raw", ["disks/sda.raw"]),
        ("disks/sda.qcow2", ["disks/sda.raw"]),
        ("files", ["disks/sda.raw"]),
        ("files/sda/p1/etc/passwd", ["disks/sda.raw"]),
        ("disks.txt", ["disks.txt"]),
        ("snapshot.json", []),
    ],
)
def test_a_path_leads_to_the_items_that_it_comes_of(
    path: str, found: list[str], memory_repository: Repository
) -> None:
    others = [
        replace(store_disk(memory_repository, path), kind=ItemKind.FILE)
        for path in ("disks/sdb.raw", "disks.txt")
    ]
    with opened(memory_repository, example(), *others) as tree:
        assert sorted(item.path for item in items_behind(tree.resolve(path))) == sorted(found)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nope", "holds disks/sda.raw"),
        ("files/sdb", "holds sda"),
        ("files/sda/p9", "holds p1, p2.txt, lvm/vg/root"),
        ("files/sda/p1/etc/shadow", "no 'shadow' in files/sda/p1/etc"),
        ("files/sda/p1/etc/passwd/x", "is a file, no folder"),
        ("files/sda/p1/conf/passwd", "symbolic link to 'etc'; links of a guest are not followed"),
        ("files/sda/p1/../p1", "no '..'"),
        ("files/sda/p2.txt/x", "swap space"),
        ("disks/sdb.qcow2", "nothing at"),
    ],
)
def test_what_is_not_there_is_explained(path: str, says: str, memory_repository: Repository) -> None:
    with (
        opened(memory_repository, example()) as tree,
        pytest.raises(NotFound, match=says.replace(".", r"\.")),
    ):
        tree.resolve(path)


def test_a_link_itself_can_be_named(memory_repository: Repository) -> None:
    with opened(memory_repository, example()) as tree:
        node = tree.resolve("files/sda/p1/conf")
        assert isinstance(node, GuestNode)
        assert node.entry.type is NodeType.LINK


def test_a_name_is_found_as_it_is_and_as_it_was_shown(memory_repository: Repository) -> None:
    raw = to_text(b"files/sda/p1/etc/\xff\x1b")
    with opened(memory_repository, example()) as tree:
        for path in (raw, escape(raw)):
            node = tree.resolve(path)
            assert isinstance(node, GuestNode)
            assert node.inner == b"etc/\xff\x1b"


@given(st.binary(max_size=12))
def test_what_escape_shows_leads_back_to_the_bytes(name: bytes) -> None:
    if b"\\" not in name:
        assert to_bytes(unescape(escape(to_text(name)))) == name


def test_disks_are_opened_only_when_a_path_leads_there(memory_repository: Repository) -> None:
    guest = example()
    with opened(memory_repository, guest) as tree:
        tree.resolve("disks/sda.raw")
        names_in(tree, "files")
        assert not guest.asked
        tree.resolve("files/sda/p1")
        tree.resolve("files/sda/p1/etc")
        assert guest.asked == ["volumes"]
    assert guest.closed


# ---- names of volumes -----------------------------------------------------------------------------------


def volume(path: str, file_system: str = "ext4") -> Volume:
    return Volume(path, 1, 0, file_system, "", "text")


def test_volumes_get_places_that_a_hostile_disk_cannot_choose() -> None:
    hostile = [
        volume("p1"),
        volume("lvm/../../etc"),
        volume("lvm/vg\x1b/a b"),
        volume("p1", ""),
        volume("p1/inside"),
        volume("p1"),
        volume(""),
    ]
    assert list(layout(hostile)) == [
        ("p1",),
        ("lvm", "__", "__", "etc"),
        ("lvm", "vg_", "a_b"),
        ("p1.txt",),
        ("p1~2", "inside"),
        ("p1~3",),
        ("volume",),
    ]


@given(st.lists(st.tuples(st.lists(st.sampled_from(["a", "..", "b.txt"]), max_size=3), st.booleans())))
def test_no_volume_hides_another(parts: list[tuple[list[str], bool]]) -> None:
    volumes = [volume("/".join(path), "xfs" if known else "") for path, known in parts]
    places = list(layout(volumes))
    assert len(places) == len(volumes)
    assert not any(a != b and a == b[: len(a)] for a in places for b in places)


def test_thousands_of_volumes_that_want_one_place_get_theirs_soon() -> None:
    """The work grows with their number, not with its square."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        placed = layout(volume(f"lvm/vg/{chr(0x4E00 + n)}") for n in range(4096))
    finally:
        sys.setprofile(None)
    assert len(placed) == 4096
    assert ("lvm~4096", "vg", "_") in placed
    assert calls < 4096 * 200, calls


def test_a_text_document_ends_with_a_line() -> None:
    assert text_document(SWAP) == b"swap space\n"


# ---- walking --------------------------------------------------------------------------------------------


def names(guest: MemoryGuest) -> list[str]:
    root = guest.root("p1")
    return [
        to_text(step.path) if isinstance(step, Found) else f"!{to_text(step.path)}"
        for step in walk(guest, "p1", root)
    ]


def test_a_walk_goes_down_in_the_order_of_names() -> None:
    guest = MemoryGuest()
    b = guest.folder(2, b"b")
    guest.file(2, b"c")
    guest.file(2, b"a")
    guest.file(b, b"x")
    assert names(guest) == ["a", "b", "b/x", "c"]


def test_a_loop_and_a_folder_in_two_places_end() -> None:
    guest = MemoryGuest()
    a = guest.folder(2, b"a")
    guest.again(a, b"loop", a)
    guest.again(2, b"b", a)
    guest.again(a, b"root", 2)
    assert names(guest) == ["a", "a/loop", "!a/loop", "a/root", "!a/root", "b", "!b"]


def test_names_that_no_file_can_have_are_told() -> None:
    guest = MemoryGuest()
    for name in (b"..", b"a/b", b"", b"nul\0", b"good"):
        guest.file(2, name)
    assert names(guest) == ["!", "!..", "!a/b", "!nul\0", "good"]


def test_too_deep_is_told_and_not_followed() -> None:
    guest, at = MemoryGuest(), 2
    for _ in range(DEPTH + 5):
        at = guest.folder(at, b"d")
    found = list(walk(guest, "p1", guest.root("p1")))
    assert isinstance(found[-1], Unread)
    assert len(found) == DEPTH + 2


def test_a_damaged_folder_costs_itself_only() -> None:
    guest = MemoryGuest()
    a = guest.folder(2, b"a")
    guest.file(2, b"b")
    guest.broken[a] = damaged()
    assert names(guest) == ["a", "!a", "b"]


def test_a_parser_that_keeps_failing_ends_the_walk() -> None:
    guest = MemoryGuest()
    for name in (b"a", b"b", b"c", b"d"):
        guest.broken[guest.folder(2, name)] = WorkerFailed("it hangs")
    with pytest.raises(WorkerFailed):
        names(guest)
    assert len([line for line in guest.asked if line != "list 2"]) == 3


# ---- the disk beneath ------------------------------------------------------------------------------------


def test_a_stored_disk_reads_as_it_is_and_nowhere_else(memory_repository: Repository) -> None:
    item = store_disk(memory_repository)
    content = b"".join(bytes(part) if isinstance(part, int) else part for part in DISK)
    with StoredDisk(Reader(memory_repository, chunk_cache=1 << 20), item) as disk:
        for offset, length in ((0, 10), (99_990, 20), (150_000, 50), (299_999, 50_001), (0, 350_000), (7, 0)):
            assert disk.read(offset, length) == content[offset : offset + length]
        for offset in range(0, 350_000, 10_000):  # on and on: decoded ahead
            assert disk.read(offset, 10_000) == content[offset : offset + 10_000]
        for offset, length in ((349_999, 2), (-1, 1), (1 << 60, 1)):
            with pytest.raises(GuestDamaged):
                disk.read(offset, length)


def test_a_parser_does_not_get_zeros_for_what_was_not_read_at_backup(memory_repository: Repository) -> None:
    item = replace(store_disk(memory_repository), bad=(BadRange(8192, 4096, "I/O error"),))
    with StoredDisk(Reader(memory_repository), item) as disk:
        disk.read(0, 8192)
        disk.read(12288, 10)
        for offset, length in ((8191, 2), (12287, 1), (0, 20_000)):
            with pytest.raises(GuestDamaged, match="could not be read when it was backed up"):
                disk.read(offset, length)


@pytest.mark.parametrize(
    "runs",
    [
        [(0, 10, 349_995)],  # beyond the end of the disk
        [(5, 5, 0)],
        [(0, 5, 0), (6, 5, 100)],  # a gap, though the lengths add up
        [(0, 5, 0), (5, 0, 5), (5, 5, 10)],
        [(0, 12, 0)],
        [(0, 4, 0)],
        [(0, -10, 0)],
    ],
)
def test_extents_that_cannot_be_are_no_content(
    runs: list[tuple[int, int, int]], memory_repository: Repository
) -> None:
    guest = MemoryGuest()
    guest.file(2, b"f", size=10, extents=extents(*runs))
    with opened(memory_repository, guest) as tree:
        node = tree.resolve("files/sda/p1/f")
        assert isinstance(node, GuestNode)
        contents = Contents(memory_repository, Reader(memory_repository))
        disk = tree.opened(node.disk)
        with pytest.raises(GuestDamaged):
            list(contents.stream(disk, node.volume.path, node.entry))


def content(repository: Repository, guest: MemoryGuest, name: str) -> bytes:
    with opened(repository, guest) as tree:
        node = tree.resolve(f"files/sda/p1/{name}")
        assert isinstance(node, GuestNode)
        entry: Entry = node.entry
        disk = tree.opened(node.disk)
        stream = Contents(repository, Reader(repository)).stream(disk, node.volume.path, entry)
        return b"".join(stream)


def test_content_comes_from_the_disk_in_file_order_with_its_holes(memory_repository: Repository) -> None:
    guest = MemoryGuest()
    runs = ((0, 100, 50), (100, 100, 150), (200, 300, -1), (500, 50, 0), (550, 5, -1))
    guest.file(2, b"f", size=555, extents=extents(*runs))
    data = DISK[0]
    assert isinstance(data, bytes)
    assert content(memory_repository, guest, "f") == data[50:250] + bytes(300) + data[:50] + bytes(5)


def test_content_that_lies_nowhere_comes_through_the_parser(memory_repository: Repository) -> None:
    guest = MemoryGuest()
    guest.file(2, b"f", bytes(1 << 20) + b"tail")
    assert content(memory_repository, guest, "f") == bytes(1 << 20) + b"tail"
    guest.contents[3] = b"short"
    with pytest.raises(GuestDamaged, match="end of its content is"):
        content(memory_repository, guest, "f")


def test_a_file_system_that_was_in_use_has_a_note_beside_it() -> None:
    volumes = [Volume("p1", 1, 0, "ext4", "", "it was in use"), Volume("p2", 1, 1, "ext4", "", "")]
    places = layout(noted(volumes))
    assert {place: volume.file_system for place, volume in places.items()} == {
        ("p1",): "ext4",
        ("p1.txt",): "",
        ("p2",): "ext4",
    }
