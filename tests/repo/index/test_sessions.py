"""An index is opened only when all that had it open left it well, and nothing else changed it since."""

from __future__ import annotations

import ast
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.base.types import SnapshotID
from holdfast.repo.index.index import Index
from holdfast.repo.index.results import IndexDamaged
from support.index_examples import KEY, chunk, opened, sync

CONTENT = {1: list(range(2000)), 2: list(range(1000, 3000))}


def fill(folder: Path) -> None:
    with opened(folder) as index:
        sync(index, CONTENT)


def reason(folder: Path) -> str:
    """Why the index is made anew now; "" when it is used as it is."""
    with opened(folder) as index:
        synced = sync(index, CONTENT)
        assert synced.added == (2 if synced.distrust else 0)
        assert index.lookup([chunk(0), chunk(2999)]) != [None, None]
        return synced.distrust


_CHILD = """
import os, signal, sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from holdfast.repo.index.index import Index
from support.index_examples import KEY, sync
index = Index(Path(sys.argv[1]), KEY)
print(repr(sync(index, {content!r}).distrust))
if sys.argv[2:]:
    os.kill(os.getpid(), signal.SIGKILL)
index.close()
"""


def elsewhere(folder: Path, *, die: bool = False) -> str:
    """Open the index in another process and say what `reason` would; with `die` that is killed then."""
    script = _CHILD.format(tests=str(Path(__file__).parents[2]), content=CONTENT)
    argv = [sys.executable, "-c", script, str(folder), *(["die"] if die else [])]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == (-signal.SIGKILL if die else 0), done.stderr
    return "" if die else str(ast.literal_eval(done.stdout))


def leave(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_closed_is_used_again(tmp_path: Path) -> None:
    fill(tmp_path)
    assert [reason(tmp_path), reason(tmp_path)] == ["", ""]
    assert leave(tmp_path) == ["closed", "data.mdb", "gate", "lock.mdb"]


def test_after_a_killed_process_it_is_made_anew(tmp_path: Path) -> None:
    fill(tmp_path)
    elsewhere(tmp_path, die=True)
    assert reason(tmp_path) == "a process that had it open was killed"
    assert reason(tmp_path) == ""
    assert leave(tmp_path) == ["closed", "data.mdb", "gate", "lock.mdb"]


def test_several_processes_use_it_at_a_time(tmp_path: Path) -> None:
    fill(tmp_path)
    with opened(tmp_path) as index:
        sync(index, CONTENT)
        index.record_complete(
            SnapshotID("5a" * 32), 1
        )  # so that the file is not as it was when it was closed
        assert elsewhere(tmp_path) == ""
    assert elsewhere(tmp_path) == ""


def test_one_that_others_have_open_is_replaced_under_them_without_harm(tmp_path: Path) -> None:
    fill(tmp_path)
    with opened(tmp_path) as index:
        sync(index, CONTENT)
        elsewhere(tmp_path, die=True)
        assert elsewhere(tmp_path) == "a process that had it open was killed"
        assert index.lookup([chunk(0)]) != [None]
    assert reason(tmp_path) == "", "who kept the old files did not say that the new ones were closed"


def damage_a_word(path: Path) -> None:
    data = bytearray(path.read_bytes())
    page = random.Random(7).randrange(2, len(data) // 4096)
    data[page * 4096 + 20 : page * 4096 + 24] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace_by_a_copy(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("change", [damage_a_word, cut, replace_by_a_copy])
def test_a_file_that_was_changed_is_made_anew(change: Callable[[Path], None], tmp_path: Path) -> None:
    fill(tmp_path)
    change(tmp_path / "data.mdb")
    assert reason(tmp_path) == "it was changed by something else"
    assert reason(tmp_path) == ""


@pytest.mark.parametrize("closed", [None, b"", b"\xff", b"1 2 3 4"])
def test_without_a_word_of_how_it_was_closed_it_is_made_anew(closed: bytes | None, tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "closed").unlink()
    if closed is not None:
        (tmp_path / "closed").write_bytes(closed)
    assert reason(tmp_path) != ""
    assert reason(tmp_path) == ""


def test_what_makes_no_sense_when_it_is_read_is_made_anew_next_time(tmp_path: Path) -> None:
    fill(tmp_path)
    index = Index(tmp_path, KEY)
    with index._env.begin(write=True) as txn:  # as a flipped bit would have it, the time of change as it was
        txn.put(index.hidden.table_key(chunk(0)), b"\0" * 5, db=index._chunks)
    sync(index, CONTENT)
    with pytest.raises(IndexDamaged):
        index.lookup([chunk(0)])
    index.close()
    assert reason(tmp_path) == "it was damaged"
    assert reason(tmp_path) == ""


def test_an_index_of_another_key_is_replaced(tmp_path: Path) -> None:
    fill(tmp_path)
    with opened(tmp_path, bytes(31) + b"x") as index:
        assert len(index) == 0


def test_the_files_show_no_ids_and_no_locations(tmp_path: Path) -> None:
    fill(tmp_path)
    stored = (tmp_path / "data.mdb").read_bytes()
    with opened(tmp_path) as index:
        sync(index, CONTENT)
        for n in range(0, 3000, 100):
            assert chunk(n)[:8] not in stored
            assert index.hidden.table_key(chunk(n)) in stored, "this is how it is looked for"
