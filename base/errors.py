"""What can go wrong, one class per decision a caller can take.

HoldfastError
|-- RepositoryError            the repository side: a backup in progress is aborted
|   |-- NoRepository           nothing there
|   |-- RepositoryExists       init found one
|   |-- Unsupported            newer version, unknown feature or cipher
|   |-- WrongPassword          no key slot opens
|   |   `-- SlotRemoved        one opens, and the newest keyring has no box for it
|   |-- TooManySlots           more key slots than are tried
|   |-- CostlyKey              a key slot asks for more memory or time than is given unasked
|   |-- KeyringRolledBack      the newest keyring is older than one that was seen, or another one
|   |-- Locked                 somebody holds the lock
|   |-- StoreError             the operating system refused: path and errno
|   |   `-- NoSpace            full disk or quota
|   `-- Damaged                bytes are not what was written: kind, name, offset
|       |-- MissingChunk       a chunk is in no pack
|       `-- OtherKey           sealed under no key of this repository, or its head is damaged
|-- TargetError                the operating system refused an operation on what is restored to
|-- SourceError                the thing being backed up: the snapshot is marked partial
|   |-- NotSeekable            neither a file nor a block device: only a stream can be read of it
|   `-- StreamFailed           a command failed or a stream ended early: nothing is committed
|-- NotFound                   no such snapshot, key or path inside a snapshot
|   |-- NoSnapshots            the repository holds none
|   |-- OnlyLogs               it holds none but those of log archives
|   |-- NoSuchSnapshot         it holds others
|   |-- NoSuchKeySlot          it has others
|   |-- NoSuchLogArchive       it has others, or none
|   `-- NotInTrash             nothing to bring back
|-- Ambiguous                  a selector matches more than one
`-- Refused                    would overwrite, empty a group, or is otherwise unsafe
    `-- NeedsUnknown           damage hides what is still needed, so nothing may be deleted
"""

from __future__ import annotations

import errno
from pathlib import Path


class HoldfastError(Exception):
    """Base of every error that is expected; the message is a sentence for the user."""


class RepositoryError(HoldfastError):
    """The repository could not be used."""


class NoRepository(RepositoryError):
    """There is no repository at the place."""


class RepositoryExists(RepositoryError):
    """A repository is there already."""


class Unsupported(RepositoryError):
    """Written by a newer program, or with a feature or cipher this one does not know."""


class WrongPassword(RepositoryError):
    """No key slot opens with the secret."""


class SlotRemoved(WrongPassword):
    """The secret opens a key slot that was removed, or whose making was never finished."""


class TooManySlots(RepositoryError):
    """There are more key slots than are tried, and none of those opens."""

    def __init__(self, path: str, count: int, tried: int) -> None:
        super().__init__(f"{tried} of {count} key slots were tried and did not open; the next was {path}")
        self.path = path


class CostlyKey(RepositoryError):
    """A key slot asks for more memory or passes of Argon2 than anybody's word should cost."""

    def __init__(self, path: str, memory_mib: int, passes: int) -> None:
        super().__init__(
            f"no other key slot opens, and {path} asks for {memory_mib} MiB and {passes} passes: more than "
            "256 MiB or 10 passes are not spent unasked, for who can write to the store can ask for it"
        )
        self.path = path


class KeyringRolledBack(RepositoryError):
    """The newest keyring is older than one that was seen, or was made by somebody who had a password once."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where} {reason}: it is not the newest, or not genuine; nothing was done")
        self.path = where


class Locked(RepositoryError):
    """Another process holds the repository lock."""


class StoreError(RepositoryError):
    """The operating system refused an operation on a repository file."""

    def __init__(self, action: str, path: str, error: OSError) -> None:
        super().__init__(f"cannot {action} {path}: {error.strerror or error}")
        self.path = path
        self.errno = error.errno

    @staticmethod
    def wrap(action: str, path: str, error: OSError) -> StoreError:
        """The subclass that fits `error`."""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return (NoSpace if full else StoreError)(action, path, error)


class NoSpace(StoreError):
    """The repository's file system is full or over quota."""


class Damaged(RepositoryError):
    """Stored bytes are missing, truncated or not authentic."""

    def __init__(self, where: str, reason: str, *, offset: int | None = None) -> None:
        at = f" at offset {offset}" if offset is not None else ""
        super().__init__(f"{where}{at}: {reason}")
        self.where = where
        self.reason = reason
        self.offset = offset


class MissingChunk(Damaged):
    """A chunk that a recipe names is in no pack that is there."""


class OtherKey(Damaged):
    """Of another repository, when its content is that of its name; else its head is damaged."""


class TargetError(HoldfastError):
    """The operating system refused an operation on what is restored to."""


class SourceError(HoldfastError):
    """A source could not be read as announced."""


class NotSeekable(SourceError):
    """A path is wanted that can be read anywhere, and this is a pipe, a terminal or a directory."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is neither a file nor a block device")
        self.path = path


class StreamFailed(SourceError):
    """A command exited non-zero or a stream ended before its end mark; nothing was committed."""


class NotFound(HoldfastError):
    """No such snapshot, key slot or path inside a snapshot."""


class NoSnapshots(NotFound):
    """The repository holds no snapshots at all."""


class OnlyLogs(NotFound):
    """The repository holds no snapshots but those of log archives, which no selector means."""


class NoSuchSnapshot(NotFound):
    """No snapshot fits the selector; there are others."""


class NoSuchKeySlot(NotFound):
    """No key slot has an ID that begins so."""


class NoSuchLogArchive(NotFound):
    """No log archive has the name."""


class NotInTrash(NotFound):
    """A snapshot that is to be brought back is not in the trash."""


class Ambiguous(HoldfastError):
    """A selector matches more than one thing."""


class Refused(HoldfastError):
    """The request would destroy something and was not confirmed by an option."""


class NeedsUnknown(Refused):
    """Nothing may be deleted: because of damage it cannot be told what snapshots need."""
