"""Restores into folders where somebody else may write, and onto names that are in each other's way."""

from __future__ import annotations

import os
import stat
from contextlib import closing, suppress
from pathlib import Path

import pytest

from holdfast.repo.store.local import LocalStore
from support.basics import open_repository
from support.cli import Place
from support.log import push_files
from support.stranger import STRANGER, as_stranger, give, state, stranger_loops

DISK = "web01:disks/web01.raw"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place.make(tmp_path)
    place.ok("backup", place.disk())
    return place


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of ours with a file in it; nobody may touch either."""
    folder = tmp_path / "victim"
    folder.mkdir(mode=0o700)
    (folder / "web01.raw").write_text("precious")
    (folder / "web01.raw").chmod(0o600)
    return folder


def both(place: Place, *names: str) -> None:
    """A snapshot `n` of files with these names, in this order; each holds its name."""
    for name in names:
        place.write(name, name)
    place.ok("backup", "--kind", "files", "--name", "n", *(place.root / name for name in names))


@pytest.mark.parametrize("names", [("x.holdfast-partial", "x"), ("x", "x.holdfast-partial")])
@pytest.mark.parametrize("options", [(), ("--overwrite", "--verify")])
def test_an_item_may_have_the_name_of_a_partial_file(
    names: tuple[str, str], options: tuple[str, ...], place: Place
) -> None:
    both(place, *names)
    for _ in range(2 if options else 1):
        place.ok("restore", "n", "--target", place.root / "out", *options)
    (place.root / "one by one").mkdir()
    for name in names:
        place.ok("restore", f"n:{name}", "--target", place.root / "one by one", *options)
    for folder in ("out", "one by one"):
        found = {path.name: path.read_text() for path in (place.root / folder).iterdir()}
        assert found == {name: name for name in names}


def test_what_comes_back_is_for_its_owner_only(place: Place) -> None:
    old = os.umask(0)
    try:
        place.ok("backup", place.dump())
        place.ok("restore", "web01", "--target", place.root / "out/deep")
        place.ok("restore", "web01", "--format", "qcow2", "--target", place.root / "out/images")
        place.ok("restore", "shop:tables", "--target", place.root / "out/tables")
    finally:
        os.umask(old)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (place.root / "out").rglob("*") if path.is_file()}
    assert modes == {0o600}
    folders = [place.root / "out", *(path for path in (place.root / "out").rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


def test_a_folder_that_was_there_keeps_its_mode(place: Place) -> None:
    (place.root / "out").mkdir()
    (place.root / "out").chmod(0o2775)
    place.ok("restore", "web01", "--target", place.root / "out")
    assert stat.S_IMODE((place.root / "out").stat().st_mode) == 0o2775


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
@pytest.mark.parametrize("whose", ["ours", "stranger's"])
def test_a_link_below_the_target_is_not_followed(
    whose: str, options: tuple[str, ...], place: Place, victim: Path
) -> None:
    """Not even one of ours: a guest's files, restored there before, hold what links they like."""
    out = place.root / "out"
    out.mkdir()
    (out / "disks").symlink_to(victim)
    if whose != "ours":
        give(out)
    before = state(victim)
    result = place.run("restore", "web01", "--target", out, *options)
    assert result.exit_code == 1
    assert "a link stands where a folder is needed" in result.stderr
    assert state(victim) == before


def test_a_link_in_the_place_of_a_file_is_replaced_and_never_written_through(
    place: Place, victim: Path
) -> None:
    out = place.root / "out"
    (out / "disks").mkdir(parents=True)
    (out / "disks/web01.raw").symlink_to(victim / "web01.raw")
    give(out)
    before = state(victim)
    assert place.run("restore", "web01", "--target", out).exit_code == 1
    place.ok("restore", "web01", "--target", out, "--overwrite", "--force")
    assert not (out / "disks/web01.raw").is_symlink()
    assert (out / "disks/web01.raw").read_bytes() == (place.root / "web01.raw").read_bytes()
    assert (out / "disks/web01.raw").stat().st_uid == 0
    assert state(victim) == before


@pytest.mark.parametrize("dangling", [False, True])
def test_a_named_path_goes_through_links_of_ours_but_of_nobody_else(
    dangling: bool, place: Place, victim: Path
) -> None:
    link = place.root / "link"
    link.symlink_to(victim / ("new" if dangling else "web01.raw"))
    give(link)
    before = state(victim)
    for target in (link, place.root / "folder/x", place.root / "folder/deeper/x"):
        (place.root / "folder").unlink(missing_ok=True)
        (place.root / "folder").symlink_to(victim)
        os.chown(place.root / "folder", STRANGER, STRANGER, follow_symlinks=False)
        result = place.run("restore", DISK, "--target", target, "--overwrite", "--force")
        assert result.exit_code == 1, target
        assert state(victim) == before
    result = place.run("restore", "web01", "--target", place.root / "folder")
    assert result.exit_code == 1
    assert f"that user {STRANGER} made" in result.stderr
    assert f"{victim}" in result.stderr
    assert state(victim) == before

    os.chown(link, 0, 0, follow_symlinks=False)
    place.ok("restore", DISK, "--target", link, "--overwrite")
    assert link.is_symlink()
    assert link.resolve().read_bytes() == (place.root / "web01.raw").read_bytes()


def test_a_strangers_partial_file_stays_his(place: Place, victim: Path) -> None:
    out = place.root / "out"
    out.mkdir()
    give(out)
    before = state(victim)

    def plant() -> None:
        Path("a.holdfast-partial").write_text("planted")
        Path("a.holdfast-partial").chmod(0o1666)
        Path("b.holdfast-partial").symlink_to(victim / "web01.raw")
        Path("c.holdfast-partial").symlink_to(victim / "new")
        os.mkfifo("d.holdfast-partial", 0o666)
        Path("e.holdfast-partial").mkdir()

    as_stranger(out, plant)
    for name in "abcde":
        place.ok("restore", DISK, "--target", out / name)
        restored = (out / name).lstat()
        assert (restored.st_uid, stat.S_IMODE(restored.st_mode), restored.st_nlink) == (0, 0o600, 1)
        assert (out / name).read_bytes() == (place.root / "web01.raw").read_bytes()
        assert (out / f"{name}.holdfast-partial").lstat().st_uid == STRANGER
    assert (out / "a.holdfast-partial").read_text() == "planted"
    assert state(victim) == before


def test_a_stranger_who_swaps_folders_for_links_meanwhile_gains_nothing(place: Place, victim: Path) -> None:
    out = place.root / "out"
    out.mkdir()
    give(out)
    before = state(victim)

    def swap() -> None:
        with suppress(FileExistsError):
            os.mkdir("disks")  # noqa: PTH102  as terse as the loop has to be
        os.rename("disks", f"aside{os.urandom(4).hex()}")  # noqa: PTH104
        os.symlink(victim, "disks")  # noqa: PTH211
        os.symlink(victim / "web01.raw", "partial")  # noqa: PTH211
        os.rename("partial", "web01.raw.holdfast-partial")  # noqa: PTH104
        os.unlink("disks")  # noqa: PTH108

    with stranger_loops(out, swap):
        for _ in range(25):
            place.run("restore", "web01", "--target", out, "--overwrite")
            place.run("restore", DISK, "--target", out / "web01.raw", "--overwrite")
    assert state(victim) == before


def test_logs_go_through_no_link_either(place: Place, victim: Path) -> None:
    with closing(LocalStore.open(place.repository)) as store, open_repository(store, place.root) as opened:
        push_files(opened, place.root / "pushed", "some.history")
    pushed = place.root / "pushed/some.history"
    out = place.root / "logs"
    out.symlink_to(victim)
    give(out)
    before = state(victim)
    result = place.run("logs", "shop", "--target", out)
    assert result.exit_code == 1
    assert "made; nothing was written" in result.stderr
    assert state(victim) == before
    out.unlink()
    out.mkdir()
    (out / pushed.name).symlink_to(victim / "web01.raw")
    give(out)
    assert place.run("logs", "shop", "--target", out).exit_code == 1
    place.ok("logs", "shop", "--target", out, "--overwrite")
    assert (out / pushed.name).read_bytes() == pushed.read_bytes()
    assert stat.S_IMODE((out / pushed.name).lstat().st_mode) == 0o600
    assert state(victim) == before
