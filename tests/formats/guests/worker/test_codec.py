"""What crosses the border to a guest's parser: it arrives as it was sent, and nothing else is let in."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.formats.guests.values.values import DiskExtent, Entry, GuestDamaged, NodeType, Volume
from holdfast.formats.guests.worker.codec import (
    ATTRIBUTE_LIMIT,
    EXTENT_LIMIT,
    VOLUME_LIMIT,
    are_extents,
    is_name,
    is_volume_path,
    pack_attributes,
    pack_entry,
    pack_named,
    pack_page,
    pack_volumes,
    unpack_attributes,
    unpack_entry,
    unpack_page,
    unpack_volumes,
)
from holdfast.formats.guests.worker.protocol import (
    Kind,
    Layer,
    Nonsense,
    Opening,
    Request,
    Want,
    pack_layers,
    unpack_layers,
)

DISK = 1 << 40
BIG = 2**63 - 1
WORD = st.integers(0, 2**32 - 1)
TIME = st.integers(-BIG, BIG)


@st.composite
def extents_of(draw: st.DrawFn, lengths: Sequence[int]) -> tuple[DiskExtent, ...]:
    found, start = [], 0
    for length in lengths:
        found.append(DiskExtent(start, length, draw(st.integers(-1, DISK - length))))
        start += length
    return tuple(found)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    lengths = draw(st.none() | st.lists(st.integers(1, 1 << 30), max_size=6))
    extents = None if lengths is None else draw(extents_of(lengths))
    size = draw(st.integers(0, BIG)) if lengths is None else sum(lengths)
    return Entry(
        inode=draw(st.integers(0, 2**64 - 1)),
        type=draw(st.sampled_from(NodeType)),
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(WORD),
        gid=draw(WORD),
        links=draw(WORD),
        size=size,
        allocated=draw(st.integers(0, BIG)),
        mtime=draw(TIME),
        ctime=draw(TIME),
        atime=draw(TIME),
        device=draw(st.integers(0, 2**64 - 1)),
        extents=extents,
        plain=draw(st.booleans()),
    )


NAMES = st.binary(min_size=1, max_size=1020).filter(is_name)
PATHS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(is_volume_path)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
VOLUMES = st.builds(Volume, PATHS, st.integers(0, BIG), st.integers(-1, DISK), TEXTS, TEXTS, TEXTS)
FILE = Entry(7, NodeType.FILE, 0o644, 0, 0, 1, 100, 0, 0, 0, 0)


# ---- there and back -----------------------------------------------------------------------------------


@given(entries())
def test_an_entry_arrives_as_it_was_sent(entry: Entry) -> None:
    assert unpack_entry(pack_entry(entry, DISK), DISK) == entry


@given(st.lists(st.tuples(NAMES, entries()), max_size=5), st.booleans())
def test_a_page_arrives_as_it_was_sent(lines: list[tuple[bytes, Entry]], is_last: bool) -> None:
    page = pack_page([pack_named(*line, DISK) for line in lines], is_last=is_last or not lines)
    assert unpack_page(page, DISK) == (lines, is_last or not lines)


@given(st.lists(VOLUMES, max_size=5, unique_by=lambda volume: volume.path))
def test_volumes_arrive_as_they_were_sent(volumes: list[Volume]) -> None:
    assert unpack_volumes(pack_volumes(volumes, DISK), DISK) == tuple(volumes)


@given(
    st.dictionaries(
        st.binary(max_size=20).map(lambda b: b"user." + b.replace(b"\0", b"")), st.binary(max_size=99)
    )
)
def test_attributes_arrive_as_they_were_sent(attributes: dict[bytes, bytes]) -> None:
    assert unpack_attributes(pack_attributes(attributes)) == attributes


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=300),
)
def test_a_request_arrives_as_it_was_sent(volume: str, inode: int, position: int, name: bytes) -> None:
    request = Request(Kind.LOOKUP, volume, inode, position, 5, name, 30)
    assert Request.unpack(Kind.LOOKUP, request.pack()) == request


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
def test_passphrases_arrive_as_they_were_sent(passphrases: list[str]) -> None:
    assert Opening.unpack(Opening(DISK, passphrases, 90).pack()) == Opening(DISK, passphrases, 90)


def test_a_passphrase_that_is_no_utf8_arrives() -> None:
    odd = b"caf\xe9".decode(errors="surrogateescape")
    assert Opening.unpack(Opening(1, [odd], 1).pack()).passphrases == [odd]


def test_layers_arrive_as_they_were_sent() -> None:
    for layers in (frozenset(Layer), frozenset({Layer.SECCOMP}), frozenset[Layer]()):
        assert unpack_layers(pack_layers(layers)) == layers
    for body in (b"armour", b"\xff", b"seccomp "):
        with pytest.raises(Nonsense):
            unpack_layers(body)


@pytest.mark.parametrize(
    "request_",
    [
        Request(Kind.ENTRY, "p1", 2**64),
        Request(Kind.ENTRY, "p1", -1),
        Request(Kind.LOOKUP, "p1", name=b"x" * 65536),
    ],
)
def test_a_request_for_what_cannot_be_is_not_sent(request_: Request) -> None:
    with pytest.raises(ValueError, match="no request can carry"):
        request_.pack()


# ---- bytes from somebody hostile ----------------------------------------------------------------------


def let_in(body: bytes) -> None:
    """Put the bytes to everything that unpacks: Nonsense, or a value that keeps to the rules."""
    with suppress(Nonsense):
        check(unpack_entry(body, DISK))
    with suppress(Nonsense):
        for name, entry in unpack_page(body, DISK)[0]:
            assert is_name(name)
            check(entry)
    with suppress(Nonsense):
        assert all(is_volume_path(volume.path) for volume in unpack_volumes(body, DISK))
    with suppress(Nonsense):
        assert all(name.startswith((b"user.", b"system.")) for name in unpack_attributes(body))
    with suppress(Nonsense):
        want = Want.unpack(body, DISK)
        assert 0 <= want.offset < want.offset + want.length <= DISK
    with suppress(Nonsense):
        unpack_layers(body)
    with suppress(Nonsense):
        Request.unpack(Kind.ENTRY, body)


def check(entry: Entry) -> None:
    assert 0 <= entry.size <= BIG
    assert 0 <= entry.mode <= 0o7777
    assert entry.extents is None or are_extents(entry.extents, entry.size, DISK)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_nonsense_or_within_the_rules(body: bytes) -> None:
    let_in(body)


@given(entries(), st.data())
def test_a_message_with_a_flipped_byte_is_nonsense_or_within_the_rules(
    entry: Entry, data: st.DataObject
) -> None:
    page = pack_page([pack_named(b"name", entry, DISK)] * 2, is_last=True)
    for body in (page, pack_entry(entry, DISK), pack_attributes({b"user.a": b"b"})):
        at = data.draw(st.integers(0, len(body) - 1))
        changed = bytearray(body)
        changed[at] ^= data.draw(st.integers(1, 255))
        let_in(bytes(changed))
        let_in(body[:at])


def test_an_attribute_that_is_not_for_everybody_is_nonsense() -> None:
    body = pack_attributes({b"user.a": b"b"}).replace(b"user.a", b"trustd")
    with pytest.raises(Nonsense, match="impossible"):
        unpack_attributes(body)


# ---- what a parser makes of a damaged guest -----------------------------------------------------------


@pytest.mark.parametrize(
    "extents",
    [
        [(0, 50, 0)],
        [(0, 101, 0)],
        [(1, 99, 0)],
        [(0, 50, 0), (60, 40, 0)],
        [(0, 60, 0), (50, 50, 0)],
        [(0, 0, 0), (0, 100, 0)],
        [(0, 100, DISK - 99)],
        [(0, 100, -2)],
        [(0, 200, 0), (200, -100, 0)],
        [],
    ],
)
def test_extents_that_cannot_be_are_left_out_so_that_the_parser_is_asked(
    extents: list[tuple[int, int, int]],
) -> None:
    entry = Entry(7, NodeType.FILE, 0, 0, 0, 1, 100, 0, 0, 0, 0, 0, tuple(DiskExtent(*e) for e in extents))
    assert unpack_entry(pack_entry(entry, DISK), DISK).extents is None


def test_a_hole_may_be_longer_than_the_disk() -> None:
    entry = Entry(7, NodeType.FILE, 0, 0, 0, 1, 2 * DISK, 0, 0, 0, 0, 0, (DiskExtent(0, 2 * DISK, -1),))
    assert unpack_entry(pack_entry(entry, DISK), DISK) == entry


def test_a_file_in_too_many_pieces_is_read_through_the_parser() -> None:
    pieces = tuple(DiskExtent(i, 1, 2 * i) for i in range(EXTENT_LIMIT + 1))
    entry = Entry(7, NodeType.FILE, 0, 0, 0, 1, len(pieces), 0, 0, 0, 0, 0, pieces)
    assert unpack_entry(pack_entry(entry, DISK), DISK).extents is None
    entry = Entry(7, NodeType.FILE, 0, 0, 0, 1, EXTENT_LIMIT, 0, 0, 0, 0, 0, pieces[:-1])
    assert unpack_entry(pack_entry(entry, DISK), DISK) == entry


def test_more_extents_than_are_allowed_are_nonsense() -> None:
    pieces = tuple(DiskExtent(i, 1, 2 * i) for i in range(EXTENT_LIMIT))
    body = pack_entry(Entry(7, NodeType.FILE, 0, 0, 0, 1, len(pieces), 0, 0, 0, 0, 0, pieces), DISK)
    at = len(body) - 24 * EXTENT_LIMIT - 4  # the count is before the extents, which come last
    assert body[at : at + 4] == EXTENT_LIMIT.to_bytes(4, "little")
    more = (EXTENT_LIMIT + 1).to_bytes(4, "little")
    with pytest.raises(Nonsense, match=f"{EXTENT_LIMIT + 1} extents"):
        unpack_entry(body[:at] + more + body[at + 4 :] + bytes(24), DISK)


def test_times_beyond_64_bits_are_clamped() -> None:
    entry = Entry(7, NodeType.FILE, 0, 0, 0, 1, 0, 0, 2**63, -(2**70), 2**62)
    found = unpack_entry(pack_entry(entry, DISK), DISK)
    assert (found.mtime, found.ctime, found.atime) == (BIG, -BIG, 2**62)


@pytest.mark.parametrize(
    "entry",
    [
        Entry(2**64, NodeType.FILE, 0, 0, 0, 1, 0, 0, 0, 0, 0),
        Entry(7, NodeType.FILE, 0o10000, 0, 0, 1, 0, 0, 0, 0, 0),
        Entry(7, NodeType.FILE, 0, -1, 0, 1, 0, 0, 0, 0, 0),
        Entry(7, NodeType.FILE, 0, 0, 0, 1, -1, 0, 0, 0, 0),
        Entry(7, NodeType.FILE, 0, 0, 0, 1, 2**63, 0, 0, 0, 0),
    ],
)
def test_numbers_that_cannot_be_are_damage_of_the_guest(entry: Entry) -> None:
    with pytest.raises(GuestDamaged):
        pack_entry(entry, DISK)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b", b"x" * 1021])
def test_a_name_that_no_file_can_have_is_damage_of_the_guest(name: bytes) -> None:
    with pytest.raises(
        GuestDamaged,
        match=r"^directory: name of an entry is .*; it must be 1 to 1020 bytes",
    ):
        pack_named(name, FILE, DISK)


@pytest.mark.parametrize(
    "volumes",
    [
        [Volume("../x", 1, 0, "", "", "")],
        [Volume("", 1, 0, "", "", "")],
        [Volume("p" * 1025, 1, 0, "", "", "")],
        [Volume("p1", -1, 0, "", "", "")],
        [Volume("p1", 1, DISK + 1, "", "", "")],
        [Volume("p1", 1, 0, "", "", "")] * (VOLUME_LIMIT + 1),
    ],
)
def test_volumes_that_cannot_be_are_damage_of_the_guest(volumes: list[Volume]) -> None:
    with pytest.raises(GuestDamaged):
        pack_volumes(volumes, DISK)


def test_texts_of_a_volume_are_cut_and_made_encodable() -> None:
    (found,) = unpack_volumes(pack_volumes([Volume("p1", 1, 0, "ext4", "\ud800", "é" * 10_000)], DISK), DISK)
    assert (found.label, found.text) == ("?", "é" * 4096)


def test_attributes_beyond_the_limits_are_damage_of_the_guest() -> None:
    for attributes in (
        {b"user.%d" % i: b"" for i in range(ATTRIBUTE_LIMIT + 1)},
        {b"user.a": bytes((1 << 16) + 1)},
        {b"user." + b"a" * 251: b""},
        {b"user.a\0": b""},
    ):
        with pytest.raises(GuestDamaged):
            pack_attributes(attributes)
