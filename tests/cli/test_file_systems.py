"""Repositories on file systems that lack something: what works all the same, and what is told."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from support.cli import PASSWORD, Place
from support.fault import fill, tiny_tmpfs
from support.fuse import need_fuse

_NO_SYNC = "cannot make the names of files durable"


def test_where_folders_cannot_be_synced_and_files_not_linked_all_works_and_it_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SMB and NAS: fsync of a folder gives EINVAL or ENOTSUP, link EACCES."""
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(fd)

    def link(source: str, target: str, **folders: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    place = Place(tmp_path)
    result = place.run("init", input=f"{PASSWORD}\n".encode())
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count(_NO_SYNC) == 1
    for name in ("a", "b"):
        result = place.run("backup", "--kind", "files", "--name", name, place.write(name, name * 1000))
        assert result.exit_code == 0, result.stderr
        assert result.stderr.count(_NO_SYNC) == 1
    assert place.ok("dump", "a") == "a" * 1000
    place.ok("forget", "a", "--allow-empty")
    place.ok("prune", "--quarantine", "none")
    assert "no damage" in place.ok("check", "--read-data")
    assert place.ok("dump", "b") == "b" * 1000


def test_where_syncing_a_folder_fails_for_the_disk_nothing_is_reported_as_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place.make(tmp_path)
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    file = place.write("a", "content")
    monkeypatch.setattr(os, "fsync", fsync)
    result = place.run("backup", "--kind", "files", "--name", "a", file)
    assert result.exit_code == 1
    assert "Input/output error" in result.stderr


@pytest.mark.fuse
@pytest.mark.parametrize("state", ["read-only", "full"])
@pytest.mark.parametrize("has_index", [True, False])
def test_a_repository_whose_disk_has_the_home_on_it_and_cannot_be_written_is_restored_and_mounted(
    tmp_path: Path, state: str, has_index: bool
) -> None:
    """Without an index an older cache was lost, or the disk came from another machine."""
    need_fuse()
    mnt = tmp_path / "mnt"
    mnt.mkdir()
    with tiny_tmpfs(tmp_path, 12 << 20) as small:
        place = Place.make(small)
        disk = place.disk(size=2 << 20)
        content = disk.read_bytes()
        place.ok("backup", disk)
        if not has_index:
            for path in (small / "cache").glob("*/index/*"):
                path.unlink()
        if state == "full":
            fill(small)
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        env = {**os.environ, **place.environment, "TMPDIR": str(temporary), "HOME": str(small)}
        for args in (
            ["restore", "web01:disks/web01.raw", "--target", str(tmp_path / "out.raw")],
            ["check"],
            ["mount", str(mnt)],
        ):
            done = place.execute(*args, env=env)
            assert done.code == 0, (args, done.err)
        try:
            assert (mnt / "vms/web01/latest/disks/web01.raw").read_bytes() == content
        finally:
            done = place.execute("umount", str(mnt), env=env)
        assert done.code == 0, done.err
        assert (tmp_path / "out.raw").read_bytes() == content
        assert not list(temporary.iterdir())


@pytest.mark.parametrize("json", [[], ["--json"]])
def test_a_recovery_key_that_could_not_be_shown_is_no_way_in(tmp_path: Path, json: list[str]) -> None:
    place = Place(tmp_path)
    with Path("/dev/full").open("wb") as full:
        done = place.execute("init", "--recovery-key", *json, stdout=full)
        assert done.code == 1
        assert "was removed again" in done.err
        assert [key["kind"] for key in place.json("key", "list")["keys"]] == ["passphrase"]
        done = place.execute("key", "add", "--recovery", *json, stdout=full)
    assert done.code == 1
    assert "was removed again" in done.err
    assert [key["kind"] for key in place.json("key", "list")["keys"]] == ["passphrase"]
    place.ok("key", "add", "--recovery")
    assert [key["kind"] for key in place.json("key", "list")["keys"]] == ["passphrase", "recovery"]


def test_a_backup_whose_end_cannot_be_told_says_that_the_snapshot_is_made(tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    file = place.write("a", "content")
    with Path("/dev/full").open("wb") as full:
        done = place.execute("backup", "--kind", "files", "--name", "a", str(file), stdout=full)
    assert done.code == 1
    (snapshot,) = place.json("snapshots")["snapshots"]
    assert f"snapshot {snapshot['id']} is made" in done.err
    assert place.ok("dump", "a") == "content"


def test_a_repository_whose_path_is_no_text_works_and_its_folders_are_its_owners_only(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/new/r\xff"))
    place = Place(folder)
    folder.parent.mkdir()
    file = tmp_path / "a"
    file.write_text("content")
    old = os.umask(0)
    try:
        assert place.execute("init").code == 0
    finally:
        os.umask(old)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_dir()}
    assert modes == {0o700}
    commands = [["backup", "--kind", "files", "--name", "a", str(file)], ["snapshots"], ["info", "--json"]]
    for args in [*commands, ["info"], ["check"], ["stats", "--json"], ["prune"], ["key", "list"]]:
        done = place.execute(*args)
        assert done.code == 0, done.err
    assert place.execute("dump", "a").out == b"content"


def test_init_makes_the_names_of_all_new_folders_above_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115  a descriptor
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    Place(tmp_path / "one" / "two" / "three").ok("init")
    assert {str(tmp_path / part) for part in ("", "one", "one/two", "one/two/three")} <= synced
