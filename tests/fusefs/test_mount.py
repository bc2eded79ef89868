"""The mount as the kernel sees it."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.base.errors import NotFound, Refused
from holdfast.fusefs.errors import NotMounted
from holdfast.fusefs.mount import unmount
from holdfast.repo.core.mirrored import trash_mirrored
from holdfast.repo.core.reader import Reader
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.local import LocalStore
from support.basics import NOW, MemorySource, backup, new_repository, random_bytes
from support.fuse import MountRefused, Place, eventually, is_running, names, need_fuse

pytestmark = pytest.mark.fuse

MIB = 1 << 20
DISK = random_bytes(3 * MIB, 1) + bytes(6 * MIB) + random_bytes(MIB + 12288, 2) + bytes(MIB)
DUMP = b"BEGIN TRANSACTION;\n" + random_bytes(700_001, 3) + b"\nCOMMIT;\n"
DISK_PATH = "vms/web01/latest/disks/web01.raw"
DUMP_PATH = "databases/sqlite/shop/latest/dump.sql"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A repository with a VM's disk and a database's dump, not mounted."""
    need_fuse()
    place = Place(tmp_path / "repository", tmp_path / "mount point", tmp_path / "state")
    place.mountpoint.mkdir()
    with new_repository(LocalStore.create(place.root), tmp_path / "cache") as repository:
        backup(repository, MemorySource(DISK, "web01.raw", mtime=10**18 + 7), name="web01")
        backup(repository, MemorySource(DUMP, "dump.sql"), name="shop", time=NOW + timedelta(hours=1))
    yield place
    place.clean_up()


@pytest.fixture
def mounted(place: Place) -> Place:
    place.mount()
    return place


def read_at(path: Path, offset: int, length: int) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, length, offset)
    finally:
        os.close(fd)


def drop_cached_pages(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def error_of_listing(folder: Path) -> int | None:
    try:
        names(folder)
    except OSError as error:
        return error.errno
    return None


def newest_vm(place: Place) -> StoredSnapshot:
    with place.opened() as repository:
        return [s for s in repository.snapshots().good if s.snapshot.subject.name == "web01"][-1]


@pytest.mark.parametrize(("path", "content"), [(DISK_PATH, DISK), (DUMP_PATH, DUMP)])
def test_files_have_the_content_of_their_sources(mounted: Place, path: str, content: bytes) -> None:
    file = mounted.mountpoint / path
    assert file.stat().st_size == len(content)
    assert file.read_bytes() == content


def test_reads_at_odd_offsets_and_sizes(mounted: Place) -> None:
    seeds = random.Random(5)
    file = mounted.mountpoint / DISK_PATH
    for _ in range(200):
        offset = seeds.randrange(len(DISK) + 5000)
        length = seeds.choice([0, 1, 7, 4095, 4096, 4097, 65_537, 300_000])
        drop_cached_pages(file)
        assert read_at(file, offset, length) == DISK[offset : offset + length]


def test_reads_that_go_round_the_page_cache_end_at_the_end(mounted: Place) -> None:
    fd = os.open(mounted.mountpoint / DUMP_PATH, os.O_RDONLY | os.O_DIRECT)
    with os.fdopen(fd, "rb", buffering=0) as file:
        assert b"".join(iter(lambda: file.read(40_960), b"")) == DUMP


def test_stat_shows_holes_times_and_a_read_only_mode(mounted: Place) -> None:
    item = newest_vm(mounted).snapshot.items[0]
    status = (mounted.mountpoint / DISK_PATH).stat()
    assert status.st_blocks * 512 == item.allocated < 5 * MIB
    assert status.st_mtime_ns == 10**18 + 7
    assert status.st_mode & 0o777 == 0o400
    folder = (mounted.mountpoint / "vms/web01/2026-11-22_02-00-00").stat()
    assert folder.st_mtime == NOW.timestamp()
    assert folder.st_mode & 0o777 == 0o500


def test_links_lead_to_the_snapshots(mounted: Place) -> None:
    top = mounted.mountpoint
    stored = newest_vm(mounted)
    assert (top / "vms/web01/latest").readlink() == Path("2026-11-22_02-00-00")
    assert (top / "snapshots" / stored.id[:8] / "disks/web01.raw").samefile(top / DISK_PATH)
    about = json.loads((top / "vms/web01/latest/vm.json").read_text())
    assert about["snapshot"] == stored.id
    assert about["consistency"] == "crash"


def test_df_shows_what_the_packs_take(mounted: Place) -> None:
    packs = sum(p.stat().st_size for p in (mounted.root / "packs").rglob("*") if p.is_file())
    status = os.statvfs(mounted.mountpoint)
    assert 0 <= status.f_blocks * status.f_frsize - packs < 4096
    assert status.f_bavail == 0
    assert status.f_flag & os.ST_RDONLY


def test_nothing_can_be_changed(mounted: Place) -> None:
    file = mounted.mountpoint / DISK_PATH
    for change in (
        lambda: file.write_bytes(b""),
        file.unlink,
        lambda: file.chmod(0o600),
        (mounted.mountpoint / "vms/new").mkdir,
        lambda: os.setxattr(file, "user.x", b""),
    ):
        with pytest.raises(OSError, match="Read-only") as caught:
            change()
        assert caught.value.errno == errno.EROFS
    assert os.listxattr(file) == []


def test_mount_is_nosuid_nodev_noexec(mounted: Place) -> None:
    flags = os.statvfs(mounted.mountpoint).f_flag
    assert flags & os.ST_NOSUID
    assert flags & os.ST_NODEV
    assert flags & os.ST_NOEXEC


def test_inodes_are_the_same_after_a_remount(place: Place) -> None:
    def numbers() -> dict[str, int]:
        with place.mounted() as top:
            return {str(p.relative_to(top)): p.lstat().st_ino for p in sorted(top.rglob("*"))}

    first = numbers()
    assert len(first) == len(set(first.values())) > 10
    assert numbers() == first


def test_snapshots_appear_and_disappear_while_mounted(mounted: Place) -> None:
    vm = mounted.mountpoint / "vms/web01"
    old = newest_vm(mounted)
    changed = DISK[: 2 * MIB] + random_bytes(MIB, 9) + DISK[3 * MIB :]
    with mounted.opened() as repository:
        backup(repository, MemorySource(changed, "web01.raw"), name="web01", time=NOW + timedelta(seconds=90))
    assert eventually((vm / "2026-11-22_02-01-30").exists)
    assert (vm / "latest/disks/web01.raw").read_bytes() == changed
    assert (vm / "2026-11-22_02-00-00/disks/web01.raw").read_bytes() == DISK
    with mounted.opened() as repository:
        trash_mirrored(repository.store, FileKind.SNAPSHOT, old.id)
    assert eventually(lambda: names(vm) == ["2026-11-22_02-01-30", "latest"])
    assert eventually(lambda: not (vm / "2026-11-22_02-00-00").exists())
    assert old.id[:8] not in names(mounted.mountpoint / "snapshots")


def test_damaged_chunk_is_an_error_there_and_nowhere_else(place: Place) -> None:
    with place.opened() as repository:
        reader = Reader(repository)
        item = next(s for s in repository.snapshots().good if s.snapshot.subject.name == "web01")
        extents = list(reader.recipe(item.snapshot.items[0]).extents())
        bad = extents[len(extents) // 4]
        assert bad.id is not None
        location = repository.index.locations(bad.id)[0]
        pack = place.root / "packs" / location.pack[:2] / location.pack
    with pack.open("r+b") as file:
        file.seek(location.offset + location.length // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with place.mounted() as top:
        disk = top / DISK_PATH
        for offset in range(0, len(DISK), 4096):
            if bad.start <= offset < bad.start + bad.length:
                with pytest.raises(OSError, match="Input/output") as caught:
                    read_at(disk, offset, 4096)
                assert caught.value.errno == errno.EIO
            else:
                assert read_at(disk, offset, 4096) == DISK[offset : offset + 4096]
        assert (top / DUMP_PATH).read_bytes() == DUMP
    assert f"chunk {bad.id.hex()}" in place.log.read_text()


def test_damaged_snapshot_is_left_out_and_the_others_are_shown(place: Place) -> None:
    victim = newest_vm(place)
    for name in (victim.id, f"{victim.id}.2"):
        (place.root / "snapshots" / name).write_bytes(b"nonsense")
    with place.mounted() as top:
        assert names(top / "vms") == []
        assert (top / DUMP_PATH).read_bytes() == DUMP
    assert victim.id in place.log.read_text()


def test_readers_side_by_side(mounted: Place) -> None:
    disk, dump = mounted.mountpoint / DISK_PATH, mounted.mountpoint / DUMP_PATH

    def sequential(path: Path) -> bytes:
        with path.open("rb", buffering=0) as file:
            return b"".join(iter(lambda: file.read(100_003), b""))

    def scattered(seed: int) -> bool:
        seeds = random.Random(seed)
        offsets = [seeds.randrange(len(DISK)) for _ in range(100)]
        return all(read_at(disk, o, 5000) == DISK[o : o + 5000] for o in offsets)

    with ThreadPoolExecutor(8) as pool:
        whole = [pool.submit(sequential, path) for path in (disk, disk, disk, dump)]
        parts = [pool.submit(scattered, seed) for seed in range(4)]
        assert [w.result() for w in whole] == [DISK, DISK, DISK, DUMP]
        assert all(p.result() for p in parts)


def test_umount_waits_for_the_daemon(place: Place) -> None:
    pid = place.mount()
    place.unmount()
    assert not is_running(pid)
    assert names(place.mountpoint) == []
    assert list(place.state.glob("*.json")) == []
    with pytest.raises(NotMounted, match="no Holdfast mount"):
        place.unmount()


def test_busy_mount_is_not_unmounted_and_says_who_uses_it(mounted: Place) -> None:
    sleeper = subprocess.Popen(["sleep", "600"], cwd=mounted.mountpoint / "vms")
    try:
        with pytest.raises(Refused, match=rf"in use by 'sleep' \(process {sleeper.pid}\)"):
            mounted.unmount()
    finally:
        sleeper.kill()
        sleeper.wait()
    assert (mounted.mountpoint / DUMP_PATH).exists()


def test_killed_daemon_leaves_a_mount_that_fails_not_an_empty_folder(place: Place) -> None:
    pid = place.mount()
    os.kill(pid, signal.SIGKILL)
    # What was asked while it died may be answered ECONNABORTED.
    assert eventually(lambda: error_of_listing(place.mountpoint) == errno.ENOTCONN)
    with pytest.raises(MountRefused, match="MountDead"):
        place.mount()
    place.unmount()
    assert names(place.mountpoint) == []
    with place.mounted() as top:
        assert (top / DUMP_PATH).read_bytes() == DUMP


def test_sigterm_unmounts(place: Place) -> None:
    pid = place.mount()
    os.kill(pid, signal.SIGTERM)
    assert eventually(lambda: not is_running(pid))
    assert names(place.mountpoint) == []


def test_foreground_mount_ends_with_ctrl_c(place: Place) -> None:
    with subprocess.Popen(place.command("serve"), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert (place.mountpoint / DUMP_PATH).read_bytes() == DUMP
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "unmounted\n"
    assert process.returncode == 0
    assert names(place.mountpoint) == []


def test_places_that_are_no_good_are_refused(place: Place, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "something").touch()
    inside = place.root / "trash" / "mount"
    inside.mkdir()
    for where, reason in (
        (inside, "inside the repository"),
        (tmp_path, "is inside"),
        (full, "not empty"),
        (tmp_path / "nowhere", "mkdir -p"),
        (full / "something", "not a folder"),
    ):
        with pytest.raises(MountRefused, match=reason) as caught:
            place.mount(where)
        assert caught.value.name == "Refused"
    with place.mounted(), pytest.raises(MountRefused, match="is mounted already"):
        place.mount()


def test_errors_of_opening_come_through(place: Place) -> None:
    with pytest.raises(MountRefused) as caught:
        place.mount(password="wrong")
    assert caught.value.name == "WrongPassword"


def test_errors_of_the_daemon_come_through(place: Place) -> None:
    packs = place.root / "packs"
    packs.rename(place.root / "gone")
    packs.write_text("a file where the folder should be")
    with pytest.raises(MountRefused, match="packs: is a file and no folder") as caught:
        place.mount()
    assert caught.value.name == "Damaged"
    assert names(place.mountpoint) == []


def test_a_stale_record_does_no_harm(place: Place) -> None:
    pid = place.mount()
    (record,) = place.state.glob("*.json")
    text = record.read_text()
    place.unmount()
    record.write_text(text.replace(f'"pid": {pid}', f'"pid": {os.getpid()}'))
    with pytest.raises(NotFound):
        unmount(place.mountpoint, state=place.state)
    assert not record.exists()
