"""Places that a user names: through whose links they lead, and whether they are for us alone."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import pytest

from holdfast.base.named_paths import (
    ForeignLink,
    NotOurFolder,
    make_own_folder,
    open_folder,
    without_links,
)
from holdfast.cli.base.context import RunSettings
from support.basics import need
from support.cli import Place
from support.stranger import STRANGER, give, state


def opened(path: Path, *, make: bool = False) -> os.stat_result:
    fd, _ = open_folder(path, make=make)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def test_a_path_is_what_the_kernel_takes_it_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "one/two/three"
    deep.mkdir(parents=True)
    (tmp_path / "absolute").symlink_to(deep)
    (tmp_path / "one/up").symlink_to("../one/./two/../two")
    (tmp_path / "chain").symlink_to("one/up")
    monkeypatch.chdir(tmp_path / "one")
    for text in (
        "two",
        ".",
        "..",
        "../absolute/../three",
        "up/three",
        "../chain/three/..",
        f"{deep}/../..",
        "/",
    ):
        assert os.path.samestat(opened(Path(text)), os.stat(text)), text  # noqa: PTH116  the kernel's word


def test_what_is_no_folder_and_links_without_end_are_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "file/x"):
        with pytest.raises(NotADirectoryError):
            opened(tmp_path / name)
    for act in (opened, without_links):
        with pytest.raises(OSError, match="Too many levels"):
            act(tmp_path / "loop")
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "none/deeper")


def test_missing_folders_are_made_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        opened(tmp_path / "a/b", make=True)
    finally:
        os.umask(old)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o700, 0o700]


def test_a_folder_that_may_only_be_passed_through_can_be_written_to(tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    folder.mkdir(mode=0o300)
    assert os.path.samestat(opened(folder), folder.stat())


def test_the_last_link_of_a_path_is_resolved_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "new").symlink_to("one")
    (tmp_path / "one").symlink_to(tmp_path / "two")
    assert without_links(tmp_path / "new") == tmp_path / "two"
    assert without_links(tmp_path / "none/x") == tmp_path / "none/x"
    need(os.geteuid() == 0, "root")
    os.chown(tmp_path / "one", STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(ForeignLink, match=f"one is a link to '{tmp_path}/two' that user {STRANGER} made"):
        without_links(tmp_path / "new")


def test_a_folder_of_our_own_is_in_nobody_elses_reach(tmp_path: Path) -> None:
    make_own_folder(tmp_path / "cache/deeper")
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    make_own_folder(tmp_path / "cache/deeper")
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(NotOurFolder, match="cache can be written to by everybody"):
        make_own_folder(tmp_path / "cache/deeper")
    (tmp_path / "cache").chmod(0o1777)  # as /tmp is
    make_own_folder(tmp_path / "cache/deeper")
    (tmp_path / "file").touch()
    make_own_folder(tmp_path / "file/cache")  # cannot be: whoever uses it says so


@pytest.mark.parametrize("planted", ["folder", "link"])
def test_root_keeps_nothing_in_somebody_elses_cache(planted: str, tmp_path: Path) -> None:
    need(os.geteuid() == 0, "root")
    place = Place.make(tmp_path)
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    before = state(victim)
    cache = tmp_path / "cache"
    cache.mkdir(exist_ok=True)
    if planted == "link":
        (cache / "deeper").symlink_to(victim)
    give(cache)
    result = place.run("snapshots", HOLDFAST_CACHE_DIR=str(cache / "deeper"))
    assert result.exit_code == 1
    assert f"{cache} belongs to user {STRANGER}" in result.stderr
    assert "HOLDFAST_CACHE_DIR names another folder" in result.stderr
    assert state(victim) == before
    assert [path.name for path in cache.iterdir()] == (["deeper"] if planted == "link" else [])


def test_root_whose_home_is_somebody_elses_has_his_own_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(os.geteuid() == 0, "root")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunSettings({}).cache == tmp_path / ".cache/holdfast"
    give(tmp_path)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(("root", "x", 0, 0, "", "/proc", "")))
    assert RunSettings({}).cache == Path("/proc/.cache/holdfast")  # nothing can be made there
