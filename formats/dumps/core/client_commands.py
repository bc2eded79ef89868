"""What a dump holds for the client program that loads it, where SQL should stand: no dump tool writes it."""

from __future__ import annotations

from typing import Final

from holdfast.base.escaping import foreign_words

_SHOWN: Final = 64
"""Bytes of the first one that are shown."""


class ClientCommands:
    """Counts the pieces of a dump that hold such a command; a piece counts once."""

    def __init__(self) -> None:
        self.count = 0
        self._first = ""

    def add(self, text: bytes) -> None:
        """A piece holds a command that begins like this."""
        self.count += 1
        if self.count == 1:
            self._first = foreign_words(text.split(b"\n", 1)[0].strip(), _SHOWN)

    @property
    def told(self) -> str:
        r"""How many and the first one, such as "2, the first: \! touch x"; "" for none."""
        return f"{self.count}, the first: {self._first}" if self.count else ""
