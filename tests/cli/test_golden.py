"""The command line as it is: help, options, JSON and exit codes, compared with golden files.

These files are the promise to scripts and to people. golden_support.py says how they are written anew.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import pytest

from holdfast.cli.main import VERBS, cli
from support.basics import need
from support.cli import Place
from support.commands import every_command
from support.fuse import need_fuse
from support.golden_errors import tell_errors
from support.golden_story import SQLITE, Story, tell_all, write
from support.golden_support import as_text, compare

_REHEARSED = ("rehearse", "rehearse-failed", "snapshots-proven", "info-proven")
_MOUNTED = ("mount", "umount")
"""What needs more than Holdfast itself, in tests of their own."""


def test_the_help_of_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    texts = {}
    for words, _ in every_command():
        with pytest.raises(SystemExit) as ended:
            cli.main([*words.split()[1:], "--help"])
        assert ended.value.code == 0
        texts[f"help/{words.replace(' ', '-')}.txt"] = capsys.readouterr().out
    assert len(texts) > len(VERBS)
    compare(texts, folder="help")


def test_the_options_of_every_command() -> None:
    """The help does not show all of them, nor how they are taken."""
    aliases = {alias: name for name, verb in VERBS.items() for alias in verb.aliases}
    lines = [f"{alias}: alias of {name}" for alias, name in aliases.items()]
    shared = [_parameter(one) for one in cli.params if one.name != "version"]
    for words, command in every_command():
        told = [_parameter(one) for one in command.params]
        if command is not cli and told[-len(shared) :] == shared:
            told[-len(shared) :] = ["and those of every command"]
        lines += ["", words, *(f"  {line}" for line in told)]
    compare({"options.txt": "\n".join(lines) + "\n"})


def _parameter(parameter: click.Parameter) -> str:
    """Names, type, default and manner of an option or argument, as a line."""
    told = [" ".join([*parameter.opts, *parameter.secondary_opts]), _kind(parameter.type)]
    if isinstance(parameter.default, str | int | float) and parameter.default is not False:
        told.append(f"default {parameter.default!r}")
    marks = ("required", "multiple", "hidden", "is_flag", "count")
    told += [mark for mark in marks if getattr(parameter, mark, False)]
    if parameter.nargs != 1:
        told.append(f"nargs {parameter.nargs}")
    return ", ".join(told)


def _kind(kind: click.ParamType[Any]) -> str:
    match kind:
        case click.Choice():
            return " | ".join(kind.choices)
        case click.IntRange() | click.FloatRange():
            start = "(" if kind.min_open else "["
            return f"{kind.name} {start}{kind.min}, {kind.max}]"
    return kind.name


def files_of(answers: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {f"json/{name}.json": as_text(answer) for name, answer in answers.items()}


def test_the_json_of_every_command(tmp_path: Path) -> None:
    story = tell_all(Place.make(tmp_path))
    compare(
        files_of(story.answers), folder="json", apart=(f"json/{name}.json" for name in _REHEARSED + _MOUNTED)
    )


def test_the_json_of_rehearsals(tmp_path: Path) -> None:
    need(shutil.which("sqlite3"), "no sqlite3")
    story = Story(Place.make(tmp_path))
    story.back_up("backup", "things", write(story.place, "things.sql", SQLITE))
    story.back_up(
        "backup-bad", "bad", write(story.place, "bad.sql", SQLITE.replace("things VALUES", "x VALUES"))
    )
    story.answers.clear()
    with TemporaryDirectory(prefix="hf-", dir="/tmp") as scratch:  # short: a socket's path has 107 bytes
        Path(scratch).chmod(0o755)  # for the user that root makes the server run as
        for name, snapshot in (("rehearse", "things"), ("rehearse-failed", "bad")):
            result = story.place.run(
                *("--json", "rehearse", snapshot, "--query", "select * from things", "--scratch", scratch)
            )
            story.keep(
                name, ("rehearse", snapshot, "--query", "..."), result.exit_code, result.stdout, result.stderr
            )
    story.ask("snapshots-proven", "snapshots")
    story.ask("info-proven", "info", "things")
    compare(files_of(story.answers))


@pytest.mark.fuse
def test_the_json_of_mounts(tmp_path: Path) -> None:
    need_fuse()
    story = Story(Place.make(tmp_path))
    (tmp_path / "mnt").mkdir()
    for verb in ("mount", "umount"):
        args = (verb, tmp_path / "mnt")
        done = story.place.execute("--json", *args)  # a process: mounting forks, and pytest has threads
        story.keep(verb, args, done.code, done.out.decode(), done.err)
    compare(files_of(story.answers))


@pytest.mark.expects_warnings
def test_the_errors_and_exit_codes(tmp_path: Path) -> None:
    story = tell_errors(Place.make(tmp_path))
    compare({"errors.json": as_text(story.answers)})
