"""Key slots: each wraps, with one secret, what opens its box in a keyring (`repo.core.keyring`).

The secret is a passphrase, stretched with Argon2id, or a recovery key: 256 random bits that need no
stretching. A slot is a JSON document and what it wraps, named by its hash, and never rewritten. Anybody who
can write to the store can put slots there, so all that is done with one before it opens is bounded.
"""

from __future__ import annotations

import base64
import json
import secrets
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from holdfast.base.errors import CostlyKey, Damaged, TooManySlots, Unsupported, WrongPassword
from holdfast.repo.core.mirrored import mirrored_names, put_mirrored, read_mirrored
from holdfast.repo.format.crypto import (
    KEY_SIZE,
    Argon2Cost,
    content_hash,
    derive,
    new_private_key,
    public_key,
    unwrap,
    wrap,
)
from holdfast.repo.format.format import VERSION
from holdfast.repo.store.interface import FileKind, Store

_RECOVERY_PREFIX = "HOLDFAST"
_LETTERS, _GROUP = 56, 7
_MISCOUNT = 4
"""Most letters that a mistyped recovery key may lack or have too many; beyond, the text is a passphrase."""
_CHECK_SIZE = 3
_SALT_SIZE = 32
TRIED: Final = 16
"""Most slots that are tried with a secret."""


@dataclass(frozen=True, slots=True)
class KeySlot:
    """The public part of a slot. `cost` is None for a recovery key. `created` is UTC, ISO 8601.

    Boxes of keyrings are sealed to `recipient`, an X25519 public key.
    """

    id: str
    label: str
    created: str
    cost: Argon2Cost | None
    salt: bytes
    recipient: bytes
    wrapped: bytes
    public: bytes

    @property
    def kind(self) -> str:
        return "recovery" if self.cost is None else "passphrase"


@dataclass(frozen=True, slots=True, repr=False)
class Anchor:
    """A key epoch and its fingerprint: what a slot knew when it was made, so no keyring may say otherwise."""

    epoch: int
    fingerprint: bytes


@dataclass(frozen=True, slots=True, repr=False)
class OpenSlot:
    """An opened slot: its private key and the repository's identity secret."""

    slot: KeySlot
    private: bytes
    identity: bytes
    anchor: Anchor


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
    """The key that unwraps a slot; None when the secret is not of the slot's kind."""
    recovery = _parse_recovery_key(secret)
    if (cost is None) != (recovery is not None):
        return None
    if recovery is not None:
        return derive(recovery + salt, "holdfast 2 recovery key slot")
    assert cost is not None
    # The same password typed on another system may come as other code points of the same letters.
    return cost.derive(unicodedata.normalize("NFC", secret).encode(errors="surrogateescape"), salt)


def write_slot(
    store: Store,
    secret: str,
    identity: bytes,
    anchor: Anchor,
    *,
    label: str,
    created: str,
    cost: Argon2Cost | None = None,
) -> OpenSlot:
    """Write a slot and open it again from the store before returning. Durable on return.

    It opens nothing until a keyring has a box for it.
    """
    is_recovery = _parse_recovery_key(secret) is not None
    cost = None if is_recovery else cost or Argon2Cost()
    salt, private = secrets.token_bytes(_SALT_SIZE), new_private_key()
    head: dict[str, Any] = {"format": "holdfast key slot", "version": VERSION, "kind": "owner"}
    head |= {"label": label, "created": created, "kdf": "recovery" if cost is None else "argon2id"}
    if cost is not None:
        head |= {"memory_kib": cost.memory_kib, "passes": cost.passes, "lanes": cost.lanes}
    head |= {"salt": salt.hex(), "public": public_key(private).hex()}
    public = json.dumps(head, sort_keys=True).encode()
    kek = _key_encryption_key(secret, cost, salt)
    assert kek is not None
    content = private + identity + anchor.epoch.to_bytes(2, "little") + anchor.fingerprint
    data = public + b"\n" + wrap(kek, content, public)
    name = content_hash(data)
    put_mirrored(store, FileKind.KEY, name, data)
    slot = read_slot(store, name)
    opened = _open(store, slot, kek)
    if opened is None or (opened.private, opened.identity) != (private, identity):
        raise Damaged(
            store.describe(FileKind.KEY, name), "the new key slot does not open; the old ones still do"
        )
    return opened


def parse_slot(data: bytes, where: str, name: str) -> KeySlot:
    """Raises Damaged when the bytes do not match the slot's name, Unsupported for an unknown kind of slot."""
    if content_hash(data) != name:
        raise Damaged(where, "content does not match its name")
    public, _, wrapped = data.partition(b"\n")
    try:
        head = json.loads(public)
        kdf = head["kdf"]
        known = (head["format"], head["version"], head["kind"]) == ("holdfast key slot", VERSION, "owner")
        if not known or kdf not in ("argon2id", "recovery"):
            raise Unsupported(f"{where}: a key slot of a kind this program does not know")
        cost = None
        if kdf == "argon2id":
            cost = Argon2Cost(int(head["memory_kib"]), int(head["passes"]), int(head["lanes"]))
            cost.check(where)
        salt, recipient = bytes.fromhex(head["salt"]), bytes.fromhex(head["public"])
        if len(salt) != _SALT_SIZE or len(recipient) != KEY_SIZE:
            raise ValueError("salt or public key of the wrong length")
        label, created = str(head["label"]), str(head["created"])
        return KeySlot(name, label, created, cost, salt, recipient, wrapped, public)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise Damaged(where, f"not a key slot: {error}") from None


def list_slots(store: Store) -> Iterator[KeySlot | Damaged | Unsupported]:
    """The errors of unreadable slots, then all readable slots in order of creation."""
    slots: list[KeySlot] = []
    for name in mirrored_names(store, FileKind.KEY):
        try:
            slots.append(read_slot(store, name))
        except (Damaged, Unsupported) as error:
            yield error
    yield from sorted(slots, key=lambda slot: (slot.created, slot.id))


def read_slot(store: Store, name: str) -> KeySlot:
    """Read a slot from either good copy. Raises FileNotFoundError, Damaged or Unsupported."""
    return read_mirrored(store, FileKind.KEY, name, lambda data, where: parse_slot(data, where, name))


def open_slot(
    store: Store, secret: str, *, expected: Collection[str] = (), allow_costly: bool = False
) -> OpenSlot:
    """The slot that opens with `secret`.

    Tries those that the newest keyring names (`expected`) first, and no more than 16. Raises WrongPassword
    when none opens, TooManySlots when there are more, CostlyKey when one would take more than 256 MiB or 10
    passes and `allow_costly` is not set, else what is wrong with a slot that cannot be read.
    """
    found = list(list_slots(store))
    slots = [slot for slot in found if isinstance(slot, KeySlot)]
    slots.sort(key=lambda slot: slot.id not in expected)  # stable
    costly: CostlyKey | None = None
    tried = 0
    for slot in slots:
        where = store.describe(FileKind.KEY, slot.id)
        if slot.cost is not None and slot.cost.is_costly and not allow_costly:
            costly = costly or CostlyKey(where, slot.cost.memory_kib >> 10, slot.cost.passes)
            continue
        if tried == TRIED:
            raise TooManySlots(where, len(slots), TRIED)
        kek = _key_encryption_key(secret, slot.cost, slot.salt)
        if kek is None:
            continue
        tried += 1
        opened = _open(store, slot, kek)
        if opened is not None:
            return opened
    if costly is not None:
        raise costly
    raise next(
        (error for error in found if not isinstance(error, KeySlot)),
        WrongPassword("wrong password, or no key slot for it"),
    )


def _open(store: Store, slot: KeySlot, kek: bytes) -> OpenSlot | None:
    where = store.describe(FileKind.KEY, slot.id)
    content = unwrap(kek, slot.wrapped, slot.public, where)
    if content is None:
        return None
    if len(content) != 3 * KEY_SIZE + 2 or public_key(content[:KEY_SIZE]) != slot.recipient:
        raise Damaged(where, "what it wraps does not fit its public key")
    anchor = Anchor(int.from_bytes(content[64:66], "little"), content[66:])
    return OpenSlot(slot, content[:KEY_SIZE], content[KEY_SIZE : 2 * KEY_SIZE], anchor)
