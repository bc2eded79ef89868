"""The fast way of wal-push trusts nobody, and whatever is not a plain success is left to the ordinary way."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.cli.base.wal_client import was_pushed
from holdfast.tasks.wal_protocol import DONE, Place, connect, find_place, home_cache


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "secret").write_text("x")
    return {
        "HOLDFAST_REPOSITORY": str(tmp_path / "repo"),
        "HOLDFAST_PASSWORD_FILE": str(tmp_path / "secret"),
        "HOLDFAST_CACHE_DIR": str(tmp_path / "cache"),
    }


def place_of(environment: dict[str, str]) -> Place:
    place = find_place(environment, "/nowhere")
    assert place is not None
    return place


@contextmanager
def answering(place: Place, answer: bytes) -> Iterator[list[bytes]]:
    """Something that listens there and answers so; yields what it was asked."""
    folder = Path(place.folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    asked: list[bytes] = []
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(folder)  # a socket's path has 107 bytes at most
        try:
            listener.bind(place.name)
        finally:
            os.chdir(here)
        listener.listen()
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                request = b""
                while part := connection.recv(4096):
                    request += part
                asked.append(request)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join()


def test_only_the_whole_answer_means_that_it_is_done(environment: dict[str, str]) -> None:
    place = place_of(environment)
    for answer, done in ((DONE, True), (b"", False), (DONE[:-1], False), (DONE + b"x", False)):
        with answering(place, answer) as asked:
            assert was_pushed(["wal-push", "pg_wal/1"], environment) is done
        assert asked == [os.fsencode(Path.cwd()) + b"\0pg_wal/1"]
        (Path(place.folder) / place.name).unlink()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["wal-push"],
        ["wal-push", "--help"],
        ["wal-push", "a", "b"],
        ["wal-push", "a", "--name=b"],
        ["-q", "wal-push"],
        ["wal-fetch", "a"],
    ],
)
def test_anything_but_a_plain_push_goes_the_ordinary_way(
    environment: dict[str, str], arguments: list[str]
) -> None:
    assert not was_pushed(arguments, environment)


def test_nobody_there_is_no_error(environment: dict[str, str], tmp_path: Path) -> None:
    assert not was_pushed(["wal-push", "a"], environment)
    (tmp_path / "cache").write_text("a file")
    assert not was_pushed(["wal-push", "a"], environment)
    assert not was_pushed(["wal-push", "a"], {})


def test_a_folder_that_others_can_enter_or_a_link_to_one_is_not_believed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    place = place_of(environment)
    folder = Path(place.folder)
    folder.mkdir(mode=0o700, parents=True)
    folder.chmod(0o755)
    with pytest.raises(PermissionError):
        connect(place)
    folder.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").chmod(0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Not a directory"):
        connect(place)


def test_the_place_is_another_one_for_another_repository_password_or_cache(
    environment: dict[str, str], tmp_path: Path
) -> None:
    names = {place_of(environment).name}
    (tmp_path / "repo2").mkdir()
    names.add(place_of({**environment, "HOLDFAST_REPOSITORY": str(tmp_path / "repo2")}).name)
    names.add(place_of({**environment, "HOLDFAST_CACHE_DIR": str(tmp_path / "cache2")}).name)
    (tmp_path / "secret").write_text("another")
    names.add(place_of(environment).name)
    assert len(names) == 4
    for more in ({"HOLDFAST_PASSWORD": "x"}, {"HOLDFAST_PASSWORD_FD": "3"}, {"HOLDFAST_WARM_SECONDS": "0"}):
        assert find_place({**environment, **more}, "/nowhere") is None


def test_the_cache_is_where_other_commands_have_it() -> None:
    assert home_cache({"XDG_CACHE_HOME": "/x"}) == "/x/holdfast"
    assert home_cache({"XDG_CACHE_HOME": "relative"}) == str(Path("~/.cache/holdfast").expanduser())
