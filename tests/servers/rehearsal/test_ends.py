"""How rehearsals end: nothing is left of them, and nothing else was touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from holdfast.base.confinement.plan import User
from holdfast.base.errors import Refused
from holdfast.cli.base.exits import advice_for
from holdfast.servers.base.errors import BadScratch
from holdfast.servers.confined.clients import converted, feed, parse_csv
from holdfast.servers.confined.confined import Confinement
from holdfast.servers.confined.errors import RehearsalFailed
from holdfast.servers.confined.private import private_folder
from holdfast.servers.postgresql.programs import find_release
from holdfast.servers.postgresql.script import Needs
from support.basics import need
from support.cli import PASSWORD, PG_HEAD, PG_TAIL, Place, files, flip_byte
from support.database import PostgresServer, database_user, postgres_server
from support.rehearse import confined_programs, leftovers, put_dump, rehearse
from support.scratch import open_folder

ENDLESS = PG_HEAD + b"create table t (a int);\nselect pg_sleep(1000);\n" + PG_TAIL
SHORT = PG_HEAD + b"create table t (a int);\ninsert into t values (1);\n" + PG_TAIL


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


def test_a_rehearsal_that_takes_too_long_is_ended_and_failed(place: Place, scratch: Path) -> None:
    put_dump(place, ENDLESS, "postgresql")
    proof = rehearse(place, scratch, "shop", "--timeout", "2", code=1)
    assert proof["error"] == "it was not done within 2 s, and was ended"
    assert proof["seconds"] < 100


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_rehearsal_that_is_killed_leaves_no_process(
    place: Place, scratch: Path, number: signal.Signals
) -> None:
    put_dump(place, ENDLESS, "postgresql")
    argv = ("rehearse", "shop", "-v", "--scratch", str(scratch))
    with place.process(*argv) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"loading" in line:
                break
        assert leftovers(scratch)
        process.send_signal(number)
        process.communicate(timeout=120)
    if number == signal.SIGKILL:
        gone = threading.Event()
        for _ in range(1000):  # the kernel ends them; nobody waits for that
            if all(name.startswith("holdfast-") for name in leftovers(scratch)):
                break
            gone.wait(0.05)
        assert all(name.startswith("holdfast-") for name in leftovers(scratch))
        subprocess.run(["rm", "-rf", *scratch.iterdir()], check=True)
    else:
        assert process.returncode == 130
        assert leftovers(scratch) == []
    assert place.json("snapshots")["snapshots"][0]["proven"] is None


def test_unconfined_all_is_ended_as_well_and_it_is_told(place: Place, scratch: Path) -> None:
    put_dump(place, ENDLESS, "postgresql")
    put_dump(place, SHORT, "postgresql", name="short")
    words = ["--unconfined", "--timeout", "4"]
    with shared_memory(scratch) as used:
        assert rehearse(place, scratch, "shop", *words, code=1)["outcome"] == "failed"
        proof = rehearse(place, scratch, "short", "--unconfined")
    assert proof["rows"] == 1
    assert "not confined" in proof["notes"][0]
    assert used
    assert existing(used) == set()
    assert "not confined" in place.json("info", "short")["proven"]["notes"][0]


def test_where_a_layer_cannot_be_had_the_rehearsal_is_refused_with_the_reason(
    place: Place, scratch: Path
) -> None:
    """Without the capability for namespaces, as in many containers."""
    need(os.geteuid() == 0, "root, to be without a capability")
    put_dump(place, SHORT, "postgresql")
    argv = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-all"]
    words = ["-r", str(place.repository), "rehearse", "shop", "--scratch", str(scratch)]
    environment = os.environ | {
        "HOLDFAST_PASSWORD": PASSWORD,
        "HOLDFAST_CACHE_DIR": str(place.root / "cache"),
    }
    command = [*argv, sys.executable, "-c", "from holdfast.cli.start import main; main()", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "a namespace of mounts: Operation not permitted" in done.stderr
    assert "--unconfined" in done.stderr
    assert leftovers(scratch) == []
    assert place.json("snapshots")["snapshots"][0]["proven"] is None


def test_no_shared_memory_is_left(place: Place, scratch: Path) -> None:
    put_dump(place, SHORT, "postgresql")
    with shared_memory(scratch) as used:
        assert rehearse(place, scratch, "shop")["rows"] == 1
    assert used
    assert existing(used) == set()


@contextmanager
def shared_memory(scratch: Path) -> Iterator[set[str]]:
    """What shared memory processes below `scratch` use meanwhile; complete when the context is left.

    Segments of System V are called by their key, as in /proc/PID/maps, others by their path.
    """
    used: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            used.update(mapped(scratch))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield used
    finally:
        over.set()
        thread.join()


def mapped(scratch: Path) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended
            if (process / "cwd").readlink().is_relative_to(scratch):
                for line in (process / "maps").read_text().splitlines():
                    path = line.split(maxsplit=5)[5:]
                    if path and path[0].startswith(("/SYSV", "/dev/shm/PostgreSQL.")):  # noqa: S108
                        yield path[0].removesuffix(" (deleted)")


def existing(used: set[str]) -> set[str]:
    """Those that are there now."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    keys = {f"/SYSV{int(line.split()[0]) & 0xFFFFFFFF:08x}" for line in lines}
    return {name for name in used if name in keys or Path(name).exists()}


def test_a_running_server_is_not_touched(place: Place, scratch: Path) -> None:
    with postgres_server(scratch / "pg") as server:
        server.psql("create database shop")
        server.psql("create table t (a int)", "shop")
        before = state(server)
        put_dump(place, SHORT, "postgresql")
        # What libpq's programs would follow: the rehearsal's do not.
        misleading: dict[str, Any] = {**server.environment, "PGDATABASE": "shop"}
        result = place.run("rehearse", "shop", "--scratch", scratch, **misleading)
        assert result.exit_code == 0, result.output
        assert state(server) == before


def state(server: PostgresServer) -> str:
    return server.psql(
        "select count(*) from t; select max(oid) from pg_class; select max(oid) from pg_database", "shop"
    )


def test_what_is_kept_can_be_started(place: Place, scratch: Path) -> None:
    put_dump(place, SHORT, "postgresql")
    out = place.ok("rehearse", "shop", "--keep", "--scratch", scratch)
    kept = next(scratch.glob("holdfast-rehearsal-*"))
    assert str(kept) in out
    argv = [find_release(None).path("postgres"), "--single", "-D", str(kept / "data"), "postgres"]
    done = subprocess.run(
        argv, input=b"select a from t;\n", user=database_user("postgres"), capture_output=True, check=False
    )
    assert b'a = "1"' in done.stdout, done.stderr
    subprocess.run(["rm", "-rf", str(kept)], check=True)


def test_a_chunk_that_cannot_be_read_fails_the_rehearsal_as_damage(place: Place, scratch: Path) -> None:
    put_dump(place, SHORT, "postgresql")
    flip_byte(files(place.repository, "packs")[0], 150)
    proof = rehearse(place, scratch, "shop", code=21)
    assert proof["error"].startswith("the repository is damaged")


@pytest.mark.parametrize(
    ("server", "words"), [("PostgreSQL 99.1", "PostgreSQL 99 or newer"), ("PostgreSQL 9.6", None)]
)
def test_a_server_older_than_the_dump_is_refused(server: str, words: str | None) -> None:
    major = int(server.split()[1].split(".", maxsplit=1)[0])
    if words is None:
        assert find_release(major).major >= 13
        return
    with pytest.raises(Refused, match=f"{words}; here is .*Debian: postgresql-99"):
        find_release(major)


def test_what_is_no_database_cannot_be_rehearsed(place: Place, scratch: Path) -> None:
    place.ok("backup", place.disk())
    result = place.run("rehearse", "web01", "--scratch", scratch)
    assert result.exit_code == 1
    assert "holds no database" in result.stderr


def test_a_folder_that_the_server_cannot_get_into_is_refused_with_advice(tmp_path: Path) -> None:
    stranger = User("stranger", 54321, 54321)
    tmp_path.chmod(0o700)
    if os.geteuid() == 0:
        with pytest.raises(BadScratch, match=r"too long|only its owner"), private_folder(tmp_path, stranger):
            pass
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    with pytest.raises(BadScratch, match="too long") as raised, private_folder(deep, stranger):
        pass
    assert "--scratch" in advice_for(raised.value)


# ---- its parts ----------------------------------------------------------------------------------------


@pytest.fixture
def confinement(scratch: Path) -> Iterator[Confinement]:
    with confined_programs(scratch) as confined:
        yield confined


def test_a_program_that_hides_in_the_background_dies_too(confinement: Confinement, scratch: Path) -> None:
    name = f"{confinement.folder}/marker"
    script = f"(setsid sh -c 'exec -a {name} sleep 1000' >/dev/null 2>&1 &) ; sleep 0.1"
    program = confinement.start(["bash", "-c", script])
    assert program.wait() == 0
    assert not [words for words in leftovers(scratch) if "marker" in words]


def test_what_a_stranger_says_is_kept_within_bounds(confinement: Confinement) -> None:
    with pytest.raises(RehearsalFailed) as caught:
        feed(confinement, ["sh", "-c", "yes nonsense | head -c 5000000 >&2; exit 7"], [b"x" * 1000], env={})
    assert "exited with 7" in str(caught.value)
    assert len(str(caught.value)) < 3000


def test_a_filter_that_stops_reading_is_no_deadlock(confinement: Confinement) -> None:
    endless = (bytes(1 << 20) for _ in range(50))
    with pytest.raises(RehearsalFailed, match="exited with 3"):
        list(converted(confinement, ["sh", "-c", "head -c 10 >/dev/null; exit 3"], endless, env={}))


def test_roles_are_made_once_before_they_are_needed_and_not_when_the_dump_makes_them() -> None:
    made: list[tuple[list[bytes], list[bytes]]] = []
    script = (
        b"CREATE ROLE ann;\nALTER ROLE ann WITH LOGIN;\n"
        b"CREATE TABLESPACE there OWNER ann LOCATION '/srv/it''s';\n"
        b'ALTER TABLE t OWNER TO bob;\nGRANT ALL ON TABLE t TO "Mc ""X";\n'
        b"GRANT SELECT ON TABLE t TO PUBLIC;\nSET default_tablespace = fast;\nSET default_tablespace = '';\n"
        b"COPY t FROM stdin;\nCREATE TABLESPACE x LOCATION '/in/data';\n\\.\nALTER TABLE u OWNER TO bob;\n"
    )
    for step in (1, 7, 4096):
        made.clear()
        needs = Needs(lambda roles, spaces: made.append((roles, spaces)), [b"postgres"], [b"pg_default"])
        parts = [script[at : at + step] for at in range(0, len(script), step)]
        out = b"".join(needs.provided(parts))
        assert sorted(name for roles, _ in made for name in roles) == [b'"Mc ""X"', b'"bob"']
        assert [name for _, spaces in made for name in spaces] == [b'"fast"']
        assert b"CREATE TABLESPACE there OWNER ann LOCATION '';" in out
        assert out.replace(b"LOCATION ''", b"LOCATION '/srv/it''s'", 1) == script


def test_a_long_line_passes_in_pieces() -> None:
    needs = Needs(lambda roles, spaces: None, [], [])
    part = b"y" * (300 << 10)
    longest = 0
    total = 0
    for piece in needs.provided([part] * 20):
        longest, total = max(longest, len(piece)), total + len(piece)
    assert total == 20 * len(part)
    assert longest <= 3 << 20


def test_results_are_cut_at_cells_and_rows() -> None:
    table = parse_csv(b'a,"b\n""c"\n1,NULL\n"un', more=True, null="NULL")
    assert table.columns == ("a", 'b\n"c')
    assert table.rows[0] == ("1", None)
    assert table.more
