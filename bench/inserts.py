"""A dump's rows as INSERT statements, which pg_dump --inserts writes instead of COPY."""

from __future__ import annotations

import re
from pathlib import Path

LIMIT = 64_000_000
"""Bytes of rows of a table that are converted: the others are left out, a rate needs no more."""

_COPY = re.compile(rb"COPY (\S+) \((.*)\) FROM stdin;\n")


def as_inserts(plain: Path, target: Path) -> None:
    """Rewrite the rows of a plain SQL dump as INSERT; the rest stays as it is."""
    lead, left = b"", 0
    with plain.open("rb") as source, target.open("wb") as out:
        for line in source:
            if copy := _COPY.fullmatch(line):
                lead, left = b"INSERT INTO %s VALUES (" % copy[1], LIMIT
            elif not lead:
                out.write(line)
            elif line == b"\\.\n":
                lead = b""
            elif left > 0:
                left -= len(line)
                values = line[:-1].replace(b"'", b"''").split(b"\t")
                row = b", ".join(b"NULL" if value == b"\\N" else b"'%s'" % value for value in values)
                out.write(b"%s%s);\n" % (lead, row))
