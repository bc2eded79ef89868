"""Three days of a database dump in the form that pg_dump writes, without a server."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

LINES_BYTES = 60_000_000  # of a table of real text
ACCOUNTS = 600_000
EVENTS = 500_000
HEAD = "--\n-- PostgreSQL database dump\n--\n\nSET statement_timeout = 0;\nSET client_encoding = 'UTF8';\n\n"
TAIL = "--\n-- PostgreSQL database dump complete\n--\n\n"
Row = list[str]


def write_dumps(texts: list[Path], folder: Path) -> None:
    """day1.sql to day3.sql: a table of text, one of accounts with scattered updates, one of events."""
    lines = source_lines(texts)
    accounts = [[str(number), str(number % 100), "0", phrase(number, lines)] for number in range(ACCOUNTS)]
    for day in (1, 2, 3):
        chance = random.Random(40 + day)
        if day > 1:
            change(day, chance, lines, accounts)
        with (folder / f"day{day}.sql").open("w", encoding="utf-8") as file:
            file.write(HEAD)
            file.writelines(table("accounts", ("id", "branch", "balance", "filler"), accounts))
            file.writelines(table("events", ("id", "at", "host", "session"), events(day)))
            file.writelines(table("source_lines", ("id", "path", "line", "body"), lines))
            file.write(TAIL)


def escaped(text: str) -> str:
    """COPY's text format: no tab, newline or backslash as themselves."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\r", "\\r")


def source_lines(texts: list[Path]) -> list[Row]:
    rows: list[Row] = []
    total = 0
    for path in texts * 5:  # a bare machine has little text; repeated far apart it is still a table
        try:
            content = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue
        if "\0" in content:
            continue
        for number, line in enumerate(content.split("\n"), 1):
            rows.append([str(len(rows)), path.name, str(number), escaped(line)])
        total += len(content)
        if total > LINES_BYTES:
            break
    return rows


def phrase(number: int, lines: list[Row]) -> str:
    return lines[number * 7919 % len(lines)][3][:84]


def events(day: int) -> Iterator[Row]:
    """An append-only table whose oldest rows expire."""
    for number in range(day * 15_000, EVENTS + day * 40_000):
        session = random.Random(number).getrandbits(64)
        host = f"10.{session % 251}.{session % 241}.{session % 239}"
        yield [str(number), f"{1.7e9 + number / 10:.1f}", host, f"{session:016x}"]


def change(day: int, chance: random.Random, lines: list[Row], accounts: list[Row]) -> None:
    """Transactions over random accounts, one range of text edited, single rows gone."""
    for _ in range(10_000):
        account = chance.choice(accounts)
        account[2] = str(int(account[2]) + chance.randrange(-5000, 5000))
    start = day * len(lines) // 10
    for row in lines[start : start + len(lines) // 60]:
        row[3] += f" -- day {day}"
    del lines[:: 5003 + day]


def table(name: str, columns: tuple[str, ...], rows: Iterator[Row] | list[Row]) -> Iterator[str]:
    kinds = ", ".join(f"{column} text" for column in columns)
    yield f"CREATE TABLE public.{name} ({kinds});\n\n\n"
    yield f"COPY public.{name} ({', '.join(columns)}) FROM stdin;\n"
    for row in rows:
        yield "\t".join(row) + "\n"
    yield "\\.\n\n\n"
