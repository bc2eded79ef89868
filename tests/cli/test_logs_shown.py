"""Log archives where people look: `info` of a backup, `check`, the mount."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.repo.records import log_archive as logs
from support.cli import Place
from support.database import PostgresServer, postgres_server
from support.fuse import Place as Mount
from support.fuse import eventually, names, need_fuse
from support.log import file_name, push_files
from support.scratch import open_folder

_SETTINGS = ("wal_level = replica", "archive_mode = on")


@dataclass(frozen=True)
class Archived:
    """A cluster with a physical backup called "cluster", and the archive of the log that it wrote: `files`
    are those that were pushed."""

    place: Place
    files: list[Path]

    @property
    def segments(self) -> list[Path]:
        return [path for path in self.files if len(path.name) == 24]


def write_log(server: PostgresServer, segments: int) -> None:
    for _ in range(segments):
        server.psql("SELECT pg_logical_emit_message(true, 'x', 'y'); SELECT pg_switch_wal()")


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archived]:
    place = Place.make(tmp_path_factory.mktemp("cluster"))
    with open_folder() as folder:
        shelf = folder / "shelf"
        shelf.mkdir()
        shelf.chmod(0o777)
        settings = (*_SETTINGS, f"archive_command = 'cp %p {shelf}/%f'")
        with postgres_server(folder / "pg", settings, ["--wal-segsize=1"]) as server:
            server.psql("CREATE TABLE orders AS SELECT * FROM generate_series(1, 1000)")
            write_log(server, 1)
            place.ok("backup", server.url(""), "--physical", "--name", "cluster")
            write_log(server, 4)
            server.stop()  # waits for the archiver
            system_id = place.json("info", "cluster")["facts"]["system_id"]
            for path in sorted(shelf.iterdir()):
                place.ok("wal-push", path, "--system-id", system_id)
            yield Archived(place, sorted(shelf.iterdir()))


@pytest.fixture
def archived(pushed: Archived, tmp_path: Path) -> Iterator[Archived]:
    """A copy of it all that a test may change."""
    shutil.copytree(pushed.place.repository, tmp_path / "repo")
    place = Place(tmp_path)
    yield Archived(place, pushed.files)
    mount_of(place).clean_up()


def mount_of(place: Place) -> Mount:
    mount = Mount(place.repository, place.root / "mnt", place.root / "state")
    mount.mountpoint.mkdir(exist_ok=True)
    return mount


def drop(place: Place, *doomed: str) -> None:
    """Take files out of the only archive."""
    with mount_of(place).opened() as repository:
        (archive,) = logs.archives(logs.LogReading(repository).snapshots())
        assert logs.drop(repository, archive.subject.identity, lambda name: name in doomed) == len(doomed)


def needed(archived: Archived) -> str:
    """The second segment of those that the backup needs to be rolled forward."""
    facts = archived.place.json("info", "cluster")["facts"]
    log, low = facts["stop_lsn"].split("/")
    return f"{int(facts['timeline']):08X}{int(log, 16):08X}{(int(low, 16) >> 20) + 1:08X}"


@pytest.mark.fuse
def test_the_archive_stands_beside_the_backups_in_the_mount(archived: Archived) -> None:
    need_fuse()
    with mount_of(archived.place).mounted() as mnt:
        folder = mnt / "databases/postgresql/cluster"
        assert "logs" in names(folder)
        assert names(folder / "logs") == [path.name for path in archived.files]
        for path in archived.files:
            shown = folder / "logs" / path.name
            assert shown.stat().st_size == path.stat().st_size
            assert shown.read_bytes() == path.read_bytes()
        assert (folder / "latest/data/PG_VERSION").read_bytes() == b"15\n"
        assert all("logs" not in names(mnt / other) for other in ("vms", "files"))
        assert len(names(mnt / "snapshots")) == 1


@pytest.mark.fuse
def test_the_mount_follows_the_archive(archived: Archived) -> None:
    need_fuse()
    gone, stays = archived.segments[0], archived.segments[1]
    with mount_of(archived.place).mounted() as mnt:
        folder = mnt / "databases/postgresql/cluster/logs"
        with (folder / gone.name).open("rb") as reading:
            drop(archived.place, gone.name)
            assert eventually(lambda: gone.name not in names(folder))
            assert reading.read() == gone.read_bytes()
        assert (folder / stays.name).read_bytes() == stays.read_bytes()


def test_info_shows_what_the_archive_holds_for_the_backup(archived: Archived) -> None:
    text = archived.place.ok("info", "cluster")
    lines = text.splitlines()
    (line,) = (line for line in lines if line.startswith("logs"))
    assert archived.segments[0].name in line
    assert archived.segments[-1].name in line
    assert not any(line.startswith("but ") for line in lines)
    assert archived.place.run("check").exit_code == 0


def test_a_missing_segment_is_told_by_info_and_found_by_check(archived: Archived) -> None:
    missing = needed(archived)
    assert missing in [path.name for path in archived.segments[1:-1]]
    drop(archived.place, missing)
    text = archived.place.ok("info", "cluster")
    (line,) = (line for line in text.splitlines() if line.startswith("but "))
    assert missing in line
    result = archived.place.run("check")
    assert result.exit_code == 21
    assert missing in result.stdout
    assert "push the files again" in result.stdout
    assert archived.place.run("check", "--structure").exit_code == 0
    lines = archived.place.run("check", "--json").stdout.splitlines()
    found = [json.loads(line) for line in lines if '"error"' in line]
    assert found[0]["problem"] == f"WAL is missing: {missing}"
    assert all(missing in f["problem"] and f["advice"] for f in found)
    path = next(path for path in archived.segments if path.name == missing)
    system_id = archived.place.json("info", "cluster")["facts"]["system_id"]
    archived.place.ok("wal-push", path, "--system-id", system_id)
    assert archived.place.run("check").exit_code == 0


def test_logs_from_before_the_backup_may_be_missing(archived: Archived) -> None:
    before = archived.segments[0].name
    start = archived.place.json("info", "cluster")["facts"]["lsn"]
    assert int(before[-8:], 16) < int(start.split("/")[1], 16) >> 20
    drop(archived.place, before)
    assert archived.place.run("check").exit_code == 0
    assert not any(line.startswith("but ") for line in archived.place.ok("info", "cluster").splitlines())


@pytest.mark.fuse
def test_an_archive_of_another_cluster_stands_by_itself(tmp_path: Path) -> None:
    """It has the name of a database by chance; neither the mount nor `info` takes it for that one's."""
    need_fuse()
    place = Place.make(tmp_path)
    place.ok("backup", place.dump(), "--name", "shop")
    mount = mount_of(place)
    with mount.opened() as repository:
        push_files(repository, tmp_path / "wal", file_name(1), file_name(2))
    assert not any(line.startswith("logs") for line in place.ok("info", "shop").splitlines())
    with mount.mounted() as mnt:
        top = mnt / "databases/postgresql"
        found = {name: names(top / name) for name in names(top)}
    assert "logs" not in found.pop("shop")
    assert list(found.values()) == [["logs"]]
