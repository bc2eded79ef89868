"""Key slots: who can open a repository, and what damaged or hostile slots can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Ambiguous, Damaged, NotFound, Refused, Unsupported, WrongPassword
from holdfast.repo.core.keyslots import (
    KeySlot,
    add_slot,
    list_slots,
    new_recovery_key,
    parse_slot,
    remove_slot,
    replace_slot,
    unlock,
)
from holdfast.repo.format.crypto import content_hash
from holdfast.repo.store.interface import FileKind, Store
from holdfast.repo.store.memory import MemoryStore
from support.basics import CHEAP, PASSWORD, new_repository, open_repository
from support.faulty_store import Crash, FaultyStore, Operation

ROOT = b"root key of the repository, 32 b"


def add(store: Store, secret: str, *, label: str = "", created: str = "2026-01-01") -> KeySlot:
    return add_slot(store, ROOT, secret, label=label, created=created, cost=CHEAP)


def put_raw(store: MemoryStore, data: bytes) -> str:
    """A slot as somebody else may write it: its name fits its content."""
    name = content_hash(data)
    for copy in (name, name + ".2"):
        store.files[FileKind.KEY, copy] = data
    return name


def forge(slot: KeySlot, **changes: Any) -> bytes:
    public = json.dumps(json.loads(slot.public) | changes).encode()
    return public + b"\n" + slot.wrapped


@given(st.text(max_size=50), st.text(max_size=50))
def test_a_slot_opens_with_its_secret_and_no_other(secret: str, other: str) -> None:
    store = MemoryStore()
    try:
        slot = add(store, secret)
    except WrongPassword:
        assert secret.strip().upper().startswith("HOLDFAST-")
        return
    assert unlock(store, secret) == (ROOT, slot)
    if other != secret:
        with pytest.raises(WrongPassword):
            unlock(store, other)


def test_every_slot_opens_the_same_root_key() -> None:
    store = MemoryStore()
    recovery = new_recovery_key()
    slots = [add(store, secret, created=str(n)) for n, secret in enumerate(["one", "two", recovery])]
    for secret, slot in zip(["one", "two", recovery], slots, strict=True):
        assert unlock(store, secret) == (ROOT, slot)
    assert list(list_slots(store)) == slots
    assert [slot.kind for slot in slots] == ["passphrase", "passphrase", "recovery"]


def test_labels_and_costs_are_listed() -> None:
    store = MemoryStore()
    add(store, "one", label="Ops, “night shift”", created="2026-01-01T00:00:00+00:00")
    (slot,) = list_slots(store)
    assert isinstance(slot, KeySlot)
    assert (slot.label, slot.created) == ("Ops, “night shift”", "2026-01-01T00:00:00+00:00")
    assert slot.cost == CHEAP


def test_a_recovery_key_may_be_typed_in_any_case_with_spaces_and_without_dashes() -> None:
    store = MemoryStore()
    key = new_recovery_key()
    slot = add(store, key)
    plain = key.removeprefix("HOLDFAST-").replace("-", "")
    for typed in (
        key.lower(),
        f"  {key}\n",
        f"HOLDFAST-{plain}",
        key.replace("-", " - ").replace("T - ", "T-"),
    ):
        assert unlock(store, typed) == (ROOT, slot)


@given(st.data())
def test_a_misspelt_recovery_key_is_told_from_a_wrong_one(data: st.DataObject) -> None:
    store = MemoryStore()
    add(store, new_recovery_key())
    key = new_recovery_key()
    with pytest.raises(WrongPassword, match="no key slot"):
        unlock(store, key)
    at = data.draw(st.integers(len("HOLDFAST-"), len(key) - 1).filter(lambda n: key[n] != "-"))
    letter = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567").filter(lambda c: c != key[at]))
    for typed in (key[:at] + letter + key[at + 1 :], key[:at] + key[at + 1 :], key + letter):
        with pytest.raises(WrongPassword, match="misspelt"):
            unlock(store, typed)


@pytest.mark.parametrize("typed", ["HOLDFAST-" + "Ä" * 56, "holdfast-" + "0" * 54, "HOLDFAST" + "A" * 60])
def test_nonsense_of_about_the_right_length_is_a_misspelt_recovery_key(typed: str) -> None:
    store = MemoryStore()
    add(store, PASSWORD)
    with pytest.raises(WrongPassword, match="misspelt"):
        unlock(store, typed)


@pytest.mark.parametrize("typed", ["HOLDFAST-", "holdfast-2026!", "HOLDFAST-" + "A" * 1000])
def test_a_passphrase_may_start_like_a_recovery_key(typed: str) -> None:
    store = MemoryStore()
    added = add(store, typed)
    assert added.kind == "passphrase"
    assert unlock(store, typed)[1] == added


def test_recovery_keys_differ() -> None:
    keys = {new_recovery_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) == len("HOLDFAST-") + 56 + 7 for key in keys)


# ---- removing and replacing ---------------------------------------------------------------------------


def test_a_removed_slot_opens_nothing_any_more() -> None:
    store = MemoryStore()
    mine, other = add(store, "mine"), add(store, "other")
    assert remove_slot(store, other.id[:8], current=mine.id) == other
    with pytest.raises(WrongPassword):
        unlock(store, "other")
    assert unlock(store, "mine")[0] == ROOT
    assert len(store.files) == 2


def test_the_slot_in_use_the_only_slot_and_unclear_ids_stay() -> None:
    store = MemoryStore()
    mine = add(store, "mine")
    with pytest.raises(Refused, match="only key slot"):
        remove_slot(store, mine.id, current=mine.id)
    add(store, "other")
    with pytest.raises(Refused, match="in use"):
        remove_slot(store, mine.id, current=mine.id)
    with pytest.raises(NotFound, match="no key slot zz"):
        remove_slot(store, "zz", current=mine.id)
    with pytest.raises(Ambiguous, match="more digits"):
        remove_slot(store, "", current=mine.id)
    assert len(list(list_slots(store))) == 2


def test_changing_a_password_replaces_the_slot() -> None:
    store = MemoryStore()
    old = add(store, "old")
    new = replace_slot(store, ROOT, old.id, new_key := new_recovery_key(), label="", created="2026")
    assert list(list_slots(store)) == [new]
    assert unlock(store, new_key) == (ROOT, new)
    with pytest.raises(WrongPassword):
        unlock(store, "old")


def test_a_crash_while_a_password_is_changed_leaves_one_of_both_working() -> None:
    secrets = ("old", new_recovery_key())
    number, finished = 0, False
    while not finished:
        number += 1
        inner = MemoryStore()
        old = add(inner, "old")

        def crash(operation: Operation, at: int = number) -> None:
            if operation.number >= at:
                raise Crash

        try:
            replace_slot(FaultyStore(inner, before=crash), ROOT, old.id, secrets[1], label="", created="")
            finished = True
        except Crash:
            pass
        working = []
        for secret in secrets:
            try:
                working.append(unlock(inner, secret)[0])
            except WrongPassword:
                continue
        assert working
        assert set(working) == {ROOT}
    assert number > 6


# ---- damage and attacks -------------------------------------------------------------------------------


@pytest.mark.parametrize("copy", ["", ".2"])
@given(data=st.data())
def test_either_copy_of_a_slot_may_be_damaged_or_lost(copy: str, data: st.DataObject) -> None:
    store = MemoryStore()
    slot = add(store, PASSWORD)
    content = bytearray(store.files[FileKind.KEY, slot.id + copy])
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    store.files[FileKind.KEY, slot.id + copy] = bytes(content)
    assert unlock(store, PASSWORD) == (ROOT, slot)
    del store.files[FileKind.KEY, slot.id + copy]
    assert unlock(store, PASSWORD) == (ROOT, slot)


def test_when_both_copies_are_damaged_other_slots_still_open() -> None:
    store = MemoryStore()
    bad, good = add(store, "bad"), add(store, "good")
    for copy in (bad.id, bad.id + ".2"):
        store.files[FileKind.KEY, copy] = b"garbage"
    assert unlock(store, "good") == (ROOT, good)
    with pytest.raises(Damaged, match=bad.id):
        unlock(store, "bad")
    kinds = [type(slot) for slot in list_slots(store)]
    assert kinds == [Damaged, KeySlot]


@pytest.mark.parametrize(
    "changes",
    [
        {"memory_kib": 1 << 40},
        {"memory_kib": 0},
        {"memory_kib": 64, "lanes": 64},
        {"passes": 10**9},
        {"passes": -1},
        {"lanes": 0},
        {"memory_kib": "much"},
        {"memory_kib": None},
        {"memory_kib": float("inf")},
        {"passes": float("nan")},
        {"salt": "xyz"},
        {"salt": ""},
        {"salt": "00" * 10_000},
        {"salt": 5},
        {"format": "something else"},
        {"version": 2},
        {"kdf": "md5"},
        {"kdf": ["argon2id"]},
    ],
    ids=str,
)
def test_a_hostile_slot_costs_nothing_and_keeps_nobody_out(changes: dict[str, Any]) -> None:
    store = MemoryStore()
    slot = add(store, PASSWORD, created="2")
    put_raw(store, forge(slot, created="1", **changes))
    assert unlock(store, PASSWORD) == (ROOT, slot)
    with pytest.raises((Damaged, Unsupported)):
        unlock(store, "wrong")
    assert sum(isinstance(found, KeySlot) for found in list_slots(store)) == 1


def test_a_slot_whose_public_part_was_changed_does_not_open() -> None:
    store = MemoryStore()
    slot = add(store, PASSWORD)
    store.files.clear()
    put_raw(store, forge(slot, label="cheaper"))
    with pytest.raises(Damaged, match="key slot is damaged"):
        unlock(store, PASSWORD)


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers(), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_any_bytes_are_no_slot(data: bytes) -> None:
    with pytest.raises((Damaged, Unsupported)):
        parse_slot(data, "here", content_hash(data))


def test_a_deeply_nested_slot_is_damaged() -> None:
    data = b"[" * 200_000
    with pytest.raises(Damaged):
        parse_slot(data, "here", content_hash(data))


def test_a_slot_under_another_name_is_damaged() -> None:
    store = MemoryStore()
    slot = add(store, PASSWORD)
    with pytest.raises(Damaged, match="does not match its name"):
        parse_slot(store.files[FileKind.KEY, slot.id], "here", "0" * 64)


def test_a_new_slot_that_does_not_read_back_is_never_relied_on() -> None:
    class Forgetful(MemoryStore):
        def read(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
            return super().read(kind, name, offset, length)[:-1]

    with pytest.raises(Damaged):
        add(Forgetful(), PASSWORD)


def test_a_repository_opens_with_any_of_its_secrets(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        first = repository.slot
        recovery = new_recovery_key()
        add_slot(store, repository.root_key, recovery, label="sheet", created="2")
    with open_repository(store, tmp_path, password=recovery) as repository:
        assert repository.slot.kind == "recovery"
        remove_slot(store, first.id, current=repository.slot.id)
    with pytest.raises(WrongPassword):
        open_repository(store, tmp_path)
