"""Targets of a restore: files that are whole or absent, devices that show nothing old."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.base.durable_files import PARTIAL_SUFFIX
from holdfast.base.errors import Refused, TargetError
from holdfast.base.targets import FileTarget, SameFile
from support.basics import need
from support.cli import Place, files, flip_byte
from support.targets import device_target, file_target


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with file_target(path, 10_000, mtime=1_700_000_000_123_456_789) as target:
        target.write(9_990, b"end")
        target.write(0, b"start")
        assert not path.exists()
        assert target.read(9_990, 100) == b"end" + bytes(7)
    assert path.read_bytes() == b"start" + bytes(9_985) + b"end" + bytes(7)
    assert path.stat().st_mtime_ns == 1_700_000_000_123_456_789
    assert names(tmp_path) == ["disk"]


def test_content_is_durable_before_its_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of the steps; the kernel's own view of it is in tests/faults."""
    steps: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        steps.append(f"fsync {'directory' if stat.S_ISDIR(os.fstat(fd).st_mode) else 'file'}")
        real_fsync(fd)

    def rename(source: bytes, target: bytes, **folders: int) -> None:
        steps.append(f"rename to {os.fsdecode(target)}")
        real_rename(source, target, **folders)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    with file_target(tmp_path / "log", 7, overwrite=True) as target:
        target.write(0, b"content")
    assert steps == ["fsync file", "rename to log", "fsync directory"]


def test_a_failed_fsync_gives_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(fd: int) -> None:
        raise OSError(5, "failed")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(TargetError, match="failed"), file_target(tmp_path / "log", 3) as target:
        target.write(0, b"abc")
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_and_the_old_file_alone(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_text("old")

    def fail() -> None:
        with file_target(path, 100, overwrite=True) as target:
            target.write(0, b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["disk"]


def test_what_a_killed_restore_left_is_used_again(tmp_path: Path) -> None:
    ended = os.fork()
    if not ended:
        file_target(tmp_path / "disk", 100).__enter__().write(0, b"x" * 500)
        os._exit(0)
    os.waitpid(ended, 0)
    left = (tmp_path / f"disk{PARTIAL_SUFFIX}").stat()
    assert stat.S_IMODE(left.st_mode) & 0o777 == 0o600
    with file_target(tmp_path / "disk", 100) as target:
        assert os.path.samestat((tmp_path / f"disk{PARTIAL_SUFFIX}").stat(), left)
        target.write(0, b"y")
    assert (tmp_path / "disk").read_bytes() == b"y" + bytes(99)
    assert names(tmp_path) == ["disk"]
    assert stat.S_IMODE((tmp_path / "disk").stat().st_mode) == 0o600


@pytest.mark.parametrize("planted", ["file", "stranger's", "hard link", "link", "dangling", "pipe", "folder"])
def test_what_stands_under_the_partial_name_is_left_alone(planted: str, tmp_path: Path) -> None:
    victim, partial = tmp_path / "victim", tmp_path / f"disk{PARTIAL_SUFFIX}"
    victim.write_text("precious")
    victim.chmod(0o1600)
    if planted == "file":
        partial.write_text("planted")
    elif planted == "stranger's":
        need(os.geteuid() == 0, "root")
        partial.write_text("planted")
        os.chown(partial, 1234, 1234)
        partial.chmod(0o1666)
    elif planted == "hard link":
        partial.hardlink_to(victim)
    elif planted == "pipe":
        os.mkfifo(partial)
        partial.chmod(0o1600)
    elif planted == "folder":
        partial.mkdir()
    else:
        partial.symlink_to("victim" if planted == "link" else "nothing")
    before = partial.lstat()
    with file_target(tmp_path / "disk", 3) as target:
        target.write(0, b"new")
    assert (tmp_path / "disk").read_bytes() == b"new"
    disk = (tmp_path / "disk").stat()
    assert (disk.st_uid, disk.st_nlink, stat.S_IMODE(disk.st_mode)) == (os.geteuid(), 1, 0o600)
    assert victim.read_text() == "precious"
    assert os.path.samestat(partial.lstat(), before)
    assert names(tmp_path) == ["disk", partial.name, "victim"]


def test_a_partial_that_is_taken_away_is_noticed(tmp_path: Path) -> None:
    partial = tmp_path / f"disk{PARTIAL_SUFFIX}"

    def robbed() -> None:
        with file_target(tmp_path / "disk", 3):
            partial.rename(tmp_path / "aside")
            partial.write_text("planted")

    with pytest.raises(TargetError, match="took it away"):
        robbed()
    assert partial.read_text() == "planted"
    assert not (tmp_path / "disk").exists()


def test_the_second_of_two_names_of_one_file_is_refused(tmp_path: Path) -> None:
    written: set[tuple[int, int]] = set()
    with file_target(tmp_path / "disk", 3, overwrite=True, written=written):
        pass
    (tmp_path / "DISK").hardlink_to(tmp_path / "disk")  # what a file system without cases shows
    with (
        pytest.raises(SameFile, match="same file"),
        file_target(tmp_path / "DISK", 3, overwrite=True, written=written),
    ):
        pass


def test_two_restores_do_not_share_a_file(tmp_path: Path) -> None:
    with file_target(tmp_path / "disk", 100) as first:
        with pytest.raises(Refused, match="another restore"), file_target(tmp_path / "disk", 100):
            pass
        first.write(0, b"x")
    assert (tmp_path / "disk").read_bytes() == b"x" + bytes(99)


def test_a_name_that_was_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="exists"), file_target(tmp_path / "disk", 100):
        (tmp_path / "disk").write_text("precious")
    assert (tmp_path / "disk").read_text() == "precious"
    assert names(tmp_path) == ["disk"]


def test_a_link_is_replaced_and_what_it_leads_to_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("precious")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(Refused, match="exists"), file_target(tmp_path / "link", 3):
        pass
    with file_target(tmp_path / "link", 3, overwrite=True) as target:
        target.write(0, b"new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_text() == "new"
    assert (tmp_path / "real").read_text() == "precious"


def test_only_files_may_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("folder", "directory"), ("pipe", "neither")):
        with pytest.raises(Refused, match=message), file_target(tmp_path / name, 1, overwrite=True):
            pass
    assert names(tmp_path) == ["folder", "pipe"]


def test_a_device_target_takes_devices_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="not a block device"), device_target(tmp_path / "file", 1):
        pass
    with pytest.raises(TargetError), device_target(tmp_path / "none", 1):
        pass


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A loop device full of old content, 6 MiB."""
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xee" * (6 << 20))
    try:
        done = subprocess.run(
            ["/sbin/losetup", "--find", "--show", str(backing)], capture_output=True, text=True, check=True
        )
        device = done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        device = ""
    need(device, "root and loop devices")
    path = Path(device)
    yield path
    subprocess.run(["/sbin/losetup", "--detach", str(path)], check=True)


def read_device(device: Path) -> bytes:
    fd = os.open(device, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, 6 << 20, 0)
    finally:
        os.close(fd)


@pytest.mark.parametrize("offload", [True, False])
def test_cleared_stretches_are_zeros_at_any_offset(offload: bool, device: Path) -> None:
    with device_target(device, 4 << 20) as target:
        target._offload = offload
        target.clear(1000, 3_000_000)
        target.clear(4_000_001, 10)
        target.write(4_000_011, b"data")
        target.settle()
    expected = bytearray(b"\xee" * (6 << 20))
    expected[1000:3_001_000] = bytes(3_000_000)
    expected[4_000_001:4_000_015] = bytes(10) + b"data"
    assert read_device(device) == bytes(expected)


def test_zeros_are_written_where_the_device_cannot_clear(
    device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.ioctl

    def refuse(fd: int, request: int, *args: object) -> object:
        if request == 0x127F:
            raise OSError(95, "Operation not supported")
        return real(fd, request, *args)  # type: ignore[call-overload]

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    with device_target(device, 1 << 20) as target:
        target.clear(0, 1 << 20)
    assert read_device(device)[: 1 << 20] == bytes(1 << 20)


def test_a_device_that_is_too_small_or_in_use_is_refused(device: Path) -> None:
    with pytest.raises(Refused, match="bytes"), device_target(device, 7 << 20):
        pass
    with (
        device_target(device, 1),
        pytest.raises(Refused, match="in use"),
        device_target(device, 1),
    ):
        pass
    assert read_device(device) == b"\xee" * (6 << 20)


def test_a_disk_is_restored_to_a_device_and_nothing_old_shows_through(tmp_path: Path, device: Path) -> None:
    place = Place.make(tmp_path)
    disk = place.disk()
    place.ok("backup", disk)
    result = place.run("restore", "web01:disks/web01.raw", "--target", device)
    assert result.exit_code == 1
    assert "--force" in result.stderr
    assert read_device(device) == b"\xee" * (6 << 20)
    result = place.run("restore", "web01:disks/web01.raw", "--target", device, "--force", "--verify")
    assert result.exit_code == 0, result.stderr
    assert "2.0 MiB larger than the image" in result.stderr
    assert read_device(device) == disk.read_bytes() + b"\xee" * (2 << 20)
    place.ok("backup", device, "--name", "device")
    place.ok("restore", "device:disks/" + device.name + ".raw", "--target", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == disk.read_bytes() + b"\xee" * (2 << 20)


def test_zero_chunks_of_a_stream_are_cleared_too(tmp_path: Path, device: Path) -> None:
    """A stream has no holes: its zeros are chunks, which a restore does not write."""
    place = Place.make(tmp_path)
    content = b"head" + bytes(3_000_000) + b"tail" * 1000
    place.ok("backup", "--stdin", "--name", "s", input=content)
    place.ok("restore", "s:stdin", "--target", device, "--force", "--verify")
    assert read_device(device)[: len(content)] == content


def test_a_device_that_is_left_half_written_is_told(tmp_path: Path, device: Path) -> None:
    place = Place.make(tmp_path)
    place.ok("backup", place.disk())
    for pack in files(place.repository, "packs"):
        flip_byte(pack, 300)
    result = place.run("restore", "web01:disks/web01.raw", "--target", device, "--force")
    assert result.exit_code == 21
    assert f"{device} is written in part" in result.stderr


def test_verify_notices_a_disk_that_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place.make(tmp_path)
    place.ok("backup", place.disk())
    monkeypatch.setattr(FileTarget, "write", lambda self, offset, data: None)
    result = place.run("restore", "web01:disks/web01.raw", "--target", tmp_path / "back", "--verify")
    assert result.exit_code == 1
    assert "reads back differently at offset" in result.stderr
    assert not [path for path in files(tmp_path, ".") if path.name.startswith("back")]


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "y" * 239])
def test_the_longest_names_can_be_written(tmp_path: Path, name: str) -> None:
    with file_target(tmp_path / name, 3, sparse=False, mtime=0) as file:
        file.write(0, b"abc")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"abc"
