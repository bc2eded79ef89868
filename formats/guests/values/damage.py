"""What is wrong with a guest's disk: which structure, which field, the value found, and the value allowed.

Parsers raise these classes and nothing else for damage, so that no message can be made without its four
parts. Values come from a disk that may be hostile: they are shown short and without control characters.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from holdfast.base.escaping import escape
from holdfast.formats.guests.values.values import GuestDamaged

Value: TypeAlias = int | str | bytes

_VALUE_LENGTH: Final = 80
"""Characters of a value that are shown."""
_PART_LENGTH: Final = 160
"""Characters of a structure's name, a field's name, a limit or a reason."""


class StructureDamaged(GuestDamaged):
    """A field of a structure on a guest's disk has a value that its format does not allow.

    The message reads "ext4 superblock: blocks per group is 0; it must be at least 1".
    """

    def __init__(self, structure: str, field: str, value: Value, limit: str) -> None:
        self.structure = _bounded(structure, _PART_LENGTH)
        self.field = _bounded(field, _PART_LENGTH)
        self.value = value
        self.limit = _bounded(limit, _PART_LENGTH)
        super().__init__(f"{self.structure}: {self.field} is {shown(value)}; it must be {self.limit}")


class GuestUnsupported(GuestDamaged):
    """A structure is sound as far as can be seen, but this program cannot read it: it is encrypted, lies on
    another device, or uses an unknown feature."""

    def __init__(self, structure: str, reason: str) -> None:
        self.structure = _bounded(structure, _PART_LENGTH)
        self.reason = _bounded(reason, _PART_LENGTH)
        super().__init__(f"{self.structure}: {self.reason}")


def shown(value: Value) -> str:
    """A value as a message shows it: at most 80 characters, nothing that a terminal would act on."""
    return _bounded(repr(value[:_VALUE_LENGTH]) if isinstance(value, bytes) else str(value), _VALUE_LENGTH)


def _bounded(text: str, limit: int) -> str:
    """At most `limit` characters of a text, escaped."""
    escaped = escape(text[: limit + 1])
    return escaped if len(escaped) <= limit else escaped[: limit - 3] + "..."
