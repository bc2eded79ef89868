"""Sources: what cannot be read is listed and zero, never an end; commands must succeed."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.errors import SourceError, StreamFailed
from holdfast.base.filesystems import reports_holes_honestly
from holdfast.ingest.sources.bad_ranges import BadRanges, TolerantReader
from holdfast.ingest.sources.source import (
    HEAD_SIZE,
    CommandSource,
    FileSource,
    SourceExtent,
    StreamSource,
)
from holdfast.repo.chunks.chunker import BLOCK
from holdfast.repo.snapshots.snapshot import BadRange
from support.basics import need, random_bytes, read_all
from support.fuse import is_running


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# ---- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 65536, 200_001])
def test_a_file_is_read_whole(tmp_path: Path, size: int) -> None:
    content = random_bytes(size, size)
    with FileSource(write(tmp_path / "a.bin", content)) as source:
        assert (source.name, source.size, source.head) == ("a.bin", size, content[:HEAD_SIZE])
        assert source.mtime == (tmp_path / "a.bin").stat().st_mtime_ns
        assert not source.is_device
        assert read_all(source) == content
        assert source.bad == []
        assert source.finish() == ""


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9000), st.integers(0, 9)), max_size=8),
    st.integers(0, 60 * BLOCK),
)
def test_holes_of_a_sparse_file_stand_at_block_edges_and_are_zeros(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, int, int]], size: int
) -> None:
    path = tmp_path_factory.mktemp("sparse") / "disk"
    with path.open("wb") as file:
        file.truncate(size)
        for block, length, seed in writes:
            file.seek(block * BLOCK)
            file.write(random_bytes(length, seed))
    with FileSource(path) as source:
        assert read_all(source) == path.read_bytes()
        assert all(not extent.is_hole for extent in source.extents(holes=False))
        assert read_all(source, holes=False) == path.read_bytes()


def test_holes_are_found_where_the_file_system_is_believed(tmp_path: Path) -> None:
    need(reports_holes_honestly(tmp_path), "a file system whose holes are believed")
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.write(b"x" * 65536)
        file.truncate(10 << 20)
        file.seek(5 << 20)
        file.write(b"y" * 65536)
    with FileSource(path) as source:
        assert [(e.start >> 16, e.is_hole) for e in source.extents(holes=True)] == [
            (0, False),
            (1, True),
            (80, False),
            (81, True),
        ]


def test_elsewhere_holes_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path, **options: "")  # no mount table, no known file system
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    with FileSource(path) as source:
        assert list(source.extents(holes=True)) == [SourceExtent(0, 1 << 20, is_hole=False)]


Preadv = Callable[[int, Sequence[memoryview], int], int]


def failing_preadv(bad: Sequence[tuple[int, int]], code: int = errno.EIO) -> Preadv:
    """A disk with bad sectors: a read stops before them, and fails when it begins in one."""
    real = os.preadv

    def preadv(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        length = len(buffers[0])
        for start, end in bad:
            if start <= offset < end:
                raise OSError(code, os.strerror(code))
            if offset < start < offset + length:
                length = start - offset
        return real(fd, [buffers[0][:length]], offset)

    return preadv


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ([(8192, 12288)], [(8192, 4096)]),
        ([(8192, 20480)], [(8192, 12288)]),
        ([(0, 4096)], [(0, 4096)]),
        ([(0, 4096), (12288, 16384)], [(0, 4096), (12288, 4096)]),
        ([(98304, 200_000)], [(98304, 1696)]),
        ([(9000, 9512)], [(9000, 3288)]),
        ([(0, 1 << 30)], [(0, 100_000)]),
    ],
)
@pytest.mark.parametrize("unit", [4096, 65536, 1 << 20])
def test_only_blocks_that_cannot_be_read_are_lost(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bad: list[tuple[int, int]],
    expected: list[tuple[int, int]],
    unit: int,
) -> None:
    content = random_bytes(100_000, 1)
    with FileSource(write(tmp_path / "a", content)) as source:
        monkeypatch.setattr(os, "preadv", failing_preadv(bad))
        found = read_all(source, unit=unit)
    wanted = bytearray(content)
    for offset, length in expected:
        wanted[offset : offset + length] = bytes(length)
    assert found == wanted
    assert [(b.start, b.length, b.reason) for b in source.bad] == [
        (*e, "Input/output error") for e in expected
    ]


@pytest.mark.parametrize("bad", [0, 37, 1023])
def test_a_bad_block_is_found_by_halves_where_a_read_gives_all_or_nothing(bad: int) -> None:
    """A failing disk takes seconds to give a sector up: one by one, a read of 4 MiB would take an hour."""
    content = random_bytes(1024 * BLOCK, 1)
    failures: list[int] = []

    def read(buffer: memoryview, offset: int) -> int:
        if offset < (bad + 1) * BLOCK and offset + len(buffer) > bad * BLOCK:
            failures.append(offset)
            raise OSError(errno.EIO, "Input/output error")
        buffer[:] = content[offset : offset + len(buffer)]
        return len(buffer)

    reader = TolerantReader("disk", read)
    found = bytearray(len(content))
    assert reader.fill(memoryview(found), 0) == len(content)
    assert reader.bad == [BadRange(bad * BLOCK, BLOCK, "Input/output error")]
    assert found == content[: bad * BLOCK] + bytes(BLOCK) + content[(bad + 1) * BLOCK :]
    assert len(failures) < 32


def test_a_bad_first_block_does_not_stop_a_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a", b"x" * 10_000)
    monkeypatch.setattr(os, "preadv", failing_preadv([(0, 4096)]))
    with FileSource(path) as source:
        assert source.head == b""
        assert read_all(source) == bytes(4096) + b"x" * 5904
        assert [b.start for b in source.bad] == [0]


def test_a_source_with_too_many_bad_ranges_is_given_up() -> None:
    lost = BadRanges("disk", limit=10)
    for n in range(10):
        lost.mark(n * 8192, n * 8192 + 4096, "Input/output error")
    lost.mark(9 * 8192 + 4096, 10 * 8192, "Input/output error")  # goes on where the last one ended
    with pytest.raises(SourceError, match="disk: more than 10 separate ranges"):
        lost.mark(11 * 8192, 12 * 8192, "Input/output error")
    assert len(lost.found) == 10


@pytest.mark.parametrize("left", [0, 4096, 100_000])
def test_what_a_shrinking_file_lost_is_bad_and_zero(tmp_path: Path, left: int) -> None:
    content = random_bytes(200_000, 1)
    path = write(tmp_path / "a", content)
    with FileSource(path) as source:
        os.truncate(path, left)
        found = read_all(source)
        assert found == content[:left] + bytes(200_000 - left)
        assert source.bad == [
            BadRange(left, 200_000 - left, "the source ended early: it shrank while it was read")
        ]
        assert "written to while it was read" in source.finish()


def test_a_sparse_file_that_shrinks_between_its_extents_keeps_its_layout(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(4 << 20)
        for at in (0, 1 << 20, 3 << 20):
            file.seek(at)
            file.write(b"x" * BLOCK)
    with FileSource(path) as source:
        at = 0
        for extent in source.extents(holes=True):
            assert extent.start == at
            assert extent.length
            at += extent.length
            os.truncate(path, 1 << 20)
        assert at == 4 << 20


def test_a_hole_that_a_file_lost_its_end_in_is_no_hole(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.write(b"x" * BLOCK)
        file.truncate(4 << 20)
        file.seek(3 << 20)
        file.write(b"x" * BLOCK)
        file.flush()
        with FileSource(path) as source:
            file.truncate(2 << 20)
            read_all(source)
            assert [(b.start, b.length) for b in source.bad] == [(2 << 20, 2 << 20)]


@pytest.mark.parametrize("change", ["write", "grow", "touch"])
def test_a_file_that_was_written_to_is_told_of(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "a", b"x" * 10_000)
    with FileSource(path) as source:
        read_all(source)
        if change == "touch":
            os.utime(path, ns=(0, 12345))
        else:
            with path.open("ab" if change == "grow" else "r+b") as file:
                file.write(b"y")
            os.utime(path, ns=(0, 1))  # whatever the clock's grain is
        assert source.finish() == f"{path} was written to while it was read"


def test_growth_is_left_for_the_next_backup(tmp_path: Path) -> None:
    path = write(tmp_path / "a", b"x" * 10_000)
    with FileSource(path) as source:
        with path.open("ab") as file:
            file.write(b"y" * 10_000)
        assert read_all(source) == b"x" * 10_000


def test_what_is_no_file_is_refused_with_its_path(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, says in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "neither a file nor a block device"),
        (tmp_path / "pipe", "neither a file nor a block device"),
        (Path("/dev/null"), "neither a file nor a block device"),
    ):
        with pytest.raises(SourceError, match=f"{path}.*{says}"):
            FileSource(path)


def test_an_unreadable_file_is_refused_with_its_path(tmp_path: Path) -> None:
    path = write(tmp_path / "a", b"secret")
    path.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(SourceError, match="Permission denied"):
            FileSource(path)
        return
    os.seteuid(65534)
    try:
        with pytest.raises(SourceError, match="Permission denied"):
            FileSource(path)
    finally:
        os.seteuid(0)


# ---- streams ------------------------------------------------------------------------------------------


def piped(pieces: Sequence[bytes]) -> StreamSource:
    """A pipe into which another thread writes."""
    ours, theirs = os.pipe()

    def feed() -> None:
        with os.fdopen(theirs, "wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)

    threading.Thread(target=feed, daemon=True).start()
    return StreamSource(os.fdopen(ours, "rb", buffering=0), "stdin")


@settings(max_examples=20)
@given(st.lists(st.integers(0, 90_000), max_size=12), st.sampled_from([1000, 65536, 100_000]))
def test_a_stream_is_read_whole_however_it_comes(lengths: list[int], unit: int) -> None:
    pieces = [random_bytes(length, n) for n, length in enumerate(lengths)]
    source = piped(pieces)
    content = b"".join(pieces)
    assert (source.size, source.head) == (None, content[:HEAD_SIZE])
    assert read_all(source, unit=unit) == content
    assert (source.finish(), source.bad) == ("", [])
    source.close()


def test_a_stream_that_cannot_be_read_fails(tmp_path: Path) -> None:
    with Path(os.devnull).open("rb") as stream:
        folder = os.open(tmp_path, os.O_RDONLY)
        os.dup2(folder, stream.fileno())
        os.close(folder)
        with pytest.raises(StreamFailed, match="Is a directory"):
            StreamSource(stream, "stdin")


# ---- commands -----------------------------------------------------------------------------------------


def python(code: str) -> CommandSource:
    return CommandSource([sys.executable, "-c", code], "dump")


def test_a_command_that_exits_with_0_is_a_success_and_what_it_said_is_kept() -> None:
    source = python("import sys; sys.stdout.write('x' * 300000); sys.stderr.write('two rows skipped\\n')")
    assert read_all(source) == b"x" * 300_000
    assert source.finish() == "two rows skipped"
    source.close()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; print('some'); sys.exit(7)", "exited with 7; nothing was committed"),
        ("import sys; print('some'); sys.exit('no such database')", "exited with 1: no such database;"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by signal 9;"),
        ("import os; os.write(1, b'x' * 9); os.kill(os.getpid(), 15)", "was killed by signal 15;"),
    ],
)
def test_a_command_that_fails_says_how_and_its_last_words(code: str, says: str) -> None:
    source = python(code)
    read_all(source)
    with pytest.raises(StreamFailed, match=says):
        source.finish()
    source.close()


def test_only_the_last_words_of_a_talkative_command_are_kept() -> None:
    source = python("import sys; sys.stderr.write('blah ' * 100000 + 'the end'); sys.exit(1)")
    read_all(source)
    with pytest.raises(StreamFailed, match="the end") as caught:
        source.finish()
    assert len(str(caught.value)) < 1500
    source.close()


def test_a_command_that_is_not_there_is_named() -> None:
    with pytest.raises(StreamFailed, match=r"cannot run /no/such/pg_dump: No such file"):
        CommandSource(["/no/such/pg_dump", "shop"], "dump")


def test_a_command_gets_no_input_and_its_arguments_as_they_are() -> None:
    code = "import sys; sys.stdout.write(repr((sys.stdin.read(), sys.argv[1:])))"
    source = CommandSource([sys.executable, "-c", code, "$HOME; rm *", ""], "dump")
    assert read_all(source) == b"('', ['$HOME; rm *', ''])"
    source.finish()
    source.close()


def test_closing_ends_a_command_that_still_runs() -> None:
    source = python("import os, sys\nwhile True: sys.stdout.write(f'{os.getpid():9} ' * 100)")
    buffer = bytearray(10)
    source.read_into(memoryview(buffer), 0)
    assert is_running(int(buffer))
    source.close()
    assert not is_running(int(buffer))
