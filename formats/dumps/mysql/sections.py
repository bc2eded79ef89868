"""Sections of a dump while it streams in: what stands around an object, and to which one it belongs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast.formats.dumps.core.catalogue import Section
from holdfast.formats.dumps.core.weight import SECTION, names_weight

_PROGRAMS: Final = frozenset(("TRIGGER", "PROCEDURE", "FUNCTION", "PACKAGE", "PACKAGE BODY", "EVENT"))
_NO_OBJECTS: Final = frozenset(("HEAD", "TAIL", "REPLICATION", "COMMENT"))


@dataclass(slots=True)
class Draft:
    """A section that reaches to the start of the next one.

    `extra`, where it is not empty: "skip", [start, length] within the section: what a table's own file leaves
    out (the name of the database that it came from); "delimiter", the one in force at its start unless
    that is ";"; "columns", "binary" (indices of columns of bytes) and "rows" of TABLE DATA; "part",
    the number of the dump in the stream, of HEAD and TAIL; "checks" of HEAD: foreign keys are not checked.
    """

    start: int
    type: str
    schema: str = ""
    name: str = ""
    table: tuple[str, str] | None = None
    needs: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def skip(self, base: int, ranges: Iterable[tuple[int, int]]) -> None:
        """Ranges (start, length) of a text that begins at `base` in the stream, in order."""
        for start, length in ranges:
            self.extra.setdefault("skip", []).append([base + start - self.start, length])


class Drafts:
    """All sections so far. Comments and what prepares wait for the object that they belong to.

    `delimiter` is the one in force, `dropped` the names in DROP statements that wait, `objects` whether this
    part of the stream has any yet, `weight` the bytes of memory that all take.
    """

    def __init__(self) -> None:
        self._drafts: Final[list[Draft]] = []
        self._nothing: Final = Draft(0, "")
        self._pending = -1
        self._pending_delimiter = ";"
        self._around: list[tuple[int, int]] = []
        self._part = 0
        self._fresh = False
        self.prepared = False
        self.objects = False
        self.weight = 0
        self.delimiter = ";"
        self.dropped: Final[list[str]] = []

    @property
    def last(self) -> Draft:
        return self._drafts[-1] if self._drafts else self._nothing

    def comment(self, start: int) -> None:
        if self._pending >= 0 and not self.prepared and self._drafts and self.last.type != "TAIL":
            # The one nearest to an object is the object's.
            self._add(Draft(self._pending, "COMMENT"))
        self._wait(start)

    def part(self, start: int) -> None:
        """The head of a dump. What waits stays with the dump before, if there is one."""
        if self._drafts and not self._fresh:
            if self.prepared:
                self._add(Draft(self._pending, "SQL"))
            self._settle()
            self._part += 1
            self._fresh = True
        self.objects = False
        self._wait(start)

    def head(self, start: int, *, checks: bool) -> None:
        if self.last.type != "HEAD" or self.last.extra["part"] != self._part:
            self._add(Draft(self._begin(start), "HEAD", extra={"part": self._part}))
        self._settle()
        if checks:
            self.last.extra["checks"] = False

    def tail(self, start: int) -> None:
        if self.last.type != "TAIL" or self.last.extra["part"] != self._part:
            self._add(Draft(self._begin(start), "TAIL", extra={"part": self._part}))
        self._settle()

    def lead(self, start: int) -> None:
        """A statement that prepares for what comes."""
        self._wait(start)
        self.prepared = True

    def trail(self, start: int) -> None:
        """Attach a statement to the section before it, unless another section was begun since."""
        if self.prepared:
            return
        last = self.last
        if last.type == "TABLE DATA":
            self._add(Draft(self._begin(start), "DATA TAIL", last.schema, last.name, last.table))
        elif not self._drafts:
            self.lead(start)
            return
        self._settle()

    def around(self, start: int, length: int) -> None:
        """ALTER DATABASE, once before and once behind a program; no table's file has it."""
        last = self.last
        if not self.prepared and last.type in _PROGRAMS and last.extra.pop("around", False):
            last.skip(start, [(0, length)])
            self._settle()
        else:
            self.lead(start)
            self._around.append((start, length))
            self.weight += names_weight(("", ""))

    def drop(self, name: str) -> None:
        """A DROP that waits for its object."""
        self.dropped.append(name)
        self.weight += names_weight((name,))

    def sql(self, start: int, schema: str) -> None:
        """What is not known; one section for all that stand together."""
        last = self.last
        alike = (last.type, last.schema, last.extra.get("delimiter", ";")) == ("SQL", schema, self.delimiter)
        if self._pending >= 0 or not alike:
            self.main(start, "SQL", schema, "")

    def main(self, start: int, type_: str, schema: str, name: str) -> Draft:
        """An object. What was dropped before must be it: no table's file drops something else."""
        if any(dropped != name for dropped in self.dropped):
            self._add(Draft(self._begin(start), "DROP", schema, self.dropped[0]))
            self._settle()
        draft = Draft(self._begin(start), type_, schema, name)
        self._add(draft)
        for where, length in self._around:
            draft.skip(where, [(0, length)])
        if self._around and type_ in _PROGRAMS:
            draft.extra["around"] = True
        self._settle()
        self.objects = self.objects or type_ not in _NO_OBJECTS
        return draft

    def data(self, start: int, table: tuple[str, str]) -> Draft:
        """Rows: a section of nothing else."""
        if self._pending >= 0:
            self.main(start, "DATA HEAD", *table).table = table
        draft = self.main(start, "TABLE DATA", *table)
        draft.table = table
        return draft

    def finish(self, unfinished: str) -> set[tuple[str, str]]:
        """The tables that the stream may have ended in: within a piece, or with settings changed and not set
        back. More than one, as what is cut off may be the name of a table too."""
        settings = [draft.type for draft in self._drafts if draft.type in ("HEAD", "TAIL")]
        if self.prepared:
            self._add(Draft(self._pending, "SQL"))
        elif self._pending >= 0 and self.last.type != "TAIL":
            self._add(Draft(self._pending, "COMMENT"))
        if not unfinished and settings[-1:] != ["HEAD"]:
            return set()
        bound = [draft for draft in self._drafts if draft.table]
        defined = [draft for draft in bound if draft.type == "TABLE"]
        return {draft.table for draft in bound[-1:] + defined[-1:] if draft.table}

    def sections(self, size: int) -> tuple[Section, ...]:
        """`database` is said when there are several."""
        several = len({draft.schema for draft in self._drafts} - {""}) > 1
        ends = [*(draft.start for draft in self._drafts), size][1:]
        return tuple(
            Section(
                draft.start,
                end - draft.start,
                draft.type,
                draft.schema if several else "",
                draft.schema,
                draft.name,
                draft.table,
                draft.needs,
                {name: value for name, value in draft.extra.items() if name != "around"},
            )
            for draft, end in zip(self._drafts, ends, strict=True)
        )

    def _wait(self, start: int) -> None:
        if self._pending < 0:
            self._pending = start
            self._pending_delimiter = self.delimiter

    def _begin(self, start: int) -> int:
        return self._pending if self._pending >= 0 else start

    def _add(self, draft: Draft) -> None:
        delimiter = self._pending_delimiter if self._pending >= 0 else self.delimiter
        if delimiter != ";":
            draft.extra["delimiter"] = delimiter
        self.weight += SECTION + len(draft.schema) + len(draft.name)
        self._drafts.append(draft)
        self._pending = -1
        self._fresh = False

    def _settle(self) -> None:
        """Nothing waits any more."""
        self._pending = -1
        self.prepared = False
        self.dropped.clear()
        self._around.clear()
