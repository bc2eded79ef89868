"""Tar headers, against those that Python's own writer makes."""

from __future__ import annotations

import tarfile
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.tar_header import (
    BLOCK,
    EXTENSIONS,
    FILE,
    FOLDER,
    LINK,
    Extension,
    TarError,
    TarHeader,
    TarRefused,
    check_sum,
    parse_header,
    tar_number,
)

_KINDS = {FILE: tarfile.REGTYPE, LINK: tarfile.SYMTYPE, FOLDER: tarfile.DIRTYPE}
_NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=150)


def read(data: bytes) -> TarHeader:
    """The first member, whatever extension headers stand before it."""
    extension, at = Extension(), 0
    while True:
        header = data[at : at + BLOCK]
        check_sum(header)
        at += BLOCK
        if header[156:157] not in EXTENSIONS:
            return parse_header(header, extension)
        size = tar_number(header[124:136], "size")
        extension.extend(header[156:157], data[at : at + size])
        at += -(-size // BLOCK) * BLOCK


@given(_NAMES, _NAMES, st.sampled_from(sorted(_KINDS)), st.integers(0, 1 << 40), st.sampled_from([1, 2]))
def test_what_tarfile_writes_is_read(
    name: str, target: str, kind: bytes, size: int, form: Literal[0, 1, 2]
) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = _KINDS[kind], target if kind == LINK else ""
    info.size, info.mode, info.mtime = size if kind == FILE else 0, 0o640, 1_700_000_000
    info.uname = "postgres"
    header = read(info.tobuf(form, "utf-8", "surrogateescape"))
    wanted = name.rstrip("/") + "/" if kind == FOLDER else name
    assert header.path.rstrip("/") == wanted.rstrip("/")
    assert (header.kind, header.size, header.mode) == (kind, info.size, 0o640)
    assert (header.mtime, header.target, header.owner) == (1_700_000_000 * 10**9, info.linkname, "postgres")


def test_the_old_sum_of_signed_bytes_counts_too() -> None:
    header = bytearray(tarfile.TarInfo("ü").tobuf(tarfile.GNU_FORMAT, "utf-8"))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % (sum(header) - 256 * sum(byte >> 7 for byte in header))
    check_sum(bytes(header))
    header[0] ^= 1
    with pytest.raises(TarError, match="wrong sum"):
        check_sum(bytes(header))


@pytest.mark.parametrize(
    ("kind", "content", "says"),
    [
        (b"x", b"20 GNU.sparse.x=abc\n", "sparse"),
        (b"g", b"10 path=a\n", "every member the same path"),
        (b"g", b"14 linkpath=a\n", "every member the same linkpath"),
    ],
)
def test_what_two_readers_could_take_differently_is_refused(kind: bytes, content: bytes, says: str) -> None:
    with pytest.raises(TarRefused, match=says):
        Extension().extend(kind, content)


def test_two_sizes_are_refused() -> None:
    info = tarfile.TarInfo("a")
    info.size = 5
    with pytest.raises(TarRefused, match="two sizes, 5 and 6"):
        parse_header(info.tobuf(), Extension(size=6))


@pytest.mark.parametrize(
    "content", [b"8 path=a\n", b"path=a\n", b"8 patha\n", b"10 path=a\0", b"11 path=a\n"]
)
def test_damaged_pax_headers_are_told(content: bytes) -> None:
    with pytest.raises(TarError, match="pax header has no record at offset 0"):
        Extension().extend(b"x", content)


@given(st.binary(min_size=8, max_size=12))
def test_any_field_is_a_number_or_an_error(field: bytes) -> None:
    try:
        number = tar_number(field, "size")
    except TarError:
        number = -1
    octal = field.strip(b" \0").isdigit() and not set(field) & set(b"89")
    assert number >= 0 if octal else number < 1 << 62
