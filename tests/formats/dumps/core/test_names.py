"""Names of database objects as file names: readable, possible everywhere, and never the same for two."""

from __future__ import annotations

import re
from hashlib import blake2b

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.formats.dumps.core.names import file_name

# What a catalogue's text can hold: any character, and bytes that were no UTF-8 as surrogates.
characters = st.sampled_from("ab./%~\\ \0\n\x7fäß€🐘\udc80\udcff") | st.characters(exclude_categories=["Cs"])
parts = st.text(characters, min_size=1, max_size=12) | st.text("a./\n~€", min_size=60, max_size=300)
names = st.lists(parts, max_size=3).map(tuple)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (("public", "orders"), "public.orders"),
        (("orders",), "orders"),
        (("", "orders"), "orders"),
        (("public", ""), "public"),
        (("Größe", "Äpfel & Birnen"), "Größe.Äpfel & Birnen"),
        (("a.b", "c"), "a%2Eb.c"),
        (("..",), "%2E%2E"),
        (("a/b",), "a%2Fb"),
        (("100%",), "100%25"),
        (("a~b",), "a%7Eb"),
        (("a\nb",), "a%0Ab"),
        (("\x9b2J",), "%C2%9B2J"),
        (("\u202egnp",), "%E2%80%AEgnp"),
        (("\udcff",), "%FF"),
        ((), "%"),
    ],
)
def test_names_are_readable(name: tuple[str, ...], expected: str) -> None:
    assert file_name(*name) == expected


@given(names, names)
@example(("a", "b"), ("a.b",))
@example(("a%2Eb",), ("a.b",))
@example(("a", "", "b"), ("a", "b", "c"))
@example(("\0",), ())
@example(("%",), ())
@example(("\udcc3\udca4x",), ("äx",))
def test_no_two_objects_have_the_same_name(one: tuple[str, ...], two: tuple[str, ...]) -> None:
    one, two = tuple(filter(None, one)), tuple(filter(None, two))
    if one != two and not _same_bytes(one, two):
        assert file_name(*one) != file_name(*two)


def _same_bytes(one: tuple[str, ...], two: tuple[str, ...]) -> bool:
    """Bytes that are UTF-8 are never decoded to surrogates: no two objects differ in that alone."""
    return [p.encode(errors="surrogateescape") for p in one] == [
        p.encode(errors="surrogateescape") for p in two
    ]


@given(names)
def test_a_name_is_one_that_file_systems_and_terminals_take(name: tuple[str, ...]) -> None:
    found = file_name(*name)
    assert 0 < len(found.encode()) <= 240
    assert "/" not in found
    assert found.strip(".")
    assert found.isprintable()


@given(names)
def test_the_way_back_is_certain(name: tuple[str, ...]) -> None:
    found = file_name(*name)
    if "~" in found or found == "%":
        return  # cut, or nothing
    back = [
        re.sub(rb"%([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), part.encode()).decode(
            errors="surrogateescape"
        )
        for part in found.split(".")
    ]
    assert [p.encode(errors="surrogateescape") for p in back] == [
        p.encode(errors="surrogateescape") for p in name
    ]


def test_long_names_are_cut_and_told_apart_by_a_hash() -> None:
    long = "x" * 1000
    found = file_name(long)
    assert len(found) == 240
    assert re.fullmatch(r"x+~[0-9a-f]{16}", found)
    assert len({file_name(long), file_name(long + "y"), file_name("y" + long), file_name(long, "z")}) == 4
    assert len(file_name("x" * 240)) == 240
    assert "~" not in file_name("x" * 240)
    assert file_name("€" * 1000).startswith("€€"), "cut between characters"


def test_nobody_can_call_an_object_like_the_cut_name_of_another() -> None:
    """Two identifiers of PostgreSQL, 63 bytes each, whose bytes take three times as many here."""
    schema, table = "\1" * 63, "\1" * 63
    cut = file_name(schema, table)
    mark = blake2b((b"%01" * 63 + b"." + b"%01" * 63), digest_size=8).hexdigest()
    assert cut == "%01" * 63 + "." + "%01" * 11 + "~" + mark
    assert file_name(schema, "\1" * 11 + "~" + mark) != cut
