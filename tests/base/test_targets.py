"""Targets of a restore: files that are whole or absent, devices that show nothing old."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.base.durable_files import PARTIAL_SUFFIX
from holdfast.base.errors import Refused
from holdfast.base.targets import DeviceTarget, FileTarget, TargetError, check_free, is_device
from support.basics import need
from support.cli import Place, files, flip_byte


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with FileTarget(path, 10_000, mtime=1_700_000_000_123_456_789) as target:
        target.write(9_990, b"end")
        target.write(0, b"start")
        assert not path.exists()
        assert target.read(9_990, 100) == b"end" + bytes(7)
    assert path.read_bytes() == b"start" + bytes(9_985) + b"end" + bytes(7)
    assert path.stat().st_mtime_ns == 1_700_000_000_123_456_789
    assert names(tmp_path) == ["disk"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_and_the_old_file_alone(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_text("old")

    def fail() -> None:
        with FileTarget(path, 100, overwrite=True) as target:
            target.write(0, b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["disk"]


def test_what_a_killed_restore_left_is_used_again(tmp_path: Path) -> None:
    (tmp_path / f"disk{PARTIAL_SUFFIX}").write_bytes(b"x" * 500)
    with FileTarget(tmp_path / "disk", 100):
        pass
    assert (tmp_path / "disk").read_bytes() == bytes(100)


def test_two_restores_do_not_share_a_file(tmp_path: Path) -> None:
    with FileTarget(tmp_path / "disk", 100) as first:
        with pytest.raises(Refused, match="another restore"), FileTarget(tmp_path / "disk", 100):
            pass
        first.write(0, b"x")
    assert (tmp_path / "disk").read_bytes() == b"x" + bytes(99)


def test_a_name_that_was_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="exists"), FileTarget(tmp_path / "disk", 100):
        (tmp_path / "disk").write_text("precious")
    assert (tmp_path / "disk").read_text() == "precious"
    assert names(tmp_path) == ["disk"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with FileTarget(tmp_path / "link", 3, overwrite=True) as target:
        target.write(0, b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_partial_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / f"disk{PARTIAL_SUFFIX}").symlink_to("victim")
    with pytest.raises(TargetError), FileTarget(tmp_path / "disk", 3):
        pass
    assert (tmp_path / "victim").read_text() == "precious"


def test_only_files_may_be_overwritten(tmp_path: Path) -> None:
    check_free(tmp_path / "new", overwrite=False)
    with pytest.raises(Refused, match="directory"):
        check_free(tmp_path, overwrite=True)
    with pytest.raises(Refused, match="neither"):
        check_free(Path("/dev/null"), overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(TargetError, match="Not a directory"):
        check_free(tmp_path / "file" / "x", overwrite=True)


def test_a_device_target_takes_devices_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not is_device(tmp_path / "file")
    assert not is_device(tmp_path / "none")
    with pytest.raises(Refused, match="not a block device"), DeviceTarget(tmp_path / "file", 1):
        pass
    with pytest.raises(TargetError), DeviceTarget(tmp_path / "none", 1):
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
    with DeviceTarget(device, 4 << 20) as target:
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
    with DeviceTarget(device, 1 << 20) as target:
        target.clear(0, 1 << 20)
    assert read_device(device)[: 1 << 20] == bytes(1 << 20)


def test_a_device_that_is_too_small_or_in_use_is_refused(device: Path) -> None:
    with pytest.raises(Refused, match="bytes"), DeviceTarget(device, 7 << 20):
        pass
    with (
        DeviceTarget(device, 1),
        pytest.raises(Refused, match="in use"),
        DeviceTarget(device, 1),
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
    with FileTarget(tmp_path / name, 3, sparse=False, overwrite=False, mtime=0) as file:
        file.write(0, b"abc")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"abc"
