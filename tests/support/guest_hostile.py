"""A worker that somebody took over: it greets, opens one volume, and then does what a scenario says.

Given as the module with the parsers it plays the worker's part while it is imported, and never returns. The
first passphrase names the scenario.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from struct import pack
from typing import Final

from holdfast.formats.guests.values.values import NodeType, Volume
from holdfast.formats.guests.worker.codec import pack_entry, pack_named, pack_page, pack_volumes
from holdfast.formats.guests.worker.protocol import Channel, Kind, Layer, Opening, Want, pack_layers
from support.guest_fakes import make_entry

SIZE: Final = 1 << 20
"""Of the disk."""
_ENTRY: Final = pack_entry(make_entry(11, NodeType.FILE, 100), SIZE)


def _frame(kind: int, body: bytes) -> bytes:
    return pack("<IB", len(body), kind) + body


def _entry(
    size: int = 100, *, type_: int = 1, mode: int = 0o644, extents: tuple[int, ...] | None = None
) -> bytes:
    """An entry packed by hand, with nothing checked."""
    count = 0xFFFFFFFF if extents is None else len(extents) // 3
    numbers = pack("<QBHIIIQQqqqQI", 11, type_, mode, 0, 0, 1, size, 0, 0, 0, 0, 0, count)
    return _frame(Kind.ONE_ENTRY, numbers + pack(f"<{len(extents or ())}q", *(extents or ())))


def _page(name: bytes) -> bytes:
    return _frame(Kind.PAGE, pack("<IBH", 1, 1, len(name)) + name + _ENTRY)


LOOKUPS: Final = {
    "a huge message": pack("<IB", 0xFFFFFFFF, Kind.ONE_ENTRY),
    "a kind that is none": _frame(99, b""),
    "an answer to something else": _frame(Kind.RAW, b"x"),
    "a request": _frame(Kind.LOOKUP, b"x" * 40),
    "half an entry": _frame(Kind.ONE_ENTRY, _ENTRY[:40]),
    "more than an entry": _frame(Kind.ONE_ENTRY, _ENTRY + b"x"),
    "an unknown type": _entry(type_=7),
    "an impossible mode": _entry(mode=0o10000),
    "a negative size": _entry(1 << 63),
    "extents out of order": _entry(extents=(50, 50, 0, 0, 50, 0)),
    "extents with a gap": _entry(extents=(0, 40, 0, 60, 40, 0)),
    "extents that are too short": _entry(extents=(0, 99, 0)),
    "extents that are too long": _entry(extents=(0, 101, 0)),
    "an extent of nothing": _entry(extents=(0, 0, 0, 0, 100, 0)),
    "an extent behind the disk": _entry(extents=(0, 100, SIZE - 99)),
    "an extent before the disk": _entry(extents=(0, 100, -2)),
    "an extent that overflows": _entry(extents=(0, 100, 2**63 - 1)),
    "no extents for a file with bytes": _entry(extents=()),
    "more extents than it sends": _frame(Kind.ONE_ENTRY, _ENTRY[:-4] + pack("<I", 0xFFFFFFFE)),
    "bytes outside of the disk": _frame(Kind.WANT, Want(SIZE - 10, 11, True).pack()),
    "too many bytes of the disk": _frame(Kind.WANT, Want(0, 5 << 20, True).pack()),
    "no bytes of the disk": _frame(Kind.WANT, Want(0, 0, True).pack()),
    "half a wish": _frame(Kind.WANT, b"x"),
}  # fmt: skip
"""Answers to a lookup."""

PAGES: Final = {
    "a name with a slash": _page(b"a/b"),
    "a name with a NUL": _page(b"a\0"),
    "an empty name": _page(b""),
    "the folder itself": _page(b"."),
    "the folder above": _page(b".."),
    "a name that is too long": _page(b"x" * 1021),
    "fewer names than it says": _frame(Kind.PAGE, pack("<IB", 1_000_000_000, 1)),
    "bytes behind the names": _frame(Kind.PAGE, pack_page([], is_last=True) + b"x"),
    "a page of nothing": _frame(Kind.PAGE, pack_page([], is_last=False)),
}
"""Answers to a listing."""


def _endless(channel: Channel) -> None:
    line = pack_named(b"again", make_entry(11, NodeType.FILE), SIZE)
    while True:
        channel.send(Kind.PAGE, pack_page([line] * 2000, is_last=False))
        channel.receive()


def _drip(channel: Channel) -> None:
    """A byte now and then: never silent for long, never done."""
    channel.socket.send(pack("<IB", 1 << 20, Kind.ONE_ENTRY))
    while True:
        channel.socket.send(b"x")
        time.sleep(0.01)


def _ask_without_reading(channel: Channel) -> None:
    while True:
        channel.send(Kind.WANT, Want(0, SIZE, True).pack())


def _hang_up(channel: Channel) -> None:
    channel.socket.close()
    while True:
        time.sleep(1)


ACTS: Final[dict[str, Callable[[Channel], None]]] = {
    "endless": _endless,
    "drip": _drip,
    "ask without reading": _ask_without_reading,
    "hang up": _hang_up,
    "too many bytes": lambda channel: channel.send(Kind.RAW, bytes(101)),
    "a link to nothing": lambda channel: channel.send(Kind.RAW),
    "capabilities": lambda channel: channel.send(
        Kind.ATTRIBUTES, pack("<HI", 19, 1) + b"security.capability" + b"x"
    ),
    "insult": lambda channel: channel.send(Kind.BROKEN, b"\x1b]0;owned\x07\n" * 1000),
}

VOLUMES: Final = {
    "a volume above": (b"../etc", b""),
    "an absolute volume": (b"/etc", b""),
    "a volume without a name": (b"", b""),
    "a volume with a NUL": (b"p\0", b""),
    "a text that is none": (b"p1", b"\xff"),
    "a text without an end": (b"p1", b"x" * 100_000),
}  # fmt: skip


def _volume(path: bytes, text: bytes) -> bytes:
    return pack("<I", 1) + pack("<QqHHHI", 1, 0, len(path), 0, 0, len(text)) + path + text


def play(channel: Channel) -> None:
    channel.send(Kind.HELLO, pack_layers(frozenset(Layer)))
    _, body = channel.receive()
    scenario = Opening.unpack(body).passphrases[0]
    if scenario in VOLUMES:
        channel.send(Kind.VOLUMES, _volume(*VOLUMES[scenario]))
    elif scenario == "two volumes of one name":
        volumes = [Volume("p1", 0, 0, "", "", "")] * 2
        channel.send(Kind.VOLUMES, pack_volumes(volumes, SIZE))
    else:
        channel.send(Kind.VOLUMES, pack_volumes([Volume("p1", SIZE, 0, "fake", "", "")], SIZE))
    channel.receive()
    if scenario in ACTS:
        ACTS[scenario](channel)
    else:
        channel.socket.sendall((LOOKUPS | PAGES)[scenario])
    channel.receive()


if getattr(sys.modules["__main__"].__spec__, "name", "") == "holdfast.formats.guests.worker.worker":
    try:
        play(Channel(socket.socket(fileno=int(sys.argv[1]))))
    finally:
        os._exit(0)
