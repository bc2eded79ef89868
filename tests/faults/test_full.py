"""A file system that is really full: nothing lost, reading works, pruning frees space, backups work again."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.base.errors import NoSpace
from holdfast.repo.core.repository import Repository
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.local import LocalStore
from holdfast.repo.upkeep.check import Depth
from holdfast.repo.upkeep.forget import forget, undelete
from holdfast.repo.upkeep.prune import PruneResult, execute
from holdfast.repo.upkeep.prune_plan import make_plan
from support.fault import (
    Content,
    all_contents,
    backup,
    contents,
    create,
    data,
    fill,
    findings,
    in_child,
    later,
    leftovers,
    local,
    open_repository,
    restored,
    tiny_ext4,
    tiny_tmpfs,
)

pytestmark = pytest.mark.slow

SIZE = 12 << 20
FIRST: Content = {"a.sql": data(1, 1_500_000), "b.sql": data(2, 600_000)}
SECOND: Content = {"a.sql": data(1, 400_000) + data(3, 500_000), "b.sql": data(2, 600_000)}

FileSystem = Callable[[Path, int], AbstractContextManager[Path]]


@pytest.fixture(params=[tiny_ext4, tiny_tmpfs], ids=["ext4", "tmpfs"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 12 MiB, and packs of a size to fit it."""
    make: FileSystem = request.param
    with make(tmp_path, SIZE) as root:
        yield root


@contextmanager
def opened(root: Path, cache: Path) -> Iterator[Repository]:
    with local(root) as store, open_repository(store, cache, pack_target=512 << 10) as repository:
        yield repository


def prune(repository: Repository, *, quarantine: timedelta = timedelta(0)) -> PruneResult:
    plan = make_plan(repository, max_unused=0.0)
    return execute(repository, plan, quarantine=quarantine, now=lambda: time.time() + 1, lock_timeout=0.0)


def test_a_backup_that_fills_the_disk_says_so_and_costs_no_earlier_snapshot(
    small: Path, tmp_path: Path
) -> None:
    root = small / "repository"
    create(LocalStore.create(root))
    cache = tmp_path / "cache"
    with opened(root, cache) as repository:
        backup(repository, FIRST)
        backup(repository, SECOND, time=later(1))
        expected = all_contents(repository)
        with pytest.raises(NoSpace) as caught:
            backup(repository, {"huge.sql": data(9, SIZE)}, time=later(2))
        assert caught.value.path.startswith(str(root))
        assert str(root) in str(caught.value)
        assert leftovers(root) == []
        assert all_contents(repository) == expected
        assert findings(repository) == []
        prune(repository)  # what the failed backup left behind
        assert backup(repository, FIRST, time=later(3)).stored.snapshot.stats.new_chunks == 0
        new = backup(repository, {"c.sql": data(10, 900_000)}, time=later(4)).stored
        assert contents(repository, new.snapshot) == {"dump.sql": data(10, 900_000)}
        assert findings(repository) == []


def test_on_a_full_disk_all_that_reads_works_and_prune_makes_room(small: Path, tmp_path: Path) -> None:
    root = small / "repository"
    create(LocalStore.create(root))
    cache = tmp_path / "cache"
    with opened(root, cache) as repository:
        one = backup(repository, FIRST).stored
        two = backup(repository, SECOND, time=later(1)).stored
        expected = all_contents(repository)
    filler = fill(small)
    before = shutil.disk_usage(small).free
    assert before < 64 << 10
    with opened(root, cache) as repository:
        assert all_contents(repository) == expected
        assert restored(repository, two.snapshot) == SECOND
        assert findings(repository, Depth.READ_DATA) == []
        with pytest.raises(NoSpace):
            backup(repository, {"new.sql": data(5, 700_000)}, time=later(2))
        forget(repository, [one.id])
        undelete(repository, [one.id])
        forget(repository, [one.id])
        result = prune(repository)
        assert result.freed_bytes > 0 or result.notes
        assert all_contents(repository) == {two.id: expected[two.id]}
    assert shutil.disk_usage(small).free > before + (100 << 10)
    with opened(root, cache) as repository:
        stored = backup(repository, SECOND | {"b.sql": data(6, 50_000)}, time=later(3)).stored
        assert contents(repository, stored.snapshot) == SECOND | {"b.sql": data(6, 50_000)}
        assert findings(repository) == []
    filler.unlink()
    with opened(root, cache) as repository:
        prune(repository)
        assert make_plan(repository, max_unused=0.0).remove == ()
        assert not list(repository.store.listing(FileKind.PACK, trashed=True))


@pytest.mark.parametrize("index", ["as it was", "deleted"])
def test_where_no_index_can_be_written_the_command_makes_one_of_its_own(
    small: Path, tmp_path: Path, index: str
) -> None:
    root = tmp_path / "repository"
    create(LocalStore.create(root))
    cache = small / "cache"
    with opened(root, cache) as repository:
        backup(repository, FIRST)
        expected = all_contents(repository)
    if index == "deleted":
        shutil.rmtree(cache)
    fill(small)
    pack = next(p for p in root.glob("packs/*/*") if p.is_file())
    os.utime(pack)

    others = tmp_path / "temporary"
    others.mkdir()

    def use() -> None:
        """In a child: writing to a map without room behind it ends a process."""
        tempfile.tempdir = str(others)
        with opened(root, cache) as repository:
            assert all_contents(repository) == expected
            assert repository.refresh().no_cache
            assert not list(others.iterdir())
            assert findings(repository) == []

    assert in_child(use) == 0
    assert not list(others.iterdir())


@pytest.mark.parametrize("index", ["as it was", "deleted"])
def test_with_everything_on_one_full_disk_all_works_and_prune_makes_room(small: Path, index: str) -> None:
    root, cache = small / "repository", small / "cache"
    create(LocalStore.create(root))
    with opened(root, cache) as repository:
        one = backup(repository, {"a.sql": data(11, 1_000_000)}).stored
        two = backup(repository, SECOND, time=later(1)).stored
        expected = all_contents(repository)
    if index == "deleted":
        shutil.rmtree(cache)
    fill(small)
    before = shutil.disk_usage(small).free

    def use() -> None:
        tempfile.tempdir = str(small)
        with opened(root, cache) as repository:
            assert all_contents(repository) == expected
            assert restored(repository, two.snapshot) == SECOND
            assert findings(repository) == []
            forget(repository, [one.id])
            assert prune(repository).freed_bytes > 900_000
            assert findings(repository, Depth.READ_DATA) == []
            assert all_contents(repository) == {two.id: expected[two.id]}

    assert in_child(use) == 0
    assert shutil.disk_usage(small).free > before + 900_000
    with opened(root, cache) as repository:
        backup(repository, {"c.sql": data(6, 50_000)}, time=later(3))
        assert findings(repository) == []


def test_init_on_a_full_disk_says_so_and_can_be_repeated(small: Path) -> None:
    filler = fill(small)
    root = small / "repository"
    with pytest.raises(NoSpace) as caught, closing(LocalStore.create(root)) as store:
        create(store)
    assert caught.value.path.startswith(str(root))
    filler.unlink()
    with closing(LocalStore.create(root)) as store:
        create(store)
    LocalStore.open(root).close()
