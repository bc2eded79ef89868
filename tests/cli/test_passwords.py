"""Where passwords come from, and where they never go."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from pathlib import Path

import pytest

from holdfast.base.passwords import NoPassword, PasswordSources
from holdfast.cli.base.passwords import find_password, take_environment
from support.cli import PASSWORD, Place, files, python


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


def test_secrets_are_taken_out_of_the_environment() -> None:
    environ = {
        "HOLDFAST_PASSWORD": "a",
        "HOLDFAST_PASSWORD_FILE": "b",
        "HOLDFAST_PASSWORD_COMMAND": "c",
        "HOLDFAST_PASSWORD_FD": "3",
        "HOLDFAST_REPOSITORY": "/r",
        "PATH": "/bin",
    }
    before = dict(environ)
    taken = take_environment(environ)
    assert environ == {"HOLDFAST_REPOSITORY": "/r", "PATH": "/bin"}
    assert taken == {name: value for name, value in before.items() if name != "PATH"}


def test_options_come_before_the_environment_and_the_variables_in_order(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("from file\n")
    other = tmp_path / "other"
    other.write_text("from variable's file\r\n")
    variables = {
        "HOLDFAST_PASSWORD": "from variable",
        "HOLDFAST_PASSWORD_FILE": str(other),
        "HOLDFAST_PASSWORD_COMMAND": "echo from variable's command",
    }
    assert find_password(PasswordSources(password_file=str(file)), variables) == "from file"
    assert find_password(PasswordSources(password_command="echo 'from option'"), variables) == "from option"
    assert find_password(PasswordSources(), variables) == "from variable"
    del variables["HOLDFAST_PASSWORD"]
    assert find_password(PasswordSources(), variables) == "from variable's file"
    variables["HOLDFAST_PASSWORD_FILE"] = ""
    variables["HOLDFAST_PASSWORD_COMMAND"] = "echo command"
    assert find_password(PasswordSources(), variables) == "command"


@pytest.mark.parametrize("new", [False, True])
def test_a_descriptor_is_read_and_closed(new: bool) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"from fd\n")
    os.close(writing)
    assert find_password(PasswordSources(password_fd=reading), {}, new=new) == "from fd"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)


def test_only_the_end_of_the_line_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("  two words \n")
    assert PasswordSources(password_file=str(file)).read() == "  two words "


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "empty"), (b"\n", "empty"), (b"\xff\xfe\n", "not UTF-8"), (b"x" * 70_000, "too long")],
)
def test_a_file_that_holds_no_password_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(NoPassword, match=says):
        PasswordSources(password_file=str(file)).read()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (PasswordSources(password_file="/does/not/exist"), "No such file"),
        (PasswordSources(password_command="/does/not/exist"), "cannot run"),
        (PasswordSources(password_command="'"), "cannot run"),
        (PasswordSources(password_command=""), "cannot run"),
        (PasswordSources(password_command="false"), "exit code 1"),
        (PasswordSources(password_command="true"), "is empty"),
        (PasswordSources(password_fd=987), "descriptor 987"),
    ],
)
def test_a_source_that_fails_is_named(options: PasswordSources, says: str) -> None:
    with pytest.raises(NoPassword, match=says):
        options.read()


@pytest.mark.parametrize("text", ["x", "-1", "²"])
def test_a_descriptor_must_be_a_number(text: str) -> None:
    with pytest.raises(NoPassword, match="not a number"):
        find_password(PasswordSources(), {"HOLDFAST_PASSWORD_FD": text})


def test_a_variable_that_is_no_text_is_refused() -> None:
    with pytest.raises(NoPassword, match="not UTF-8"):
        find_password(PasswordSources(), {"HOLDFAST_PASSWORD": "\udcff"})


def test_every_source_opens_the_repository(place: Place) -> None:
    file = place.write("pw", PASSWORD + "\n")
    command = f"cat '{file}'"
    reading, writing = os.pipe()
    os.write(writing, PASSWORD.encode())
    os.close(writing)
    place.ok("snapshots", "--password-file", file)
    nothing = {"HOLDFAST_PASSWORD": None}
    for option in (
        ["--password-file", str(file)],
        ["--password-command", command],
        ["--password-fd", str(reading)],
    ):
        assert place.run(*option, "snapshots", **nothing).exit_code == 0
    assert place.run("snapshots", **nothing, HOLDFAST_PASSWORD_FILE=str(file)).exit_code == 0
    assert place.run("snapshots", **nothing, HOLDFAST_PASSWORD_COMMAND=command).exit_code == 0


def test_a_wrong_password_is_code_12_and_is_never_repeated(place: Place) -> None:
    for extra in ([], ["--json"], ["-v"]):
        result = place.run("snapshots", *extra, HOLDFAST_PASSWORD="hunter2")
        assert result.exit_code == 12
        assert "wrong password" in result.stderr
        assert "hunter2" not in result.output


def test_a_password_is_asked_for_only_when_there_is_a_repository(place: Place) -> None:
    result = place.run(
        "snapshots", "-r", "/does/not/exist", "--password-command", "touch " + str(place.root / "asked")
    )
    assert result.exit_code == 10
    assert not (place.root / "asked").exists()


def test_without_a_terminal_and_a_source_the_message_names_the_sources(place: Place) -> None:
    env = {k: v for k, v in (dict(os.environ) | place.environment).items() if k != "HOLDFAST_PASSWORD"}
    done = place.execute("snapshots", env=env)
    assert done.code == 2
    for name in (
        "--password-file",
        "HOLDFAST_PASSWORD_FILE",
        "HOLDFAST_PASSWORD_COMMAND",
        "HOLDFAST_PASSWORD_FD",
    ):
        assert name in done.err


def test_a_backed_up_command_does_not_inherit_the_password(place: Place) -> None:
    show = python("import os; print(sorted(k for k in os.environ if k.startswith('HOLDFAST_PASSWORD')))")
    done = place.execute("backup", "--name", "env", "--stdin-from-command", "--", *show)
    assert done.code == 0, done.err
    assert place.run("dump", "env").stdout == "[]\n"


def test_nor_does_the_password_command(place: Place) -> None:
    script = place.write(
        "ask", f"#!/bin/sh\nenv | grep HOLDFAST_PASSWORD >'{place.root}/seen'\necho '{PASSWORD}'\n"
    )
    script.chmod(0o700)
    done = place.execute("snapshots", "--password-command", str(script))
    assert done.code == 0, done.err
    assert (place.root / "seen").read_text() == ""


def test_a_new_password_that_nobody_can_type_is_asked_for_by_its_own_option(place: Place) -> None:
    done = place.execute("key", "add", "--label", "x", start_new_session=True)
    assert done.code == 2
    assert "--new-password-file" in done.err
    assert "--password-command" not in done.err


def _typed(place: Place, args: list[str], answers: list[bytes], until: bytes) -> tuple[int, bytes]:
    """Run on a terminal of its own and type an answer to every prompt (a line that ends in a colon)."""
    env = {k: v for k, v in place.environment.items() if k != "HOLDFAST_PASSWORD"}
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(Path(sys.executable).with_name("holdfast"), ["holdfast", *args], env | {"TERM": "xterm"})
    seen = b""
    answers = list(answers)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            data = os.read(terminal, 4096)
        except OSError:
            break
        if not data:
            break
        seen += data
        if seen.rstrip(b" ").endswith(b":") and answers:
            os.write(terminal, answers.pop(0) + b"\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert until in seen
    return os.waitstatus_to_exitcode(status), seen


def test_on_a_terminal_it_is_asked_for_and_not_shown(place: Place) -> None:
    code, seen = _typed(place, ["snapshots"], [PASSWORD.encode()], b"no snapshots")
    assert code == 0
    assert PASSWORD.encode() not in seen


def test_a_new_password_is_asked_for_twice(tmp_path: Path) -> None:
    place = Place(tmp_path)
    code, seen = _typed(place, ["init"], [b"first", b"second"], b"the two passwords differ")
    assert code == 2
    assert not place.repository.exists()
    code, seen = _typed(place, ["init"], [b"n3w", b"n3w"], b"repository")
    assert code == 0
    assert b"n3w" not in seen
    assert place.run("snapshots", HOLDFAST_PASSWORD="n3w").exit_code == 0


def test_a_new_key_epoch_begins_after_a_yes_only(place: Place) -> None:
    code, seen = _typed(place, ["key", "rotate"], [PASSWORD.encode(), b"n"], b"Do you know them all?")
    assert code == 130
    assert place.json("key", "list")["epoch"] == 1
    code, seen = _typed(place, ["key", "rotate"], [PASSWORD.encode(), b"y"], b"key epoch 2 began")
    assert code == 0
    assert seen.index(b"passphrase") < seen.index(b"Do you know"), "the slots are listed before it asks"
    assert place.json("key", "list")["epoch"] == 2


def test_an_empty_password_is_refused_on_the_terminal_too(tmp_path: Path) -> None:
    code, _ = _typed(Place(tmp_path), ["init"], [b"", b""], b"empty password is refused")
    assert code == 2
    assert not (tmp_path / "repo").exists()


def test_passwords_are_in_no_file_of_the_repository(place: Place) -> None:
    place.ok("backup", place.disk())
    for path in files(place.root / "repo", ".") + files(place.root, "cache"):
        assert PASSWORD.encode() not in path.read_bytes()
