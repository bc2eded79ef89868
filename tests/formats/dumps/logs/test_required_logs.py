"""Backups and the logs they need: neither goes while the other is kept, and both go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.base.errors import NotFound
from holdfast.base.types import PackID, RecordType
from holdfast.formats.dumps.logs.required_logs import needed_of, plan_logs
from holdfast.formats.dumps.postgresql.physical.recovery import parse_target
from holdfast.repo.core.mirrored import delete_mirrored
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.format.format import PACK_TARGET
from holdfast.repo.packs.reader import read_directory
from holdfast.repo.records.log_archive import drop
from holdfast.repo.snapshots.retention import Decision, Policy, decide
from holdfast.repo.snapshots.select import filter_snapshots, select_one
from holdfast.repo.snapshots.snapshot import BadRange, StoredSnapshot, Subject, SubjectKind
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.local import LocalStore
from holdfast.repo.store.memory import MemoryStore
from holdfast.repo.upkeep.forget import forget
from holdfast.repo.upkeep.prune import execute
from holdfast.repo.upkeep.prune_plan import PackUse, make_plan, sort_packs
from holdfast.tasks.forget_logs import drop_planned, keep_last_users, plan_drops
from holdfast.tasks.restore_cluster import pick_backup
from support.basics import NOW, new_repository, open_repository, put_item
from support.cli import PASSWORD, Place, flip_byte
from support.log import (
    SUBJECT,
    archive_of,
    assert_holds,
    binlog_dump,
    file_name,
    physical_backup,
    push_files,
)

NAMES = [file_name(n) for n in range(1, 9)]


def day(number: int) -> Any:
    return NOW + timedelta(days=number - 30)


def torn_backup(repository: Repository, number: int, *, time: Any) -> StoredSnapshot:
    """A physical backup that is not whole."""
    whole = physical_backup(repository, number, time=time)
    with Writer(repository) as writer:
        item = put_item(writer, repository, [b"x"], "base.tar")
        item = replace(item, bad=(BadRange(0, 1, "cut short"),))
        torn = writer.commit(replace(whole.snapshot, items=(item,)))
    delete_mirrored(repository.store, FileKind.SNAPSHOT, whole.id)
    return torn


# ---- The plan ------------------------------------------------------------------------------------------


def everything(repository: Repository) -> Sequence[StoredSnapshot]:
    return repository.snapshots().good


def test_logs_from_before_the_oldest_kept_backup_go_with_the_forgotten_one(
    memory_repository: Repository, tmp_path: Path
) -> None:
    push_files(memory_repository, tmp_path / "f", *NAMES, "00000002.history", file_name(4, timeline=2))
    old, kept = (physical_backup(memory_repository, n, time=day(n)) for n in (2, 5))
    (plan,) = plan_logs(everything(memory_repository), [], {old.id})
    assert plan.drop == (*NAMES[:4], file_name(4, timeline=2))
    assert not plan.orphaned
    assert plan_logs(everything(memory_repository), [], {kept.id}) == [], "the older one needs all of them"
    assert plan_logs(everything(memory_repository), [], set()) == []


def test_a_forget_that_died_before_it_dropped_the_logs_is_completed_by_the_next(
    memory_repository: Repository, tmp_path: Path
) -> None:
    push_files(memory_repository, tmp_path / "f", *NAMES)
    old, _ = (physical_backup(memory_repository, n, time=day(n)) for n in (2, 5))
    found = [s for s in everything(memory_repository) if s.id != old.id]
    (plan,) = plan_logs(found, [old], set())
    assert plan.drop == tuple(NAMES[:4])


def test_backups_of_other_clusters_and_dumps_do_not_count(
    memory_repository: Repository, tmp_path: Path
) -> None:
    push_files(memory_repository, tmp_path / "f", *NAMES)
    old = physical_backup(memory_repository, 2)
    physical_backup(memory_repository, 7, system_id="88")
    binlog_dump(memory_repository, "shop.000001:4")
    (plan,) = plan_logs(everything(memory_repository), [], {old.id})
    assert plan.orphaned
    assert plan.drop == tuple(NAMES)


def test_logs_of_a_cluster_without_a_backup_here_are_left_alone(
    memory_repository: Repository, tmp_path: Path
) -> None:
    push_files(memory_repository, tmp_path / "f", *NAMES)
    other = physical_backup(memory_repository, 7, system_id="88")
    assert plan_logs(everything(memory_repository), [], {other.id}) == []


def test_binary_logs_go_with_the_dumps_of_their_server(memory_repository: Repository, tmp_path: Path) -> None:
    archive = Subject(SubjectKind.LOGS, "shop", uuid="mariadb-shop", engine="mariadb")
    files = [f"bin.{n:06}" for n in range(1, 6)]
    push_files(memory_repository, tmp_path / "f", *files, "other.000001", subject=archive)
    old, newer = (binlog_dump(memory_repository, f"bin.{n:06}:77", time=day(n)) for n in (1, 3))
    (plan,) = plan_logs(everything(memory_repository), [], {old.id})
    assert plan.drop == ("bin.000001", "bin.000002")
    elsewhere = binlog_dump(memory_repository, "bin.000002:4", name="crm")
    (plan,) = plan_logs(everything(memory_repository), [], {old.id})
    assert plan.drop == ("bin.000001",), "another dump may be of the same server"
    assert plan_logs(everything(memory_repository), [], {elsewhere.id}) == []
    (plan,) = plan_logs(everything(memory_repository), [], {old.id, newer.id})
    assert plan.orphaned


def test_log_snapshots_that_a_kept_backup_needs_may_not_go(
    memory_repository: Repository, tmp_path: Path
) -> None:
    push_files(memory_repository, tmp_path / "f", *NAMES)
    backup = physical_backup(memory_repository, 5)
    (logs,) = archive_of(memory_repository).snapshots
    (need,) = needed_of(everything(memory_repository), {logs.id})
    assert need.names == tuple(NAMES[4:])
    assert need.backups == (backup,)
    assert needed_of(everything(memory_repository), {logs.id, backup.id}) == []


def test_a_backup_that_is_not_whole_is_no_reason_to_let_the_last_whole_one_go(
    memory_repository: Repository, tmp_path: Path
) -> None:
    push_files(memory_repository, tmp_path / "f", *NAMES)
    whole = physical_backup(memory_repository, 2, time=day(2))
    torn = torn_backup(memory_repository, 5, time=day(5))
    (plan,) = plan_logs(everything(memory_repository), [], {whole.id})
    assert plan.orphaned
    assert plan.drop == tuple(NAMES[:4]), "what the other needs stays even so"
    assert plan_logs(everything(memory_repository), [], {torn.id}) == []
    (plan,) = plan_logs([s for s in everything(memory_repository) if s.id != whole.id], [], {torn.id})
    assert plan.orphaned, "it counts where there is no other"
    found = everything(memory_repository)
    decisions = keep_last_users(found, [Decision(whole, ()), Decision(torn, ())])
    assert [d.keep for d in decisions] == [True, False]


# ---- What others see of log snapshots ------------------------------------------------------------------


def test_log_snapshots_are_never_meant_but_by_their_id(memory_repository: Repository, tmp_path: Path) -> None:
    backup = physical_backup(memory_repository, 2, time=day(2))
    push_files(memory_repository, tmp_path / "f", *NAMES)
    found = everything(memory_repository)
    (logs,) = archive_of(memory_repository).snapshots
    assert select_one(found, "latest") == backup
    assert select_one(found, "shop") == backup
    assert select_one(found, logs.id[:12]) == logs
    assert filter_snapshots(found) == [backup]
    assert filter_snapshots(found, kinds=[SubjectKind.LOGS]) == [logs]
    assert [d.stored for d in decide(found, Policy(last=1), NOW)] == [backup]
    with pytest.raises(NotFound, match="only log archives"):
        select_one([logs], "latest")


# ---- The commands --------------------------------------------------------------------------------------


class Shop:
    """A repository with backups that begin in segments 2 and 5, and an archive of segments 1 to 8."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.store = LocalStore.open(place.repository)
        with self.opened() as repository:
            push_files(repository, place.root / "f", *NAMES)
            self.old, self.kept = (physical_backup(repository, n, time=day(n)) for n in (2, 5))

    def opened(self) -> Repository:
        return open_repository(self.store, self.place.root / "cache", password=PASSWORD)

    def names(self) -> set[str]:
        with self.opened() as repository:
            found = everything(repository)
            return {i.path for s in found if s.snapshot.subject == SUBJECT for i in s.snapshot.items}


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    made = Shop(Place.make(tmp_path))
    yield made
    made.store.close()


def test_forget_tells_and_drops_the_logs_that_go_with_a_backup(shop: Shop) -> None:
    dry = shop.place.ok("forget", shop.old.id[:12], "--dry-run")
    assert f"4 log files would be dropped from the log archive shop: {NAMES[0]} to {NAMES[3]}" in dry
    assert shop.names() == set(NAMES)
    done = shop.place.json("forget", "--keep-last", "1")
    assert done["logs"] == [{"archive": "shop", "files": NAMES[:4]}]
    assert shop.names() == set(NAMES[4:])


def test_no_logs_go_while_a_snapshot_cannot_be_read(shop: Shop) -> None:
    with shop.opened() as repository:
        unreadable = physical_backup(repository, 4, time=day(4))
        (logs,) = archive_of(repository).snapshots
    for copy in shop.place.repository.glob(f"snapshots/{unreadable.id}*"):
        flip_byte(copy, copy.stat().st_size // 2)
    refused = shop.place.run("forget", shop.old.id[:12], shop.kept.id[:12], logs.id[:12])
    assert refused.exit_code == 1
    assert "which log files this snapshot needs is unknown" in refused.stderr
    done = shop.place.run("forget", shop.old.id[:12])
    assert done.exit_code == 0
    assert "no log files are dropped" in done.stderr
    assert unreadable.id in done.stderr
    assert shop.names() == set(NAMES)
    for copy in shop.place.repository.glob(f"snapshots/{unreadable.id}*"):
        flip_byte(copy, copy.stat().st_size // 2)
    shop.place.ok("forget", "--keep-last", "2")
    assert shop.names() == set(NAMES[3:])


def test_a_backup_that_is_being_taken_keeps_the_logs(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = drop.__kwdefaults__
    assert defaults
    monkeypatch.setitem(defaults, "lock_timeout", 0.0)
    with shop.opened() as repository, Writer(repository):
        done = shop.place.run("forget", shop.old.id[:12])
    assert done.exit_code == 0
    assert "the log files of shop stay for now" in done.stderr
    assert shop.names() == set(NAMES)
    with shop.opened() as repository:
        physical_backup(repository, 4, time=day(4))
    shop.place.ok("forget", "--keep-last", "2")
    assert shop.names() == set(NAMES[3:])


def test_a_backup_that_was_committed_after_the_plan_keeps_its_logs(shop: Shop) -> None:
    with shop.opened() as repository:
        found = repository.snapshots().good
        doomed = [stored for stored in found if stored.id == shop.old.id]
        plans = plan_drops(found, doomed, trashed=tuple, damaged=(), with_logs=False).plans
        assert plans
        forget(repository, [shop.old.id])
        physical_backup(repository, 4, time=day(4))
        stayed: list[str] = []
        assert drop_planned(repository, plans, lambda name, _: stayed.append(name)) == list(plans)
        assert stayed == []
    assert shop.names() == set(NAMES[3:])


def test_a_restore_picks_a_whole_backup_if_one_reaches(shop: Shop) -> None:
    with shop.opened() as repository:
        torn_backup(repository, 6, time=day(6))
        recovery = parse_target("latest", ("holdfast",))
        assert pick_backup(repository.snapshots().good, "shop", recovery) == (shop.kept, "")
        forget(repository, [shop.old.id, shop.kept.id])
        assert pick_backup(repository.snapshots().good, "shop", recovery)[0].snapshot.partial


def test_logs_of_a_kept_backup_are_not_forgotten_by_id(shop: Shop) -> None:
    with shop.opened() as repository:
        (logs,) = archive_of(repository).snapshots
    refused = shop.place.run("forget", logs.id[:12])
    assert refused.exit_code == 1
    assert "7 log files of shop" in refused.stderr
    assert shop.names() == set(NAMES)


def test_the_last_backup_of_an_archive_goes_only_with_its_logs(shop: Shop) -> None:
    both = (shop.old.id[:12], shop.kept.id[:12])
    refused = shop.place.run("forget", *both)
    assert refused.exit_code == 1
    assert "--with-logs" in refused.stderr
    shop.place.ok("forget", *both, "--with-logs")
    assert shop.names() == set()


def test_a_policy_keeps_the_last_backup_that_an_archive_can_roll_forward(shop: Shop) -> None:
    with shop.opened() as repository:
        push_files(repository, shop.place.root / "f", file_name(9))
    done = shop.place.json("forget", "--keep-tag", "none", "--allow-empty")
    assert [d["id"] for d in done["keep"]] == [shop.kept.id]
    assert done["keep"][0]["reasons"] == ["last backup that the log archive shop can roll forward"]


def test_undelete_says_which_logs_are_missing_and_how_to_have_them_back(shop: Shop) -> None:
    shop.place.ok("forget", shop.old.id[:12])
    back = shop.place.run("undelete", shop.old.id[:12])
    assert back.exit_code == 0
    assert "3 log files to be rolled forward" in back.stderr
    assert f"cannot be recovered from the archive: {NAMES[2]} is not in it" in back.stderr
    command = back.stderr.split("`holdfast undelete ")[1].split("`")[0]
    again = shop.place.run("undelete", *command.split())
    assert again.exit_code == 0, again.stderr
    assert shop.names() == set(NAMES)


# ---- Small packs ---------------------------------------------------------------------------------------


def test_many_small_packs_are_made_into_few_and_the_next_prune_does_nothing(
    memory_repository: Repository, tmp_path: Path
) -> None:
    names = [file_name(n) for n in range(20)]
    for name in names:
        push_files(memory_repository, tmp_path / "f", name)
    prune(memory_repository)
    assert len(list(memory_repository.store.listing(FileKind.PACK))) == 1
    assert_holds(memory_repository, *names)
    again = make_plan(memory_repository)
    assert not again.repack
    assert not again.remove


def test_a_small_pack_with_a_bad_record_stays_and_the_others_are_merged(tmp_path: Path) -> None:
    pairs = [(file_name(n), file_name(n + 1)) for n in range(0, 40, 2)]
    store = MemoryStore()
    with new_repository(store, tmp_path / "c") as repository:
        for seed, pair in enumerate(pairs):
            push_files(repository, tmp_path / "f", *pair, seed=seed)
        plan = make_plan(repository)
        bad = plan.repack[5].pack
        whole = store.files[FileKind.PACK, bad]
        records = read_directory(store, repository.ciphers, bad, len(whole))
        last = max(offset for offset, header in records if header.type is RecordType.DATA) + 70
        store.files[FileKind.PACK, bad] = whole[:last] + bytes([whole[last] ^ 1]) + whole[last + 1 :]
        result = execute(repository, plan, quarantine=timedelta(0), now=lambda: 1e12, batch=1)
        assert any(bad in str(error) for error in result.damaged)
        packs = {entry.name for entry in store.listing(FileKind.PACK)}
        assert bad in packs
        assert len(packs) == 2
        store.files[FileKind.PACK, bad] = whole
        for seed, pair in enumerate(pairs):
            assert_holds(repository, *pair, seed=seed)
        assert not make_plan(repository).repack
        places = [where for _, where in repository.index.scan()]
        assert all(len(where) <= 1 for where in places), "nothing of the pack that stays was copied"
        assert sum(not where for where in places) == 1, "the bad record counts as absent from now on"


def prune(repository: Repository) -> None:
    execute(repository, make_plan(repository), quarantine=timedelta(0), now=lambda: 1e12)


def test_few_small_packs_and_full_ones_are_left_alone() -> None:
    def pack(n: int, size: int) -> PackUse:
        return PackUse(PackID(f"{n:064x}"), size, size, 0)

    small = [pack(n, PACK_TARGET // 8) for n in range(20)]
    full = [pack(100 + n, PACK_TARGET * 9 // 10) for n in range(50)]
    assert sort_packs([*full, *small[:15]], 0.05)[1:3] == ([], [])
    assert set(sort_packs([*full, *small], 0.05)[2]) == set(small)
    assert set(sort_packs([*full, *small], 0.05)[0]) == set(full)
