"""Rehearsals for tests: dumps in a repository, folders to rehearse in, and what was left behind."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.base.confinement.plan import Limits, Plan
from holdfast.base.confinement.spare_user import spare_user
from holdfast.formats.dumps.core.catalogue import Catalogue, encode
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.snapshots.snapshot import (
    Consistency,
    ItemKind,
    Snapshot,
    StoredStream,
    Subject,
    SubjectKind,
)
from holdfast.repo.store.local import LocalStore
from holdfast.servers.confined.confined import Confinement
from holdfast.servers.confined.private import PREFIX, private_folder
from support.basics import NOW, put_item
from support.cli import PASSWORD, Place

_PIECE = 1 << 20


@contextmanager
def opened(place: Place) -> Iterator[Repository]:
    with (
        closing(LocalStore.open(place.repository)) as store,
        Repository.open(store, lambda: PASSWORD, cache=place.root / "cache") as repository,
    ):
        yield repository


@contextmanager
def confined_programs(scratch: Path, limits: Limits = Limits()) -> Iterator[Confinement]:  # noqa: B008  frozen
    """A confinement as a rehearsal makes it, with its private folder in `scratch`."""
    with (
        spare_user() as user,
        private_folder(scratch, user, shown=True) as folder,
        Confinement(Plan(user, folder, limits)) as confined,
    ):
        yield confined


def put_dump(
    place: Place,
    content: bytes,
    engine: str,
    path: str = "dump.sql",
    catalogue: Catalogue | None = None,
    *,
    name: str = "shop",
) -> None:
    """Commit a dump whatever state it is in, with a catalogue or as older programs did without."""
    with opened(place) as repository, Writer(repository) as writer:
        item = put_item(writer, repository, pieces(content), path)
        beside = None
        if catalogue is not None:
            stored = put_item(writer, repository, pieces(encode(catalogue)))
            beside = StoredStream(stored.recipe, stored.size)
        item = replace(item, kind=ItemKind.DUMP, catalogue=beside)
        subject = Subject(SubjectKind.DATABASE, name, engine=engine)
        writer.commit(Snapshot(subject, NOW, "host", "test", Consistency.APPLICATION, "", (item,), "test"))


def pieces(content: bytes) -> list[bytes]:
    return [content[at : at + _PIECE] for at in range(0, len(content), _PIECE)]


def rehearse(place: Place, scratch: Path, *args: str, code: int = 0) -> Any:
    """The proof in the document that `holdfast rehearse` prints. Nothing may be left of it."""
    result = place.run("rehearse", *args, "--json", "--scratch", scratch)
    assert result.exit_code == code, result.output + result.stderr
    assert leftovers(scratch) == []
    return json.loads(result.stdout.splitlines()[-1]).get("proof") if result.stdout else None


def leftovers(scratch: Path) -> list[str]:
    """Folders of rehearsals in `scratch`, processes that know one, shared memory of database users."""
    found = [path.name for path in scratch.glob(f"{PREFIX}*")]
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and entry.name != str(os.getpid()):
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"{scratch}/{PREFIX}".encode() in words:
                found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found


def counts(proof: Any) -> dict[str, int]:
    """Rows by table."""
    return {".".join(filter(None, (c["schema"], c["table"]))): c["rows"] for c in proof["counts"]}
