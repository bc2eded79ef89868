"""Structures on a disk as classes with named fields.

A structure is a NamedTuple whose fields are annotated with their positions, so that the class can be read
beside the specification:

    class DirectoryEntry(NamedTuple):
        inode: Annotated[int, At(0x00, "I")]
        length: Annotated[int, At(0x04, "H")]

    ENTRY: Final = Layout(DirectoryEntry, "<", "ext directory entry")

`At` is the field's offset in bytes and its type as in the struct module. Gaps between fields are skipped.
Layouts are compiled at import: parsing starts after the worker has locked itself in.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_type_hints

from holdfast.formats.guests.values.damage import StructureDamaged

Fields = TypeVar("Fields", bound=tuple[Any, ...])


class At(NamedTuple):
    """The position of a field in bytes from the start of its structure, and its type as a format character of
    the struct module."""

    offset: int
    code: str


class Layout(Generic[Fields]):
    """A compiled structure. `size` is in bytes, up to the end of the last field of the class."""

    def __init__(self, fields: type[Fields], order: Literal["<", ">"], name: str) -> None:
        """`fields` is a NamedTuple with annotations, `order` its byte order, `name` what messages call it."""
        names: tuple[str, ...] = fields._fields  # type: ignore[attr-defined]  # every NamedTuple has it
        hints = get_type_hints(fields, include_extras=True)
        text: str = order
        for name_ in names:
            at: At = hints[name_].__metadata__[0]
            gap = at.offset - struct.calcsize(text)
            assert gap >= 0, f"{name}: the field {name_} overlaps the one before"
            text += f"{gap}x{at.code}" if gap else at.code
        compiled = struct.Struct(text)
        self.name = name
        self.size = compiled.size
        self._fields = fields
        self._make: Callable[[tuple[Any, ...]], Fields] = fields._make  # type: ignore[attr-defined]
        self.unpack: Callable[..., tuple[Any, ...]] = compiled.unpack_from
        """(data, offset) -> plain values in order. Cheaper than `read`, for structures that are read once per
        file. Raises struct.error when the data ends early."""
        self._iterate = compiled.iter_unpack

    def read(self, data: bytes | bytearray, offset: int = 0) -> Fields:
        """The structure that begins at `offset`. Raises StructureDamaged when the data ends inside it."""
        try:
            return self._make(self.unpack(data, offset))
        except struct.error:
            left = max(len(data) - offset, 0)
            raise StructureDamaged(self.name, "size", left, f"at least {self.size} bytes") from None

    def each(self, data: bytes | bytearray) -> Iterator[tuple[Any, ...]]:
        """The plain values of structures that follow each other and fill the data."""
        return self._iterate(data)
