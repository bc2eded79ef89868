"""The table of exit codes, and that every error finds its place in it."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from holdfast.base import errors
from holdfast.base.types import SnapshotID
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exit_codes import MEANINGS, ExitCode
from holdfast.cli.base.exits import advice_for, code_for
from holdfast.cli.base.failures import report
from holdfast.cli.main import cli
from holdfast.ingest.backup.backup import LessConsistent
from holdfast.repo.records.high_water import OtherRepository, SnapshotsVanished, Vanished

TABLE = {
    "done": 0,
    "failed": 1,
    "usage": 2,
    "partial": 3,
    "no_repository": 10,
    "locked": 11,
    "wrong_password": 12,
    "less_consistent": 20,
    "damage": 21,
    "vanished": 22,
    "interrupted": 130,
    "recovery_stops": 200,
}

STORE_ERROR = errors.StoreError("write", "/backup/packs/aa", OSError(5, "Input/output error"))

EXAMPLES: list[tuple[BaseException, int]] = [
    (errors.NoRepository("no repository in /x"), 10),
    (errors.Locked("locked"), 11),
    (errors.WrongPassword("wrong password"), 12),
    (LessConsistent("only crash-consistent"), 20),
    (errors.Damaged("pack aa", "not authentic"), 21),
    (errors.MissingChunk("chunk aa", "is in no pack"), 21),
    (errors.OtherKey("pack aa", "was sealed under another key"), 21),
    (errors.HoldfastError("x"), 1),
    (errors.RepositoryError("x"), 1),
    (errors.RepositoryExists("x"), 1),
    (errors.Unsupported("x"), 1),
    (errors.SlotRemoved("x"), 12),
    (errors.TooManySlots("x", 17, 16), 12),
    (errors.CostlyKey("x", 2048, 20), 12),
    (errors.KeyringRolledBack("x", "ends with key epoch 1"), 22),
    (STORE_ERROR, 1),
    (errors.NoSpace("write", "/backup", OSError(28, "No space left on device")), 1),
    (errors.SourceError("x"), 1),
    (errors.StreamFailed("x"), 1),
    (errors.TargetError("x"), 1),
    (errors.NotFound("x"), 1),
    (errors.NoSnapshots("x"), 1),
    (errors.OnlyLogs("x"), 1),
    (errors.NoSuchSnapshot("x"), 1),
    (errors.NoSuchKeySlot("x"), 1),
    (errors.NoSuchLogArchive("x"), 1),
    (errors.NotInTrash("x"), 1),
    (errors.NotSeekable(Path("x")), 1),
    (errors.NeedsUnknown("x"), 1),
    (errors.Ambiguous("x"), 1),
    (errors.Refused("x"), 1),
    (SnapshotsVanished(Vanished((SnapshotID("x"),), ())), 22),
    (OtherRepository(Path("/backup"), "12345678", ["abcdefgh"]), 22),
    (click.UsageError("x"), 2),
    (click.BadParameter("x"), 2),
    (KeyboardInterrupt(), 130),
    (click.Abort(), 130),
    (OSError(13, "Permission denied", "/root/x"), 1),
    (ValueError("x"), 1),
    (MemoryError(), 1),
]


def test_the_table_is_the_documented_one() -> None:
    assert {code.name.lower(): int(code) for code in ExitCode} == TABLE
    assert set(MEANINGS) == set(ExitCode)


def test_the_help_shows_the_whole_table() -> None:
    shown = " ".join((cli.epilog or "").split())
    for code in ExitCode:
        assert f" {int(code)} {MEANINGS[code]}" in shown


@pytest.mark.parametrize(("error", "code"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_each_error_has_its_code(error: BaseException, code: int) -> None:
    assert code_for(error) == code


def test_every_error_of_the_core_is_in_the_examples() -> None:
    tree = [errors.HoldfastError]
    for kind in tree:
        tree += [sub for sub in kind.__subclasses__() if sub.__module__ == errors.__name__]
    assert {type(error) for error, _ in EXAMPLES} >= set(tree)


@pytest.mark.parametrize(("error", "code"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_a_failure_is_told_without_a_traceback(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error, RunSettings({})) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("holdfast: ")
    assert "Traceback" not in told.err


@pytest.mark.parametrize(("error", "code"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_a_failure_is_told_in_json(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = RunSettings({})
    settings.output.json = True
    report(error, settings)
    told = json.loads(capsys.readouterr().err)
    assert told["message_type"] == "exit_error"
    assert told["code"] == code
    assert told["message"]


def test_an_unexpected_error_names_itself_and_shows_more_only_when_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = RunSettings({})
    report(ZeroDivisionError("secret detail"), settings)
    told = capsys.readouterr().err
    assert "internal error (ZeroDivisionError); run with -v for details" in told
    assert "secret detail" not in told
    settings.output.verbose = 1
    report(ZeroDivisionError("secret detail"), settings)
    assert "secret detail" in capsys.readouterr().err


def test_a_message_with_control_characters_is_made_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    report(errors.NotFound("no snapshot \x1b[31mred\x07"), RunSettings({}))
    assert "\\x1b[31mred\\x07" in capsys.readouterr().err


def test_errors_that_name_the_next_command_get_no_second_hint() -> None:
    assert advice_for(errors.NotFound("nothing; `holdfast snapshots` lists them")) == ""
    assert "holdfast snapshots" in advice_for(errors.NotFound("nothing"))
    assert "holdfast check" in advice_for(errors.Damaged("pack aa", "bad"))
    assert advice_for(errors.Refused("no")) == ""
