"""Files written whole, in the order that a power cut cannot turn against us."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from holdfast.base.durable_files import (
    rename_unless_taken,
    write_all,
    write_all_at,
)


def test_all_is_written_however_little_a_call_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write, real_pwrite = os.write, os.pwrite
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:3]))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real_pwrite(fd, data[:3], offset))
    path = tmp_path / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        write_all(fd, b"0123456789")
        write_all_at(fd, 4, memoryview(b"abcde"))
    finally:
        os.close(fd)
    assert path.read_bytes() == b"0123abcde9"


@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_is_taken_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def link(source: str, target: str, **folders: object) -> None:
            raise OSError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(os, "link", link)
    temporary, path = tmp_path / "temporary", tmp_path / "name"
    temporary.write_bytes(b"new")
    folder = os.open(tmp_path, os.O_RDONLY)
    rename_unless_taken("temporary", "name", folder)
    assert path.read_bytes() == b"new"
    assert not temporary.exists()
    temporary.write_bytes(b"newer")
    with pytest.raises(FileExistsError):
        rename_unless_taken("temporary", "name", folder)
    os.close(folder)
    assert path.read_bytes() == b"new"
    assert temporary.read_bytes() == b"newer"
