r"""Makes foreign text harmless for terminals and logs: names from guests and dumps, messages of servers."""

from __future__ import annotations

import logging
import re


def escape(text: str) -> str:
    r"""A name from a repository, a guest or an error as one harmless line.

    Whatever is not printable becomes \x1b or \u202e: control characters, which terminals obey; marks
    that turn the direction of text; bytes that are not UTF-8 (lone surrogates).
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _code(c) for c in text)


def escape_lines(text: str) -> str:
    """The same for a text that may have several lines, where it is clear that they belong together."""
    return "\n".join(escape(line) for line in text.replace("\r\n", "\n").split("\n"))


def escape_message(text: str) -> str:
    """A message to stand by itself, which may have foreign words in it, of several lines even: behind the
    first each has a mark, which no line of our own begins with. So no name can end a message and begin
    another."""
    return escape_lines(text.rstrip("\n")).replace("\n", "\n  | ")


class EscapingFormatter(logging.Formatter):
    """Formats log records so that no name or foreign text in one can begin another line."""

    def format(self, record: logging.LogRecord) -> str:
        return escape_message(super().format(record))


def foreign_words(said: bytes | bytearray, limit: int) -> str:
    """The output of an untrusted program for a message: one harmless line of at most `limit` bytes of it."""
    return escape(said[:limit].decode(errors="replace"))


def unescape(text: str) -> str:
    r"""What `escape` showed as \x1b, \udcff or \U0001f600, as it was."""
    return re.sub(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U0([0-9a-f]{7}))", _character, text)


def _code(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _character(match: re.Match[str]) -> str:
    code = int(match[1] or match[2] or match[3], 16)
    escapable = code <= 0x10FFFF and not (0xD800 <= code <= 0xDC7F or 0xDD00 <= code <= 0xDFFF)
    return chr(code) if escapable else match[0]
