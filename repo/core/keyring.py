"""Keyrings: the root keys of all key epochs, sealed to every key slot that may open the repository.

A keyring is a line of JSON with a box for each slot, which holds the newest epoch's root key, and an object
sealed under that key: the earlier epochs' keys and the IDs of the slots. It is immutable and named
`<epoch>.<generation>.<hash>`; the newest epoch, and of it the newest generation, counts. A slot without a box
in it was removed. Making a box takes the repository's identity secret, so nobody who never had a password can
make a keyring that opens. Who had one could, and leave out later epochs: therefore a slot knows the epoch
that it was made in, and each user's cache the newest that it saw (`repo.records.high_water`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from holdfast.base.errors import (
    Damaged,
    KeyringRolledBack,
    Refused,
    RepositoryError,
    SlotRemoved,
    Unsupported,
)
from holdfast.repo.core.keyslots import Anchor, KeySlot, OpenSlot
from holdfast.repo.core.mirrored import (
    delete_mirrored,
    mirrored_names,
    put_mirrored,
    read_mirrored,
    restore_missing_copies,
)
from holdfast.repo.format.crypto import (
    BOX_SIZE,
    KEY_SIZE,
    Keys,
    Suite,
    content_hash,
    fingerprint,
    open_box,
    open_object,
    seal_box,
    seal_object,
)
from holdfast.repo.format.format import KEYRING_LIMIT, VERSION, ObjectType
from holdfast.repo.store.interface import FileKind, Store

_NAME: Final = re.compile(r"([1-9]\d{0,4})\.([1-9]\d{0,8})\.([0-9a-f]{64})")
_FORMAT: Final = "holdfast keyring"
LAST_EPOCH: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class Epoch:
    """A key epoch. `created` is UTC, ISO 8601."""

    root: bytes
    created: str

    def __repr__(self) -> str:
        return f"Epoch(created={self.created!r})"


@dataclass(frozen=True, slots=True, repr=False)
class Keyring:
    """What a keyring says: root keys by epoch, the identity secret, and boxes by slot ID."""

    identity: bytes
    epochs: Mapping[int, Epoch]
    generation: int
    boxes: Mapping[str, bytes]
    name: str = ""

    @property
    def epoch(self) -> int:
        return max(self.epochs)

    @property
    def anchor(self) -> Anchor:
        """The epoch and its fingerprint, which a slot that is made now stores."""
        return Anchor(self.epoch, fingerprint(self.epochs[self.epoch].root))

    def check(self, anchor: Anchor, who: str, where: str) -> None:
        """Raises KeyringRolledBack unless it has the epoch that `who` knows, with the same key."""
        known = self.epochs.get(anchor.epoch)
        if known is None or fingerprint(known.root) != anchor.fingerprint:
            what = f"ends with key epoch {self.epoch}" if known is None else "has another key"
            raise KeyringRolledBack(where, f"{what}, and {who} knows epoch {anchor.epoch}")

    def keys(self, repository: bytes, suite: Suite) -> Keys:
        return Keys.of(self.identity, {n: e.root for n, e in self.epochs.items()}, repository, suite)

    def with_slots(
        self, repository: bytes, add: Iterable[KeySlot] = (), remove: Iterable[str] = ()
    ) -> Keyring:
        """The next generation, with boxes for other slots; those of the slots that stay are copied."""
        gone = set(remove)
        boxes = {id_: box for id_, box in self.boxes.items() if id_ not in gone}
        boxes |= _boxes(self, repository, add)
        return replace(self, generation=self.generation + 1, boxes=boxes, name="")

    def next_epoch(self, repository: bytes, epoch: Epoch, slots: Iterable[KeySlot]) -> Keyring:
        """A new epoch that only `slots` can read."""
        new = Keyring(self.identity, {**self.epochs, self.epoch + 1: epoch}, 1, {})
        return replace(new, boxes=_boxes(new, repository, slots))


def _boxes(ring: Keyring, repository: bytes, slots: Iterable[KeySlot]) -> dict[str, bytes]:
    root, identity = ring.epochs[ring.epoch].root, ring.identity
    return {
        slot.id: seal_box(slot.recipient, identity, root, _bound(repository, ring.epoch, slot.id))
        for slot in slots
    }


def _bound(repository: bytes, epoch: int, slot: str) -> bytes:
    """The associated data of a box."""
    return repository + epoch.to_bytes(2, "little") + bytes.fromhex(slot)


@dataclass(frozen=True, slots=True)
class PublicKeyring:
    """The line in clear of a keyring, which nobody has vouched for yet."""

    name: str
    epoch: int
    generation: int
    boxes: Mapping[str, bytes]
    public: bytes
    sealed: bytes


def keyring_names(store: Store) -> list[str]:
    """Names of all keyrings, the newest first. Raises nothing for files that are not named like one."""
    names = [name for name in mirrored_names(store, FileKind.KEYRING) if _NAME.fullmatch(name)]
    return sorted(names, key=_age, reverse=True)


def _age(name: str) -> tuple[int, int, str]:
    epoch, generation, hash_ = name.split(".")
    return int(epoch), int(generation), hash_


def read_newest(store: Store) -> PublicKeyring:
    """The newest keyring from either good copy. Raises Damaged, also when there is none, or Unsupported.

    An older one never stands in for a damaged one: it may have a box for a slot that was removed since.
    """
    for _ in range(3):
        names = keyring_names(store)
        if not names:
            raise Damaged(store.describe(FileKind.KEYRING, ""), "holds no keyring: no key slot opens without")
        name = names[0]

        def parse(data: bytes, where: str, name: str = name) -> PublicKeyring:
            return parse_keyring(data, where, name)

        with suppress(FileNotFoundError):  # another key command has replaced it since it was listed
            return read_mirrored(store, FileKind.KEYRING, name, parse)
    raise Damaged(store.describe(FileKind.KEYRING, name), "is listed and not there")


def parse_keyring(data: bytes, where: str, name: str) -> PublicKeyring:
    """Raises Damaged when the bytes do not match the name, Unsupported for another version."""
    match = _NAME.fullmatch(name)
    if match is None or content_hash(data) != match[3]:
        raise Damaged(where, "content does not match its name")
    public, _, sealed = data.partition(b"\n")
    try:
        head = json.loads(public)
        if (head["format"], head["version"]) != (_FORMAT, VERSION):
            raise Unsupported(f"{where}: a keyring of a kind this program does not know")
        if (head["epoch"], head["generation"]) != (int(match[1]), int(match[2])):
            raise ValueError("its epoch or generation is not that of its name")
        boxes = {str(id_): bytes.fromhex(box) for id_, box in head["boxes"].items()}
        if any(len(bytes.fromhex(id_)) != KEY_SIZE or len(box) != BOX_SIZE for id_, box in boxes.items()):
            raise ValueError("a box of the wrong length")
        return PublicKeyring(name, head["epoch"], head["generation"], boxes, public, sealed)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(where, f"not a keyring: {error}") from None


def open_keyring(store: Store, opened: OpenSlot, repository: bytes, suite: Suite) -> Keyring:
    """The newest keyring, opened by a slot.

    Raises SlotRemoved when it has no box for it, Damaged when it is not genuine, or older than the slot.
    """
    found = read_newest(store)
    where = store.describe(FileKind.KEYRING, found.name)
    slot = opened.slot
    box = found.boxes.get(slot.id)
    if box is None:
        raise SlotRemoved(
            f"the password is that of key slot {slot.id[:8]}, which was removed, or never finished: the "
            f"newest keyring {where} is not for it"
        )
    bound = _bound(repository, found.epoch, slot.id)
    root = open_box(opened.private, opened.identity, box, bound, where)
    keys = Keys.of(opened.identity, {found.epoch: root}, repository, suite)
    ring = _open_body(found, keys, opened.identity, where)
    if ring.epochs[ring.epoch].root != root:
        raise Damaged(where, "its boxes and what is sealed in it disagree")
    ring.check(opened.anchor, f"key slot {slot.id[:8]}, made in it,", where)
    return ring


def _open_body(found: PublicKeyring, keys: Keys, identity: bytes, where: str) -> Keyring:
    body = json.loads(open_object(keys, ObjectType.KEYRING, found.sealed, where))
    if body["public"] != content_hash(found.public) or sorted(body["slots"]) != sorted(found.boxes):
        raise Damaged(where, "its public line was changed")
    epochs = {int(n): Epoch(bytes.fromhex(e["root"]), e["created"]) for n, e in body["epochs"].items()}
    if sorted(epochs) != list(range(1, found.epoch + 1)):
        raise Damaged(where, "its epochs do not fit together")
    return Keyring(identity, epochs, found.generation, found.boxes, found.name)


def write_keyring(store: Store, ring: Keyring, opened: OpenSlot, repository: bytes, suite: Suite) -> Keyring:
    """Write a keyring, open it again from the store, and delete the older ones. Durable on return.

    A crash leaves the old one, or both, of which the new one counts. The caller holds the exclusive lock.
    Raises Refused when it would be larger than readers accept, Damaged when it does not read back: then the
    old one still counts.
    """
    boxes = {id_: box.hex() for id_, box in ring.boxes.items()}
    head = {"format": _FORMAT, "version": VERSION, "epoch": ring.epoch, "generation": ring.generation}
    public = json.dumps(head | {"boxes": boxes}, sort_keys=True).encode()
    body: dict[str, Any] = {"public": content_hash(public), "slots": sorted(ring.boxes)}
    body["epochs"] = {n: {"root": e.root.hex(), "created": e.created} for n, e in ring.epochs.items()}
    sealed = seal_object(
        ring.keys(repository, suite), ObjectType.KEYRING, json.dumps(body, sort_keys=True).encode()
    )
    data = public + b"\n" + sealed
    name = f"{ring.epoch}.{ring.generation}.{content_hash(data)}"
    if len(data) > KEYRING_LIMIT:
        raise Refused(f"a keyring of {len(data)} bytes is too large: the most is {KEYRING_LIMIT}")
    try:
        put_mirrored(store, FileKind.KEYRING, name, data)
        written = open_keyring(store, opened, repository, suite)
        if (written.name, written.epochs) != (name, ring.epochs):
            raise Damaged(store.describe(FileKind.KEYRING, name), "the new keyring does not read back")
    except RepositoryError:
        with suppress(RepositoryError):  # one copy may be there already, and would count
            delete_mirrored(store, FileKind.KEYRING, name)
        raise
    remove_older(store, keyring_names(store), name)
    return written


def tidy_keyrings(store: Store, newest: str) -> None:
    """Complete what a crash left of a key command. The caller holds the exclusive lock."""
    restore_missing_copies(store, FileKind.KEYRING, parse_keyring)
    remove_older(store, keyring_names(store), newest)


def remove_older(store: Store, names: Sequence[str], newest: str) -> None:
    """Delete the keyrings that came before: they have boxes for slots that were removed."""
    for name in names:
        if _age(name) < _age(newest):
            delete_mirrored(store, FileKind.KEYRING, name)
