"""Adding, removing and changing passwords, and new key epochs: each writes the next keyring.

All hold the exclusive lock and read the newest keyring under it, so two at once do not lose one another's
change, and a backup never writes in an epoch that is over. The order makes crashes harmless: a slot is
durable before a keyring has a box for it; the new keyring is durable and has been opened before the old ones
go; a slot goes last. What a crash leaves is a slot without a box, which opens nothing, or one copy of a file
instead of two, which the next of these commands or prune completes.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from holdfast.base.errors import Ambiguous, Damaged, NoSuchKeySlot, Refused, Unsupported
from holdfast.repo.core.keyring import LAST_EPOCH, Epoch, Keyring, tidy_keyrings, write_keyring
from holdfast.repo.core.keyslots import KeySlot, OpenSlot, list_slots, parse_slot, read_slot, write_slot
from holdfast.repo.core.mirrored import delete_mirrored, mirrored_names, restore_missing_copies
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import KEY_SIZE, Argon2Cost
from holdfast.repo.store.interface import FileKind, LockMode

_WAIT = 60.0
"""Seconds to wait for backups that run."""


@dataclass(frozen=True, slots=True)
class SlotUse:
    """The slots that the newest keyring is for, those that it is not for, and IDs of slots that it is for and
    that cannot be read."""

    going_on: tuple[KeySlot, ...]
    closed: tuple[KeySlot, ...]
    unreadable: tuple[str, ...]


def slot_use(repository: Repository) -> SlotUse:
    """Which of the key slots that are there open the repository."""
    repository.follow_keyring()
    boxes = repository.keyring.boxes
    slots = [slot for slot in list_slots(repository.store) if isinstance(slot, KeySlot)]
    there = {slot.id for slot in slots}
    return SlotUse(
        tuple(slot for slot in slots if slot.id in boxes),
        tuple(slot for slot in slots if slot.id not in boxes),
        tuple(sorted(boxes.keys() - there)),
    )


def add_slot(
    repository: Repository, secret: str, *, label: str, created: str, cost: Argon2Cost | None = None
) -> KeySlot:
    """Let another secret open the repository. Durable on return."""
    with _changing(repository) as ring:
        new = _new_slot(repository, ring, secret, label=label, created=created, cost=cost)
        _write(repository, ring.with_slots(repository.config.id, [new.slot]), repository.opened)
    return new.slot


def remove_slot(repository: Repository, slot_id: str) -> str:
    """Remove the slot whose ID starts with `slot_id`. Returns the whole ID.

    Raises NotFound, Ambiguous, or Refused when the slot is in use or the only one.
    """
    with _changing(repository) as ring:
        names = ring.boxes.keys() | mirrored_names(repository.store, FileKind.KEY).keys()
        found = [name for name in names if name.startswith(slot_id)]
        if not found:
            raise NoSuchKeySlot(f"no key slot {slot_id}")
        if len(found) > 1:
            raise Ambiguous(f"{slot_id} is the start of {len(found)} key slots; give more digits")
        if set(found) == set(ring.boxes):
            raise Refused("this is the only key slot: without it nobody could open the repository again")
        if found[0] == repository.slot.id:
            raise Refused(
                "this key slot is the one in use; open the repository with another one to remove it"
            )
        _check_own_slot(repository)
        if found[0] in ring.boxes:
            _write(repository, ring.with_slots(repository.config.id, remove=found), repository.opened)
        delete_mirrored(repository.store, FileKind.KEY, found[0])
    return found[0]


def _check_own_slot(repository: Repository) -> None:
    """Raises Refused when the slot in use is no more to be read: another one may be the last way in."""
    try:
        read_slot(repository.store, repository.slot.id)
    except (FileNotFoundError, Damaged, Unsupported):
        raise Refused(
            f"the key slot in use, {repository.slot.id[:8]}, cannot be read any more: others may be the "
            "only way in; nothing was removed"
        ) from None


def replace_slot(
    repository: Repository, secret: str, *, label: str, created: str, cost: Argon2Cost | None = None
) -> KeySlot:
    """Change the secret of the slot in use: one keyring has the new slot's box and not the old one's."""
    old = repository.slot.id
    with _changing(repository) as ring:
        new = _new_slot(repository, ring, secret, label=label, created=created, cost=cost)
        _write(repository, ring.with_slots(repository.config.id, [new.slot], [old]), new)
        delete_mirrored(repository.store, FileKind.KEY, old)
    return new.slot


def rotate(repository: Repository, use: SlotUse, *, created: str) -> int:
    """Begin a new key epoch, which only the slots that go on in `use` can read. Returns its number.

    What is sealed from now on cannot be read with the keys of earlier epochs. Raises Refused when slots were
    changed since `use` was found and shown.
    """
    with _changing(repository) as ring:
        if slot_use(repository) != use or repository.slot not in use.going_on:
            raise Refused("the key slots were changed meanwhile; nothing was done")
        if ring.epoch == LAST_EPOCH:
            raise Refused(f"key epoch {LAST_EPOCH} is the last that the format knows")
        epoch = Epoch(secrets.token_bytes(KEY_SIZE), created)
        new = ring.next_epoch(repository.config.id, epoch, use.going_on)
        _write(repository, new, repository.opened)
    return repository.keyring.epoch


@contextmanager
def _changing(repository: Repository) -> Iterator[Keyring]:
    """The newest keyring, which nobody else changes during the block."""
    with repository.store.lock(LockMode.EXCLUSIVE, _WAIT):
        if repository.store.claims() and (doubts := repository.store.doubts()):
            raise Refused(f"{doubts[-1]}; nothing was changed")  # each would drop the other's change
        repository.follow_keyring()
        mend_keys(repository)
        yield repository.keyring


def mend_keys(repository: Repository) -> None:
    """Complete what a crash left half of: configs, key slots, keyrings. The caller holds the exclusive lock
    and has followed the newest keyring."""
    store = repository.store
    restore_missing_copies(
        store, FileKind.CONFIG, lambda data, where, _: repository.verify_config(data, where)
    )
    restore_missing_copies(store, FileKind.KEY, parse_slot)
    tidy_keyrings(store, repository.keyring.name)


def _new_slot(
    repository: Repository, ring: Keyring, secret: str, *, label: str, created: str, cost: Argon2Cost | None
) -> OpenSlot:
    return write_slot(
        repository.store, secret, ring.identity, ring.anchor, label=label, created=created, cost=cost
    )


def _write(repository: Repository, ring: Keyring, by: OpenSlot) -> None:
    """Write a keyring, prove that the slot `by` opens it, and use both from now on."""
    config = repository.config
    repository.adopt(by, write_keyring(repository.store, ring, by, config.id, config.suite))
