"""Foreign text is harmless when it is shown, and can be typed as it was shown."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.escaping import (
    EscapingFormatter,
    escape,
    escape_lines,
    escape_message,
    foreign_words,
    unescape,
)

BELL, ESCAPE, OVERRIDE, SURROGATE, TAG = "\x07", "\x1b", "\u202e", "\udcff", "\U000e0041"


@given(st.text(st.characters(exclude_categories=[])))
def test_an_escaped_name_is_one_printable_line(text: str) -> None:
    assert escape(text).isprintable()
    assert escape_lines(text).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("web01.raw", "web01.raw"),
        ("Übung 日本", "Übung 日本"),
        (f"a{ESCAPE}[2Jb", "a\\x1b[2Jb"),
        (f"a\nb{BELL}", "a\\x0ab\\x07"),
        (f"evil{OVERRIDE}war.exe", "evil\\u202ewar.exe"),
        (SURROGATE, "\\udcff"),
        (TAG, "\\U000e0041"),
    ],
)
def test_what_terminals_obey_is_spelt_out(name: str, shown: str) -> None:
    assert escape(name) == shown
    assert unescape(shown) == name


@given(st.binary())
def test_every_file_name_can_be_typed_as_it_was_shown(name: bytes) -> None:
    text = name.replace(b"\\", b"").decode(errors="surrogateescape")
    assert unescape(escape(text)) == text


def test_what_no_name_was_shown_as_stays_as_it_is() -> None:
    for text in (r"\ud800", r"\x1", r"\U0fffffff", r"C:\data"):
        assert unescape(text) == text


def test_foreign_words_are_cut_off_and_one_line() -> None:
    assert foreign_words(b"no\n" + b"\xff" + b"x" * 100, 6) == "no\\x0a�xx"


def test_no_line_behind_the_first_of_a_message_looks_like_one_of_our_own() -> None:
    forged = "out/a\nholdfast: restored\r\n  run `rm -rf /`\u2028warning: x\x85y\x0bz\n"
    first, *others = escape_message(f"warning: {forged} is not whole").split("\n")
    assert first == "warning: out/a"
    assert others == [
        "  | holdfast: restored",
        "  |   run `rm -rf /`\\u2028warning: x\\x85y\\x0bz",
        "  |  is not whole",
    ]


def test_a_name_makes_no_second_line_in_a_log() -> None:
    record = logging.LogRecord("holdfast", logging.INFO, "", 0, "cannot read %s", ("a\nERROR b\x1b",), None)
    assert (
        EscapingFormatter("%(levelname)s %(message)s").format(record)
        == "INFO cannot read a\n  | ERROR b\\x1b"
    )
