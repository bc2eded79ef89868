"""Restoring files of guests into a folder: faithfully, and nowhere else."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from holdfast.base.errors import TargetError
from holdfast.base.target_folder import TargetFolder
from holdfast.formats.guests.client.content import Contents
from holdfast.formats.guests.values.values import Entry, NodeType, Volume, WorkerFailed
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.snapshots.snapshot import BadRange, ItemKind
from holdfast.tree.extract.extractor import ExtractEvent, ExtractOptions, Extractor, ExtractOutcome
from holdfast.tree.nodes import DiskNode
from holdfast.tree.snapshot_tree import SnapshotTree
from support.basics import ignore, make_snapshot, make_stored, need, put_item, random_bytes
from support.memory_guest import HOUR, MTIME, MemoryGuest, damaged, extents

SIZE = 3 << 20
DATA = random_bytes(SIZE, 5)
BAD = BadRange(1 << 20, 4096, "I/O error")

Run: TypeAlias = Callable[..., list[ExtractEvent]]
"""`extract` of the test's folders."""


@dataclass
class Subject:
    """The tree of a snapshot whose disk is DATA, around the guest that a test puts into it."""

    tree: SnapshotTree
    guests: list[MemoryGuest]


@pytest.fixture
def subject(memory_repository: Repository) -> Iterator[Subject]:
    parts = [DATA[at : at + (256 << 10)] for at in range(0, SIZE, 256 << 10)]
    with Writer(memory_repository) as writer:
        item = put_item(writer, memory_repository, parts, "disks/sda.raw")
        item = replace(item, kind=ItemKind.DISK, bad=(BAD,))
        writer.commit(make_snapshot(item))
    reader = Reader(memory_repository, chunk_cache=1 << 20)
    guests: list[MemoryGuest] = []
    with SnapshotTree(reader, make_stored(item), lambda disk, name: guests[0]) as tree:
        yield Subject(tree, guests)


def extract(
    subject: Subject,
    repository: Repository,
    guest: MemoryGuest,
    target: Path,
    path: str = "files/sda/p1",
    *,
    name: bytes = b"",
    **options: Any,
) -> list[ExtractEvent]:
    """Everything that a restore of the path tells."""
    disk = subject.tree.resolve("files/sda")
    assert isinstance(disk, DiskNode)
    subject.tree.close(disk)
    subject.guests[:] = [guest]
    contents = Contents(repository, Reader(repository, chunk_cache=1 << 20))
    choice = ExtractOptions(**options)
    with closing(TargetFolder.top(target, overwrite=choice.overwrite)) as top:
        extractor = Extractor(contents, top, choice, ignore)
        return list(extractor.run(subject.tree, subject.tree.resolve(path), name))


@pytest.fixture
def run(subject: Subject, memory_repository: Repository, tmp_path: Path) -> Run:
    def call(guest: MemoryGuest, path: str = "files/sda/p1", **options: Any) -> list[ExtractEvent]:
        return extract(subject, memory_repository, guest, tmp_path / "out", path, **options)

    return call


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def outcomes(events: list[ExtractEvent]) -> dict[str, str]:
    return {os.fsdecode(event.path): event.outcome.value for event in events}


def test_content_modes_times_and_holes_come_back(run: Run, out: Path) -> None:
    guest = MemoryGuest()
    etc = guest.folder(2, b"etc", mode=0o2711, mtime=MTIME - 5 * HOUR)
    guest.file(etc, b"small", mode=0o604, size=1000, extents=extents((0, 1000, 77)))
    runs = extents((0, SIZE, 0), (SIZE, 64 << 20, -1), (SIZE + (64 << 20), 5, 9))
    guest.file(2, b"big", size=SIZE + (64 << 20) + 5, extents=runs)
    guest.file(etc, b"inline", b"in the inode", mtime=-HOUR)
    guest.file(etc, b"empty", extents=())
    events = run(guest)
    assert {event.reason for event in events} == {
        "",
        "4096 bytes could not be read when this was backed up, and are zeros",
    }
    assert (out / "etc/small").read_bytes() == DATA[77:1077]
    assert (out / "big").read_bytes() == DATA + bytes(64 << 20) + DATA[9:14]
    assert (out / "big").stat().st_blocks * 512 < SIZE + (1 << 20)
    assert (out / "etc/inline").read_bytes() == b"in the inode"
    assert (out / "etc/empty").read_bytes() == b""
    status = (out / "etc/small").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o604, MTIME)
    assert (out / "etc/inline").stat().st_mtime_ns == -HOUR
    folder = (out / "etc").stat()
    assert (stat.S_IMODE(folder.st_mode), folder.st_mtime_ns) == (0o711, MTIME - 5 * HOUR)


def test_without_sparse_zeros_take_blocks(run: Run, out: Path) -> None:
    guest = MemoryGuest()
    guest.file(2, b"f", size=2 << 20, extents=extents((0, 2 << 20, -1)))
    run(guest, sparse=False)
    assert (out / "f").stat().st_blocks * 512 >= 2 << 20


def test_links_are_data_and_hard_links_one_file(run: Run, out: Path) -> None:
    guest = MemoryGuest()
    folder = guest.folder(2, b"d")
    file = guest.file(2, b"a", b"content")
    guest.again(folder, b"b", file)
    guest.again(2, b"c", file)
    guest.link(2, b"out", b"/etc/shadow", mtime=MTIME - HOUR)
    guest.link(2, b"strange", b"\xff\x1b ../..")
    run(guest)
    assert (out / "a").stat().st_nlink == 3
    assert (out / "a").samefile(out / "d/b")
    assert os.fsencode((out / "strange").readlink()) == b"\xff\x1b ../.."
    assert (out / "out").readlink() == Path("/etc/shadow")
    assert (out / "out").lstat().st_mtime_ns == MTIME - HOUR


def test_a_first_name_that_was_replaced_is_not_linked_to(run: Run, out: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    guest = MemoryGuest()
    guest.again(2, b"b", guest.file(2, b"a", b"content"))
    original = guest.list

    def swapping(volume: str, folder: int) -> Iterator[tuple[bytes, Entry]]:
        """Somebody else replaces `a` after it was restored: `folder` is listed between the two."""
        if folder != 2:
            (out / "a").unlink()
            (out / "a").hardlink_to(tmp_path / "victim")
        return original(volume, folder)

    guest.list = swapping  # type: ignore[method-assign]
    guest.folder(2, b"aa")
    run(guest)
    assert (out / "b").read_bytes() == b"content"
    assert not (out / "b").samefile(tmp_path / "victim")


def test_setuid_is_for_those_who_ask(run: Run, out: Path) -> None:
    guest = MemoryGuest()
    guest.file(2, b"su", b"#!", mode=0o6755)
    guest.folder(2, b"tmp", mode=0o1777)
    run(guest)
    assert stat.S_IMODE((out / "su").stat().st_mode) == 0o755
    assert stat.S_IMODE((out / "tmp").stat().st_mode) == 0o1777
    run(guest, setuid=True, overwrite=True)
    assert stat.S_IMODE((out / "su").stat().st_mode) == 0o6755


def test_owners_and_attributes_but_none_that_give_power(run: Run, out: Path) -> None:
    need(os.geteuid() == 0, "root")
    guest = MemoryGuest()
    file = guest.file(2, b"f", uid=1234, gid=5678, mode=0o4755)
    acl = b"\x02\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + b"\x06\0" + who
        for tag, who in (
            (1, b"\xff" * 4),
            (2, (77).to_bytes(4, "little")),
            (4, b"\xff" * 4),
            (16, b"\xff" * 4),
        )
    )
    acl += b"\x20\0\x04\0" + b"\xff" * 4
    guest.attributes[file] = {
        b"user.comment": b"\0\xff",
        b"system.posix_acl_access": acl,
        b"security.capability": bytes.fromhex("0100000200200000000000000000000000000000"),
        b"trusted.overlay.opaque": b"y",
    }
    guest.link(2, b"l", b"f", uid=1234, gid=5678)
    run(guest, owners=True, setuid=True)
    status = (out / "f").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode) & 0o4000) == (1234, 5678, 0o4000)
    assert (out / "l").lstat().st_uid == 1234
    assert os.getxattr(out / "f", "user.comment") == b"\0\xff"
    assert set(os.listxattr(out / "f")) == {"user.comment", "system.posix_acl_access"}
    run(guest, overwrite=True)
    assert (out / "f").stat().st_uid == 0
    assert os.listxattr(out / "f") == ["user.comment"]


def test_an_owner_that_means_nobody_is_told(run: Run) -> None:
    need(os.geteuid() == 0, "root")
    guest = MemoryGuest()
    guest.file(2, b"f", uid=0xFFFF_FFFF)
    events = run(guest, owners=True)
    assert events[0].outcome is ExtractOutcome.FLAWED
    assert "owner not set" in events[0].reason


def test_special_files_are_left_out_unless_wanted(run: Run, out: Path) -> None:
    need(os.geteuid() == 0, "root")
    guest = MemoryGuest()
    guest.special(2, b"fifo", NodeType.FIFO, mode=0o622)
    guest.special(2, b"null", NodeType.CHARACTER, mode=0o666, device=os.makedev(1, 3))
    guest.special(2, b"sock", NodeType.SOCKET)
    assert set(outcomes(run(guest)).values()) == {"skipped", "restored"}
    assert list(out.iterdir()) == []
    run(guest, special=True)
    assert stat.S_ISFIFO((out / "fifo").lstat().st_mode)
    assert stat.S_IMODE((out / "fifo").lstat().st_mode) == 0o622
    assert (out / "null").lstat().st_rdev == os.makedev(1, 3)
    assert (out / "fifo").lstat().st_mtime_ns == MTIME


@pytest.mark.parametrize("name", [b"..", b".", b"../escaped", b"/tmp/escaped", b"", b"a\0b"])
def test_names_that_lead_elsewhere_are_refused(name: bytes, run: Run, out: Path) -> None:
    guest = MemoryGuest()
    guest.file(2, name, b"evil")
    guest.file(guest.folder(2, b"d"), name, b"evil")
    guest.folder(2, name)
    guest.file(2, b"good", b"good")
    events = run(guest)
    assert outcomes(events)["good"] == "restored"
    assert sum(event.outcome is ExtractOutcome.FAILED for event in events) == 3
    assert {path.name for path in out.parent.iterdir()} == {"out", "cache"}
    assert {str(path.relative_to(out)) for path in out.rglob("*")} == {"d", "good"}


def test_a_link_and_a_folder_of_one_name_do_not_lead_out(run: Run, out: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    guest = MemoryGuest()
    guest.link(2, b"d", os.fsencode(tmp_path / "victim"))
    guest.file(guest.folder(2, b"d"), b"f", b"evil")
    guest.link(2, b"x", os.fsencode(tmp_path / "victim/x"))
    guest.file(2, b"x", b"evil")
    for overwrite in (False, True):
        run(guest, overwrite=overwrite)
        assert list((tmp_path / "victim").iterdir()) == []


def test_links_that_wait_in_the_target_are_not_followed(run: Run, out: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "f").write_text("precious")
    out.mkdir()
    (out / "d").symlink_to(victim)
    (out / "f").symlink_to(victim / "f")
    guest = MemoryGuest()
    guest.file(guest.folder(2, b"d"), b"f", b"evil")
    guest.file(2, b"f", b"new")
    events = run(guest)
    assert outcomes(events)["f"] == outcomes(events)["d"] == "failed"
    events = run(guest, overwrite=True)
    assert outcomes(events)["f"] == "restored"
    assert (out / "f").read_text() == "new"
    assert not (out / "f").is_symlink()
    assert (victim / "f").read_text() == "precious"
    assert [path.name for path in victim.iterdir()] == ["f"]


def test_nothing_is_replaced_unless_told_and_then_in_one_step(run: Run, out: Path) -> None:
    out.mkdir()
    (out / "f").write_text("precious")
    (out / "folder").mkdir()
    guest = MemoryGuest()
    file = guest.file(2, b"f", b"new")
    guest.again(2, b"g", file)
    guest.file(2, b"folder", b"new")
    events = run(guest)
    assert outcomes(events)["f"] == "failed"
    assert (out / "f").read_text() == "precious"
    guest.broken[file] = damaged()
    run(guest, overwrite=True)
    assert (out / "f").read_text() == "precious"
    del guest.broken[file]
    for _ in range(2):
        events = run(guest, overwrite=True)
        assert outcomes(events) == {"f": "restored", "folder": "failed", "g": "restored"}
        assert (out / "f").samefile(out / "g")
        assert sorted(path.name for path in out.iterdir()) == ["f", "folder", "g"]


def test_what_fails_is_told_removed_and_the_rest_goes_on(run: Run, out: Path) -> None:
    guest = MemoryGuest()
    guest.file(2, b"bad", size=SIZE, extents=extents((0, SIZE, 1)))
    guest.broken[guest.file(2, b"unread", b"x")] = damaged("no such block")
    folder = guest.folder(2, b"folder")
    guest.broken[folder] = damaged("torn")
    guest.file(2, b"long" * 100, b"x")
    guest.link(2, b"nul", b"a\0b")
    guest.file(2, b"zz", b"fine")
    events = run(guest)
    reasons = {
        os.fsdecode(event.path)[:8]: event.reason
        for event in events
        if event.outcome is ExtractOutcome.FAILED
    }
    assert reasons["unread"] == "no such block"
    assert reasons["folder"] == "torn"
    assert reasons["longlong"] == os.strerror(errno.ENAMETOOLONG)
    assert ": extent is " in reasons["bad"]
    assert "nul" in reasons
    assert sorted(path.name for path in out.iterdir()) == ["folder", "zz"]


def test_a_file_where_the_backup_could_not_read_is_flawed(run: Run) -> None:
    guest = MemoryGuest()
    guest.file(2, b"f", size=8192, extents=extents((0, 8192, BAD.start - 100)))
    (event, _) = run(guest)
    assert event.outcome is ExtractOutcome.FLAWED
    assert "4096 bytes could not be read" in event.reason


def test_loops_of_folders_end(run: Run, out: Path) -> None:
    guest = MemoryGuest()
    folder = guest.folder(2, b"a")
    guest.again(folder, b"a", folder)
    guest.again(folder, b"root", 2)
    events = run(guest)
    assert outcomes(events) == {"a/a": "failed", "a/root": "failed", "a": "restored", "": "restored"}


def test_a_parser_that_keeps_failing_ends_the_restore(run: Run) -> None:
    guest = MemoryGuest()
    for name in (b"a", b"b", b"c", b"d"):
        guest.broken[guest.file(2, name, b"x")] = WorkerFailed("it hangs")
    with pytest.raises(WorkerFailed):
        run(guest)


def test_a_full_target_ends_the_restore(run: Run, monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    def full(fd: int, data: object, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    guest = MemoryGuest()
    guest.file(2, b"f", b"x")
    guest.file(2, b"g", b"x")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(TargetError, match="No space"):
        run(guest)
    assert list(out.iterdir()) == []


def test_a_whole_disk_goes_into_a_folder_for_each_volume(run: Run, out: Path) -> None:
    others = (Volume("p2", 1, 0, "", "", "swap space"), Volume("lvm/vg/root", 1, -1, "xfs", "", ""))
    guest = MemoryGuest(others=others)
    guest.again(2, b"second", guest.file(2, b"first", b"x"))
    run(guest, "files/sda")
    assert (out / "p2.txt").read_text() == "swap space\n"
    assert (out / "p1/first").samefile(out / "p1/second")
    assert (out / "lvm/vg/root/first").samefile(out / "lvm/vg/root/second")
    assert not (out / "p1/first").samefile(out / "lvm/vg/root/first")
    run(guest, "files")
    assert (out / "sda/p1/first").read_bytes() == b"x"


def test_one_file_gets_the_name_that_was_asked_for(run: Run, out: Path) -> None:
    guest = MemoryGuest(others=(Volume("p2", 1, 0, "", "", "swap space"),))
    guest.file(2, b"f", b"x", links=5)
    guest.link(2, b"l", b"f")
    run(guest, "files/sda/p1/f", name=b"renamed")
    run(guest, "files/sda/p1/l", name=b"link")
    run(guest, "files/sda/p2.txt", name=b"text")
    assert sorted(path.name for path in out.iterdir()) == ["link", "renamed", "text"]


def test_times_that_no_clock_shows_are_no_accident(run: Run, out: Path) -> None:
    guest = MemoryGuest()
    guest.file(2, b"f", mtime=1 << 90, atime=-(1 << 90))
    assert "f" in outcomes(run(guest))
    assert (out / "f").exists()


def test_a_folder_that_was_there_keeps_its_own_attributes(run: Run, out: Path) -> None:
    (out / "d").mkdir(parents=True, mode=0o700)
    guest = MemoryGuest()
    guest.folder(2, b"d", mode=0o777)
    run(guest)
    assert stat.S_IMODE((out / "d").stat().st_mode) == 0o700
    run(guest, overwrite=True)
    assert stat.S_IMODE((out / "d").stat().st_mode) == 0o777


def test_a_target_that_was_not_there_becomes_the_folder(run: Run, out: Path) -> None:
    guest = MemoryGuest()
    inner = guest.folder(2, b"d", mode=0o2751, mtime=MTIME - 3 * HOUR)
    guest.file(inner, b"file", b"content")
    run(guest, path="files/sda/p1/d")
    status = out.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o751, MTIME - 3 * HOUR)
    guest.entries[inner] = replace(guest.entries[inner], mode=0o700)
    run(guest, path="files/sda/p1/d")
    assert stat.S_IMODE(out.stat().st_mode) == 0o751, "it is the user's now"
