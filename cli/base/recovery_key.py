"""Shows a new recovery key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from holdfast.repo.core.key_changes import remove_slot
from holdfast.repo.core.repository import Repository

KEEP_THE_RECOVERY_KEY: Final = """
Recovery key, shown this once:

    {key}

Print it or write it down, and keep it away from this machine. It opens the repository
like the password: type it where the password is asked for."""


@contextmanager
def shown_or_removed(repository: Repository, slot_id: str) -> Iterator[None]:
    """A block that shows the new recovery key. When the block fails, the key's slot is removed again: a key
    that nobody has seen must not count as a way in."""
    try:
        yield
    except OSError as error:
        remove_slot(repository, slot_id)
        error.add_note(f"the recovery key could not be shown, so key slot {slot_id[:8]} was removed again")
        raise
