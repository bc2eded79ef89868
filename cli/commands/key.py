"""`holdfast key`: passwords and recovery keys."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import click

from holdfast.base.errors import Refused
from holdfast.base.escaping import escape
from holdfast.base.passwords import from_file
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exits import ExitCode
from holdfast.cli.base.options import SharedOptionsGroup, pass_settings
from holdfast.cli.base.passwords import ask_new
from holdfast.cli.base.recovery_key import KEEP_THE_RECOVERY_KEY
from holdfast.cli.base.render import Column, table
from holdfast.repo.core.keyslots import (
    KeySlot,
    add_slot,
    list_slots,
    new_recovery_key,
    remove_slot,
    replace_slot,
)

_new_password_file = click.option(
    "--new-password-file", metavar="FILE", help="The new password; default: asked for on the terminal."
)
_label_option = click.option("--label", default="", help="A note on whose it is; anybody can read it.")


@click.group("key", cls=SharedOptionsGroup)
def key_command() -> None:
    """Manage passwords and recovery keys. Each opens the repository by itself."""


@key_command.command("list")
@pass_settings
def list_command(settings: RunSettings) -> ExitCode:
    """List key slots. Needs no password: slots are public, what they hold is not."""
    with closing(settings.store()) as store:
        slots = list(list_slots(store))
    good = [slot for slot in slots if isinstance(slot, KeySlot)]
    damaged = [slot for slot in slots if not isinstance(slot, KeySlot)]
    settings.output.document(
        {"keys": [_document(slot) for slot in good], "damaged": [str(error) for error in damaged]}
    )
    rows = [[slot.id[:8], slot.kind, slot.created[:19].replace("T", " "), slot.label] for slot in good]
    settings.output.result(table((Column("ID"), Column("kind"), Column("made (UTC)"), Column("label")), rows))
    for error in damaged:
        settings.output.warn(f"a key slot cannot be read: {error}; run `holdfast check`")
    return ExitCode.DAMAGE if damaged else ExitCode.DONE


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
        slot = add_slot(repository.store, repository.root_key, secret, label=label, created=_now())
    settings.output.document({**_document(slot), **({"recovery_key": secret} if recovery else {})})
    settings.output.summary(f"key slot {slot.id[:8]} added")
    if recovery:
        settings.output.result(KEEP_THE_RECOVERY_KEY.format(key=secret))


@key_command.command("remove")
@click.argument("slot_id", metavar="ID")
@pass_settings
def remove_command(settings: RunSettings, *, slot_id: str) -> None:
    """Remove a password or recovery key by the ID that `key list` shows.

    Whoever had it and a copy of the repository can still read that copy.
    """
    with settings.opened() as repository:
        slot = remove_slot(repository.store, slot_id, current=repository.slot.id)
    settings.output.document({"removed": slot.id})
    settings.output.summary(f"key slot {slot.id[:8]} ({escape(slot.label or slot.kind)}) removed")


@key_command.command("passwd")
@click.option("--label", help="A note on whose it is; default: as it was.")
@_new_password_file
@pass_settings
def passwd_command(settings: RunSettings, *, label: str | None, new_password_file: str | None) -> None:
    """Change the password. The old one opens until the new one is proven to."""
    with settings.opened() as repository:
        old = repository.slot
        if old.cost is None:
            raise Refused(
                "the repository was opened with a recovery key, which is not changed; "
                "`holdfast key add` adds a password, `holdfast key remove` takes away one that was lost"
            )
        slot = replace_slot(
            repository.store,
            repository.root_key,
            old.id,
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
