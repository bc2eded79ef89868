"""What other programs leave in a repository stops nothing, and check tells it with the path that there is."""

from __future__ import annotations

import shutil
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.repo.store.local import LocalStore
from holdfast.repo.upkeep.check import Depth
from holdfast.repo.upkeep.findings import Weight
from holdfast.repo.upkeep.forget import forget
from holdfast.repo.upkeep.prune import execute
from holdfast.repo.upkeep.prune_plan import make_plan
from support.fault import NEXT, OLD, all_contents, backup, create, findings, later, local, open_repository

NAMES = [".DS_Store", ".{}.Ab12Cd", ".nfs000000000000012", "{}.sync-conflict-20261130-101010-ABCDEFG", "._{}"]
FOLDERS = ["", "snapshots", "packs", "packs/AA", "keys", "keyring", "pending", "forgotten", "trash/packs"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "folder",
    [*("", "snapshots", "packs", "packs/AA", "keys", "keyring", "pending", "forgotten"), "trash/packs"],
)
def test_a_stray_file_stops_nothing_and_is_told_with_its_path(tmp_path: Path, folder: str, name: str) -> None:
    root = tmp_path / "repository"
    with closing(LocalStore.create(root)) as store:
        create(store)
    with local(root) as store, open_repository(store, tmp_path / "cache") as repository:
        first = backup(repository, OLD).stored
        second = backup(repository, NEXT, time=later(1)).stored
        pack = next(path for path in root.glob("packs/*/*") if path.is_file())
        like = pack if folder in ("packs/AA", "trash/packs") else next((root / "snapshots").iterdir())
        stray = root / folder.replace("AA", pack.parent.name) / name.format(like.name)
        stray.write_bytes(b"x")
        expected = all_contents(repository)
        forget(repository, [first.id])
        for depth in (Depth.REACHABLE, Depth.READ_DATA):
            (found,) = findings(repository, depth)
            assert (found.where, found.weight) == (str(stray), Weight.NOTE)
        plan = make_plan(repository, max_unused=0.0)
        execute(repository, plan, quarantine=timedelta(0), now=lambda: 1e12)
        assert all_contents(repository) == {second.id: expected[second.id]}
    assert stray.read_bytes() == b"x"


def test_files_of_another_repository_stop_nothing_and_are_told(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for root in (ours, theirs):
        with closing(LocalStore.create(root)) as store:
            create(store)
        with local(root) as store, open_repository(store, tmp_path / "cache") as repository:
            backup(repository, OLD if root == theirs else NEXT)
    copied = [
        path for kind in ("packs", "snapshots") for path in (theirs / kind).rglob("*") if path.is_file()
    ]
    for path in copied:
        shutil.copy(path, ours / path.relative_to(theirs))
    with local(ours) as store, open_repository(store, tmp_path / "cache") as repository:
        expected = all_contents(repository)
        assert list(expected.values()) == [NEXT]
        told = {each.where for each in findings(repository) if each.weight is Weight.NOTE}
        assert told == {str(ours / path.relative_to(theirs)) for path in copied if path.suffix != ".2"}
        assert len(findings(repository)) == len(told)
        forgotten = backup(repository, OLD, time=later(1)).stored
        forget(repository, [forgotten.id])
        execute(repository, make_plan(repository), quarantine=timedelta(0), now=lambda: 1e12)
        assert all_contents(repository) == expected


def test_a_whole_pack_in_another_packs_folder_is_told_and_what_needs_it_is_missing(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    with closing(LocalStore.create(root)) as store:
        create(store)
    with local(root) as store, open_repository(store, tmp_path / "cache") as repository:
        backup(repository, OLD)
        pack = next(path for path in root.glob("packs/*/*") if path.is_file())
        wrong = root / "packs" / ("00" if pack.parent.name != "00" else "01") / pack.name
        pack.rename(wrong)
        found = findings(repository, Depth.REACHABLE)
        assert [each.where for each in found if each.weight is Weight.NOTE] == [str(wrong)]
        assert any(each.weight is Weight.DAMAGE for each in found)
