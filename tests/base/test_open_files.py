"""Descriptors that are kept open are closed in time, and never under their reader."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.base.open_files import OpenFiles


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_descriptor_in_use_outlives_its_place(tmp_path: Path) -> None:
    opened: list[int] = []

    def opener() -> int:
        opened.append(os.open(tmp_path, os.O_RDONLY))
        return opened[-1]

    files = OpenFiles(2)
    with files.borrow("a", opener) as a:
        with files.borrow("b", opener), files.borrow("c", opener):
            assert is_open(a)
        with files.borrow("d", opener):
            pass
        assert is_open(a)
        with files.borrow("a", opener) as again:
            assert again != a
    assert not is_open(a)
    files.forget("a")
    assert not is_open(again)
    files.close()
    assert not any(is_open(fd) for fd in opened)


def test_one_that_is_there_is_not_opened_again(tmp_path: Path) -> None:
    files = OpenFiles(2)
    with files.borrow("a", lambda: os.open(tmp_path, os.O_RDONLY)) as first:
        pass
    with files.borrow("a", lambda: -1) as second:
        assert first == second
    files.close()
