"""`holdfast key` over key epochs: who may read what, seen from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from blake3 import blake3

from support.cli import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


def with_colleague(place: Place) -> str:
    """The ID of a second key slot, whose password is `theirs`."""
    file = place.write("new", "theirs\n")
    slot: str = place.json("key", "add", "--label", "colleague", "--new-password-file", file)["id"]
    return slot


def test_a_copied_slot_of_a_removed_password_opens_nothing_and_says_why(place: Place, tmp_path: Path) -> None:
    slot = with_colleague(place)
    place.ok("backup", "--kind", "files", "--name", "old", place.write("a.txt", "before"))
    shutil.copytree(place.repository, tmp_path / "hoard")
    removed = place.run("key", "remove", slot[:8])
    assert "holdfast key rotate" in removed.stderr
    assert "colleague" not in place.ok("key", "rotate", "--yes")
    place.ok("backup", "--kind", "files", "--name", "new", place.write("b.txt", "after"))
    for copy in (tmp_path / "hoard" / "keys").iterdir():
        if not (place.repository / "keys" / copy.name).exists():
            shutil.copy(copy, place.repository / "keys")
    result = place.run("snapshots", HOLDFAST_PASSWORD="theirs")
    assert result.exit_code == 12
    assert f"key slot {slot[:8]}, which was removed" in result.stderr
    assert "opens nothing" in place.run("key", "list").stderr
    assert [key["opens"] for key in place.json("key", "list")["keys"]] == [True, False]


def test_an_old_keyring_put_back_is_noticed_and_can_be_taken_as_right(place: Place, tmp_path: Path) -> None:
    place.ok("backup", "--kind", "files", "--name", "old", place.write("a.txt", "before"))
    shutil.copytree(place.repository / "keyring", tmp_path / "old")
    place.ok("key", "rotate", "--yes")
    shutil.rmtree(place.repository / "keyring")
    shutil.copytree(tmp_path / "old", place.repository / "keyring")
    result = place.run("snapshots")
    assert result.exit_code == 22
    assert "ends with key epoch 1" in result.stderr
    assert "--accept-missing" in result.stderr
    place.ok("check", "--accept-missing")
    assert place.run("snapshots").exit_code == 0


def test_rotation_asks_and_goes_on_only_after_a_yes(place: Place) -> None:
    assert place.run("key", "rotate").exit_code == 2
    assert place.json("key", "list")["epoch"] == 1
    assert place.json("key", "rotate", "--yes")["epoch"] == 2
    assert place.json("key", "list")["epoch"] == 2
    assert place.json("info")["epoch"] == 2


def test_what_is_left_in_earlier_epochs_is_told_until_it_is_sealed_anew(place: Place) -> None:
    place.ok("backup", "--kind", "files", "--name", "x", place.write("a.txt", "content"))
    place.ok("key", "rotate", "--yes")
    left = place.json("key", "list")["earlier_epochs"]
    assert left["packs"] == 1
    assert place.json("info")["earlier_epochs"] == left
    assert "sealed in earlier ones" in place.ok("info")
    place.ok("prune", "--reseal", "--quarantine", "none")
    assert place.json("info")["earlier_epochs"] == {"packs": 0, "bytes": 0}
    assert place.ok("dump", "x") == "content"


def test_a_planted_costly_slot_is_tried_when_the_user_says_so_only(place: Place) -> None:
    folder = place.repository / "keys"
    (file,) = (path for path in folder.iterdir() if not path.name.endswith(".2"))
    head, _, wrapped = file.read_bytes().partition(b"\n")
    planted = json.dumps(json.loads(head) | {"memory_kib": 512 << 10, "passes": 1}).encode() + b"\n" + wrapped
    (folder / blake3(planted).hexdigest()).write_bytes(planted)
    assert place.run("snapshots").exit_code == 0
    result = place.run("snapshots", HOLDFAST_PASSWORD="wrong")
    assert result.exit_code == 12
    assert "asks for 512 MiB and 1 passes" in result.stderr
    assert "--allow-costly-key" in result.stderr
    result = place.run("--allow-costly-key", "snapshots", HOLDFAST_PASSWORD="wrong")
    assert result.exit_code == 12
    assert "wrong password" in result.stderr
