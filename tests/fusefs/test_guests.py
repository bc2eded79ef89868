"""Files inside guests, through a real mount: what the kernel of the guest would show, and nothing more."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.ingest.sources.source import FileSource
from holdfast.repo.store.local import LocalStore
from support.basics import backup, need, new_repository, random_bytes
from support.fuse import Place, eventually, is_running, names, need_fuse

pytestmark = pytest.mark.fuse

MIB = 1 << 20
MANY = 3000


def tool(*command: str | Path, stdin: str = "") -> str:
    need(shutil.which(str(command[0])), f"the program {command[0]}")
    done = subprocess.run(
        [str(word) for word in command], input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def make_tree(tree: Path) -> None:
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tree / "etc/shadow").write_text("root:*:1::::::\n")
    (tree / "etc/shadow").chmod(0o600)
    (tree / "etc/passwd").chmod(0o4755)
    os.utime(tree / "etc/passwd", ns=(1_600_000_000_123_456_789, 1_600_000_000_987_654_321))
    (tree / "etc/host link").symlink_to("/etc/hostname")
    (tree / "big").write_bytes(random_bytes(5 * MIB + 77, 4))
    os.link(tree / "big", tree / "same as big")
    with (tree / "sparse").open("wb") as file:
        file.seek(40 * MIB)
        file.write(b"the end")
    (tree / "empty").touch()
    (tree / "Grüße 🙂").write_text("hello\n")
    os.setxattr(tree / "empty", "user.comment", b"for the test")
    os.mkfifo(tree / "fifo")
    (tree / "many").mkdir()
    for n in range(MANY):
        (tree / f"many/file-{n:05}").write_bytes(random_bytes(n % 5000, n))


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a tree of files, a GPT disk: ext4 with that tree, swap, an empty partition)."""
    folder = tmp_path_factory.mktemp("guest")
    tree, raw = folder / "tree", folder / "sda.raw"
    make_tree(tree)
    with raw.open("wb") as file:
        file.truncate(100 * MIB)
    table = "label: gpt\nstart=2048, size=64MiB\nsize=8MiB, type=swap\nsize=8MiB\n"
    tool("sfdisk", "-q", raw, stdin=table)
    tool("mkfs.ext4", "-q", "-d", tree, "-E", f"offset={MIB}", raw, "64m")
    swap = folder / "swap"
    with swap.open("wb") as file:
        file.truncate(8 * MIB)
    swap.chmod(0o600)
    tool("mkswap", swap)
    with raw.open("r+b") as file:
        file.seek(65 * MIB)
        file.write(swap.read_bytes())
    return tree, raw


@pytest.fixture
def place(tmp_path: Path, disk: tuple[Path, Path]) -> Iterator[Place]:
    need_fuse()
    place = Place(tmp_path / "repository", tmp_path / "mnt", tmp_path / "state")
    place.mountpoint.mkdir()
    with (
        new_repository(LocalStore.create(place.root), tmp_path / "cache") as repository,
        FileSource(disk[1]) as source,
    ):
        backup(repository, source, name="web01")
    yield place
    place.clean_up()


@pytest.fixture
def files(place: Place) -> Path:
    """The mount's folder of what is in the disk."""
    place.mount()
    return place.mountpoint / "vms/web01/latest/files/sda"


def test_volumes_are_folders_or_say_what_they_are(files: Path) -> None:
    found = names(files)
    assert found == ["p1", "p2.txt", "p3.txt"]
    assert "swap" in (files / "p2.txt").read_text().lower()
    assert (files / "p3.txt").read_text().strip()


def test_everything_in_the_guest_is_there_as_it_was(files: Path, disk: tuple[Path, Path]) -> None:
    tree, shown = disk[0], files / "p1"
    assert names(shown) == sorted([*names(tree), "lost+found"])
    for original in tree.rglob("*"):
        copy = shown / original.relative_to(tree)
        wanted, got = original.lstat(), copy.lstat()
        assert stat.S_IFMT(got.st_mode) == stat.S_IFMT(wanted.st_mode), copy
        if stat.S_ISLNK(wanted.st_mode):
            assert os.readlink(copy) == os.readlink(original)  # noqa: PTH115  the string counts
            continue
        assert stat.S_IMODE(got.st_mode) == stat.S_IMODE(wanted.st_mode), copy
        assert (got.st_uid, got.st_gid) == (wanted.st_uid, wanted.st_gid)
        assert got.st_mtime_ns // 10**9 == wanted.st_mtime_ns // 10**9, copy  # mke2fs writes seconds
        if stat.S_ISREG(wanted.st_mode):
            assert (got.st_size, got.st_nlink) == (wanted.st_size, wanted.st_nlink)
            assert copy.read_bytes() == original.read_bytes()


def test_hard_links_are_one_inode_and_holes_take_no_room(files: Path) -> None:
    first, second = files / "p1/big", files / "p1/same as big"
    assert first.stat().st_ino == second.stat().st_ino
    assert (files / "p1/sparse").stat().st_blocks < 100


def test_attributes_of_users_are_shown_and_no_others(files: Path) -> None:
    assert os.listxattr(files / "p1/empty") == ["user.comment"]
    assert os.getxattr(files / "p1/empty", "user.comment") == b"for the test"
    assert os.listxattr(files / "p1/big") == []
    for name in ("user.other", "security.capability", "trusted.x"):
        with pytest.raises(OSError) as caught:  # noqa: PT011  the number is looked at
            os.getxattr(files / "p1/empty", name)
        assert caught.value.errno == errno.ENODATA


def test_a_path_is_found_without_listing_its_folders(files: Path) -> None:
    assert (files / "p1/many/file-02999").read_bytes() == random_bytes(2999 % 5000, 2999)
    with pytest.raises(FileNotFoundError):
        (files / "p1/many/file-99999").stat()
    with pytest.raises(NotADirectoryError):
        (files / "p1/etc/passwd/x").stat()


def test_a_guests_links_lead_nowhere_but_where_they_say(files: Path) -> None:
    assert os.readlink(files / "p1/etc/host link") == "/etc/hostname"  # noqa: PTH115  the string counts


def test_nothing_in_a_guest_can_be_changed_or_run(files: Path) -> None:
    for action in (
        lambda: (files / "p1/etc/passwd").write_text("x"),
        (files / "p1/new").mkdir,
        (files / "p1/big").unlink,
        lambda: os.setxattr(files / "p1/big", "user.a", b"b"),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011  the number is looked at
            action()
        assert caught.value.errno == errno.EROFS
    with pytest.raises(OSError) as caught:  # noqa: PT011  the number is looked at
        subprocess.run([files / "p1/etc/passwd"], check=False)
    assert caught.value.errno == errno.EACCES


@pytest.mark.expects_warnings
def test_a_file_whose_inode_is_damaged_does_not_vanish(place: Place, disk: tuple[Path, Path]) -> None:
    damaged = place.root.parent / "damaged.raw"
    shutil.copy(disk[1], damaged)
    tool("debugfs", "-w", "-R", "clri /etc/shadow", f"{damaged}?offset={MIB}")
    with place.opened() as repository, FileSource(damaged) as source:
        backup(repository, source, name="damaged")
    with place.mounted():
        etc = place.mountpoint / "vms/damaged/latest/files/damaged/p1/etc"
        assert names(etc) == ["host link", "passwd", "shadow"]
        assert (etc / "passwd").read_bytes() == (disk[0] / "etc/passwd").read_bytes()
        with pytest.raises(OSError) as caught:  # noqa: PT011  the number is looked at
            (etc / "shadow").read_bytes()
        assert caught.value.errno == errno.EIO


def workers(daemon: int) -> list[int]:
    """Processes that the daemon started."""
    found = Path(f"/proc/{daemon}/task").glob("*/children")
    return [int(pid) for children in found for pid in children.read_text().split()]


@pytest.mark.expects_warnings
def test_a_parser_that_dies_is_followed_by_another(place: Place) -> None:
    daemon = place.mount()
    files = place.mountpoint / "vms/web01/latest/files/sda"
    assert "p1" in names(files)
    (worker,) = workers(daemon)
    os.kill(worker, signal.SIGKILL)
    assert eventually(lambda: _works(files / "p1"))
    assert workers(daemon) != [worker]
    raw = place.mountpoint / "vms/web01/latest/disks/sda.raw"
    assert raw.read_bytes()[:512]


def _works(folder: Path) -> bool:
    try:
        return "etc" in names(folder)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False


@pytest.mark.expects_warnings
def test_a_parser_that_hangs_holds_up_nobody_else(place: Place) -> None:
    daemon = place.mount()
    latest = place.mountpoint / "vms/web01/latest"
    names(latest / "files/sda")
    (worker,) = workers(daemon)
    os.kill(worker, signal.SIGSTOP)
    waiting = subprocess.Popen(["ls", latest / "files/sda/p1/etc"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(20):
            assert (latest / "disks/sda.raw").read_bytes()[:512]
            assert names(latest) == ["disks", "files", "vm.json"]
        assert waiting.poll() is None
    finally:
        os.kill(worker, signal.SIGCONT)
    assert waiting.wait(120) == 0


def test_unmounting_ends_the_parsers(place: Place) -> None:
    daemon = place.mount()
    names(place.mountpoint / "vms/web01/latest/files/sda/p1")
    started = workers(daemon)
    assert started
    place.unmount()
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))


@pytest.mark.expects_warnings
def test_the_daemon_ends_although_a_parser_hangs(place: Place) -> None:
    daemon = place.mount()
    names(place.mountpoint / "vms/web01/latest/files/sda/p1")
    (worker,) = workers(daemon)
    os.kill(worker, signal.SIGSTOP)
    etc = place.mountpoint / "vms/web01/latest/files/sda/p1/etc"
    waiting = subprocess.Popen(["ls", etc], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.kill(daemon, signal.SIGTERM)
    assert eventually(lambda: not is_running(daemon))
    assert not Path(f"/proc/{worker}").exists()
    waiting.wait(120)
