"""Compares two virtual files of dumps; of a table its rows and its definition separately."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Final

from holdfast.base.ranges import joined
from holdfast.formats.dumps.core.virtual_file import VirtualRange, stored_range
from holdfast.repo.core.reader import Reader
from holdfast.tree.compare.same_bytes import same_bytes
from holdfast.tree.nodes import VirtualNode
from holdfast.tree.snapshot_tree import SnapshotTree
from holdfast.tree.virtual import is_schema, table_name

_PASSING: Final = (b"\\restrict ", b"\\unrestrict ", b"-- Dump completed on ")
"""Beginnings of lines that are others in each dump of one database: a random word, the time."""
_STEP: Final = 1 << 20


class VirtualComparison:
    """Compares virtual files of two snapshots."""

    def __init__(self, reader: Reader, before: SnapshotTree, after: SnapshotTree) -> None:
        self._reader = reader
        self._trees = before, after
        self._definitions: dict[tuple[int, str], _Definitions] = {}

    def what(self, one: VirtualNode, other: VirtualNode) -> tuple[str, ...]:
        """The properties in which they differ: `rows` and `definition` of a table, else `content`; none when
        they are the same. Raises Damaged or StoreError."""
        if one.item.recipe == other.item.recipe and one.file.pieces == other.file.pieces:
            return ()
        if not (table_name(one.path) and table_name(other.path)):
            pieces = one.file.pieces, other.file.pieces
            same = self._same(one, pieces[0], other, pieces[1])
            if not same and is_schema(one.path) and is_schema(other.path):
                same = self._same_statements(one, pieces[0], other, pieces[1], ignored=_PASSING)
            return () if same else ("content",)
        rows, definition = self._split(0, one)
        other_rows, other_definition = self._split(1, other)
        differing = []
        if not self._same(one, rows, other, other_rows):
            differing.append("rows")
        # What stands between statements depends on the tables around.
        if not self._same_statements(one, definition, other, other_definition, ignored=(*_PASSING, b"--")):
            differing.append("definition")
        return tuple(differing)

    def _same(
        self,
        one: VirtualNode,
        pieces: Iterable[VirtualRange],
        other: VirtualNode,
        others: Iterable[VirtualRange],
    ) -> bool:
        a, b = list(pieces), list(others)
        if sum(piece.length for piece in a) != sum(piece.length for piece in b):
            return False
        recipes = self._reader.recipe(one.item), self._reader.recipe(other.item)
        return same_bytes(self._reader, (recipes[0], a), (recipes[1], b))

    def _same_statements(
        self,
        one: VirtualNode,
        pieces: Iterable[VirtualRange],
        other: VirtualNode,
        others: Iterable[VirtualRange],
        *,
        ignored: tuple[bytes, ...],
    ) -> bool:
        """Whether two texts have the same lines, without empty ones and those that start with `ignored`."""
        sides = ((one, pieces), (other, others))
        a, b = (
            (line for line in self._lines(node, found) if line.strip() and not line.startswith(ignored))
            for node, found in sides
        )
        return all(line == peer for line, peer in zip_longest(a, b))

    def _lines(self, node: VirtualNode, pieces: Iterable[VirtualRange]) -> Iterator[bytes]:
        recipe, rest = self._reader.recipe(node.item), b""
        for piece in pieces:
            for at in range(0, piece.length, _STEP):
                data = (
                    self._reader.read(recipe, piece.start + at, min(_STEP, piece.length - at))
                    if piece.data is None
                    else piece.data[at : at + _STEP]
                )
                *lines, rest = (rest + data).split(b"\n")
                yield from lines
        yield rest

    def _split(self, side: int, node: VirtualNode) -> tuple[list[VirtualRange], list[VirtualRange]]:
        """(rows, definition) of a table."""
        key = side, node.item.path
        found = self._definitions.get(key)
        if found is None:
            files = self._trees[side].root.virtual.files.items()
            schemas = [f.file.pieces for path, f in files if f.item is node.item and is_schema(path)]
            found = self._definitions[key] = _Definitions(piece for pieces in schemas for piece in pieces)
        return found.split(node.file.pieces)


class _Definitions:
    """The ranges of a dump that make up its schema; the rest of a table's file is rows."""

    def __init__(self, schema: Iterable[VirtualRange]) -> None:
        stored = sorted((p.start, p.start + p.length) for p in schema if p.data is None)
        self._ranges = list(joined(stored))
        self._starts = [start for start, _ in self._ranges]

    def split(self, pieces: Iterable[VirtualRange]) -> tuple[list[VirtualRange], list[VirtualRange]]:
        rows: list[VirtualRange] = []
        definition: list[VirtualRange] = []
        for piece in pieces:
            if piece.data is not None:
                definition.append(piece)
                continue
            for start, end, is_definition in self._cut(piece.start, piece.start + piece.length):
                (definition if is_definition else rows).append(stored_range(start, end - start))
        return rows, definition

    def _cut(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """[start, end) in parts that are definition or not."""
        at = max(0, bisect_right(self._starts, start) - 1)
        while start < end:
            while at < len(self._ranges) and self._ranges[at][1] <= start:
                at += 1
            first, last = self._ranges[at] if at < len(self._ranges) else (end, end)
            inside = first <= start
            stop = min(end, last if inside else first)
            yield start, stop, inside
            start = stop
