"""A reader written from `docs/format.md` alone reads what is written, and refuses what the page says."""

from __future__ import annotations

import ast
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from blake3 import blake3

from independent.read import DATA, NODE, Reader
from independent.unlock import Refused, Secret, unlock
from support.cli import PASSWORD, Place, files, flip_byte, pg_dump

SECOND = "zweites Paßwort"
KINDS = ("config", "keys", "keyring", "packs", "snapshots", "proofs", "forgotten")
Damage = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Example:
    """A repository of two epochs; what was backed up, by path; what a removed password kept."""

    repository: Path
    before: Path
    sources: dict[str, bytes]
    recovery_key: str
    removed: str
    forgotten: str

    def reader(self) -> Reader:
        return opened(self.repository)


def opened(root: Path, secret: Secret | None = None) -> Reader:
    return Reader(root, unlock(root, secret or Secret.password(PASSWORD)))


def holey_disk(path: Path) -> Path:
    """More data and holes by turns than one leaf of a recipe has entries."""
    noise = random.Random(7)
    with path.open("wb") as file:
        file.truncate(2000 << 17)
        for number in range(1200):
            file.seek(number << 17)
            file.write(noise.randbytes(4096))
    return path


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    place = Place.make(tmp_path_factory.mktemp("independent"))
    note = place.write("note.bin", random.Random(1).randbytes(700_000))
    empty, twice = place.write("empty", b""), place.write("twice.txt", b"the same again\n" * 30_000)
    disk = holey_disk(place.root / "web01.raw")
    place.ok("backup", note, empty, twice, "--name", "papers")
    place.ok("backup", disk, "--name", "web01")
    lost = place.json("backup", twice, "--name", "lost")["id"]
    second = place.write("second", SECOND + "\n")
    removed = place.json("key", "add", "--new-password-file", second)["id"]
    recovery_key = place.json("key", "add", "--recovery")["recovery_key"]
    before = place.root / "before"
    shutil.copytree(place.repository, before)
    place.ok("key", "remove", removed)
    place.ok("key", "rotate", "--yes")
    dump = place.write("shop.sql", pg_dump(6000))
    place.ok("backup", dump, "--name", "shop")
    with closing(sqlite3.connect(place.root / "app.db")) as app:
        app.execute("create table t (a integer)")
        app.commit()
    place.ok("backup", f"sqlite:{place.root / 'app.db'}")
    place.ok("rehearse", "app")
    place.ok("forget", lost, "--allow-empty")
    sources = {
        "note.bin": note.read_bytes(),
        "empty": b"",
        "twice.txt": twice.read_bytes(),
        "disks/web01.raw": disk.read_bytes(),
        "dump.sql": dump.read_bytes(),
    }
    return Example(place.repository, before, sources, recovery_key, removed, lost)


def test_every_item_of_both_epochs_is_read_as_it_was_backed_up(example: Example) -> None:
    reader = example.reader()
    reader.load()
    assert {reader.pack(id).content[12] for id in reader.packs()} == {1, 2}
    read = {
        item["path"]: b"".join(reader.item(item["recipe"], item["size"]))
        for snapshot in reader.snapshots().values()
        for item in snapshot["items"]
        if snapshot["subject"]["name"] != "app"
    }
    assert read == example.sources
    for id, (_, record) in reader.index.items():
        assert len(reader.chunk(id, record.type)) == record.raw


def test_the_disk_has_a_recipe_of_several_leaves(example: Example) -> None:
    reader = example.reader()
    reader.load()
    disk = next(s["items"][0] for s in reader.snapshots().values() if s["subject"]["name"] == "web01")
    assert reader.chunk(bytes.fromhex(disk["recipe"]), NODE)[0] > 0
    with pytest.raises(Refused, match="another type"):
        reader.chunk(bytes.fromhex(disk["recipe"]), DATA)


def test_the_catalogue_of_a_dump_is_a_second_stream(example: Example) -> None:
    reader = example.reader()
    reader.load()
    dump = next(s["items"][0] for s in reader.snapshots().values() if s["subject"]["name"] == "shop")
    recipe, size = dump["catalogue"]
    assert b'"orders"' in b"".join(reader.item(recipe, size))


def test_proofs_and_forgotten_snapshots_are_read(example: Example) -> None:
    reader = example.reader()
    [(verdict, details)] = reader.proofs()
    assert verdict["outcome"] == "proven"
    assert details["tables"] == [["main", "", "t", 0]]
    assert set(reader.forgotten()) == {example.forgotten}
    assert set(reader.snapshots("trash/snapshots")) == {example.forgotten}
    assert reader.missing() == set()


def test_the_recovery_key_opens_the_same_keys(example: Example) -> None:
    recovered = unlock(example.repository, Secret.recovery_key(example.recovery_key))
    assert recovered == example.reader().keys
    assert set(recovered.roots) == {1, 2}


def test_a_removed_slot_opens_nothing_of_the_new_epoch(example: Example, tmp_path: Path) -> None:
    root = copied(example, tmp_path)
    secret = Secret.password(SECOND)
    shutil.copy(example.before / "keys" / example.removed, root / "keys")
    with pytest.raises(Refused, match="removed"):
        unlock(root, secret)
    old = unlock(example.before, secret)
    reader = Reader(root, old)
    refused = 0
    for id in reader.packs():
        if reader.root.joinpath("packs", id[:2], id).read_bytes()[12] == 2:
            with pytest.raises(Refused, match="epoch 2 is not in the keyring"):
                reader.pack(id)
            refused += 1
    assert refused


def test_an_older_keyring_put_back_beside_the_newer_counts_for_nothing(
    example: Example, tmp_path: Path
) -> None:
    root = copied(example, tmp_path)
    for path in files(example.before, "keyring"):
        shutil.copy(path, root / "keyring")
    assert set(opened(root).keys.roots) == {1, 2}
    for path in files(root, "keyring"):
        if path.name.startswith("2."):
            flip_byte(path, 300)
    with pytest.raises(Refused):
        opened(root)


def copied(example: Example, tmp_path: Path) -> Path:
    return shutil.copytree(example.repository, tmp_path / "copy", dirs_exist_ok=True)


def read_all(root: Path) -> None:
    """Everything that there is."""
    reader = opened(root)
    reader.load()
    for id, (_, record) in reader.index.items():
        reader.chunk(id, record.type)
    snapshots = reader.snapshots()
    reader.proofs()
    reader.forgotten()
    assert snapshots


def first(root: Path, kind: str) -> Path:
    """A file of this kind, the one that the password needs."""
    if kind == "config":
        return root / "config"
    found = [path for path in files(root, kind) if path.suffix != ".2"]
    if kind == "keys":
        return next(path for path in found if b"argon2id" in path.read_bytes())
    return found[0]


def put(path: Path, content: bytes, *, renamed: bool) -> Path:
    """Put it there for both copies; `renamed`: under the name that its content has, as an attacker would."""
    second = path.with_name(path.name + ".2")
    mirrored = second.exists()
    target = path
    if renamed and path.name != "config":
        digest = blake3(content).hexdigest()
        target = path.with_name(".".join([*path.name.split(".")[:-1], digest]))
        if path.parent.parent.name == "packs":
            target = path.parent.parent / digest[:2] / digest
            target.parent.mkdir(exist_ok=True)
    path.unlink()
    target.write_bytes(content)
    if mirrored:
        second.unlink()
        target.with_name(target.name + ".2").write_bytes(content)
    return target


def flips(content: bytes, kind: str) -> list[int]:
    """Offsets to try: first and last bytes, all fields of a head or a line, and some between."""
    some = random.Random(kind).sample(range(len(content)), 6)
    return sorted({0, 8, 9, 10, 11, 12, 14, 20, 50, 70, len(content) - 1, *some})


@pytest.mark.parametrize("renamed", [False, True], ids=["its old name", "a name that fits"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_byte_is_refused(example: Example, tmp_path: Path, kind: str, renamed: bool) -> None:
    root = copied(example, tmp_path)
    path = first(root, kind)
    whole = path.read_bytes()
    for offset in flips(whole, kind):
        flipped = bytearray(whole)
        flipped[offset] ^= 0x20
        damaged = put(path, bytes(flipped), renamed=renamed)
        with pytest.raises(Refused):
            read_all(root)
        put(damaged, whole, renamed=True)
    read_all(root)


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_refused(example: Example, tmp_path: Path, kind: str) -> None:
    root = copied(example, tmp_path)
    path = first(root, kind)
    whole = path.read_bytes()
    for length in (0, 64, len(whole) // 2, len(whole) - 64, len(whole) - 1):
        path = put(path, whole[:length], renamed=True)
        with pytest.raises(Refused):
            read_all(root)


@pytest.mark.parametrize("kind", ["keys", "packs", "snapshots"])
def test_two_files_that_changed_places_are_refused(example: Example, tmp_path: Path, kind: str) -> None:
    root = copied(example, tmp_path)
    one = first(root, kind)
    other = next(path for path in files(root, kind) if path.suffix != ".2" and path != one)
    contents = one.read_bytes(), other.read_bytes()
    put(one, contents[1], renamed=False)
    put(other, contents[0], renamed=False)
    with pytest.raises(Refused):
        read_all(root)


@pytest.mark.parametrize(("source", "target"), [("snapshots", "forgotten"), ("forgotten", "snapshots")])
def test_a_file_of_one_kind_cannot_pass_for_another(
    example: Example, tmp_path: Path, source: str, target: str
) -> None:
    root = copied(example, tmp_path)
    shutil.copy(first(root, source), root / target)
    with pytest.raises(Refused, match="another type"):
        read_all(root)


def test_a_flipped_byte_in_one_of_two_copies_costs_nothing(example: Example, tmp_path: Path) -> None:
    root = copied(example, tmp_path)
    for kind in KINDS:
        if kind != "packs":
            flip_byte(first(root, kind), 40)
    read_all(root)


def test_a_pack_of_another_repository_is_refused(example: Example, tmp_path: Path) -> None:
    root = copied(example, tmp_path)
    stranger = Place.make(tmp_path)
    stranger.ok("backup", stranger.write("note.bin", b"not yours"))
    [pack] = files(stranger.repository, "packs")
    (root / "packs" / pack.parent.name).mkdir(exist_ok=True)
    shutil.copy(pack, root / "packs" / pack.parent.name)
    with pytest.raises(Refused, match="another key"):
        read_all(root)


@pytest.mark.parametrize("module", ["unlock.py", "read.py"])
def test_the_reader_imports_nothing_of_the_product(module: str) -> None:
    allowed = sys.stdlib_module_names | {"blake3", "cryptography", "zstandard", "independent"}
    tree = ast.parse(Path(__file__).with_name(module).read_text())
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
    assert imported <= allowed
