"""wal-push and wal-fetch as a real PostgreSQL uses them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.cli import HOLDFAST, PASSWORD, Place, files, flip_byte
from support.database import PostgresServer, postgres_server
from support.scratch import open_folder

_PATIENCE = 100.0


_SCRIPT = """#!/bin/sh
{ pwd; printf '%s\\n' "$@"; echo; } > REQUEST
read code < ANSWER
exit $code
"""


class Relay:
    """Carries out the server's commands as ourselves: its user may not be let into our Python's folder.

    The command is a script that hands its words over through one FIFO and gets the exit code by another.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], user: str | None) -> None:
        folder.mkdir()
        self.script, self._request, self._answer = (folder / n for n in ("run", "request", "answer"))
        text = _SCRIPT.replace("REQUEST", str(self._request)).replace("ANSWER", str(self._answer))
        self.script.write_text(text)
        self.script.chmod(0o755)
        for fifo in (self._request, self._answer):
            os.mkfifo(fifo)
            fifo.chmod(0o666)
        self._environment, self._user = environment, user
        self.errors: list[str] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def command(self, *words: str) -> str:
        """For postgresql.conf."""
        return " ".join([str(self.script), *words])

    def close(self) -> None:
        self._request.write_text("\n")
        self._thread.join()

    def _serve(self) -> None:
        while len(lines := self._request.read_text().splitlines()) > 1:
            folder, *words = lines[:-1]
            done = execute(words, Path(folder), self._environment)
            if words[0] == "wal-fetch" and done.returncode == 0 and self._user:
                shutil.chown(Path(folder) / words[2], self._user)
            if done.stderr:
                self.errors.append(done.stderr)
            with suppress(BrokenPipeError):
                self._answer.write_text(f"{done.returncode}\n")


def execute(
    words: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HOLDFAST), *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@dataclass(frozen=True, slots=True)
class Archived:
    """A server that archives into a repository through a relay."""

    server: PostgresServer
    place: Place
    environment: dict[str, str]
    relay: Relay

    def push(self, path: Path, **more: str) -> subprocess.CompletedProcess[str]:
        return self.run("wal-push", str(path), **more)

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """In the server's data directory, as it would."""
        return self.run_in(self.server.data, *words, **more)

    def run_in(self, folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return execute(words, folder, {**self.environment, **more})


@pytest.fixture(scope="module")
def archived() -> Iterator[Archived]:
    with open_folder() as root:
        place = Place.make(root)
        (root / "secret").write_text(PASSWORD)
        environment = {
            "HOLDFAST_REPOSITORY": str(place.repository),
            "HOLDFAST_PASSWORD_FILE": str(root / "secret"),
            "HOLDFAST_CACHE_DIR": str(root / "cache"),
            "HOLDFAST_WARM_SECONDS": "3",
        }
        relay = Relay(root / "relay", environment, None)
        settings = [
            "archive_mode = on",
            f"archive_command = '{relay.command('wal-push', '%p')}'",
            "wal_keep_size = '512MB'",
        ]
        with postgres_server(root / "pg", settings, ["--wal-segsize=1"]) as server:
            yield Archived(server, place, environment, relay)
        relay.close()


def eventually(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def switch(archived: Archived) -> str:
    """Close the segment being written and wait until it is archived; its name."""
    name = archived.server.psql("SELECT txid_current(); SELECT pg_walfile_name(pg_switch_wal())").split()[-1]
    eventually(lambda: archived.server.psql("SELECT last_archived_wal FROM pg_stat_archiver").strip() >= name)
    return name


def listed(archived: Archived) -> dict[str, int]:
    done = archived.run("logs", f"postgresql-{system_id(archived)}", "--json")
    assert done.returncode == 0, done.stderr
    return {file["name"]: file["size"] for file in json.loads(done.stdout)["files"]}


def system_id(archived: Archived) -> str:
    return archived.server.psql("SELECT system_identifier FROM pg_control_system()").strip()


def test_a_server_under_load_has_all_its_segments_archived_byte_for_byte(
    archived: Archived, tmp_path: Path
) -> None:
    server = archived.server
    server.tool("pgbench", "-i", "-s", "1", "-q", "postgres")
    server.tool("pgbench", "-t", "300", "-c", "4", "-n", "postgres")
    last = switch(archived)
    stored = listed(archived)
    written = {p.name for p in (server.data / "pg_wal").iterdir() if p.is_file() and p.name <= last}
    assert {name for name in written if re.fullmatch("[0-9A-F]{24}", name)} <= set(stored)
    back = archived.place.root / "pg" / "back"
    done = archived.run("logs", f"postgresql-{system_id(archived)}", "--target", str(back))
    assert done.returncode == 0, done.stderr
    for name in stored:
        assert (back / name).read_bytes() == (server.data / "pg_wal" / name).read_bytes()
    assert server.psql("SELECT failed_count FROM pg_stat_archiver").strip() == "0", archived.relay.errors
    report = json.loads(archived.run("logs", "--json").stdout)
    assert report["problems"] == []
    assert len(report["archives"][0]["holds"]) == 1


def test_the_same_file_again_succeeds_and_another_of_its_name_is_refused(archived: Archived) -> None:
    name = switch(archived)
    for warm in ("0", "5"):
        assert archived.push(Path("pg_wal") / name, HOLDFAST_WARM_SECONDS=warm).returncode == 0
    forged = archived.place.root / "pg" / name
    data = bytearray((archived.server.data / "pg_wal" / name).read_bytes())
    data[5000] ^= 1
    forged.write_bytes(data)
    forged.chmod(0o644)
    for warm in ("0", "5"):
        done = archived.push(forged, HOLDFAST_WARM_SECONDS=warm)
        assert done.returncode == 1
        assert "a different file of this name" in done.stderr


def test_a_segment_of_another_cluster_or_under_another_name_is_refused(archived: Archived) -> None:
    name = switch(archived)
    done = archived.push(Path("pg_wal") / name, HOLDFAST_WARM_SECONDS="0")
    assert done.returncode == 0
    done = archived.run("wal-push", f"pg_wal/{name}", "--system-id", "12345")
    assert done.returncode == 1
    assert "is of the cluster with system identifier" in done.stderr
    renamed = archived.place.root / "pg" / f"{name[:-1]}{'0' if name[-1] != '0' else '1'}"
    shutil.copyfile(archived.server.data / "pg_wal" / name, renamed)
    renamed.chmod(0o644)
    done = archived.push(renamed)
    assert done.returncode == 1
    assert "not what its name says" in done.stderr


def test_what_is_not_archived_ends_recovery_and_every_other_trouble_stops_it(archived: Archived) -> None:
    switch(archived)
    target = archived.server.data / "pg_wal" / "RECOVERYXLOG"

    def fetch(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return archived.run("wal-fetch", *(words or ("000000010000000F00000000", str(target))), **more)

    absent = fetch()
    assert (absent.returncode, absent.stderr) == (1, "")
    assert fetch("00000007.history", str(target)).returncode == 1
    troubles = [
        fetch(HOLDFAST_REPOSITORY=str(archived.place.root)),
        fetch(HOLDFAST_REPOSITORY=""),
        fetch(HOLDFAST_PASSWORD="wrong"),
        fetch("only-one-argument"),
        fetch("--nonsense", "a", "b"),
        fetch("a", str(target), "--system-id", "12345"),
        fetch("a", str(target), "--name", "nobody"),
        archived.run_in(Path("/"), "wal-fetch", "a", "b"),
    ]
    for done in troubles:
        assert done.returncode > 125, done
        assert done.stderr
        assert "Traceback" not in done.stderr
    assert not target.exists()


def test_damage_stops_the_recovery_instead_of_ending_it(archived: Archived, tmp_path: Path) -> None:
    name = switch(archived)
    copy = archived.place.root / "pg" / "damaged"
    shutil.copytree(archived.place.repository, copy)
    for path in files(copy, "packs"):
        flip_byte(path, 200)
        flip_byte(path, path.stat().st_size // 2)
    target = archived.server.data / "pg_wal" / "RECOVERYXLOG"
    done = archived.run("wal-fetch", name, str(target), HOLDFAST_REPOSITORY=str(copy))
    assert done.returncode > 125, done
    assert not target.exists()
    (copy / "snapshots" / ("5" * 64)).write_bytes(bytes(300))
    done = archived.run("wal-fetch", "00000009.history", str(target), HOLDFAST_REPOSITORY=str(copy))
    assert done.returncode > 125, "the snapshot that cannot be read may hold it"


def test_recovery_with_wal_fetch_reaches_the_last_transaction(archived: Archived) -> None:
    server = archived.server
    folder = archived.place.root / "pg2"
    server.psql("CREATE TABLE t (i int)")
    server.tool("pg_basebackup", "-D", str(folder / "data"), "-X", "none", "-c", "fast", "-Fp")
    server.psql("INSERT INTO t SELECT generate_series(1, 1000)")
    switch(archived)
    server.psql("INSERT INTO t SELECT generate_series(1, 234)")
    switch(archived)
    data = folder / "data"
    relay = Relay(folder / "relay", archived.environment, server.user)
    with (data / "postgresql.conf").open("a") as file:
        file.write(f"unix_socket_directories = '{folder}'\narchive_mode = off\n")
        file.write(f"restore_command = '{relay.command('wal-fetch', '%f', '%p')}'\n")
    (data / "recovery.signal").touch()
    for path in (folder, data, *data.rglob("*")):
        if server.user:
            shutil.chown(path, server.user)
    copy = PostgresServer(folder, data, server.user)
    copy.start()
    try:
        eventually(lambda: copy.psql("SELECT pg_is_in_recovery()").strip() == "f")
        assert copy.psql("SELECT count(*) FROM t").strip() == "1234"
    finally:
        copy.stop("immediate")
        relay.close()
    assert relay.errors == []


# ---- The process that a push leaves behind -------------------------------------------------------------


def sockets(archived: Archived) -> list[Path]:
    return [p for p in (archived.place.root / "cache" / "warm").glob("*") if p.is_socket()]


def test_a_push_leaves_a_process_behind_that_serves_the_next_and_ends_by_itself(archived: Archived) -> None:
    name = switch(archived)
    archived.push(Path("pg_wal") / name)
    eventually(lambda: bool(sockets(archived)))
    name = switch(archived)
    assert archived.push(Path("pg_wal") / name).returncode == 0
    assert name in listed(archived)
    eventually(lambda: not sockets(archived))


def test_none_is_left_for_a_password_that_is_in_no_file_or_when_told_so(archived: Archived) -> None:
    name = switch(archived)
    cache = archived.place.root / "other"
    for more in ({"HOLDFAST_WARM_SECONDS": "0"}, {"HOLDFAST_PASSWORD": PASSWORD}):
        done = archived.push(Path("pg_wal") / name, HOLDFAST_CACHE_DIR=str(cache), **more)
        assert done.returncode == 0
        assert not warm_processes(cache)


def warm_processes(cache: Path) -> list[int]:
    """Processes left behind that were told of this cache."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"HOLDFAST_CACHE_DIR={cache}".encode() in environment.read_bytes():
                found.append(int(environment.parent.name))
    return found


def test_it_is_of_no_use_with_another_password_file_or_once_the_repository_is_gone(
    archived: Archived,
) -> None:
    name = switch(archived)
    archived.push(Path("pg_wal") / name)
    eventually(lambda: bool(sockets(archived)))
    other = archived.place.root / "wrong"
    other.write_text("wrong")
    other.chmod(0o644)
    done = archived.push(Path("pg_wal") / name, HOLDFAST_PASSWORD_FILE=str(other))
    assert done.returncode == 12
    moved = archived.place.repository.with_name("moved")
    archived.place.repository.rename(moved)
    try:
        assert archived.push(Path("pg_wal") / name).returncode == 10
    finally:
        moved.rename(archived.place.repository)
