"""The catalogue's stored form: it comes back as it was, and nothing else is taken for one."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, Unsupported
from holdfast.formats.dumps.core.catalogue import Catalogue, Section, decode, encode

SIZE = 10_000

words = st.text(max_size=20) | st.binary(max_size=10).map(lambda b: b.decode(errors="surrogateescape"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
extras = st.dictionaries(words, values, max_size=3)


@st.composite
def sections(draw: st.DrawFn) -> tuple[Section, ...]:
    edges = sorted(draw(st.lists(st.integers(0, SIZE), max_size=12)))
    return tuple(
        Section(
            start,
            end - start,
            draw(words),
            draw(words),
            draw(words),
            draw(words),
            draw(st.none() | st.tuples(words, words)),
            tuple(draw(st.lists(words, max_size=3))),
            draw(extras),
        )
        for start, end in zip(edges[::2], edges[1::2], strict=False)
    )


catalogues = st.builds(
    Catalogue, words, words, sections(), words, st.dictionaries(words, words, max_size=3), extras
)


@given(catalogues)
def test_what_is_decoded_is_what_was_encoded(catalogue: Catalogue) -> None:
    data = encode(catalogue)
    assert decode(data, "here", SIZE) == catalogue
    assert data.isascii()
    assert catalogue.complete is (catalogue.fault == "")


def test_what_stands_at_its_default_takes_no_room() -> None:
    plain = [Section(start, 10, "TABLE") for start in range(0, 1000, 10)]
    data = encode(Catalogue("mysql", "sql", tuple(plain)))
    assert b'[[0,10,"TABLE"],[10,10,"TABLE"],' in data
    assert decode(data, "here", 1000).sections == tuple(plain)
    nothing = Catalogue("mysql", "sql", (Section(0, 0, ""), Section(0, 0, "")))
    assert decode(encode(nothing), "here", 0) == nothing


def document(**changes: Any) -> bytes:
    whole = {
        "version": 1,
        "engine": "postgresql",
        "form": "sql",
        "fault": "",
        "facts": {"server": "PostgreSQL 17"},
        "extra": {},
        "sections": [[0, 50, "TABLE", "", "public", "t", ["public", "t"], ["public.d"], {"columns": ["n"]}]],
    } | changes
    return json.dumps({name: value for name, value in whole.items() if value != "leave out"}).encode()


def test_the_example_itself_is_right() -> None:
    (section,) = decode(document(), "here", 50).sections
    assert (section.table, section.needs, section.extra) == (
        ("public", "t"),
        ("public.d",),
        {"columns": ["n"]},
    )


@pytest.mark.parametrize(
    "rows",
    [
        [[0, 51, "TABLE"]],
        [[51, 0, "TABLE"]],
        [[0, 10**30, "TABLE"]],
        [[0, 20, "TABLE"], [19, 5, "TABLE"]],
        [[20, 10, "TABLE"], [0, 10, "TABLE"]],
        [[-1, 5, "TABLE"]],
        [[5, -1, "TABLE"]],
        [[0.5, 5, "TABLE"]],
        [["0", 5, "TABLE"]],
        [[True, 5, "TABLE"]],
        [[None, 5, "TABLE"]],
    ],
)
def test_sections_outside_the_stream_or_out_of_order_are_damage(rows: list[Any]) -> None:
    with pytest.raises(Damaged, match="not a catalogue"):
        decode(document(sections=rows), "here", 50)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'"version"',
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"version":' + b"9" * 10_000 + b"}",
        document()[:-1],
        document() + b"x",
        *(
            document(**{name: "leave out"})
            for name in ("version", "engine", "form", "fault", "facts", "extra")
        ),
        document(sections="leave out"),
        document(sections=7),
        document(sections=[7]),
        document(sections=[None]),
        document(sections=["TABLE"]),
        document(sections={"a": 1}),
        document(sections=[[0, 5, "TABLE", "", "", "", ["public"]]]),
        document(sections=[[0, 5, "TABLE", "", "", "", 7]]),
        document(sections=[[0, 5, "TABLE", "", "", "", None, 7]]),
        document(sections=[[0, 5, "TABLE", "", "", "", None, [], 7]]),
        document(sections=[[0, 5, "TABLE", "", "", "", None, [], [1]]]),
        document(sections=[[0, 5, 7]]),
        document(sections=[[0, 5, "TABLE", None]]),
        document(sections=[[0, 5, "TABLE", "", "", "", ["public", "t", "u"]]]),
        document(sections=[[0, 5, "TABLE", "", "", "", None, [7]]]),
        document(sections=[[0, 5, "TABLE", "", "", "", None, [], {}, 7]]),
        document(engine=7),
        document(engine=chr(0xDC80), facts={"a": 1}),
        document(facts={"a": 1}),
        document(facts=[1]),
        document(facts=None),
        document(extra=7),
    ],
)
def test_what_is_no_catalogue_is_damage(data: bytes) -> None:
    with pytest.raises(Damaged, match=r"^here\b.*not a catalogue"):
        decode(data, "here", 50)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_is_not_guessed_at(version: object) -> None:
    with pytest.raises(Unsupported, match="catalogue version"):
        decode(document(version=version), "here", 50)


@given(st.integers(0, len(document()) - 1), st.integers(0, 255))
def test_a_changed_byte_is_never_a_crash(at: int, value: int) -> None:
    data = bytearray(document())
    data[at] = value
    try:
        found = decode(bytes(data), "here", 50)
    except (Damaged, Unsupported):
        return
    assert all(0 <= s.start <= s.start + s.length <= 50 for s in found.sections)


def test_damage_is_told_with_its_place_what_is_there_and_what_should_be() -> None:
    told = re.escape("Expected `int`, got `float` - at `$.sections[1][0]`")
    with pytest.raises(Damaged, match=f"here: not a catalogue: {told}"):
        decode(document(sections=[[0, 5, "TABLE"], [5.5, 5, "TABLE"]]), "here", 50)
    told = "section 1 has 5 bytes at 4; the section before ends at 5, the dump at 50"
    with pytest.raises(Damaged, match=f"here: not a catalogue: {told}"):
        decode(document(sections=[[0, 5, "TABLE"], [4, 5, "TABLE"]]), "here", 50)
