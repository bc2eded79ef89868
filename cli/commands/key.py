"""`holdfast key`: passwords and recovery keys."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from holdfast.base.errors import Damaged, Refused, Unsupported
from holdfast.base.escaping import escape
from holdfast.base.passwords import from_file
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.epochs import describe_epoch
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.options import SharedOptionsGroup, pass_settings
from holdfast.cli.base.passwords import ask_new
from holdfast.cli.base.recovery_key import KEEP_THE_RECOVERY_KEY, shown_or_removed
from holdfast.cli.base.table import Column, table
from holdfast.repo.core.key_changes import add_slot, remove_slot, replace_slot, rotate, slot_use
from holdfast.repo.core.keyring import PublicKeyring, read_newest
from holdfast.repo.core.keyslots import KeySlot, list_slots, new_recovery_key
from holdfast.repo.store.local import LocalStore
from holdfast.repo.upkeep.epochs import left_in_earlier

_new_password_file = click.option(
    "--new-password-file", metavar="FILE", help="The new password; default: asked for on the terminal."
)
_label_option = click.option("--label", default="", help="A note on whose it is; anybody can read it.")

_COLUMNS: Final = (
    Column("ID"),
    Column("kind", leaves=2),
    Column("made (UTC)", leaves=1),
    Column("label", folds=True),
)


@click.group("key", cls=SharedOptionsGroup)
def key_command() -> None:
    """Manage passwords and recovery keys. Each opens the repository by itself."""


@key_command.command("list")
@pass_settings
def list_command(settings: RunSettings) -> ExitCode:
    """List key slots. Needs no password: slots are public, what they hold is not."""
    with closing(settings.store()) as store:
        slots = list(list_slots(store))
        keyring = _newest(settings, store)
        earlier = left_in_earlier(store, keyring.epoch) if keyring else (0, 0)
    good = [slot for slot in slots if isinstance(slot, KeySlot)]
    damaged = [slot for slot in slots if not isinstance(slot, KeySlot)]
    settings.output.document(
        {
            "epoch": keyring.epoch if keyring else None,
            "earlier_epochs": {"packs": earlier[0], "bytes": earlier[1]},
            "keys": [
                _document(slot) | {"opens": keyring is None or slot.id in keyring.boxes} for slot in good
            ],
            "damaged": [str(error) for error in damaged],
        }
    )
    settings.output.result(_slot_table(good))
    if keyring:
        settings.output.summary(f"\nkey epoch {describe_epoch(keyring.epoch, *earlier)}")
        for slot in good:
            if slot.id not in keyring.boxes:
                settings.output.warn(
                    f"key slot {slot.id[:8]} opens nothing: it was removed, or never finished"
                )
    for error in damaged:
        settings.output.warn(f"a key slot cannot be read: {error}; run `holdfast check`")
    return ExitCode.DAMAGE if damaged or not keyring else ExitCode.DONE


def _newest(settings: RunSettings, store: LocalStore) -> PublicKeyring | None:
    try:
        return read_newest(store)
    except (Damaged, Unsupported) as error:
        settings.output.warn(f"the keyring cannot be read: {error}; run `holdfast check`")
        return None


def _slot_table(slots: Sequence[KeySlot]) -> str:
    rows = [[slot.id[:8], slot.kind, slot.created[:19].replace("T", " "), slot.label] for slot in slots]
    return table(_COLUMNS, rows)


@key_command.command("add")
@click.option("--recovery", is_flag=True, help="Make a recovery key and show it once.")
@_label_option
@_new_password_file
@pass_settings
def add_command(settings: RunSettings, *, recovery: bool, label: str, new_password_file: str | None) -> None:
    """Add a password or a recovery key; those that are there stay."""
    if recovery and new_password_file:
        raise click.UsageError("a recovery key is made, not chosen: --new-password-file does not go with it")
    with settings.opened() as repository:
        secret = new_recovery_key() if recovery else _new_password(new_password_file)
        slot = add_slot(repository, secret, label=label, created=_now())
        if not recovery:
            settings.output.document(_document(slot))
            settings.output.summary(f"key slot {slot.id[:8]} added")
            return
        with shown_or_removed(repository, slot.id):
            settings.output.document({**_document(slot), "recovery_key": secret})
            settings.output.summary(f"key slot {slot.id[:8]} added")
            settings.output.result(KEEP_THE_RECOVERY_KEY.format(key=secret))


@key_command.command("remove")
@click.argument("slot_id", metavar="ID")
@pass_settings
def remove_command(settings: RunSettings, *, slot_id: str) -> None:
    """Remove a password or recovery key by the ID that `key list` shows.

    Whoever had it may have kept a copy of its file, and with that reads what was and will be backed up until
    `holdfast key rotate` begins a new key epoch; what was backed up before that he can always read.
    """
    with settings.opened() as repository:
        slots = {slot.id: slot for slot in list_slots(repository.store) if isinstance(slot, KeySlot)}
        removed = remove_slot(repository, slot_id)
    slot = slots.get(removed)
    settings.output.document({"removed": removed})
    whose = f" ({escape(slot.label or slot.kind)})" if slot else ""
    settings.output.summary(f"key slot {removed[:8]}{whose} removed")
    settings.output.note(
        "whoever kept a copy of it can read what is backed up from now on, too, until `holdfast key rotate`"
    )


@key_command.command("rotate")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_settings
def rotate_command(settings: RunSettings, *, yes: bool) -> None:
    """Begin a new key epoch: removed passwords cannot read what is backed up from now on.

    Lists the key slots that go on, and asks. What is stored stays as it is; `holdfast prune` seals packs of
    earlier epochs anew a few at a time, `holdfast prune --reseal` all at once. That keeps removed passwords
    from what they did not copy yet, and from nothing that they did.
    """
    with settings.opened() as repository:
        use = slot_use(repository)
        settings.output.summary(
            f"key epoch {repository.keyring.epoch + 1} will be open to these, and no others:"
        )
        settings.output.summary(_slot_table(use.going_on))
        for id_ in use.unreadable:
            settings.output.warn(f"key slot {id_[:8]} cannot be read; it will open nothing any more")
        if not yes:
            _confirm(settings)
        epoch = rotate(repository, use, created=_now())
    settings.output.document({"epoch": epoch, "keys": [slot.id for slot in use.going_on]})
    settings.output.summary(
        f"key epoch {epoch} began; what is backed up from now on is sealed under its keys"
    )
    settings.output.note(
        "`holdfast prune --reseal` seals what was there before anew; each `holdfast prune` a little of it"
    )


def _confirm(settings: RunSettings) -> None:
    if settings.output.json or not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask; --yes does it unasked")
    click.confirm("Do you know them all?", abort=True, err=True)


@key_command.command("passwd")
@click.option("--label", help="A note on whose it is; default: as it was.")
@_new_password_file
@pass_settings
def passwd_command(settings: RunSettings, *, label: str | None, new_password_file: str | None) -> None:
    """Change the password. The old one opens until the new one is proven to.

    If somebody else may know the old one, and have a copy of its key slot, run `holdfast key rotate` then.
    """
    with settings.opened() as repository:
        old = repository.slot
        if old.cost is None:
            raise Refused(
                "the repository was opened with a recovery key, which is not changed; "
                "`holdfast key add` adds a password, `holdfast key remove` takes away one that was lost"
            )
        slot = replace_slot(
            repository,
            _new_password(new_password_file),
            label=old.label if label is None else label,
            created=_now(),
        )
    settings.output.document({**_document(slot), "removed": old.id})
    settings.output.summary(f"password changed: key slot {slot.id[:8]} instead of {old.id[:8]}")


def _new_password(file: str | None) -> str:
    return from_file(Path(file)) if file is not None else ask_new()


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _document(slot: KeySlot) -> dict[str, str]:
    return {"id": slot.id, "kind": slot.kind, "created": slot.created, "label": slot.label}
