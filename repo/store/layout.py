"""Where files lie below a repository's directory, and how large they can be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

from holdfast.repo.store.interface import CONFIG_NAMES, FileKind

TEMPORARY: Final = ".tmp-"
"""How names begin of files that are not whole."""
TRASH: Final = "trash"
LOCK: Final = "lock"
PREFIXES: Final = tuple(f"{number:02x}" for number in range(256))
"""Folders of packs: how their names begin."""
LIMITS: Final = {FileKind.CONFIG: 1 << 20, FileKind.KEY: 1 << 20}
"""Bytes; what is read before anything is authenticated. Who reads other kinds says how much."""

Parts: TypeAlias = tuple[str, ...]
"""Of a path below the repository's directory."""


def kind_folder(kind: FileKind, *, trashed: bool = False) -> Parts:
    """Where files of a kind lie, or their folders."""
    above = (TRASH,) if trashed else ()
    return above if kind is FileKind.CONFIG else (*above, kind.value)


def file_folder(kind: FileKind, name: str) -> Parts:
    """Where a file lies that is not in the trash."""
    return (*kind_folder(kind), name[:2]) if kind is FileKind.PACK else kind_folder(kind)


def all_folders() -> list[Parts]:
    """All below the directory itself."""
    folders = [kind_folder(kind) for kind in FileKind if kind is not FileKind.CONFIG]
    folders += [(*kind_folder(FileKind.PACK), prefix) for prefix in PREFIXES]
    return [*folders, *(kind_folder(kind, trashed=True) for kind in (FileKind.PACK, FileKind.SNAPSHOT))]


def not_ours(names: Iterable[str]) -> list[str]:
    """Which of the names in the directory neither a repository nor an interrupted `init` leaves, in order."""
    known = {kind.value for kind in FileKind} | {TRASH, LOCK, *CONFIG_NAMES}
    return sorted(name for name in names if name not in known and not name.startswith(TEMPORARY))
