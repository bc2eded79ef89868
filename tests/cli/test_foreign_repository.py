"""All commands as root in a repository that belongs to somebody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.basics import need
from support.cli import Place, files
from support.stranger import STRANGER, as_stranger, give, state


@pytest.fixture
def place(tmp_path: Path) -> Place:
    need(os.geteuid() == 0, "root")
    place = Place.make(tmp_path)
    place.ok("backup", place.disk())
    give(place.repository)
    return place


def owners(place: Place) -> set[tuple[int, int]]:
    return {
        (path.lstat().st_uid, path.lstat().st_gid)
        for path in place.repository.rglob("*")
        if "index" not in path.parts
    }


def test_all_that_root_leaves_is_the_owners(place: Place) -> None:
    place.ok("backup", place.dump())
    place.ok("backup", place.disk(seed=2))
    place.ok("forget", "--keep-last", "1")
    place.ok("prune", "--quarantine", "0d")
    place.ok("check", "--read-data")
    place.ok("restore", "web01", "--target", place.root / "out")
    assert owners(place) == {(STRANGER, STRANGER)}
    assert (place.root / "out/disks/web01.raw").stat().st_uid == 0


@pytest.mark.parametrize("what", ["link", "dangling", "pipe"])
def test_a_planted_lock_ends_commands_that_write_and_no_others(what: str, place: Place) -> None:
    victim = place.write("victim", "precious")
    victim.chmod(0o600)
    before = state(victim)

    def plant() -> None:
        Path("lock").unlink()
        if what == "pipe":
            os.mkfifo("lock")
        else:
            Path("lock").symlink_to(victim if what == "link" else place.root / "new")

    as_stranger(place.repository, plant)
    for command in (["backup", place.disk(seed=3)], ["forget", "web01@latest", "--allow-empty"], ["prune"]):
        result = place.run(*command)
        assert result.exit_code == 21, result.stderr
        assert f"is a {'pipe' if what == 'pipe' else 'link'} and no file" in result.stderr
    place.ok("snapshots")
    place.ok("restore", "web01", "--target", place.root / "out")
    assert state(victim) == before
    assert not (place.root / "new").exists()


def test_a_key_slot_that_is_a_pipe_is_passed_over_for_its_second_copy(place: Place) -> None:
    slot = next(path for path in files(place.repository, "keys") if not path.name.endswith(".2"))

    def plant() -> None:
        path = slot.relative_to(place.repository)
        path.unlink()
        os.mkfifo(path)

    as_stranger(place.repository, plant)
    assert "web01" in place.ok("snapshots")


def test_a_file_that_root_copied_there_is_told_with_what_helps(place: Place) -> None:
    for path in files(place.repository, "snapshots"):
        os.chown(path, 0, 0)
    result = place.run("restore", "web01", "--target", place.root / "out")
    assert result.exit_code != 0
    assert f"belongs to user 0, and the repository to user {STRANGER}" in result.stderr
