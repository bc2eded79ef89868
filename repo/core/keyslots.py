"""Key slots: each wraps the root key with one secret. A slot is a JSON document, named by its hash.

The secret is a passphrase, stretched with Argon2id, or a recovery key: 256 random bits that need no
stretching. A slot is never rewritten: changing a passphrase adds a new slot, opens it once to test it, and
only then removes the old one.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from holdfast.base.errors import Ambiguous, Damaged, NoSuchKeySlot, Refused, Unsupported, WrongPassword
from holdfast.repo.core.mirrored import delete_mirrored, mirrored_names, put_mirrored, read_mirrored
from holdfast.repo.format.crypto import KEY_SIZE, Argon2Cost, content_hash, derive, unwrap_root, wrap_root
from holdfast.repo.store.interface import FileKind, Store

_RECOVERY_PREFIX = "HOLDFAST"
_LETTERS, _GROUP = 56, 7
_MISCOUNT = 4
"""Most letters that a mistyped recovery key may lack or have too many; beyond, the text is a passphrase."""
_CHECK_SIZE = 3
_SALT_SIZE = 32


@dataclass(frozen=True, slots=True)
class KeySlot:
    """The public part of a slot. `cost` is None for a recovery key. `created` is UTC, ISO 8601."""

    id: str
    label: str
    created: str
    cost: Argon2Cost | None
    salt: bytes
    wrapped: bytes
    public: bytes

    @property
    def kind(self) -> str:
        return "recovery" if self.cost is None else "passphrase"


def new_recovery_key() -> str:
    """A new random recovery key in its written form: 56 base32 letters in groups, with a checksum."""
    key = secrets.token_bytes(KEY_SIZE)
    letters = base64.b32encode(key + _checksum(key)).decode()
    return "-".join([_RECOVERY_PREFIX, *(letters[n : n + _GROUP] for n in range(0, len(letters), _GROUP))])


def _checksum(key: bytes) -> bytes:
    return derive(key, "holdfast 2 recovery key checksum")[:_CHECK_SIZE]


def _parse_recovery_key(text: str) -> bytes | None:
    """The key; None when the text does not look like a recovery key. Raises WrongPassword if misspelt."""
    letters = text.upper().replace("-", "").replace(" ", "").strip()
    count = len(letters) - len(_RECOVERY_PREFIX)
    if not letters.startswith(_RECOVERY_PREFIX) or abs(count - _LETTERS) > _MISCOUNT:
        return None
    try:
        raw = base64.b32decode(letters.removeprefix(_RECOVERY_PREFIX))
    except ValueError:  # binascii.Error is one; letters outside ASCII raise a plain one
        raw = b""
    key = raw[:KEY_SIZE]
    if len(raw) != KEY_SIZE + _CHECK_SIZE or raw[KEY_SIZE:] != _checksum(key):
        raise WrongPassword("the recovery key is misspelt: its checksum does not fit")
    return key


def _key_encryption_key(secret: str, cost: Argon2Cost | None, salt: bytes) -> bytes | None:
    """The key that unwraps the root key; None when the secret is not of the slot's kind."""
    recovery = _parse_recovery_key(secret)
    if (cost is None) != (recovery is not None):
        return None
    if recovery is not None:
        return derive(recovery + salt, "holdfast 2 recovery key slot")
    assert cost is not None
    return cost.derive(secret.encode(errors="surrogateescape"), salt)


def add_slot(
    store: Store, root: bytes, secret: str, *, label: str, created: str, cost: Argon2Cost | None = None
) -> KeySlot:
    """Write a slot and open it again from the store before returning. Durable on return."""
    is_recovery = _parse_recovery_key(secret) is not None
    cost = None if is_recovery else cost or Argon2Cost()
    salt = secrets.token_bytes(_SALT_SIZE)
    head: dict[str, Any] = {"format": "holdfast key slot", "version": 1, "label": label, "created": created}
    head["kdf"] = "recovery" if cost is None else "argon2id"
    if cost is not None:
        head |= {"memory_kib": cost.memory_kib, "passes": cost.passes, "lanes": cost.lanes}
    head["salt"] = salt.hex()
    public = json.dumps(head, sort_keys=True).encode()
    kek = _key_encryption_key(secret, cost, salt)
    assert kek is not None
    data = public + b"\n" + wrap_root(kek, root, public)
    name = content_hash(data)
    put_mirrored(store, FileKind.KEY, name, data)
    slot = read_mirrored(store, FileKind.KEY, name, lambda d, where: parse_slot(d, where, name))
    if unwrap_root(kek, slot.wrapped, slot.public, name) != root:
        raise Damaged(
            store.describe(FileKind.KEY, name), "the new key slot does not open; the old ones still do"
        )
    return slot


def parse_slot(data: bytes, where: str, name: str) -> KeySlot:
    """Raises Damaged when the bytes do not match the slot's name, Unsupported for an unknown kind of slot."""
    if content_hash(data) != name:
        raise Damaged(where, "content does not match its name")
    public, _, wrapped = data.partition(b"\n")
    try:
        head = json.loads(public)
        kdf = head["kdf"]
        if (
            head["format"] != "holdfast key slot"
            or head["version"] != 1
            or kdf not in ("argon2id", "recovery")
        ):
            raise Unsupported(f"{where}: a key slot of a kind this program does not know")
        cost = None
        if kdf == "argon2id":
            cost = Argon2Cost(int(head["memory_kib"]), int(head["passes"]), int(head["lanes"]))
            cost.check(where)
        salt = bytes.fromhex(head["salt"])
        if len(salt) != _SALT_SIZE:
            raise ValueError("salt of the wrong length")
        return KeySlot(name, str(head["label"]), str(head["created"]), cost, salt, wrapped, public)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise Damaged(where, f"not a key slot: {error}") from None


def list_slots(store: Store) -> Iterator[KeySlot | Damaged | Unsupported]:
    """The errors of unreadable slots, then all readable slots in order of creation."""
    slots: list[KeySlot] = []
    for name in mirrored_names(store, FileKind.KEY):
        try:
            slots.append(_read_slot(store, name))
        except (Damaged, Unsupported) as error:
            yield error
    yield from sorted(slots, key=lambda slot: (slot.created, slot.id))


def _read_slot(store: Store, name: str) -> KeySlot:
    return read_mirrored(store, FileKind.KEY, name, lambda data, where: parse_slot(data, where, name))


def unlock(store: Store, secret: str) -> tuple[bytes, KeySlot]:
    """The root key and the slot that gave it. Raises WrongPassword when no slot opens."""
    damaged: list[Damaged | Unsupported] = []
    for slot in list_slots(store):
        if not isinstance(slot, KeySlot):
            damaged.append(slot)
            continue
        kek = _key_encryption_key(secret, slot.cost, slot.salt)
        if kek is None:
            continue
        root = unwrap_root(kek, slot.wrapped, slot.public, store.describe(FileKind.KEY, slot.id))
        if root is not None:
            return root, slot
    if damaged:
        raise damaged[0]
    raise WrongPassword("wrong password, or no key slot for it")


def remove_slot(store: Store, slot_id: str, *, current: str) -> KeySlot:
    """Remove the slot whose ID starts with `slot_id`.

    Raises NotFound, Ambiguous, or Refused when the slot is `current` (in use) or the only one.
    """
    slots = [slot for slot in list_slots(store) if isinstance(slot, KeySlot)]
    found = [slot for slot in slots if slot.id.startswith(slot_id)]
    if not found:
        raise NoSuchKeySlot(f"no key slot {slot_id}")
    if len(found) > 1:
        raise Ambiguous(f"{slot_id} is the start of {len(found)} key slots; give more digits")
    if len(slots) == 1:
        raise Refused("this is the only key slot: without it nobody could open the repository again")
    if found[0].id == current:
        raise Refused("this key slot is the one in use; open the repository with another one to remove it")
    delete_mirrored(store, FileKind.KEY, found[0].id)
    return found[0]


def replace_slot(
    store: Store,
    root: bytes,
    old: str,
    secret: str,
    *,
    label: str,
    created: str,
    cost: Argon2Cost | None = None,
) -> KeySlot:
    """Change a secret: the new slot is durable and tested before the old one is deleted."""
    slot = add_slot(store, root, secret, label=label, created=created, cost=cost)
    delete_mirrored(store, FileKind.KEY, old)
    return slot
