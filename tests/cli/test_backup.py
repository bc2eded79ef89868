"""init, backup, snapshots, ls, info, stats: what people type every day."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdfast.ingest.sources.source import FileSource
from support.cli import PASSWORD, Place, files, flip_byte, pg_dump, python


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


def test_init_makes_a_repository_and_says_what_to_keep(tmp_path: Path) -> None:
    place = Place(tmp_path)
    told = place.ok("init", "--compression", "3", "--cipher", "chacha", "--label", "me")
    assert "Keep the password safe" in told
    about = place.json("info")
    assert about["cipher"] == "ChaCha20-Poly1305"
    assert about["compression"] == 3
    assert about["key_slots"] == 1
    assert place.json("key", "list")["keys"][0]["label"] == "me"


def test_init_in_json_is_one_document(tmp_path: Path) -> None:
    place = Place(tmp_path)
    document = json.loads(place.ok("init", "--json"))
    assert document["path"] == str(place.repository)
    assert len(document["id"]) == 32


def test_init_refuses_where_something_is(place: Place) -> None:
    result = place.run("init")
    assert result.exit_code == 1
    assert "`holdfast -r DIR info` shows" in result.stderr
    full = place.root / "full"
    full.mkdir()
    (full / "letter").touch()
    result = place.run("init", "-r", str(full))
    assert result.exit_code == 1
    assert "is not empty" in result.stderr


def test_the_recovery_key_is_shown_once_and_opens(tmp_path: Path) -> None:
    place = Place(tmp_path)
    key = place.json("init", "--recovery-key")["recovery_key"]
    assert place.run("snapshots", HOLDFAST_PASSWORD=key).exit_code == 0
    assert place.json("info")["recovery_keys"] == 1
    shown = Place(tmp_path / "b").ok("-q", "init", "--recovery-key")
    assert "HOLDFAST-" in shown, "even -q must not keep back what is shown only once"


def test_a_disk_is_a_vm_named_after_its_file(place: Place) -> None:
    told = place.ok("backup", place.disk())
    assert " of web01 (vm)\n" in told
    assert "consistency: crash (a disk as found)" in told
    (snapshot,) = place.json("snapshots")["snapshots"]
    assert snapshot["name"] == "web01"
    assert snapshot["items"][0]["path"] == "disks/web01.raw"
    assert snapshot["size"] == 4 << 20
    assert snapshot["allocated"] < 1 << 20


def test_the_summary_in_json(place: Place) -> None:
    lines = place.ok("backup", "--json", "--tag", "a", "--tag", "b", "--host", "h", place.dump()).splitlines()
    kinds = [json.loads(line)["message_type"] for line in lines]
    assert kinds[-1] == "summary"
    assert set(kinds[:-1]) <= {"status"}
    summary = json.loads(lines[-1])
    assert summary["snapshot_id"] == summary["id"]
    assert summary["tags"] == ["a", "b"]
    assert summary["host"] == "h"
    assert summary["engine"] == "postgresql"
    assert summary["consistency"] == "application"
    assert summary["partial"] is False
    assert summary["warnings"] == []
    assert summary["size"] == summary["allocated"] == len(pg_dump(2000))
    assert summary["stored"] > 0


def test_quiet_says_nothing(place: Place) -> None:
    result = place.run("-q", "backup", place.disk())
    assert (result.exit_code, result.output) == (0, "")


def test_several_paths_are_several_items_of_one_snapshot(place: Place) -> None:
    one, two = place.write("a.conf", "a"), place.write("b.tar", "b" * 5000)
    place.ok("backup", "--kind", "files", "--name", "etc", one, two)
    shown = place.ok("ls", "etc")
    assert "a.conf" in shown
    assert "b.tar" in shown
    assert [item["path"] for item in place.json("ls", "etc:b.tar")["items"]] == ["b.tar"]


def test_standard_input(place: Place) -> None:
    content = pg_dump(100)
    assert "application (the dump's end mark was seen)" in place.ok(
        "backup", "--stdin", "--name", "shop", input=content
    )
    assert place.run("dump", "shop").stdout_bytes == content


def test_a_stream_may_have_a_file_name(place: Place) -> None:
    place.ok("backup", "--stdin", "--stdin-filename", "etc.tar", input=b"\1" * 9000)
    (snapshot,) = place.json("snapshots")["snapshots"]
    assert (snapshot["name"], snapshot["items"][0]["path"]) == ("etc", "etc.tar")


def test_a_command_that_succeeds_is_application_consistent(place: Place) -> None:
    place.ok(
        "backup", "--name", "x", "--require", "application", "--stdin-from-command", "--", *python("print(1)")
    )
    assert place.json("info", "x")["consistency"] == "application"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; print(1); sys.exit('no such database')", "no such database"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
    ],
)
def test_a_command_that_fails_commits_nothing(code: str, says: str, place: Place) -> None:
    result = place.run("backup", "--name", "x", "--stdin-from-command", "--", *python(code))
    assert result.exit_code == 1
    assert says in result.stderr
    assert "nothing was committed" in result.stderr
    assert place.json("snapshots")["snapshots"] == []


def test_a_dump_that_ended_early_is_partial_and_code_3(place: Place) -> None:
    short = pg_dump(100)[:-60]
    result = place.run("backup", "--stdin", "--name", "shop", input=short)
    assert result.exit_code == 3
    assert "PARTIAL" in result.stdout
    assert "unknown (the dump is not whole)" in result.stdout
    assert '"-- PostgreSQL database dump complete", is missing' in result.stderr
    assert "partial" in place.ok("snapshots")
    assert "dump complete" in place.ok("info", "shop")
    document = place.json("info", "shop")
    assert (document["partial"], document["consistency"]) == (True, "unknown")
    assert document["evidence"] == "the dump is not whole"
    (item,) = document["items"]
    (bad,) = item["bad"]
    assert (bad["offset"], bad["length"]) == (len(short), 0)
    assert "dump complete" in bad["reason"]
    dumped = place.run("dump", "shop")
    assert (dumped.exit_code, dumped.stdout_bytes) == (3, short)


def test_a_dump_that_ended_early_commits_nothing_where_a_whole_one_is_required(place: Place) -> None:
    arguments = ("backup", "--stdin", "--name", "shop", "--require", "application")
    result = place.run(*arguments, input=pg_dump(100)[:-60])
    assert result.exit_code == 20
    assert "the dump is not whole" in result.stderr
    assert "nothing was committed" in result.stderr
    assert place.json("snapshots")["snapshots"] == []
    assert place.run(*arguments, input=pg_dump(100)).exit_code == 0


def test_a_compressed_dump_is_stored_unpacked_unless_files_are_wanted(place: Place) -> None:
    packed = gzip.compress(pg_dump(2000))
    path = place.write("shop.sql.gz", packed)
    first = place.json("backup", path)
    assert (first["name"], first["engine"], first["size"]) == ("shop", "postgresql", len(pg_dump(2000)))
    assert first["consistency"] == "application"
    (item,) = place.json("info", "shop")["items"]
    assert (item["path"], item["source_format"]) == ("dump.sql", "gzip")
    assert place.run("dump", "shop").stdout_bytes == pg_dump(2000)
    assert place.json("backup", place.dump())["new"] == 0
    place.ok("backup", "--kind", "files", "--name", "as-it-is", path)
    assert place.run("dump", "as-it-is").stdout_bytes == packed
    result = place.run("backup", place.write("cut.sql.gz", packed[:-9]))
    assert result.exit_code == 3
    assert "the gzip data behind ends early or is damaged" in result.stderr


def test_a_command_does_not_run_when_the_repository_does_not_open(place: Place) -> None:
    touch = python(f"open({str(place.root / 'ran')!r}, 'w')")
    result = place.run(
        *("backup", "--name", "x", "--stdin-from-command", "--", *touch), HOLDFAST_PASSWORD="wrong"
    )
    assert result.exit_code == 12
    assert not (place.root / "ran").exists()


def test_less_consistent_than_required_is_code_20_and_commits_nothing(place: Place) -> None:
    result = place.run("backup", place.disk(), "--require", "filesystem")
    assert result.exit_code == 20
    assert place.json("snapshots")["snapshots"] == []
    assert place.run("backup", place.disk(), "--require", "crash").exit_code == 0


def test_a_source_that_shrinks_is_partial_and_code_3(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = place.disk()
    read_into = FileSource.read_into

    def shrink(self: FileSource, buffer: memoryview, offset: int) -> int:
        with disk.open("r+b") as file:
            file.truncate(1 << 20)
        return read_into(self, buffer, offset)

    monkeypatch.setattr(FileSource, "read_into", shrink)
    result = place.run("backup", disk)
    assert result.exit_code == 3
    assert "PARTIAL" in result.stdout
    assert "it shrank while it was read" in result.stderr
    monkeypatch.undo()
    assert "partial" in place.ok("snapshots")
    assert "it shrank while it was read" in place.ok("info", "web01")
    assert place.json("info", "web01")["items"][0]["bad"][0]["length"] > 0
    restored = place.run("restore", "web01:disks/web01.raw", "--target", str(place.root / "back"))
    assert restored.exit_code == 3
    assert "are zeros now" in restored.stderr
    assert (place.root / "back").stat().st_size == 4 << 20
    assert place.run("dump", "web01").exit_code == 3


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["{root}"], 1, "is no export of a VM"),
        (["{disk}", "{root}"], 2, "would be a VM by itself"),
        (["{disk}", "{root}", "--name", "x", "--kind", "vm"], 1, "is a directory"),
        (["{root}/missing"], 1, "No such file"),
        (["/dev/null"], 1, "--stdin"),
        ([], 2, "nothing to back up"),
        (["--stdin"], 2, "needs a name"),
        (["--stdin", "x"], 2, "reads no files"),
        (["--stdin", "--stdin-from-command", "x"], 2, "exclude"),
        (["--stdin-from-command", "--name", "x"], 2, "which command"),
        (["--stdin-from-command", "true"], 2, "needs a name"),
        (["--stdin-filename", "x", "y"], 2, "needs --stdin"),
        (["{disk}", "--kind", "nope"], 2, "nope"),
        (["{disk}", "--time", "yesterday"], 2, "not a time"),
        (["{disk}", "--require", "unknown"], 2, "unknown"),
        (["--name", "x", "--stdin-from-command", "/does/not/exist"], 1, "cannot run"),
        (["{disk}", "{disk}"], 1, "is named twice"),
    ],
)
def test_what_cannot_be_backed_up_is_explained(args: list[str], code: int, says: str, place: Place) -> None:
    words = [arg.format(root=place.root, disk=place.disk()) for arg in args]
    result = place.run("backup", *words, input=b"")
    assert result.exit_code == code
    assert says in result.stderr
    assert "internal error" not in result.stderr


@pytest.mark.parametrize("name", ["", ".", "..", "latest", "a/b", "a:b", "a\nb", " a", "\x1b[2J", "x" * 201])
def test_names_that_no_selector_or_folder_could_hold_are_refused(name: str, place: Place) -> None:
    result = place.run("backup", place.disk(), "--name", name)
    assert result.exit_code == 2
    assert "cannot be a name" in result.stderr
    assert "\x1b" not in result.stderr


def test_the_second_backup_stores_only_what_is_new(place: Place) -> None:
    disk = place.disk()
    place.ok("backup", disk)
    second = place.json("backup", disk)
    assert second["new"] == 0
    assert second["parent"] == place.json("snapshots")["snapshots"][0]["id"]
    figures = place.json("stats")
    assert figures["snapshots"] == 2
    assert figures["deduplication_ratio"] == 2
    shown = place.ok("stats")
    assert "is stored only once (50.0 % saved by deduplication)" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


def test_stats_of_nothing_and_of_leftovers(place: Place) -> None:
    assert place.json("stats")["deduplication_ratio"] is None
    place.ok("stats")
    place.ok("backup", place.disk())
    place.ok("forget", "web01")
    assert place.json("stats")["allocated"] == 0
    assert "snapshots      0" in place.ok("stats")


def test_stats_count_what_they_can_when_a_pack_is_damaged(place: Place) -> None:
    place.ok("backup", place.disk())
    (pack,) = files(place.repository, "packs")
    flip_byte(pack, 70)
    place.ok("stats")
    flip_byte(pack, pack.stat().st_size - 10)
    result = place.run("stats")
    assert result.exit_code == 0
    assert "left out of the figures" in result.stderr


def test_snapshots_are_grouped_and_filtered(place: Place) -> None:
    place.ok("backup", place.disk(), "--tag", "weekly")
    place.ok("backup", place.disk("db01.raw", seed=2), "--tag", "weekly", "--tag", "x")
    place.ok("backup", place.dump())
    shown = place.ok("list")
    assert shown.index("db01 (vm)") < shown.index("shop (postgresql database)") < shown.index("web01 (vm)")
    assert shown.endswith("\n3 snapshots\n")

    def names(*args: str) -> list[str]:
        return [snapshot["name"] for snapshot in place.json("snapshots", *args)["snapshots"]]

    assert names("--kind", "vm") == ["web01", "db01"]
    assert names("--kind", "vm", "--kind", "database") == ["web01", "db01", "shop"]
    assert names("--tag", "weekly", "--tag", "x") == ["db01"]
    assert names("--name", "shop", "--name", "web01") == ["web01", "shop"]
    said = place.ok("snapshots", "--name", "nobody")
    assert "no snapshot fits --name nobody; without that there are " in said
    assert "`holdfast backup`" not in said


def test_a_damaged_snapshot_is_reported_and_the_others_are_listed(place: Place) -> None:
    place.ok("backup", place.disk())
    bad = files(place.repository, "snapshots")
    place.ok("backup", place.dump())
    for path in bad:
        flip_byte(path, 200)
    result = place.run("snapshots")
    assert result.exit_code == 21
    assert "shop" in result.stdout
    assert "cannot be read" in result.stderr
    assert "holdfast check" in result.stderr
    document = json.loads(place.run("snapshots", "--json").stdout)
    assert len(document["damaged"]) == 1
    assert len(document["snapshots"]) == 1


def test_a_deleted_index_is_rebuilt_and_said_so(place: Place) -> None:
    disk = place.disk()
    place.ok("backup", disk)
    for path in files(place.root, "cache"):
        path.unlink()
    result = place.run("backup", disk)
    assert "the index has been rebuilt from 1 pack: it was not there" in result.stderr
    assert ", new 0 B," in result.stdout


def test_snapshots_are_named_in_every_way(place: Place) -> None:
    disk = place.disk()
    place.ok("backup", disk, "--time", "2026-11-20T02:00:00")
    place.ok("backup", disk, "--time", "2026-11-21T02:00:00+00:00")
    place.ok("backup", disk, "--time", "2026-11-22_02-00-00")
    ids = [snapshot["id"] for snapshot in place.json("snapshots")["snapshots"]]
    for selector, number in {
        "latest": 2,
        "web01": 2,
        "web01@latest": 2,
        "web01@2026-11-20": 0,
        "web01@2026-11-21_02-00-00": 1,
        "web01@2026-11-21T02:00": 1,
        ids[1][:8]: 1,
    }.items():
        assert place.json("info", selector)["id"] == ids[number]
    result = place.run("info", "web01@2026-11")
    assert result.exit_code == 1
    assert "3 snapshots" in result.stderr
    for selector in ("nobody", "web01@2020", "ffffffff", "web01:disks/nope"):
        result = place.run("info", selector)
        assert result.exit_code == 1
        assert "internal" not in result.stderr


def test_times_are_utc_whatever_the_zone_given(place: Place) -> None:
    summary = place.json("backup", place.disk(), "--time", "2026-11-22T02:00:00+02:00")
    assert datetime.fromisoformat(summary["time"]) == datetime(2026, 11, 22, tzinfo=UTC)


def test_info_of_the_repository(place: Place) -> None:
    place.ok("backup", place.disk())
    shown = place.ok("info")
    assert "AES-256-GCM" in shown
    assert "1 of 1 subject\n" in shown
    document = place.json("info")
    assert document["snapshots"] == document["subjects"] == document["packs"] == 1
    assert Path(document["index"]).is_dir()
    assert PASSWORD not in shown


def test_info_and_ls_of_a_snapshot(place: Place) -> None:
    place.ok("backup", place.disk(), "--tag", "t")
    shown = place.ok("info", "web01:disks/web01.raw")
    for part in ("web01 (vm)", "crash: a disk as found", "disks/web01.raw", "4194304 bytes", "tags"):
        assert part in shown
    document = place.json("ls", "web01")
    (disk,) = (item for item in document["items"] if item["type"] == "disk")
    assert disk | {"mtime": ""} == {
        "path": "disks/web01.raw",
        "type": "disk",
        "size": 4 << 20,
        "allocated": disk["allocated"],
        "mtime": "",
        "bad": [],
        "source_format": "raw",
    }


def test_hostile_names_from_a_repository_do_not_reach_the_terminal(place: Place) -> None:
    evil = "\x1b]0;owned\x07.conf"
    place.ok("backup", place.write(evil, "x"), "--name", "n", "--tag", "\x1b[31m", "--host", "\x9b2J")
    for args in (["snapshots"], ["ls", "n"], ["info", "n"], ["check", "-v"], ["forget", "n", "-n"]):
        shown = place.run(*args).output
        assert "\x1b" not in shown
        assert "\x9b" not in shown
    assert "\\x1b]0;owned\\x07.conf" in place.ok("ls", "n")
    assert place.json("ls", "n")["items"][0]["path"] == evil
