"""restore and dump."""

from __future__ import annotations

import json
import os
import pty
import resource
from pathlib import Path

import pytest

from support.cli import Place, files, flip_byte, pg_dump

DISK = "web01:disks/web01.raw"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place.make(tmp_path)
    place.ok("backup", place.disk())
    place.ok("backup", place.dump())
    return place


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_a_disk_comes_back_sparse_with_its_time(place: Place) -> None:
    disk, back = place.root / "web01.raw", place.root / "back.raw"
    told = place.ok("restore", DISK, "--target", back)
    assert back.read_bytes() == disk.read_bytes()
    assert allocated(back) < 1 << 20
    assert back.stat().st_mtime_ns == disk.stat().st_mtime_ns
    assert f"disks/web01.raw -> {back}" in told
    assert "in 1 file" in told


def test_without_sparse_every_byte_has_its_block(place: Place) -> None:
    back = place.root / "back.raw"
    place.ok("restore", DISK, "--target", back, "--no-sparse", "--verify")
    assert back.read_bytes() == (place.root / "web01.raw").read_bytes()
    assert allocated(back) >= 4 << 20


def test_the_summary_in_json(place: Place) -> None:
    back = place.root / "back.raw"
    document = place.json("extract", DISK, "--target", back, "--verify")
    assert document["message_type"] == "summary"
    assert document["verified"] is True
    assert document["files"] == [
        {"path": "disks/web01.raw", "target": str(back), "size": 4 << 20, "partial": False}
    ]


def test_into_a_folder_that_is_there_or_ends_in_a_slash(place: Place) -> None:
    there = place.root / "there"
    there.mkdir()
    place.ok("restore", DISK, "--target", there)
    assert (there / "web01.raw").exists()
    new = place.root / "new"
    result = place.run("restore", DISK, "--target", f"{new}/")
    assert result.exit_code == 1
    assert "new is no folder" in result.stderr


def test_a_whole_snapshot_goes_under_its_paths(place: Place) -> None:
    one, two = place.write("a.conf", "a"), place.write("b.conf", "")
    place.ok("backup", "--kind", "files", "--name", "etc", one, two)
    target = place.root / "all"
    assert "in 2 files" in place.ok("restore", "etc", "--target", target)
    assert {path.name: path.read_text() for path in target.iterdir()} == {"a.conf": "a", "b.conf": ""}
    place.ok("restore", "web01@latest", "--target", target)
    assert (target / "disks/web01.raw").read_bytes() == (place.root / "web01.raw").read_bytes()
    place.ok("restore", "web01:disks", "--target", place.root / "part")
    assert (place.root / "part/disks/web01.raw").exists()


def test_nothing_is_overwritten_unless_told(place: Place) -> None:
    back = place.write("back.raw", "precious")
    result = place.run("restore", DISK, "--target", back)
    assert result.exit_code == 1
    assert "--overwrite" in result.stderr
    assert back.read_text() == "precious"
    place.ok("restore", DISK, "--target", back, "--overwrite")
    assert back.read_bytes() == (place.root / "web01.raw").read_bytes()


def test_if_one_file_of_several_is_in_the_way_none_is_written(place: Place) -> None:
    place.ok("backup", "--kind", "files", "--name", "etc", place.write("a", "1"), place.write("b", "2"))
    target = place.root / "all"
    target.mkdir()
    (target / "b").write_text("precious")
    assert place.run("restore", "etc", "--target", target).exit_code == 1
    assert [path.name for path in target.iterdir()] == ["b"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([DISK, "--target", "{repo}/x"], "inside the repository"),
        ([DISK, "--target", "{root}/link/x"], "inside the repository"),
        ([DISK, "--target", "/dev/null"], "neither a file nor a block device"),
        (["web01", "--target", "{root}/shop.sql"], "no folder"),
        (["web01:nope", "--target", "{root}/x"], "nothing at"),
        (["nobody", "--target", "{root}/x"], "no snapshot"),
        ([DISK, "--target", "{root}/missing/x"], "missing is no folder"),
    ],
)
def test_what_cannot_be_restored_is_explained(args: list[str], says: str, place: Place) -> None:
    (place.root / "link").symlink_to(place.repository)
    words = [arg.format(root=place.root, repo=place.repository) for arg in args]
    result = place.run("restore", *words)
    assert result.exit_code == 1
    assert says in result.stderr
    assert "internal" not in result.stderr


def test_a_target_must_be_named(place: Place) -> None:
    result = place.run("restore", DISK)
    assert result.exit_code == 2
    assert "--target" in result.stderr


def damage_data(place: Place) -> None:
    """Flip a byte in the first record of every pack."""
    for pack in files(place.repository, "packs"):
        flip_byte(pack, 300)


def test_damage_is_code_21_and_leaves_no_file(place: Place) -> None:
    damage_data(place)
    for args in ([DISK, "--target", "{back}"], ["shop:dump.sql", "--target", "{back}"]):
        result = place.run("restore", *(arg.format(back=place.root / "back") for arg in args))
        assert result.exit_code == 21
        assert "chunk" in result.stderr
        assert "holdfast check" in result.stderr
        assert not [path.name for path in place.root.iterdir() if path.name.startswith("back")]
    kept = place.write("kept", "precious")
    assert place.run("restore", DISK, "--target", kept, "--overwrite").exit_code == 21
    assert kept.read_text() == "precious"
    assert place.run("dump", "shop").exit_code == 21
    told = json.loads(place.run("restore", DISK, "--target", str(place.root / "x"), "--json").stderr)
    assert told["code"] == 21


def test_a_file_that_cannot_grow_is_told_and_cleaned_up(place: Place) -> None:
    back = place.root / "back"
    done = place.execute(
        *("restore", DISK, "--target", str(back)),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert done.code == 1
    assert "File too large" in done.err
    assert not [path.name for path in place.root.iterdir() if path.name.startswith("back")]


def test_dump_is_byte_for_byte(place: Place) -> None:
    assert place.run("dump", "shop@latest:dump.sql").stdout_bytes == pg_dump(2000)
    assert place.run("cat", DISK).stdout_bytes == (place.root / "web01.raw").read_bytes()


def test_dump_wants_one_file(place: Place) -> None:
    place.ok("backup", "--kind", "files", "--name", "etc", place.write("a", "1"), place.write("b", "2"))
    result = place.run("dump", "etc")
    assert result.exit_code == 1
    assert "a, b" in result.stderr
    assert place.ok("dump", "etc:b") == "2"


def test_dump_has_no_json(place: Place) -> None:
    assert place.run("dump", "shop", "--json").exit_code == 2


@pytest.mark.parametrize(
    ("args", "code", "shown"),
    [
        (["shop"], 0, b"PostgreSQL database dump complete"),
        (["evil"], 1, b"is not text, and this is a terminal"),
        (["evil", "--force"], 0, b"\x1b[31m"),
    ],
)
def test_a_terminal_gets_text_only_unless_forced(
    args: list[str], code: int, shown: bytes, place: Place
) -> None:
    place.ok("backup", "--stdin", "--name", "evil", input=b"harmless\n\x1b[31mred\n")
    terminal, end = pty.openpty()
    process = place.process("dump", *args, stdout=end, stderr=end)
    os.close(end)
    seen = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        if not data:
            break
        seen += data
    os.close(terminal)
    assert process.wait(120) == code
    assert shown in seen
    assert (b"\x1b[31m" in seen) == ("--force" in args)
