"""What the index stores instead of chunk IDs and locations, so that one that is stolen tells neither. No I/O.

A chunk's table key is a keyed hash of its ID, its locations are masked by a keyed hash of the table key. What
a thief still sees is how many chunks there are, and in how many packs each one is.
"""

from __future__ import annotations

from typing import Final

from blake3 import blake3

from holdfast.base.types import Buffer

KEY_SIZE: Final = 32
_TABLE_KEY: Final = 16


class HiddenTable:
    """Makes table keys and masks with one key of 32 bytes."""

    __slots__ = ("_mask_key", "_table_key", "label")

    def __init__(self, key: bytes) -> None:
        self._table_key = blake3(key, derive_key_context="holdfast 2 index table keys").digest()
        self._mask_key = blake3(key, derive_key_context="holdfast 2 index masks").digest()
        self.label = blake3(key, derive_key_context="holdfast 2 index label").digest(length=16)
        """Equal for indexes of one key."""

    def table_key(self, id_: Buffer) -> bytes:
        """The 16 bytes under which a chunk stands in a table."""
        return blake3(id_, key=self._table_key).digest(length=_TABLE_KEY)

    def mask(self, table_key: bytes, value: bytes) -> bytes:
        """The value of a table key, hidden; or, of a hidden one, the value."""
        size = len(value)
        pad = blake3(table_key, key=self._mask_key).digest(length=size)
        return (int.from_bytes(value, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")
