"""Opens LMDB environments: those kept in a directory, and those of one command, which leave no files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import lmdb

from holdfast.base.errors import StoreError
from holdfast.repo.index.lmdb_env import open_labelled, openable, translate_errors
from holdfast.repo.index.sessions import IndexSession


class Session(Protocol):
    """One process's use of an index."""

    distrust: str

    def end(self, *, good: bool = True) -> None: ...


class NamelessSession:
    """The session of an index that no other process can open and that ends with this process."""

    distrust = ""

    def end(self, *, good: bool = True) -> None:
        """There is nothing to keep."""


def open_session(
    folder: Path, label: bytes, tables: Sequence[bytes], first_map: int
) -> tuple[Session, Any, list[Any]]:
    """(session, environment, tables) of an index in a folder that processes may share. Raises StoreError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        session = IndexSession(folder)
    except OSError as error:
        raise StoreError.wrap("open the index in", str(folder), error) from error
    try:
        environment, opened = open_labelled(folder, label, tables, first_map)
        session.opened()
    except OSError as error:
        session.end()
        raise StoreError.wrap("open the index in", str(folder), error) from error
    except lmdb.Error as error:
        session.end()
        raise StoreError("open the index in", str(folder), OSError(0, str(error))) from error
    return session, environment, opened


def open_nameless(
    scratch: Path | None, first_map: int, tables: Sequence[bytes] = ()
) -> tuple[Session, Any, list[Any]]:
    """The same without names: of files that are made and unlinked at `scratch`, or in memory.

    Not even a kill leaves anything. Nothing locks the environment: while one thread writes, none may read.
    """
    with translate_errors("make an index in", scratch or Path("memory")):
        if scratch is None:
            environment = _in_memory(first_map, len(tables))
        else:
            environment = _unlinked(scratch, first_map, len(tables))
        return NamelessSession(), environment, [environment.open_db(name) for name in tables]


def _in_memory(first_map: int, tables: int) -> Any:
    fd = os.memfd_create("holdfast-index")
    try:
        return _without_locks(f"/proc/self/fd/{fd}", first_map, tables, subdir=False)
    finally:
        os.close(fd)  # LMDB has opened it itself


def _unlinked(scratch: Path, first_map: int, tables: int) -> Any:
    scratch.mkdir(mode=0o700)
    try:
        with openable(scratch) as path:
            return _without_locks(path, first_map, tables, subdir=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _without_locks(path: str, map_size: int, tables: int, *, subdir: bool) -> Any:
    return lmdb.open(
        path,
        map_size=map_size,
        subdir=subdir,
        max_dbs=tables,
        mode=0o600,
        lock=False,
        sync=False,
        metasync=False,
        readahead=False,
    )


def remove_index(folder: Path) -> None:
    """Delete an index that is not open, or a file of its name. Ignores errors.

    An index that cannot be deleted cannot be written either, so `Repository.refresh` uses the cache instead.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.unlink()
