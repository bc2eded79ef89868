"""The newest key epoch that this user saw of a repository, in the user's cache.

Whoever can write to the store and once had a password can put an old keyring back, or make one without the
later epochs. A program that never saw those epochs cannot tell; one that did refuses the keyring.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Final

from holdfast.base.durable_files import durable_file, write_all
from holdfast.repo.core.keyring import Keyring
from holdfast.repo.core.keyslots import Anchor

_LARGEST: Final = 4096


def check_epoch(folder: Path, keyring: Keyring, where: str) -> None:
    """Raises KeyringRolledBack unless the keyring has the epoch that was remembered in `folder`."""
    known = _read(folder)
    if known is not None:
        keyring.check(known, "this user's cache", where)


def remember_epoch(folder: Path, keyring: Keyring) -> None:
    """Refuse keyrings without this epoch from now on. A cache that cannot be written remembers none."""
    if _read(folder) == keyring.anchor:
        return
    anchor = keyring.anchor
    text = json.dumps({"epoch": anchor.epoch, "fingerprint": anchor.fingerprint.hex()})
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with durable_file(_file(folder)) as fd:
            write_all(fd, text.encode())


def _file(folder: Path) -> Path:
    return folder / "epoch"


def _read(folder: Path) -> Anchor | None:
    try:
        with _file(folder).open("rb") as stream:
            found = json.loads(stream.read(_LARGEST))
        return Anchor(int(found["epoch"]), bytes.fromhex(found["fingerprint"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
