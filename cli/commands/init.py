"""`holdfast init`."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import click

from holdfast.base.errors import NoRepository, RepositoryExists
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.passwords import find_password
from holdfast.cli.base.recovery_key import KEEP_THE_RECOVERY_KEY, shown_or_removed
from holdfast.repo.core.key_changes import add_slot
from holdfast.repo.core.keyslots import new_recovery_key
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import Suite
from holdfast.repo.records.high_water import accept_place
from holdfast.repo.store.local import LocalStore

_CIPHERS = {"aes": Suite.AES_256_GCM, "chacha": Suite.CHACHA20_POLY1305}


@command("init")
@click.option(
    "--compression",
    type=click.IntRange(1, 19),
    default=2,
    show_default=True,
    metavar="LEVEL",
    help="Of zstd.",
)
@click.option(
    "--cipher",
    type=click.Choice(list(_CIPHERS)),
    default="aes",
    show_default=True,
    help="chacha is faster on processors without AES instructions.",
)
@click.option("--recovery-key", is_flag=True, help="Make a recovery key, too, and show it once.")
@click.option("--label", default="", help="A note on whose password this is; anybody can read it.")
@pass_settings
def init_command(
    settings: RunSettings, *, compression: int, cipher: str, recovery_key: bool, label: str
) -> None:
    """Make a repository in an empty or new directory.

    All that is stored is encrypted with a key that the password opens. Without the password (or a
    recovery key) nobody can read it, not you, not us.
    """
    root = settings.root
    refuse_existing(root)
    password = find_password(settings.passwords, settings.variables, new=True)
    now = datetime.now(UTC)
    with closing(LocalStore.create(root)) as store:
        Repository.create(
            store, password, created=now, label=label, suite=_CIPHERS[cipher], compression=compression
        )
        with Repository.open(store, lambda: password, cache=settings.cache) as repository:
            accept_place(repository, root, settings.cache)
            if recovery_key:
                key = new_recovery_key()
                slot = add_slot(repository, key, label="", created=now.isoformat())
                with shown_or_removed(repository, slot.id):
                    _tell(settings, repository.config.hex_id, key)
            else:
                _tell(settings, repository.config.hex_id, "")
        settings.report_shortcomings(store)


def _tell(settings: RunSettings, hex_id: str, key: str) -> None:
    root = settings.root
    settings.output.document({"id": hex_id, "path": str(root)} | ({"recovery_key": key} if key else {}))
    settings.output.summary(
        f"repository {hex_id[:8]} made in {root}\n"
        "Keep the password safe: without it (or a recovery key) nobody can read the backups."
    )
    if key:
        settings.output.result(KEEP_THE_RECOVERY_KEY.format(key=key))
    else:
        settings.output.note("`holdfast key add --recovery` makes a recovery key to print and lock away")


def refuse_existing(root: Path) -> None:
    """Raises RepositoryExists before a password is asked for in vain."""
    try:
        LocalStore.open(root).close()
    except NoRepository:
        return
    raise RepositoryExists(f"there is a repository in {root} already")
