"""What `holdfast backup` is told about databases: options that fit or do not, folders of pieces."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from holdfast.tasks.subject_names import name_fault, quoted_name
from support.cli import PG_HEAD, PG_TAIL, Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["postgres://h/a", "postgres://h/b"], "one database at a time"),
        (["postgres://h/a", "disk.raw"], "one database at a time"),
        (["postgres://h/a", "--kind", "vm"], "of kind database"),
        (["postgres://h/a", "--disk-format", "raw"], "--disk-format"),
        (["postgres://h/a", "--agent", "/x"], "--agent"),
        (["postgres://h/a", "--engine", "oracle"], "the URL says it"),
        (["postgres://h/a", "--lock-all-tables"], "--lock-all-tables: not for postgresql"),
        (["mysql://h/a", "--physical"], "--physical: not for mysql"),
        (["mysql://h/a", "--db-format", "custom"], "--db-format: not for mysql"),
        (["sqlite:x", "--all-databases"], "--all-databases: not for sqlite"),
        (["postgres://h", "--physical", "--all-databases"], "it stands alone"),
        (["postgres://h/a", "--name", "a/b"], "cannot be a name"),
        (["shop.sql", "--all-databases"], "only for the URL of a database"),
        (["x", "--kind", "database", "--engine", "Or acle"], "a name like oracle"),
    ],
)
def test_options_that_do_not_fit_are_wrong_usage(place: Place, arguments: list[str], said: str) -> None:
    result = place.run("backup", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_password_in_a_url_ends_it_at_once_and_is_not_repeated(place: Place) -> None:
    for url in ("postgres://bob:hunter2@h/shop", "mysql://bob:hunter2@h/shop"):
        result = place.run("backup", url)
        assert result.exit_code == 1
        assert "can be read by everybody" in result.stderr
        assert "hunter2" not in result.stderr + result.stdout


def test_two_ways_to_give_a_password_exclude_each_other(place: Place) -> None:
    file = place.write("pw", "x\n")
    result = place.run("backup", "postgres://h/a", "--db-password-file", file, "--db-password-fd", "9")
    assert result.exit_code == 2
    assert "exclude each other" in result.stderr


def test_a_missing_tool_is_named(place: Place, tmp_path: Path) -> None:
    result = place.run("backup", "mysql://h/a", PATH=str(tmp_path))
    assert result.exit_code == 1
    assert "mariadb or mysql is not installed here" in result.stderr


def test_every_name_of_a_database_gives_a_name_of_its_own() -> None:
    names = [
        "shop",
        "globals",
        "%67lobals",
        "a/b",
        "a%2Fb",
        " x",
        "x ",
        "latest",
        "..",
        "a:b",
        "a\nb",
        "ü",
        "%",
    ]
    quoted = [quoted_name(name) for name in names]
    assert len(set(quoted)) == len(names)
    assert not any(map(name_fault, quoted))
    assert quoted[0] == "shop"
    assert quoted[3] == "a%2Fb"
    assert "globals" not in quoted


# ---- folders --------------------------------------------------------------------------------------------


def test_a_folder_of_pieces_is_kept_file_by_file(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "rman"
    (folder / "day" / "1").mkdir(parents=True)
    (folder / "control.bkp").write_bytes(b"control")
    (folder / "day" / "1" / "piece_1").write_bytes(os.urandom(300_000))
    (folder / "empty").write_bytes(b"")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "linked").symlink_to("/etc")
    summary = place.json("backup", "--kind", "database", "--engine", "oracle", "--name", "erp", folder)
    assert summary["kind"] == "database"
    assert [item["path"] for item in summary["items"]] == ["control.bkp", "empty", "day/1/piece_1"]
    assert summary["warnings"] == ["left out, being links or special files: link, linked"]
    target = tmp_path / "out"
    place.ok("restore", "erp@latest:day/1/piece_1", "--target", target)
    assert target.read_bytes() == (folder / "day" / "1" / "piece_1").read_bytes()


def test_a_dump_in_a_folder_that_ended_early_is_not_taken_for_whole(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "dumps"
    folder.mkdir()
    (folder / "a.sql").write_bytes(PG_HEAD + PG_TAIL)
    place.ok("backup", "--kind", "database", folder)
    (folder / "a.sql").write_bytes(PG_HEAD)
    result = place.run("backup", "--kind", "database", folder, "--require", "application")
    assert result.exit_code in (1, 20)
    assert len(place.json("snapshots")["snapshots"]) == 1


def test_more_files_than_may_be_open_at_once(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(300):
        (folder / f"t{n}.sql").write_text(f"INSERT INTO t VALUES ({n});\n")
    done = place.execute("backup", "--kind", "database", "--name", "many", folder, preexec_fn=_few_files)
    assert done.code == 0, done.err


def _few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))


def test_an_empty_folder_is_refused(place: Place, tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    result = place.run("backup", "--kind", "database", tmp_path / "void")
    assert result.exit_code == 1
    assert "has no files in it" in result.stderr


def test_a_hook_that_fails_before_a_folder_commits_nothing(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "pieces"
    folder.mkdir()
    (folder / "x").write_bytes(b"1")
    result = place.run("backup", "--kind", "database", folder, "--before", "sh -c 'echo RMAN-1 >&2; exit 3'")
    assert result.exit_code == 1
    assert "RMAN-1" in result.stderr
    assert place.json("snapshots")["snapshots"] == []


def test_a_command_of_another_engine_is_judged_by_its_exit_status(place: Place) -> None:
    command = ["--stdin-from-command", "--", "sh", "-c"]
    options = ["--kind", "database", "--engine", "sql-server", "--name", "crm", "--stdin-filename", "crm.bak"]
    assert place.run("backup", *options, *command, "echo TAPE").exit_code == 0
    assert place.run("backup", *options, *command, "echo TAPE; exit 4").exit_code == 1
    (only,) = place.json("snapshots")["snapshots"]
    assert only["consistency"] == "application"
