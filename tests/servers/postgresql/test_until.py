"""Back to a point in time, with real servers that archive and fetch their log through the command line."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.repo.store.local import LocalStore
from support.basics import need
from support.cli import PASSWORD, Place
from support.database import PostgresServer, database_user, postgres_server, postgres_tool
from support.physical import NAME, hand_over, started, take
from support.scratch import open_folder


@dataclass(frozen=True, slots=True)
class Shop:
    """A cluster that was backed up, wrote four rows and is gone; its log is in the archive.

    `moments` and `places` lie between the rows: the clock and the log when there were 1, 2, 3 of them.
    """

    place: Place
    program: Path
    password: Path
    stored: StoredSnapshot
    moments: tuple[str, ...]
    places: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        return {"HOLDFAST_PASSWORD_FILE": str(self.password)}


def program_in(folder: Path, user: str | None) -> Path:
    """`holdfast`, for a user who may not get to our interpreter."""
    paths = [str(Path(__file__).parents[3] / "src"), *(p for p in sys.path if p.endswith("-packages"))]
    main = "from holdfast.cli.main import main; main()"
    found = (sys.executable, shutil.which("python3", path="/usr/bin:/bin"))
    for python in filter(None, found):
        program = folder / "holdfast"
        program.write_text(f"#!/bin/sh\nPYTHONPATH={':'.join(paths)} exec {python} -c '{main}' \"$@\"\n")
        program.chmod(0o755)
        answer = subprocess.run([program, "version"], user=user, cwd="/", capture_output=True, check=False)
        if answer.returncode == 0:
            return program
    need(None, f"a Python that {user} may run")
    raise AssertionError


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with open_folder() as folder:
        program = program_in(folder, database_user("postgres"))
        (folder / "place").mkdir()
        place = Place.make(folder / "place")
        password = folder / "password"
        password.write_text(PASSWORD)
        settings = ["archive_mode = on", "archive_command = ''", "wal_keep_size = '64MB'"]
        with postgres_server(folder / "s", settings, ["--wal-segsize=1"]) as server:
            server.psql("CREATE TABLE rows (n int)")
            server.tool("pgbench", "-i", "-s", "1", "-q")
            stored = back_up(place, server)
            (folder / "cache").mkdir()
            for one in (place.repository, folder / "cache", password):
                hand_over(one)
            push = f"{program} -r {place.repository} --cache-dir {folder / 'cache'}"
            command = f"{push} --password-file {password} wal-push %p"
            server.psql(f"ALTER SYSTEM SET archive_command = '{command}'")
            server.psql("SELECT pg_reload_conf()")
            stopped = stored.snapshot.facts["stop_time"]
            # The backup's end is recorded in whole seconds; before that no moment can be asked for.
            server.psql(f"SELECT pg_sleep(extract(epoch FROM '{stopped}'::timestamptz - clock_timestamp()))")
            marks = [mark(server, n) for n in range(1, 5)]
            wait_for_archive(server)
        yield Shop(place, program, password, stored, *map(tuple, zip(*marks, strict=True)))


def back_up(place: Place, server: PostgresServer) -> StoredSnapshot:
    with (
        closing(LocalStore.open(place.repository)) as store,
        Repository.open(store, lambda: PASSWORD, cache=place.root / "cache") as repository,
    ):
        return take(repository, server)[0]


def mark(server: PostgresServer, number: int) -> tuple[str, str]:
    """A row, and where clock and log are behind it."""
    server.tool("pgbench", "-n", "-t", "50")
    server.psql(f"INSERT INTO rows VALUES ({number})")
    row = server.psql("SELECT clock_timestamp() AT TIME ZONE 'UTC', pg_current_wal_insert_lsn()")
    moment, place = row.strip().split("|")
    return moment, place


def wait_for_archive(server: PostgresServer) -> None:
    last = server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").strip()
    server.psql("SELECT pg_switch_wal()")
    archived = ""
    for _ in range(600):
        archived = server.psql("SELECT pg_sleep(0.05), last_archived_wal FROM pg_stat_archiver").strip(" |\n")
        if archived >= last:
            return
    pytest.fail(f"not archived: {last}, only {archived}: {(server.folder / 'log').read_text()[-2000:]}")


@pytest.fixture(autouse=True)
def _called_by_its_path(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(shop.program)])


def rows_after(shop: Shop, until: str, *more: str) -> list[int]:
    """The rows of a cluster that was restored up to there and takes writes again."""
    with open_folder() as folder:
        target = folder / "data"
        shop.place.ok("restore", NAME, "--until", until, *more, "--target", target)
        assert PASSWORD.encode() not in (target / "postgresql.auto.conf").read_bytes()
        hand_over(folder)
        with started(target, shop.environment) as server:
            for _ in range(400):
                if server.psql("SELECT pg_sleep(0.05), pg_is_in_recovery()").strip(" |\n") == "f":
                    break
            server.psql("INSERT INTO rows VALUES (99)")
            found = server.psql("SELECT n FROM rows ORDER BY n").split()
    return [int(n) for n in found if n != "99"]


def test_between_two_transactions_exactly_the_first_is_there(shop: Shop) -> None:
    assert rows_after(shop, shop.moments[0]) == [1]
    assert rows_after(shop, f"{shop.moments[1]}+00:00") == [1, 2]


def test_a_place_in_the_log_is_a_target(shop: Shop) -> None:
    assert rows_after(shop, shop.places[2], "--timeline", "1") == [1, 2, 3]


def test_latest_is_all_that_was_archived(shop: Shop) -> None:
    assert rows_after(shop, "latest") == [1, 2, 3, 4]


def test_the_next_command_and_the_target_are_told(shop: Shop, tmp_path: Path) -> None:
    target = tmp_path / "data"
    said = shop.place.json("restore", NAME, "--until", shop.moments[0], "--target", target)
    words = shlex.split(said["next"])
    if os.geteuid() == 0:  # a server does not run as root
        assert words[:3] == ["su", "postgres", "-c"]
        words = shlex.split(words[3])
    assert words[0].startswith("HOLDFAST_PASSWORD_FILE=")
    assert words[1].startswith("HOLDFAST_REPOSITORY=")
    assert words[2:] == [
        postgres_tool("pg_ctl"),
        *("-D", str(target), "-l", f"{target}/startup.log", "start"),
    ]
    assert said["until"].startswith(shop.moments[0][:19])
    assert (target / "recovery.signal").exists()
    if not os.geteuid():
        assert target.owner() == "postgres"


def test_the_next_command_starts_the_server_of_a_target_that_root_made(shop: Shop) -> None:
    with open_folder() as folder:
        target = folder / "owned" / "data"
        target.parent.mkdir(mode=0o755)  # the server's user may not write here
        next_ = shop.place.json("restore", f"{NAME}@latest", "--target", target)["next"]
        sockets = folder / "sockets"
        sockets.mkdir()
        hand_over(sockets)
        with (target / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"unix_socket_directories = '{sockets}'\narchive_mode = off\n")
        server = PostgresServer(sockets, target, database_user("postgres"))
        done = subprocess.run(next_, shell=True, capture_output=True, cwd="/", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        try:
            assert server.psql("SELECT count(*) FROM rows").strip() == "0"
        finally:
            server.stop("immediate")
        assert "ready to accept connections" in (target / "startup.log").read_text()


def test_without_until_it_is_the_end_of_the_backup(shop: Shop) -> None:
    with open_folder() as folder:
        shop.place.ok("restore", f"{NAME}@latest", "--target", folder / "data")
        assert not (folder / "data" / "recovery.signal").exists()
        hand_over(folder)
        with started(folder / "data") as server:
            assert server.psql("SELECT count(*) FROM rows").strip() == "0"


@pytest.mark.parametrize(
    ("until", "words"),
    [
        ("2001-01-01 00:00", "is before the oldest physical backup of shopcluster"),
        ("0/100", "is before the oldest physical backup of shopcluster"),
        ("2999-01-01 00:00", "ends before"),
        ("FF/0", "does not reach that far"),
        ("tomorrow", "is neither a time"),
        ("2026-11-25", "is neither a time"),
    ],
)
def test_what_cannot_be_reached_is_refused(shop: Shop, tmp_path: Path, until: str, words: str) -> None:
    result = shop.place.run("restore", NAME, "--until", until, "--target", tmp_path / "data")
    assert result.exit_code == 1
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "data").exists()


def test_a_snapshot_that_is_named_must_reach_the_target(shop: Shop, tmp_path: Path) -> None:
    id_ = shop.stored.id[:12]
    before = shop.place.run("restore", id_, "--until", "2001-01-01 00:00", "--target", tmp_path / "a")
    assert "is before snapshot" in before.stderr
    shop.place.ok("restore", id_, "--until", "latest", "--target", tmp_path / "b")


def test_without_an_archive_there_is_no_until(shop: Shop, tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    with open_folder() as folder, postgres_server(folder / "s") as server:
        back_up(place, server)
    result = place.run("restore", NAME, "--until", "latest", "--target", tmp_path / "data")
    assert result.exit_code == 1
    assert "no WAL archive of this cluster" in " ".join(result.stderr.split())
    place.ok("restore", NAME, "--target", tmp_path / "data")
    assert place.run("restore", NAME, "--timeline", "1", "--target", tmp_path / "x").exit_code == 2
    assert place.run("restore", NAME, "--verify", "--target", tmp_path / "x").exit_code == 2
