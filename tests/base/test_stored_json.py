"""Stored JSON: read as it was written, and what Python's own decoder refuses is refused."""

from __future__ import annotations

import gc
import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, Unsupported
from holdfast.base.stored_json import VersionedJson, collector_paused, read_json, read_versioned


class Example(VersionedJson):
    name: str
    facts: dict[str, str] = msgspec.field(default_factory=dict)


WHOLE = (
    rb'{"version":1,"unheard":{"a":[1,2.5e3,-0,"x\u00e9\n",true,null,"\udc80"]},'
    rb'"name":"n\udc80","facts":{"a":"b"}}'
)

texts = st.text(max_size=20) | st.binary(max_size=10).map(lambda b: b.decode(errors="surrogateescape"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(values)
def test_any_json_is_read_as_it_was_written(value: Any) -> None:
    assert read_json(json.dumps(value).encode(), Any) == value


def read_example(data: bytes) -> Example:
    return read_versioned(data, Example, kind="thing", version=1, where="here")


def test_text_that_is_not_utf_8_does_not_loosen_the_types() -> None:
    assert read_example(WHOLE) == Example(version=1, name="n\udc80", facts={"a": "b"})
    with pytest.raises(Damaged, match=r"^here: not a thing: Expected `str`, got `int` - at `\$.facts"):
        read_example(WHOLE.replace(b'"b"', b"7"))


bytes_of_json = st.sampled_from(WHOLE + b"\0\x1f\x7f\xff")


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), bytes_of_json), max_size=3))
def test_what_python_refuses_is_refused_in_ignored_members_too(changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, byte in changes:
        data[at] = byte
    try:
        json.loads(bytes(data))
    except ValueError:
        with pytest.raises(Damaged):
            read_example(bytes(data))
    else:
        with suppress(Damaged, Unsupported):
            read_example(bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"NaN",
        b"Infinity",
        b"1e999",
        b"9" * 10_000,
        b"01",
        b"1 x",
        b'"\n"',
        b"[" * 200_000,
        b'{"ignored":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        rb'"\udc80' + b"[" * 200_000,
        rb'["\udc80",' + b"[" * 200_000 + b"]" * 200_001,
        '"ä"'.encode(),
        '"a"'.encode("utf-16"),
        b'\xef\xbb\xbf"a"',
        b'"\xff"',
        b'"\xed\xb2\x80"',
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_nobody_wrote_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_json(data, Any)


@pytest.mark.parametrize("version", [b"2", b"0", b'"1"', b"null", b"2.5"])
@pytest.mark.parametrize("rest", [b'"name":"n"', b'"name":[7]', b'"other":1'])
def test_another_version_is_told_whatever_else_it_says(version: bytes, rest: bytes) -> None:
    with pytest.raises(Unsupported, match=r"^here: thing version .*; this program reads 1$"):
        read_example(b'{"version":' + version + b"," + rest + b"}")


@pytest.mark.parametrize(
    "data",
    [
        b'{"name":"n"}',
        b'{"version":true,"name":"n"}',
        b'{"version":1}',
        b'{"version":1,"name":"n","unheard":"\xff"}',
        b"[1]",
        b"{",
    ],
)
def test_what_says_no_other_version_is_damage(data: bytes) -> None:
    with pytest.raises(Damaged, match=r"^here: not a thing: "):
        read_example(data)


def test_the_collector_runs_again_after_a_pause_unless_it_did_not_before() -> None:
    with suppress(KeyError), collector_paused():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
    with collector_paused(), collector_paused():
        pass
    assert gc.isenabled()
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
