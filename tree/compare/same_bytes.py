"""Whether two ranges of stored files hold the same bytes, reading only where their chunks differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from holdfast.formats.dumps.core.virtual_file import VirtualRange
from holdfast.repo.chunks.recipe import Extent, Recipe
from holdfast.repo.core.reader import Reader


class _StoredPart(NamedTuple):
    """`length` bytes: `data`, or those of an extent from `start` in the stored file when it is None."""

    length: int
    data: bytes | None
    extent: Extent | None
    start: int


Stored: TypeAlias = tuple[Recipe, Iterable[VirtualRange]]
"""A stored file by its recipe, and pieces of it or of text."""


def same_bytes(reader: Reader, one: Stored, other: Stored) -> bool:
    """Whether the pieces of two stored files are the same bytes one after another.

    A stream that grew in its middle is cut into the same chunks before and behind, so what moved is not read.
    Raises Damaged or StoreError.
    """
    a, b = _parts(*one), _parts(*other)
    p, q = next(a, None), next(b, None)
    while p is not None and q is not None:
        length = min(p.length, q.length)
        if not _is_same_place(p, q) and _bytes(reader, p, length) != _bytes(reader, q, length):
            return False
        p = _behind(p, length) or next(a, None)
        q = _behind(q, length) or next(b, None)
    return p is q  # both at the end


def _parts(recipe: Recipe, pieces: Iterable[VirtualRange]) -> Iterator[_StoredPart]:
    for piece in pieces:
        if piece.data is not None:
            if piece.length:
                yield _StoredPart(piece.length, piece.data, None, 0)
            continue
        end = piece.start + piece.length
        for extent in recipe.extents(piece.start, end):
            first, last = max(piece.start, extent.start), min(end, extent.start + extent.length)
            yield _StoredPart(last - first, None, extent, first)


def _behind(part: _StoredPart, length: int) -> _StoredPart | None:
    """The rest of a part after its first `length` bytes."""
    if part.length == length:
        return None
    data = part.data[length:] if part.data is not None else None
    return _StoredPart(part.length - length, data, part.extent, part.start + length)


def _is_same_place(p: _StoredPart, q: _StoredPart) -> bool:
    """Whether both begin at one byte of one chunk, or both are holes."""
    if p.extent is None or q.extent is None or p.extent.id != q.extent.id:
        return False
    return p.extent.id is None or p.start - p.extent.start == q.start - q.extent.start


def _bytes(reader: Reader, part: _StoredPart, length: int) -> bytes:
    if part.data is not None:
        return part.data[:length]
    assert part.extent is not None
    return bytes(reader.slice(part.extent, part.start, part.start + length))
