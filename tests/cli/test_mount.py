"""mount and umount, for real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import PASSWORD, Place, pg_dump
from support.fuse import need_fuse
from support.guest_volumes import PASSPHRASE, ext4_with, luks

pytestmark = pytest.mark.fuse


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    need_fuse()
    place = Place.make(tmp_path)
    place.ok("backup", place.disk(), "--time", "2026-11-22T02:00:00")
    place.ok("backup", place.dump())
    (tmp_path / "mnt").mkdir()
    yield place
    if (tmp_path / "mnt").is_mount():
        place.execute("umount", str(tmp_path / "mnt"))


def test_a_mount_answers_when_the_command_returns(place: Place) -> None:
    mnt = place.root / "mnt"
    done = place.execute("mount", str(mnt))
    assert done.code == 0, done.err
    assert f"mounted on {mnt}\n" in done.out.decode()
    copy = mnt / "vms/web01/2026-11-22_02-00-00/disks/web01.raw"
    assert copy.read_bytes() == (place.root / "web01.raw").read_bytes()
    assert (mnt / "databases/postgresql/shop/latest/dump.sql").read_bytes() == pg_dump(2000)
    again = place.execute("mount", str(mnt))
    assert again.code == 1
    assert "internal" not in again.err
    done = place.execute("umount", str(mnt))
    assert done.code == 0, done.err
    assert list(mnt.iterdir()) == []


def test_the_answer_in_json(place: Place) -> None:
    mnt = place.root / "mnt"
    mounted = json.loads(place.execute("mount", "--json", str(mnt)).out)
    assert mounted["mountpoint"] == str(mnt)
    assert mounted["pid"] > 0
    assert json.loads(place.execute("umount", "--json", str(mnt)).out) == {"unmounted": str(mnt)}


def test_a_daemon_shows_no_password_and_dumps_no_core(place: Place) -> None:
    mnt = place.root / "mnt"
    mounted = json.loads(place.execute("mount", "--json", str(mnt)).out)
    folder = Path(f"/proc/{mounted['pid']}")
    environment = (folder / "environ").read_bytes()
    assert b"HOLDFAST_PASSWORD=\0" in environment
    assert PASSWORD.encode() not in environment
    limits = (folder / "limits").read_text().splitlines()
    assert next(line.split()[4:6] for line in limits if "core file" in line) == ["0", "0"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: other users look")
def test_others_see_all_but_disks(place: Place) -> None:
    mnt = place.root / "mnt"
    for folder in (mnt, *mnt.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    place.execute("mount", "--allow-other", str(mnt))
    disks = mnt / "vms/web01/latest/disks"
    modes = {path.name: path.stat().st_mode & 0o777 for path in disks.iterdir()}
    assert set(modes.values()) == {0o400}
    assert len(modes) > 3
    for path, code in ((disks / "web01.raw", 1), (mnt / "databases/postgresql/shop/latest/dump.sql", 0)):
        done = subprocess.run(["head", "-c1", path], user="nobody", check=False, capture_output=True)
        assert done.returncode == code, done.stderr


def test_in_front_it_ends_with_the_signal(place: Place) -> None:
    mnt = place.root / "mnt"
    process = place.process("mount", "-f", str(mnt), "--uid", "1234", "--gid", "2345")
    assert process.stdout is not None
    assert process.stdout.readline() == f"mounted on {mnt}; Ctrl-C ends it\n".encode()
    status = (mnt / "vms").stat()
    assert (status.st_uid, status.st_gid) == (1234, 2345)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert not mnt.is_mount()


@pytest.mark.parametrize("verb", ["mount", "umount"])
def test_a_folder_that_is_not_there_is_explained(verb: str, place: Place) -> None:
    done = place.execute(verb, str(place.root / "missing"))
    assert done.code == 1
    assert "missing" in done.err
    assert "internal" not in done.err


def test_a_wrong_password_is_code_12_before_anything_is_mounted(place: Place) -> None:
    wrong = Place(place.root, {"HOLDFAST_PASSWORD": "wrong"})
    done = wrong.execute("mount", str(place.root / "mnt"))
    assert done.code == 12
    assert not (place.root / "mnt").is_mount()


def test_a_deleted_index_is_rebuilt_and_said_so(place: Place) -> None:
    shutil.rmtree(place.root / "cache")
    mnt = place.root / "mnt"
    done = place.execute("mount", str(mnt))
    assert done.code == 0
    assert "bringing the index up to date: 2 packs" in done.err


def test_an_encrypted_volume_opens_with_its_passphrase(place: Place) -> None:
    inner = ext4_with(place.root / "inner.img", 8 << 20, "secret.txt", b"only with the passphrase\n")
    options = ("--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
    disk = luks(place.root / "sealed.raw", inner.read_bytes(), *options, sector=4096)
    place.ok("backup", disk, "--name", "sealed", "--kind", "vm")
    files, mnt = place.root / "mnt/vms/sealed/latest/files/sealed", place.root / "mnt"
    assert place.execute("mount", str(mnt)).code == 0
    assert "LUKS2" in (files / "p0.txt").read_text()
    assert place.execute("umount", str(mnt)).code == 0
    wrong, right = place.write("wrong", "12345\n"), place.write("right", PASSPHRASE + "\n")
    passphrases = [word for file in (wrong, right) for word in ("--luks-passphrase-file", str(file))]
    assert place.execute("mount", str(mnt), *passphrases).code == 0
    assert (files / "p0/secret.txt").read_bytes() == b"only with the passphrase\n"
    assert PASSPHRASE not in Path(f"/proc/{_daemon(mnt)}/cmdline").read_text()


def _daemon(mountpoint: Path) -> int:
    found = [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and str(mountpoint) in (process / "cmdline").read_text(errors="replace")
    ]
    assert found
    return found[0]
