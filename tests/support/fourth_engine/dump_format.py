"""What a ledger's dump looks like: recognised, scanned, shown as a file a table, as CSV."""

from __future__ import annotations

import re
from collections.abc import Iterator

from holdfast.base.types import Buffer
from holdfast.formats.dumps.core.catalogue import Catalogue, Section
from holdfast.formats.dumps.core.end_mark import EndMark
from holdfast.formats.dumps.core.engine import DumpFormat, DumpKind, Engine, ReadRange
from holdfast.formats.dumps.core.names import file_name
from holdfast.formats.dumps.core.virtual_file import VirtualFile, stored_range, text

MAGIC = b"%LEDGER 1\n"
LAST = b"%END\n"


class LedgerScan:
    """Keeps the whole dump: a test's dumps are small. A border stands where a table begins."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._told = 0

    def feed(self, data: Buffer) -> list[int]:
        self._data += memoryview(data).cast("B")
        starts = [match.start() for match in re.finditer(rb"^table ", self._data, re.M)]
        new = [start for start in starts if start >= self._told]
        self._told = len(self._data)
        return new

    def finish(self) -> Catalogue:
        sections, at, name = [], 0, ""
        for line in bytes(self._data).splitlines(keepends=True):
            word = line.rstrip(b"\n").decode()
            if word.startswith("table "):
                name = word.split(" ")[1]
                sections.append(_section("TABLE", at, line, name))
            elif word.startswith(f"{name}\t") and name:
                sections.append(_section("TABLE DATA", at, line, name))
            at += len(line)
        whole = bytes(self._data).endswith(LAST)
        return Catalogue("ledger", "ledger", tuple(sections), "" if whole else "%END is missing")


def _section(kind: str, at: int, line: bytes, name: str) -> Section:
    return Section(at, len(line), kind, "", "book", name, ("book", name))


def _tables(catalogue: Catalogue) -> dict[str, list[Section]]:
    tables: dict[str, list[Section]] = {}
    for section in catalogue.sections:
        tables.setdefault(f"tables/{file_name('book', section.name)}", []).append(section)
    return tables


def files(catalogue: Catalogue, size: int) -> dict[str, VirtualFile]:
    """A file a table, which is a whole dump of that table."""
    return {
        f"{path}.sql": VirtualFile([text(MAGIC), *(stored_range(s.start, s.length) for s in own), text(LAST)])
        for path, own in _tables(catalogue).items()
    }


def csv(catalogue: Catalogue, table: str, read: ReadRange) -> Iterator[bytes]:
    """The columns' names, then the values as they stand."""
    for section in _tables(catalogue)[table]:
        line = b"".join(bytes(part) for part in read(section.start, section.length)).rstrip(b"\n")
        yield line.split(b" ")[2] + b"\n" if section.type == "TABLE" else line.split(b"\t")[1] + b"\n"


TEXT = DumpFormat(
    name="ledger",
    kind=DumpKind.TEXT,
    file_name="dump.ledger",
    begins=lambda head: head.startswith(MAGIC),
    scan=LedgerScan,
    files=files,
    csv=csv,
    end=EndMark(re.compile(rb"^%END\n\Z", re.M)),
)
ENGINE = Engine(name="ledger", title="Ledger", formats=(TEXT,))
