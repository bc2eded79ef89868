"""The command as a whole: verbs, help, streams, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast import __version__
from holdfast.cli.main import VERBS
from holdfast.repo.core.repository import Repository
from support.cli import Place, python

VERBS_OF_THE_DESIGN = (
    *("init", "backup", "snapshots", "ls", "find", "diff", "info", "stats", "mount", "umount"),
    *("restore", "dump"),
    *("check", "rehearse", "forget", "undelete", "prune", "subject"),
    *("wal-push", "wal-fetch", "binlog-push", "logs"),
    *("key", "completion", "version"),
)
ALIASES = {
    "create": "backup",
    "list": "snapshots",
    "extract": "restore",
    "cat": "dump",
    "verify": "check",
    "gc": "prune",
    "compact": "prune",
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


def test_all_verbs_are_there() -> None:
    assert tuple(VERBS) == VERBS_OF_THE_DESIGN


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_aliases_lead_to_their_verb(alias: str, name: str, tmp_path: Path) -> None:
    assert Place(tmp_path).ok(alias, "--help").startswith(f"Usage: holdfast {name} ")


@pytest.mark.parametrize("verb", VERBS_OF_THE_DESIGN)
def test_every_verb_has_help_with_the_common_options(verb: str, tmp_path: Path) -> None:
    shown = Place(tmp_path).ok(verb, "-h")
    assert "\n  --json " in shown
    assert "Options of every command:" in shown
    assert "\x08" not in shown


def test_the_top_help_lists_verbs_and_aliases(tmp_path: Path) -> None:
    shown = Place(tmp_path).ok("--help")
    for verb in VERBS_OF_THE_DESIGN:
        assert re.search(rf"^  {verb}\b", shown, re.MULTILINE)
    assert "prune, gc, compact" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_no_command_at_all_shows_the_help_and_fails(tmp_path: Path) -> None:
    result = Place(tmp_path).run()
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Commands:" in result.stderr


@pytest.mark.parametrize("args", [["version"], ["--version"]])
def test_the_version(args: list[str], tmp_path: Path) -> None:
    assert Place(tmp_path).ok(*args) == f"holdfast {__version__}\n"


def test_the_version_in_detail(tmp_path: Path) -> None:
    assert "repository format 2" in Place(tmp_path).ok("-v", "version")
    assert Place(tmp_path).json("version")["version"] == __version__


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["snapshot"], "did you mean snapshots?"),
        (["frobnicate"], "no such command: frobnicate"),
        (["snapshots", "--nope"], "--nope"),
        (["ls"], "Missing argument"),
        (["--nope"], "--nope"),
        (["key", "nope"], "nope"),
    ],
)
def test_wrong_usage_is_code_2_with_a_hint(args: list[str], says: str, tmp_path: Path) -> None:
    result = Place(tmp_path).run(*args)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "--help`" in result.stderr
    told = json.loads(Place(tmp_path).run("--json", *args).stderr)
    assert told["code"] == 2
    assert says in told["message"]


def test_json_behind_a_double_dash_belongs_to_the_other_command(place: Place) -> None:
    result = place.run("backup", "--nope", "--", "--json")
    assert result.stderr.startswith("holdfast: ")


def test_common_options_may_stand_before_and_behind_the_verb(place: Place) -> None:
    assert place.ok("--json", "snapshots") == place.ok("snapshots", "--json")
    other = {"HOLDFAST_REPOSITORY": None}
    assert place.run("-r", str(place.repository), "snapshots", **other).exit_code == 0
    assert place.run("snapshots", "-r", str(place.repository), **other).exit_code == 0
    assert place.run("snapshots", **other).exit_code == 2


@pytest.mark.parametrize("url", ["s3:bucket", "sftp://host/x", "rest:http://x"])
def test_a_repository_elsewhere_is_refused_before_a_folder_of_that_name_is_made(
    url: str, tmp_path: Path
) -> None:
    result = Place(tmp_path).run("init", "-r", url)
    assert result.exit_code == 2
    assert "only repositories in a directory" in result.stderr


def test_no_repository_is_code_10(tmp_path: Path) -> None:
    for verb in (["snapshots"], ["backup", "x"], ["mount", "/x"], ["key", "list"], ["check"]):
        result = Place(tmp_path).run(*verb)
        assert result.exit_code == 10, result.stderr
        assert "holdfast init" in result.stderr


def test_an_internal_error_is_one_line_and_code_1(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("the details")

    monkeypatch.setattr(Repository, "snapshots", fail)
    result = place.run("snapshots")
    assert result.exit_code == 1
    assert "run with -v for details" in result.stderr
    assert "Traceback" not in result.output
    assert "the details" in place.run("snapshots", "-v").stderr


def test_version_and_completion_load_nothing_heavy() -> None:
    heavy = {
        "holdfast.repo.core.repository",
        "holdfast.ingest",
        "rich",
        "trio",
        "pyfuse3",
        "lmdb",
        "cryptography",
        "blake3",
    }
    code = (
        "import sys; from holdfast.cli.main import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "finally: print(*sys.modules)"
    )
    for args in (["version"], ["completion", "bash"]):
        done = subprocess.run([*python(code), *args], capture_output=True, text=True, check=True)
        assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, tmp_path: Path) -> None:
    script = Place(tmp_path).ok("completion", shell)
    assert "_HOLDFAST_COMPLETE" in script
    assert Place(tmp_path).json("completion", shell)["script"] + "\n" == script


def test_completion_completes_verbs_and_options(place: Place) -> None:
    def complete(words: str, at: int) -> str:
        env = dict(os.environ) | {
            "_HOLDFAST_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(at),
        }
        return place.execute(env=env).out.decode()

    assert complete("holdfast sn", 1) == "plain,snapshots\n"
    assert "plain,--read-data-subset" in complete("holdfast check --read", 2)
    assert "plain,--read-data" in complete("holdfast verify --read", 2)
    assert "plain,passwd" in complete("holdfast key p", 2)


def test_a_reader_that_leaves_early_is_no_news(place: Place) -> None:
    place.ok("backup", place.dump(rows=20_000))
    for args in (["dump", "shop"], ["snapshots"], ["--help"]):
        process = place.process(*args)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        assert err == b"", err.decode()
        assert process.wait(120) == 1
        process.stderr.close()


def test_a_full_disk_behind_standard_output_is_told(place: Place) -> None:
    with Path("/dev/full").open("wb") as full:
        done = place.execute("snapshots", stdout=full)
    assert done.code == 1
    assert "No space left on device" in done.err
    assert "Traceback" not in done.err
    assert "Exception ignored" not in done.err


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_standard_streams_do_no_harm(closed: int, place: Place) -> None:
    command = f'exec "$0" snapshots {closed}>&-'
    env = dict(os.environ) | place.environment
    holdfast = Path(sys.executable).with_name("holdfast")
    done = subprocess.run(["/bin/sh", "-c", command, holdfast], env=env, capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stderr == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("json_too", [False, True])
def test_an_interrupted_backup_is_code_130_and_leaves_no_snapshot(
    number: signal.Signals, json_too: bool, place: Place
) -> None:
    started = place.root / "started"
    script = (
        f"import pathlib, time; pathlib.Path({str(started)!r}).touch()\n"
        "print('x' * 70000, flush=True); time.sleep(60)"
    )
    options = ["--json"] if json_too else []
    process = place.process(
        *("backup", *options, "--name", "slow", "--stdin-from-command", "--", *python(script)),
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a job in the background ignores SIGINT
    )
    while not started.exists():
        assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    if json_too:
        assert json.loads(err)["code"] == 130
    else:
        assert err.decode().startswith("holdfast: interrupted\n")
        assert b"no snapshot was made" in err
    assert place.json("snapshots")["snapshots"] == []
    place.ok("check", "--read-data")


def test_nohup_is_respected(place: Place) -> None:
    script = "import os, signal; os.kill(os.getppid(), signal.SIGHUP); print('done')"
    process = place.process(
        "backup",
        *("--name", "x", "--stdin-from-command", "--", *python(script)),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
