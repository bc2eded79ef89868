"""Where files lie below a repository's directory, and how large they can be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from holdfast.repo.store.interface import CONFIG_NAMES, FileKind

TEMPORARY: Final = ".tmp-"
"""How names begin of files that are not whole."""
TRASH: Final = "trash"
LOCK: Final = "lock"
CLAIMS: Final = "claims"
"""Folder of notes of who holds the lock."""
PREFIXES: Final = tuple(f"{number:02x}" for number in range(256))
"""Folders of packs: how their names begin."""
LIMITS: Final = {FileKind.CONFIG: 1 << 20, FileKind.KEY: 1 << 20}
"""Bytes; what is read before anything is authenticated. Who reads other kinds says how much."""

_ID: Final = "[0-9a-f]{64}"
_PAIR: Final = re.compile(rf"{_ID}(?:\.2)?")
_NAMES: Final = {
    FileKind.CONFIG: re.compile("|".join(map(re.escape, CONFIG_NAMES))),
    FileKind.PACK: re.compile(_ID),
    FileKind.PROOF: re.compile(rf"(?:{_ID}\.[0-9TZ]+\.)?{_ID}(?:\.2)?"),
    FileKind.KEYRING: re.compile(rf"(?:[0-9]+\.[0-9]+\.)?{_ID}(?:\.2)?"),
}
"""How files are named, of the kinds that are no pairs named by their hash."""

Parts: TypeAlias = tuple[str, ...]
"""Of a path below the repository's directory."""


def kind_folder(kind: FileKind, *, trashed: bool = False) -> Parts:
    """Where files of a kind lie, or their folders."""
    above = (TRASH,) if trashed else ()
    return above if kind is FileKind.CONFIG else (*above, kind.value)


_TRASH_FOLDERS: Final = [kind_folder(kind, trashed=True) for kind in (FileKind.PACK, FileKind.SNAPSHOT)]


def file_folder(kind: FileKind, name: str) -> Parts:
    """The directory of a file that is not in the trash."""
    return (*kind_folder(kind), name[:2]) if kind is FileKind.PACK else kind_folder(kind)


def is_named_like(kind: FileKind, name: str) -> bool:
    """Whether a file of that kind may have the name. Other programs leave others: copies that rsync did not
    end, what NFS, file managers and synchronisers keep. They are no part of the repository."""
    return _NAMES.get(kind, _PAIR).fullmatch(name) is not None


def all_folders() -> list[Parts]:
    """All below the directory itself."""
    folders = [kind_folder(kind) for kind in FileKind if kind is not FileKind.CONFIG]
    folders += [(*kind_folder(FileKind.PACK), prefix) for prefix in PREFIXES]
    return [*folders, *_TRASH_FOLDERS]


def not_ours(names: Iterable[str]) -> list[str]:
    """The names in the directory that neither a repository nor an interrupted `init` has, in order."""
    known = {kind.value for kind in FileKind} | {TRASH, LOCK, CLAIMS, *CONFIG_NAMES}
    return sorted(name for name in names if name not in known and not name.startswith(TEMPORARY))


def strangers_in(parts: Parts, names: Iterable[str]) -> list[str]:
    """The names in a directory of the repository that other programs left there, in order."""
    if not parts:
        return not_ours(names)
    return sorted(name for name in names if not (name.startswith(TEMPORARY) or _belongs(parts, name)))


def _belongs(parts: Parts, name: str) -> bool:
    if parts == (TRASH,):
        return (TRASH, name) in _TRASH_FOLDERS
    *above, last = parts
    if above == [FileKind.PACK.value]:
        return is_named_like(FileKind.PACK, name) and name.startswith(last)
    if parts == kind_folder(FileKind.PACK):
        return name in PREFIXES
    return is_named_like(FileKind(last), name)
