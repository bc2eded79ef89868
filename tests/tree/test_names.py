"""Names in the mount: safe, apart, short."""

from __future__ import annotations

from datetime import timedelta, timezone

import pytest

from holdfast.tree.names import safe_name, short_ids, time_name
from support.basics import NOW


def test_times_are_utc() -> None:
    assert time_name(NOW.astimezone(timezone(timedelta(hours=9)))) == "2026-11-22_02-00-00"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("web01", "web01"),
        ("web01.example.org", "web01.example.org"),
        ("Büro 3 (alt)", "Büro 3 (alt)"),
        ("", "unnamed"),
        (".", "_"),
        ("..", "__"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("a\0b", "a_b"),
        ("a:b", "a_b"),
        ("\x1b[2J\r\n", "_[2J__"),
        ("gpj.\u202eexe", "gpj._exe"),
        ("\ud800", "_"),
    ],
)
def test_subject_names_are_made_safe(name: str, shown: str) -> None:
    assert safe_name(name) == shown


def test_long_names_are_cut_and_stay_apart() -> None:
    a, b = safe_name("ä" * 300 + "a"), safe_name("ä" * 300 + "b")
    assert a != b
    assert max(len(a.encode()), len(b.encode())) <= 210


def test_short_ids_are_longer_where_they_must_be() -> None:
    ids = ["0123456789ab", "0123456799ff", "fedcba987654", "0123456789cd"]
    assert short_ids(ids) == ["0123456789a", "012345679", "fedcba98", "0123456789c"]
    assert short_ids([]) == []
