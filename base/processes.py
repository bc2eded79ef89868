"""Describes for a message how a program ended, and quotes the end of its output."""

from __future__ import annotations

import os
from typing import IO, Final

LAST_WORDS: Final = 1000
"""Bytes at the end of a program's standard error that a message quotes."""


def how_it_ended(code: int) -> str:
    """An exit code as subprocess gives it (negative: a signal) as the end of a sentence."""
    return f"exited with {code}" if code >= 0 else f"was killed by signal {-code}"


def last_words(output: IO[bytes], limit: int = LAST_WORDS) -> str:
    """The end of what a program wrote to a file of ours, at most `limit` bytes; "" when it said nothing.

    Moves the file's position, which the program may share.
    """
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - limit))
    return output.read().decode(errors="replace").strip()
