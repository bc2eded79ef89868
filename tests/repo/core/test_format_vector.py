"""A whole repository of format 2, made once: two key epochs, a password, a recovery key, two snapshots.

What fails here cannot read what was written before. Another program can be tested against the same file.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.memory import MemoryStore
from holdfast.repo.upkeep.check import Depth, check
from holdfast.repo.upkeep.epochs import stored_by_epoch
from support.basics import open_repository, read_item

FIRST = b"first epoch, " * 40


@pytest.fixture
def vector() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "format2.json").read_text())
    return found


def stored(vector: dict[str, Any]) -> MemoryStore:
    store = MemoryStore()
    for path, text in vector["files"].items():
        folder, _, name = path.partition("/")
        for copy in (name,) if folder == "packs" else (name, name + ".2"):
            store.files[FileKind(folder), copy] = base64.b64decode(text)
    return store


@pytest.mark.parametrize("secret", ["password", "recovery_key"])
def test_what_was_written_once_is_read_for_ever(secret: str, vector: dict[str, Any], tmp_path: Path) -> None:
    store = stored(vector)
    with open_repository(store, tmp_path, password=vector[secret]) as repository:
        assert check(repository, Depth.READ_DATA).findings == []
        found = [read_item(repository, s.snapshot.items[0]) for s in repository.snapshots().good]
        assert found == [FIRST + bytes(8192) + b"raw", FIRST + b"second epoch"]
        assert repository.keyring.identity.hex() == vector["identity"]
        roots = {str(epoch): each.root.hex() for epoch, each in repository.keyring.epochs.items()}
        assert roots == vector["roots"]
        assert stored_by_epoch(store).keys() == {1, 2}
