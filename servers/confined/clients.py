"""Talking to a throw-away server through its own client: streams in, limited answers out."""

from __future__ import annotations

import csv
import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from holdfast.base.durable_files import write_all
from holdfast.base.types import Buffer
from holdfast.servers.confined.confined import PIPE, Confinement
from holdfast.servers.confined.errors import RehearsalFailed
from holdfast.servers.confined.program import Program

QUERY_ROWS: Final = 100
QUERY_BYTES: Final = 64 << 10
"""What is kept of a query's result."""
_CELL: Final = 1 << 20
ANSWER: Final = 256 << 20
"""Bytes of the counts of all tables, at most."""


class Table(NamedTuple):
    """The start of a query's result. `more`: something was left out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    more: bool


def feed(
    confinement: Confinement, argv: Sequence[str], parts: Iterable[Buffer], *, env: Mapping[str, str]
) -> None:
    """Give a client all of `parts` on its standard input. Raises RehearsalFailed unless it exits with 0."""
    program = confinement.start(argv, stdin=PIPE, env=env)
    _pour(program, parts)
    if program.wait():
        raise failure(program)


def converted(
    confinement: Confinement, argv: Sequence[str], parts: Iterable[Buffer], *, env: Mapping[str, str]
) -> Iterator[bytes]:
    """What a filter makes of `parts`. Raises RehearsalFailed unless it exits with 0, else what `parts`
    raise."""
    program = confinement.start(argv, stdin=PIPE, stdout=PIPE, env=env)
    trouble: list[BaseException] = []

    def pour() -> None:
        try:
            _pour(program, parts)
        except BaseException as error:  # noqa: BLE001  raised again below, in the thread that reads
            trouble.append(error)

    thread = threading.Thread(target=pour, name="holdfast-pour")
    thread.start()
    try:
        while data := os.read(program.stdout, 1 << 20):
            yield data
        thread.join()
        if trouble:
            raise trouble[0]
        if program.wait():
            raise failure(program)
    finally:
        program.end()
        thread.join()


def ask(
    confinement: Confinement,
    argv: Sequence[str],
    question: bytes,
    *,
    env: Mapping[str, str],
    limit: int = ANSWER,
) -> tuple[bytes, bool]:
    """(answer, whether there was more than `limit` bytes of it). Raises RehearsalFailed."""
    program = confinement.start(argv, stdin=PIPE, stdout=PIPE, env=env)
    sender = threading.Thread(target=_pour, args=(program, [question]), name="holdfast-pour")
    sender.start()
    answer = bytearray()
    try:
        while data := os.read(program.stdout, 1 << 16):
            answer += data
            if len(answer) > limit:
                return bytes(answer[:limit]), True
        if program.wait():
            raise failure(program)
    finally:
        program.end()
        sender.join()
    return bytes(answer), False


def failure(program: Program) -> RehearsalFailed:
    """The error for a program that failed, with its last words."""
    said = "\n".join(line for line in program.last_words().splitlines() if "NOTICE:" not in line)
    return RehearsalFailed(f"{program.name} {program.how}" + (f": {said}" if said else ""))


def parse_csv(answer: bytes, *, more: bool, null: str, limit: int = QUERY_BYTES) -> Table:
    """Parse a result with its columns in the first line; a field `null` is read as NULL."""
    rows: list[tuple[str | None, ...]] = []
    text = io.StringIO(answer.decode(errors="backslashreplace"), newline="")
    size = 0
    with suppress(csv.Error):  # cut off within a cell
        for row in csv.reader(text, strict=False):
            size += sum(map(len, row))
            if rows and (len(rows) > QUERY_ROWS or size > limit):
                more = True
                break
            rows.append(tuple(None if cell == null else cell[:limit] for cell in row))
    columns = tuple(cell or "" for cell in rows[0]) if rows else ()
    return Table(columns, tuple(rows[1:]), more)


def _pour(program: Program, parts: Iterable[Buffer]) -> None:
    """All parts, as long as it reads; then the end."""
    fd = program.stdin
    try:
        for part in parts:
            write_all(fd, part)
    except (BrokenPipeError, ValueError):
        pass  # its exit code and last words say why
    finally:
        with suppress(OSError):
            program.close_stdin()


def watched(parts: Iterable[Buffer], progress: Callable[[int], None]) -> Iterator[Buffer]:
    """The same parts, counted."""
    for part in parts:
        progress(len(memoryview(part)))
        yield part
