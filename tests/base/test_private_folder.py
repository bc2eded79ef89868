"""A folder of this user alone: made, found, or refused before anything is made behind what is not ours."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.base.private_folder import open_private_folder

STRANGER = 4_242


def open_and_close(path: Path) -> None:
    os.close(open_private_folder(path))


def test_what_is_missing_is_made_for_us_alone(tmp_path: Path) -> None:
    open_and_close(tmp_path / "a" / "b")
    open_and_close(tmp_path / "a" / "b")
    assert [(tmp_path / p).stat().st_mode & 0o7777 for p in ("a", "a/b")] == [0o700, 0o700]


def test_the_descriptor_is_that_folder(tmp_path: Path) -> None:
    fd = open_private_folder(tmp_path / "mine")
    try:
        assert Path(f"/proc/self/fd/{fd}").readlink() == tmp_path / "mine"
    finally:
        os.close(fd)


def test_links_of_our_own_are_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").symlink_to("disk/../disk/.")
    (tmp_path / "absolute").symlink_to(tmp_path / "cache")
    open_and_close(tmp_path / "absolute" / "inner")
    assert (tmp_path / "disk" / "inner").is_dir()


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        open_private_folder(tmp_path / "a" / "c")


def test_a_sticky_folder_of_all_may_be_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    open_and_close(tmp_path / "tmp" / "mine")


def all_may_write(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def another_group_may_write(path: Path) -> None:
    path.mkdir()
    os.chown(path, -1, STRANGER)
    path.chmod(0o770)


def of_another_user(path: Path) -> None:
    path.mkdir()
    os.chown(path, STRANGER, STRANGER)


def link_of_another_user(path: Path) -> None:
    path.with_name("elsewhere").mkdir()
    path.symlink_to("elsewhere")
    os.lchown(path, STRANGER, STRANGER)


@pytest.mark.parametrize("inside", ["", "x", "x/y"])
@pytest.mark.parametrize(
    "make", [all_may_write, another_group_may_write, of_another_user, link_of_another_user]
)
def test_what_another_user_could_change_is_refused_and_nothing_is_made_there(
    make: Callable[[Path], None], inside: str, tmp_path: Path
) -> None:
    if make is not all_may_write and os.geteuid():
        make = all_may_write  # giving files away is root's
    make(tmp_path / "folder")
    with pytest.raises(PermissionError, match="another user could write there"):
        open_private_folder(tmp_path / "folder" / inside)
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        open_private_folder(tmp_path / "file" / "x")
    with pytest.raises(NotADirectoryError):
        open_private_folder(tmp_path / "file")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  no Path objects wanted

    before = count()
    open_and_close(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "x", tmp_path / "file"):
        with pytest.raises(OSError, match="Not a directory"):
            open_private_folder(path)
    assert count() == before
