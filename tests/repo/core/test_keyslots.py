"""Key slots: who can open a repository, and what damaged or hostile slots can do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import CostlyKey, Damaged, TooManySlots, Unsupported, WrongPassword
from holdfast.repo.core.keyslots import (
    TRIED,
    Anchor,
    KeySlot,
    list_slots,
    new_recovery_key,
    open_slot,
    parse_slot,
    write_slot,
)
from holdfast.repo.format.crypto import Argon2Cost, content_hash
from holdfast.repo.format.format import KEY_SLOT_LIMIT
from holdfast.repo.store.interface import FileKind, Store
from holdfast.repo.store.memory import MemoryStore
from support.basics import CHEAP, PASSWORD

IDENTITY = b"the repository's identity secret"
ANCHOR = Anchor(7, bytes(range(32)))


def add(store: Store, secret: str, *, label: str = "", created: str = "2026-01-01") -> KeySlot:
    return write_slot(store, secret, IDENTITY, ANCHOR, label=label, created=created, cost=CHEAP).slot


def unlock(store: Store, secret: str) -> tuple[bytes, KeySlot]:
    opened = open_slot(store, secret)
    assert opened.anchor == ANCHOR
    return opened.identity, opened.slot


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
    assert unlock(store, secret) == (IDENTITY, slot)
    if other != secret:
        with pytest.raises(WrongPassword):
            unlock(store, other)


def test_every_slot_holds_the_same_identity_secret() -> None:
    store = MemoryStore()
    recovery = new_recovery_key()
    slots = [add(store, secret, created=str(n)) for n, secret in enumerate(["one", "two", recovery])]
    for secret, slot in zip(["one", "two", recovery], slots, strict=True):
        assert unlock(store, secret) == (IDENTITY, slot)
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
        assert unlock(store, typed) == (IDENTITY, slot)


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


# ---- damage and attacks -------------------------------------------------------------------------------


@pytest.mark.parametrize("copy", ["", ".2"])
@given(data=st.data())
def test_either_copy_of_a_slot_may_be_damaged_or_lost(copy: str, data: st.DataObject) -> None:
    store = MemoryStore()
    slot = add(store, PASSWORD)
    content = bytearray(store.files[FileKind.KEY, slot.id + copy])
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    store.files[FileKind.KEY, slot.id + copy] = bytes(content)
    assert unlock(store, PASSWORD) == (IDENTITY, slot)
    del store.files[FileKind.KEY, slot.id + copy]
    assert unlock(store, PASSWORD) == (IDENTITY, slot)


def test_when_both_copies_are_damaged_other_slots_still_open() -> None:
    store = MemoryStore()
    bad, good = add(store, "bad"), add(store, "good")
    for copy in (bad.id, bad.id + ".2"):
        store.files[FileKind.KEY, copy] = b"garbage"
    assert unlock(store, "good") == (IDENTITY, good)
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
        {"version": 1},
        {"version": 3},
        {"kind": "client"},
        {"public": "00"},
        {"public": None},
        {"kdf": "md5"},
        {"kdf": ["argon2id"]},
    ],
    ids=str,
)
def test_a_hostile_slot_costs_nothing_and_keeps_nobody_out(changes: dict[str, Any]) -> None:
    store = MemoryStore()
    slot = add(store, PASSWORD, created="2")
    put_raw(store, forge(slot, created="1", **changes))
    assert unlock(store, PASSWORD) == (IDENTITY, slot)
    with pytest.raises((Damaged, Unsupported)):
        unlock(store, "wrong")
    assert sum(isinstance(found, KeySlot) for found in list_slots(store)) == 1


def test_a_slot_whose_public_part_was_changed_does_not_open() -> None:
    store = MemoryStore()
    slot = add(store, PASSWORD)
    store.files.clear()
    put_raw(store, forge(slot, label="cheaper"))
    with pytest.raises(Damaged, match="what it wraps is damaged"):
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


def test_a_slot_whose_public_key_is_not_that_of_its_private_key_does_not_open() -> None:
    """Else boxes would be sealed to somebody else in the name of the slot's owner."""
    store = MemoryStore()
    slot = add(store, PASSWORD)
    store.files.clear()
    put_raw(store, forge(slot, public="11" * 32))
    with pytest.raises(Damaged, match="what it wraps is damaged"):
        unlock(store, PASSWORD)


def test_a_password_may_be_typed_in_any_composition_of_its_letters() -> None:
    store = MemoryStore()
    slot = add(store, "Caf\u00e9 na\u0308chst")
    assert unlock(store, "Cafe\u0301 n\u00e4chst") == (IDENTITY, slot)
    with pytest.raises(WrongPassword):
        unlock(store, "Cafe n\u00e4chst")


def test_a_slot_of_many_megabytes_is_not_parsed() -> None:
    store = MemoryStore()
    slot = add(store, PASSWORD)
    name = put_raw(store, b'{"a":[' + b"[]," * (8 << 20) + b"[]]}\n" + bytes(64))
    assert unlock(store, PASSWORD) == (IDENTITY, slot)
    with pytest.raises(Damaged, match=f"{name}.*larger than {KEY_SLOT_LIMIT} bytes"):
        unlock(store, "wrong")


def dear(slot: KeySlot, **cost: int) -> bytes:
    return forge(slot, created="1", memory_kib=2 << 20, passes=20, lanes=1, **cost)


def test_a_planted_slot_costs_nothing_unless_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    slot = add(store, PASSWORD, created="2")
    planted = put_raw(store, dear(slot))
    paid: list[Argon2Cost] = []
    derive = Argon2Cost.derive

    def cheaply(cost: Argon2Cost, password: bytes, salt: bytes) -> bytes:
        paid.append(cost)
        return derive(CHEAP, password, salt)

    monkeypatch.setattr(Argon2Cost, "derive", cheaply)
    assert unlock(store, PASSWORD) == (IDENTITY, slot)
    assert paid == [CHEAP]
    with pytest.raises(CostlyKey, match="asks for 2048 MiB and 20 passes") as caught:
        unlock(store, "wrong")
    assert planted in caught.value.path
    with pytest.raises(WrongPassword):
        open_slot(store, "wrong", allow_costly=True)
    assert max(cost.memory_kib for cost in paid) == 2 << 20


def test_no_more_than_sixteen_slots_are_tried_and_those_of_the_keyring_first() -> None:
    store = MemoryStore()
    mine = add(store, PASSWORD, created="9")
    for n in range(TRIED):
        add(store, f"planted {n}", created="1")
    with pytest.raises(TooManySlots, match="16 of 17 key slots were tried"):
        unlock(store, PASSWORD)
    assert open_slot(store, PASSWORD, expected=[mine.id]).slot == mine
