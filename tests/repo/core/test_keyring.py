"""Keyrings: who may read which key epoch, and what people do who can write to the store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import (
    Ambiguous,
    Damaged,
    HoldfastError,
    KeyringRolledBack,
    Locked,
    NotFound,
    Refused,
    SlotRemoved,
    StoreError,
    Unsupported,
    WrongPassword,
)
from holdfast.repo.core.key_changes import add_slot, remove_slot, replace_slot, rotate, slot_use
from holdfast.repo.core.keyring import Epoch, keyring_names, parse_keyring, read_newest, write_keyring
from holdfast.repo.core.keyslots import KeySlot, new_recovery_key, open_slot
from holdfast.repo.core.mirrored import copies, mirrored_names, put_mirrored
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import Keys, content_hash, open_object, seal_box, seal_object
from holdfast.repo.format.format import KEYRING_LIMIT, ObjectType
from holdfast.repo.store.interface import FileKind, LockMode
from holdfast.repo.store.memory import MemoryStore
from holdfast.repo.upkeep.check import Depth, check
from holdfast.repo.upkeep.findings import Weight
from support.basics import CHEAP, PASSWORD, new_repository, open_repository, read_item, store_file
from support.faulty_store import Crash, FaultyStore, crash_at, fail_at

NOW = "2026-12-01T06:00:00+00:00"
Files = dict[tuple[FileKind, str], bytes]


def add(repository: Repository, secret: str) -> KeySlot:
    return add_slot(repository, secret, label=secret, created=NOW, cost=CHEAP)


def begin_epoch(repository: Repository) -> int:
    return rotate(repository, slot_use(repository), created=NOW)


def kept(store: MemoryStore, *kinds: FileKind) -> Files:
    """A copy of files, as somebody keeps it who will be removed."""
    return {key: data for key, data in store.files.items() if key[0] in kinds}


def fresh(tmp_path: Path, name: str) -> Path:
    """The cache of somebody who never saw the repository."""
    return tmp_path / name


# ---- What key commands do ------------------------------------------------------------------------------


def test_a_repository_opens_with_any_of_its_secrets(tmp_path: Path) -> None:
    store = MemoryStore()
    recovery = new_recovery_key()
    with new_repository(store, tmp_path) as repository:
        first = repository.slot
        add(repository, recovery)
    with open_repository(store, tmp_path, password=recovery) as repository:
        assert repository.slot.kind == "recovery"
        remove_slot(repository, first.id)
    with pytest.raises(WrongPassword):
        open_repository(store, tmp_path)


def test_a_removed_slot_opens_nothing_any_more_and_leaves_no_file(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        before = dict(store.files)
        other = add(repository, "other")
        assert remove_slot(repository, other.id[:8]) == other.id
        assert {k for k in store.files if k[0] is FileKind.KEY} == {k for k in before if k[0] is FileKind.KEY}
        assert len(keyring_names(store)) == 1
        assert repository.keyring.generation == 3
        with pytest.raises(WrongPassword):
            open_slot(store, "other")


def test_the_slot_in_use_the_only_slot_and_unclear_ids_stay(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        mine = repository.slot.id
        with pytest.raises(Refused, match="only key slot"):
            remove_slot(repository, mine)
        add(repository, "other")
        with pytest.raises(Refused, match="in use"):
            remove_slot(repository, mine)
        with pytest.raises(NotFound, match="no key slot zz"):
            remove_slot(repository, "zz")
        with pytest.raises(Ambiguous, match="more digits"):
            remove_slot(repository, "")
        assert len(slot_use(repository).going_on) == 2


def test_of_two_who_remove_each_other_the_second_finds_himself_removed(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path / "a") as mine:
        other = add(mine, "other")
        with open_repository(store, tmp_path / "b", password="other") as theirs:
            assert remove_slot(mine, other.id) == other.id
            with pytest.raises(SlotRemoved):
                remove_slot(theirs, mine.slot.id)
    open_repository(store, tmp_path / "a").close()


@pytest.mark.parametrize("fault", ["gone", "damaged"])
def test_no_slot_is_removed_while_the_one_in_use_cannot_be_read_any_more(tmp_path: Path, fault: str) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        other = add(repository, "other")
        for name in copies(repository.slot.id):
            if fault == "gone":
                del store.files[FileKind.KEY, name]
            else:
                store.files[FileKind.KEY, name] = b"?" + store.files[FileKind.KEY, name][1:]
        with pytest.raises(Refused, match="only way in"):
            remove_slot(repository, other.id)
    open_repository(store, tmp_path, password="other").close()


@pytest.mark.parametrize("kind", [FileKind.CONFIG, FileKind.KEY, FileKind.KEYRING])
@pytest.mark.parametrize("copy", [0, 1])
def test_half_a_pair_is_mended_by_the_next_key_command(tmp_path: Path, kind: FileKind, copy: int) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        name = next(iter(mirrored_names(store, kind)))
        del store.files[kind, copies(name)[copy]]
        (found,) = check(repository, Depth.STRUCTURE).findings
        assert (found.weight, found.where) == (Weight.MEND, store.describe(kind, copies(name)[copy]))
        add(repository, "other")
        assert check(repository, Depth.STRUCTURE).findings == []
        assert all(number == 2 for number in mirrored_names(store, kind).values())


def test_changing_a_password_replaces_the_slot_and_the_repository_stays_open(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        new = replace_slot(repository, "new", label="", created=NOW, cost=CHEAP)
        assert slot_use(repository).going_on == (repository.slot,) == (new,)
        item = store_file(repository, [b"content"])
        assert read_item(repository, item) == b"content"
    with pytest.raises(WrongPassword):
        open_repository(store, tmp_path)
    open_repository(store, tmp_path, password="new").close()


def test_two_epochs_are_read_with_every_password_that_goes_on(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        add(repository, "other")
        old = store_file(repository, [b"first epoch"])
        assert begin_epoch(repository) == 2
        new = store_file(repository, [b"second epoch"], hours=1)
        assert [read_item(repository, item) for item in (old, new)] == [b"first epoch", b"second epoch"]
    with open_repository(store, tmp_path, password="other") as repository:
        assert repository.keyring.epoch == 2
        assert [read_item(repository, item) for item in (old, new)] == [b"first epoch", b"second epoch"]
        assert len(repository.snapshots().good) == 2


def test_chunks_of_earlier_epochs_are_not_stored_again(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        store_file(repository, [b"the same"])
        packs = kept(store, FileKind.PACK)
        begin_epoch(repository)
        store_file(repository, [b"the same"], hours=1)
        assert kept(store, FileKind.PACK) == packs


def test_an_open_repository_follows_the_keyring_of_another_process(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path / "one") as mine, open_repository(store, tmp_path / "two") as other:
        begin_epoch(other)
        item = store_file(other, [b"content"])
        assert len(mine.snapshots().good) == 1
        assert mine.keyring.epoch == 2
        assert read_item(mine, item) == b"content"
        store_file(mine, [b"mine"], hours=1)
        assert {data[12] for data in kept(store, FileKind.PACK, FileKind.SNAPSHOT).values()} == {2}


def test_an_open_repository_whose_slot_is_removed_goes_no_further(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path / "one") as mine:
        other = add(mine, "other")
        with open_repository(store, tmp_path / "two", password="other") as theirs:
            remove_slot(mine, other.id)
            with pytest.raises(SlotRemoved, match=other.id[:8]):
                store_file(theirs, [b"content"])


def test_key_commands_wait_for_backups_and_for_one_another(tmp_path: Path) -> None:
    class Impatient(MemoryStore):
        def lock(self, mode: LockMode, timeout: float) -> Any:
            return super().lock(mode, 0.0)

    store = Impatient()
    with new_repository(store, tmp_path) as repository:
        for mode in LockMode:
            with store.lock(mode, 0.0), pytest.raises(Locked):
                add(repository, "other")


def test_a_change_by_another_process_is_not_lost(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path / "one") as mine, open_repository(store, tmp_path / "two") as other:
        theirs = add(other, "theirs")
        ours = add(mine, "ours")
        boxes = {theirs.id, ours.id, mine.slot.id}
        assert read_newest(store).boxes.keys() == boxes
        begin_epoch(other)
        assert read_newest(store).boxes.keys() == boxes


def test_slots_that_changed_since_the_user_was_asked_stop_a_rotation(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path / "one") as mine, open_repository(store, tmp_path / "two") as other:
        shown = slot_use(mine)
        late = add(other, "late")
        with pytest.raises(Refused, match="changed meanwhile"):
            rotate(mine, shown, created=NOW)
        shown = slot_use(mine)
        remove_slot(other, late.id)
        with pytest.raises(Refused, match="changed meanwhile"):
            rotate(mine, shown, created=NOW)
        assert mine.keyring.epoch == 1


# ---- Crashes and full disks ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["add", "remove", "passwd", "rotate"])
@pytest.mark.parametrize("fails", [False, True], ids=["crash", "error"])
def test_a_key_command_that_ends_at_any_operation_leaves_a_way_in_and_can_be_repeated(
    tmp_path: Path, command: str, fails: bool
) -> None:
    base = MemoryStore()
    with new_repository(base, tmp_path / "base") as repository:
        other = add(repository, "other")
        item = store_file(repository, [b"content"])

    def work(repository: Repository) -> None:
        match command:
            case "add":
                add(repository, "new")
            case "remove":
                remove_slot(repository, other.id)
            case "passwd":
                replace_slot(repository, "new", label="", created=NOW, cost=CHEAP)
            case _:
                begin_epoch(repository)

    number, finished = 0, False
    while not finished:
        number += 1
        store = MemoryStore()
        store.files = dict(base.files)
        with open_repository(store, fresh(tmp_path, f"cache-{number}")) as repository:
            repository.store = FaultyStore(store, before=fail_at(number) if fails else crash_at(number))
            try:
                work(repository)
                finished = not fails or len(repository.store.operations) < number
            except (Crash, StoreError):
                pass
        ways = 0
        for secret in (PASSWORD, "other", "new"):
            try:
                again = open_repository(store, fresh(tmp_path, f"cache-{number}"), password=secret)
            except WrongPassword:
                continue
            ways += 1
            with again:
                assert read_item(again, item) == b"content"
        assert ways >= (2 if command != "remove" else 1)
        with open_repository(
            store, tmp_path / f"more-{number}", password=PASSWORD if command != "passwd" else "other"
        ) as again:
            add(again, "one more")
            assert len(keyring_names(store)) == 1
    assert number > 8


def test_a_slot_without_a_box_is_told_and_can_be_removed(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        other = add(repository, "other")
        files = kept(store, FileKind.KEY)
        remove_slot(repository, other.id)
        store.files |= files
        use = slot_use(repository)
        assert [slot.id for slot in use.closed] == [other.id]
        assert use.going_on == (repository.slot,)
        with pytest.raises(SlotRemoved, match="removed, or never finished"):
            open_repository(store, tmp_path, password="other")
        assert remove_slot(repository, other.id) == other.id
        assert slot_use(repository).closed == ()
        assert repository.keyring.generation == 3


def test_a_slot_that_cannot_be_read_does_not_go_on_and_is_told(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        other = add(repository, "other")
        for copy in (other.id, other.id + ".2"):
            store.files[FileKind.KEY, copy] = b"garbage"
        use = slot_use(repository)
        assert use.unreadable == (other.id,)
        assert begin_epoch(repository) == 2
        assert read_newest(store).boxes.keys() == {repository.slot.id}


def test_a_keyring_that_does_not_read_back_is_taken_away_again(tmp_path: Path) -> None:
    class Forgetful(MemoryStore):
        forgets = False

        def put(self, kind: FileKind, name: str, data: Any) -> bool:
            return super().put(kind, name, data[:-1] if self.forgets and kind is FileKind.KEYRING else data)

    store = Forgetful()
    with new_repository(store, tmp_path) as repository:
        before = keyring_names(store)
        store.forgets = True
        with pytest.raises(Damaged):
            begin_epoch(repository)
        assert keyring_names(store) == before
    open_repository(store, tmp_path).close()


# ---- Damage --------------------------------------------------------------------------------------------


@given(data=st.data())
def test_either_copy_of_a_keyring_may_be_damaged_or_lost(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    store = MemoryStore()
    folder = tmp_path_factory.mktemp("cache")
    new_repository(store, folder).close()
    name = keyring_names(store)[0]
    copy = name + data.draw(st.sampled_from(["", ".2"]))
    content = bytearray(store.files[FileKind.KEYRING, copy])
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    store.files[FileKind.KEYRING, copy] = bytes(content)
    open_repository(store, folder).close()
    del store.files[FileKind.KEYRING, copy]
    open_repository(store, folder).close()


def test_an_older_keyring_never_stands_in_for_a_damaged_newer_one(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        other = add(repository, "other")
        older = kept(store, FileKind.KEYRING, FileKind.KEY)
        remove_slot(repository, other.id)
    newest = keyring_names(store)[0]
    store.files |= older
    for copy in (newest, newest + ".2"):
        store.files[FileKind.KEYRING, copy] = b"garbage"
    for secret in (PASSWORD, "other"):
        with pytest.raises(Damaged, match=newest):
            open_repository(store, fresh(tmp_path, "new"), password=secret)


def test_without_any_keyring_nothing_opens_and_the_place_is_named(tmp_path: Path) -> None:
    store = MemoryStore()
    new_repository(store, tmp_path).close()
    for key in kept(store, FileKind.KEYRING):
        del store.files[key]
    with pytest.raises(Damaged, match=r"keyring/.*holds no keyring"):
        open_repository(store, tmp_path)


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers(), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_any_bytes_are_no_keyring(data: bytes) -> None:
    with pytest.raises((Damaged, Unsupported)):
        parse_keyring(data, "here", f"1.1.{content_hash(data)}")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "something else"},
        {"version": 3},
        {"epoch": 2},
        {"generation": 7},
        {"boxes": []},
        {"boxes": {"zz": "00"}},
        {"boxes": {"00" * 32: "00"}},
        {"boxes": {"00" * 32: 5}},
    ],
    ids=str,
)
def test_a_keyring_with_a_changed_line_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    store = MemoryStore()
    new_repository(store, tmp_path).close()
    head, _, sealed = store.files[FileKind.KEYRING, keyring_names(store)[0]].partition(b"\n")
    data = json.dumps(json.loads(head) | changes).encode() + b"\n" + sealed
    with pytest.raises((Damaged, Unsupported), match="here"):
        parse_keyring(data, "here", f"1.1.{content_hash(data)}")


def test_a_keyring_larger_than_a_megabyte_is_not_parsed(tmp_path: Path) -> None:
    store = MemoryStore()
    new_repository(store, tmp_path).close()
    put_raw(store, 9, 1, b" " * (KEYRING_LIMIT + 1))
    with pytest.raises(Damaged, match=f"larger than {KEYRING_LIMIT} bytes"):
        open_repository(store, tmp_path)


def test_files_that_are_not_named_like_keyrings_are_no_keyrings(tmp_path: Path) -> None:
    store = MemoryStore()
    new_repository(store, tmp_path).close()
    for name in ("x", "0.1." + "0" * 64, "99999999.1." + "0" * 64, "2.1." + "0" * 63, "\u0662.1." + "0" * 64):
        store.files[FileKind.KEYRING, name] = b"x"
    assert len(keyring_names(store)) == 1
    open_repository(store, tmp_path).close()


# ---- Attacks ---------------------------------------------------------------------------------------------


def put_raw(store: MemoryStore, epoch: int, generation: int, data: bytes) -> None:
    put_mirrored(store, FileKind.KEYRING, f"{epoch}.{generation}.{content_hash(data)}", data)


def test_a_removed_password_with_its_old_slot_reads_nothing_of_a_later_epoch(tmp_path: Path) -> None:
    """As a colleague who keeps a copy of everything, leaves, and can still write to the store."""
    store = MemoryStore()
    with new_repository(store, tmp_path / "ours") as repository:
        colleague = add(repository, "colleague")
        store_file(repository, [b"before"])
        hoard = dict(store.files)
        remove_slot(repository, colleague.id)
        begin_epoch(repository)
        item = store_file(repository, [b"after"], hours=1)
        store.files |= {key: data for key, data in hoard.items() if key[0] is FileKind.KEY}
        with pytest.raises(SlotRemoved, match=f"key slot {colleague.id[:8]}, which was removed"):
            open_repository(store, tmp_path / "theirs", password="colleague")
        # With the old keyring in place of the new one the slot opens, and gives the keys of before.
        stolen = MemoryStore()
        stolen.files = {key: data for key, data in store.files.items() if key[0] is not FileKind.KEYRING}
        stolen.files |= {key: data for key, data in hoard.items() if key[0] is FileKind.KEYRING}
        with open_repository(stolen, tmp_path / "theirs", password="colleague") as theirs:
            found = theirs.snapshots()
            assert len(found.good) == 1
            assert "key epoch 2" in str(found.damaged[0])
            assert any("key epoch 2" in str(error) for error in theirs.refresh().damaged)
            with pytest.raises(Damaged, match="is in no pack"):
                read_item(theirs, item)
        # And whoever saw the new epoch is not taken in by it.
        with pytest.raises(KeyringRolledBack, match="ends with key epoch 1"):
            open_repository(stolen, tmp_path / "ours")


def test_the_same_password_without_rotation_still_reads(tmp_path: Path) -> None:
    """Why removing a password is not enough: said by the command and in docs."""
    store = MemoryStore()
    with new_repository(store, tmp_path / "ours") as repository:
        colleague = add(repository, "colleague")
        hoard = kept(store, FileKind.KEY, FileKind.KEYRING)
        remove_slot(repository, colleague.id)
        item = store_file(repository, [b"after"])
        stolen = MemoryStore()
        stolen.files = {
            key: data for key, data in store.files.items() if key[0] is not FileKind.KEYRING
        } | hoard
        with open_repository(stolen, tmp_path / "theirs", password="colleague") as theirs:
            assert read_item(theirs, item) == b"after"


def test_who_never_had_a_password_cannot_make_a_keyring_that_opens(tmp_path: Path) -> None:
    """He knows the public keys, and seals an epoch of his own to them."""
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        slot, config = repository.slot, repository.config
    root = b"his root key".ljust(32)
    bound = config.id + (2).to_bytes(2, "little") + bytes.fromhex(slot.id)
    box = seal_box(slot.recipient, bytes(32), root, bound)
    head = {
        "format": "holdfast keyring",
        "version": 2,
        "epoch": 2,
        "generation": 1,
        "boxes": {slot.id: box.hex()},
    }
    public = json.dumps(head).encode()
    keys = Keys.of(bytes(32), {2: root}, config.id, config.suite)
    put_raw(store, 2, 1, public + b"\n" + seal_object(keys, ObjectType.KEYRING, b"{}"))
    with pytest.raises(Damaged, match="nobody sealed who knows this repository"):
        open_repository(store, tmp_path)


def test_who_was_removed_cannot_make_an_epoch_for_those_who_saw_a_later_one(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path / "ours") as repository:
        colleague = add(repository, "colleague")
        with open_repository(store, tmp_path / "theirs", password="colleague") as theirs:
            known = theirs.keyring
        remove_slot(repository, colleague.id)
        begin_epoch(repository)
        late = add(repository, "hired since")
        mine, config = repository.slot, repository.config
        opened = repository.opened
    forged = replace(
        known, epochs={**known.epochs, 2: Epoch(b"his".ljust(32), NOW), 3: Epoch(b"too".ljust(32), NOW)}
    )
    forged = replace(forged, boxes={}).with_slots(config.id, [mine, late])
    write_keyring(store, forged, opened, config.id, config.suite)
    with pytest.raises(KeyringRolledBack, match="has another key, and this user's cache knows epoch 2"):
        open_repository(store, tmp_path / "ours")
    with pytest.raises(KeyringRolledBack, match=f"key slot {late.id[:8]}, made in it, knows epoch 2"):
        open_repository(store, fresh(tmp_path, "new"), password="hired since")


def test_a_running_process_is_not_taken_in_by_an_older_keyring(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        old = kept(store, FileKind.KEYRING)
        begin_epoch(repository)
        for key in kept(store, FileKind.KEYRING):
            del store.files[key]
        store.files |= old
        with pytest.raises(KeyringRolledBack, match="this process knows epoch 2"):
            repository.refresh()


def test_the_user_can_take_a_keyring_as_right(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        old = kept(store, FileKind.KEYRING)
        begin_epoch(repository)
    for key in kept(store, FileKind.KEYRING):
        del store.files[key]
    store.files |= old
    with pytest.raises(KeyringRolledBack):
        open_repository(store, tmp_path)
    Repository.open(store, lambda: PASSWORD, cache=tmp_path, accept_keyring=True).close()
    open_repository(store, tmp_path).close()


def test_a_box_is_for_one_slot_one_epoch_and_one_repository(tmp_path: Path) -> None:
    """Boxes that changed places, and the keyring of another repository with the same slot."""
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        other = add(repository, "other")
        mine = repository.slot
    found = read_newest(store)
    head = json.loads(found.public)
    head["boxes"] = {mine.id: found.boxes[other.id].hex(), other.id: found.boxes[mine.id].hex()}
    put_raw(store, 1, 9, json.dumps(head | {"generation": 9}).encode() + b"\n" + found.sealed)
    for secret in (PASSWORD, "other"):
        with pytest.raises(Damaged, match="nobody sealed"):
            open_repository(store, tmp_path, password=secret)


@pytest.mark.parametrize("change", ["fewer slots", "another generation", "another epoch"])
def test_the_line_in_clear_is_vouched_for_by_what_is_sealed(tmp_path: Path, change: str) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        other = add(repository, "other")
    found = read_newest(store)
    head = json.loads(found.public)
    epoch, generation = 1, 9
    match change:
        case "fewer slots":
            del head["boxes"][other.id]
        case "another epoch":
            epoch = 2
    head |= {"epoch": epoch, "generation": generation}
    put_raw(store, epoch, generation, json.dumps(head).encode() + b"\n" + found.sealed)
    with pytest.raises(HoldfastError, match=f"{epoch}.9."):
        open_repository(store, tmp_path)


def test_a_keyring_is_no_other_object_and_no_other_object_a_keyring(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        sealed = read_newest(store).sealed
        for kind in ObjectType:
            if kind is not ObjectType.KEYRING:
                with pytest.raises(Damaged):
                    open_object(repository.keys, kind, sealed, "here")
        for kind in (ObjectType.SNAPSHOT, ObjectType.PROOF, ObjectType.FORGOTTEN):
            with pytest.raises(Damaged):
                open_object(
                    repository.keys, ObjectType.KEYRING, seal_object(repository.keys, kind, b"{}"), "here"
                )


def test_a_chunk_that_somebody_planted_with_the_keys_of_an_earlier_epoch_is_not_served(
    tmp_path: Path,
) -> None:
    """Who was removed can seal any bytes under the ID of a chunk that he expects to be backed up."""
    store = MemoryStore()
    with new_repository(store, tmp_path / "ours") as repository:
        colleague = add(repository, "colleague")
        hoard = dict(store.files)
        remove_slot(repository, colleague.id)
        begin_epoch(repository)
        theirs = MemoryStore()
        theirs.files = hoard
        with open_repository(theirs, tmp_path / "theirs", password="colleague") as stolen:
            honest = stolen.keys
            forger = replace(honest, data_id=bytes(32))
            id_ = honest.data_chunk_id(b"payroll, December")
            assert forger.data_chunk_id(b"payroll, December") != id_
            plant(stolen, id_, b"payroll, forgery!")
        store.files |= kept(theirs, FileKind.PACK)
        item = store_file(repository, [b"payroll, December"])
        with pytest.raises(Damaged, match="not that of its ID"):
            read_item(repository, item)


def plant(repository: Repository, id_: Any, plain: bytes) -> None:
    """Store bytes under an ID that is not theirs."""
    from holdfast.repo.core.writer import Writer  # noqa: PLC0415

    with Writer(repository) as writer:
        writer.put([plain], [id_])
        writer._packs.finish()
