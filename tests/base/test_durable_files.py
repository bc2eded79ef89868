"""Files written whole, in the order that a power cut cannot turn against us."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.base.durable_files import (
    durable_file,
    rename_unless_taken,
    sync_folder,
    write_all,
    write_all_at,
)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What is done to files, in order: the kernel's own view of it is in tests/faults."""
    done: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        done.append(f"fsync {'directory' if os.path.isdir(f'/proc/self/fd/{fd}') else 'file'}")  # noqa: PTH112
        real_fsync(fd)

    def rename(source: str, target: str, **folders: int) -> None:
        done.append(f"rename to {target}")
        real_rename(source, target, **folders)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    return done


def test_content_is_durable_before_its_name_and_the_name_before_the_end(
    tmp_path: Path, steps: list[str]
) -> None:
    with durable_file(tmp_path / "log") as fd:
        write_all(fd, b"content")
    assert steps == ["fsync file", "rename to log", "fsync directory"]
    assert (tmp_path / "log").read_bytes() == b"content"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, steps: list[str]) -> None:
    (tmp_path / "log").write_bytes(b"old")

    def fail() -> None:
        with durable_file(tmp_path / "log") as fd:
            write_all(fd, b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert steps == []
    assert (tmp_path / "log").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_failed_fsync_gives_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(fd: int) -> None:
        raise OSError(errno.EIO, "failed")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="failed"), durable_file(tmp_path / "log") as fd:
        write_all(fd, b"content")
    assert list(tmp_path.iterdir()) == []


def test_all_is_written_however_little_a_call_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write, real_pwrite = os.write, os.pwrite
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:3]))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real_pwrite(fd, data[:3], offset))
    path = tmp_path / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        write_all(fd, b"0123456789")
        write_all_at(fd, 4, memoryview(b"abcde"))
    finally:
        os.close(fd)
    assert path.read_bytes() == b"0123abcde9"


_NO_LINKS = ["EPERM", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EACCES", "EINVAL", "EXDEV"]


@pytest.mark.parametrize("refusal", ["", *_NO_LINKS])
def test_a_name_that_is_taken_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    if refusal:

        def link(source: str, target: str, **folders: object) -> None:
            raise OSError(getattr(errno, refusal), "no hard links here")

        monkeypatch.setattr(os, "link", link)
    temporary, path = tmp_path / "temporary", tmp_path / "name"
    temporary.write_bytes(b"new")
    folder = os.open(tmp_path, os.O_RDONLY)
    rename_unless_taken("temporary", "name", folder)
    assert path.read_bytes() == b"new"
    assert not temporary.exists()
    temporary.write_bytes(b"newer")
    with pytest.raises(FileExistsError):
        rename_unless_taken("temporary", "name", folder)
    os.close(folder)
    assert path.read_bytes() == b"new"
    assert temporary.read_bytes() == b"newer"


def test_a_hard_link_that_fails_for_the_disk_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: str, target: str, **folders: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", link)
    (tmp_path / "temporary").write_bytes(b"new")
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match="Input/output"):
        rename_unless_taken("temporary", "name", folder)
    os.close(folder)
    assert not (tmp_path / "name").exists()


@pytest.mark.parametrize("code", ["EINVAL", "EOPNOTSUPP", "ENOSYS", "ENOENT"])
def test_a_file_is_made_where_folders_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(os, "fsync", refuse_folders(getattr(errno, code)))
    with durable_file(tmp_path / "name") as fd:
        write_all(fd, b"content")
    assert (tmp_path / "name").read_bytes() == b"content"
    folder = os.open(tmp_path, os.O_RDONLY)
    assert not sync_folder(folder)
    os.close(folder)


@pytest.mark.parametrize("code", ["EIO", "ENOSPC", "EDQUOT", "EROFS"])
def test_a_sync_of_a_folder_that_fails_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(os, "fsync", refuse_folders(getattr(errno, code)))
    with pytest.raises(OSError, match=os.strerror(getattr(errno, code))), durable_file(tmp_path / "n") as fd:
        write_all(fd, b"content")


def refuse_folders(code: int) -> Callable[[int], None]:
    """An `os.fsync` that fails for folders."""
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(code, os.strerror(code))
        real(fd)

    return fsync
