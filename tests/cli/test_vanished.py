"""Commands in a repository from which somebody without a password took snapshots, or that is another one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.cli import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place.make(tmp_path)
    source = made.write("notes.txt", "one\n")
    for time in ("2026-11-22T02:00:00", "2026-11-23T02:00:00"):
        made.ok("backup", source, "--name", "notes", "--kind", "files", "--time", time)
    return made


def ids(place: Place) -> list[str]:
    return [snapshot["id"] for snapshot in place.json("snapshots")["snapshots"]]


def remove(place: Place, id_: str) -> None:
    for copy in (place.repository / "snapshots").glob(f"{id_}*"):
        copy.unlink()


def test_every_command_that_lists_tells_and_ends_with_its_own_code(place: Place, tmp_path: Path) -> None:
    newest = ids(place)[-1]
    remove(place, newest)
    out = tmp_path / "out"
    for words in (
        ("snapshots",),
        ("ls", "notes"),
        ("dump", "notes:notes.txt"),
        ("restore", "notes:notes.txt", "--target", str(out)),
        ("backup", str(tmp_path / "notes.txt"), "--name", "notes", "--kind", "files"),
        ("check",),
    ):
        result = place.run(*words)
        assert result.exit_code == 22, (words, result.stderr)
        assert f"{newest[:8]} was here and is gone" in result.stderr
        assert "holdfast check --accept-missing" in result.stderr
    assert out.read_text() == "one\n", "what is there is restored all the same"
    assert len(list((place.repository / "snapshots").glob("*"))) == 4, "the backup was made"


def test_forget_and_prune_refuse_until_the_state_is_accepted(place: Place) -> None:
    old, newest = ids(place)
    remove(place, newest)
    before = sorted(place.repository.rglob("*"))
    for words in (("forget", old), ("prune",), ("forget", "--keep-last", "1", "--prune")):
        result = place.run(*words)
        assert result.exit_code == 22
        assert "nothing was changed" in result.stderr
    assert sorted(place.repository.rglob("*")) == before
    accepted = place.json("check", "--accept-missing")
    assert accepted["accepted"] == [newest]
    place.ok("check")
    place.ok("prune")


def test_a_repository_that_was_rolled_back_is_noticed(place: Place, tmp_path: Path) -> None:
    shutil.copytree(place.repository, tmp_path / "old")
    place.ok("backup", tmp_path / "notes.txt", "--name", "notes", "--kind", "files")
    shutil.rmtree(place.repository)
    (tmp_path / "old").rename(place.repository)
    assert place.run("snapshots").exit_code == 22


def test_a_new_machine_can_ask_for_the_last_backup(place: Place, tmp_path: Path) -> None:
    newest = ids(place)[-1]
    remove(place, newest)
    new = Place(place.root, {"HOLDFAST_CACHE_DIR": str(tmp_path / "new")})
    assert new.run("check").exit_code == 0, "nothing there names the newest one"
    result = new.run("check", "--expect", newest[:8])
    assert result.exit_code == 22
    assert f"snapshot {newest[:8]} was expected" in result.stderr
    new.ok("check", "--expect", ids(new)[0][:8])


def test_another_repository_at_the_same_path_ends_the_run(place: Place, tmp_path: Path) -> None:
    other = Place.make(tmp_path / "other")
    place.repository.rename(tmp_path / "away")
    other.repository.rename(place.repository)
    result = place.run("backup", tmp_path / "notes.txt", "--name", "notes", "--kind", "files")
    assert result.exit_code == 22
    assert "nothing was done" in result.stderr
    assert not list((place.repository / "snapshots").iterdir())
    place.ok("check", "--accept-missing")
    place.ok("backup", tmp_path / "notes.txt", "--name", "notes", "--kind", "files")
    place.repository.rename(tmp_path / "other/repo")
    (tmp_path / "away").rename(place.repository)
    assert len(ids(place)) == 2, "disks may take turns"
