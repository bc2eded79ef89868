"""MySQL's and MariaDB's binary logs as an archive holds them: names, the head, gaps. Pure.

Layout: MySQL internals, "Binary Log File Header" and "Format_description_event"; MariaDB's knowledge base
has the same. A file is `\\xfebin`, then events; the first one describes the format and names the server.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from holdfast.base.errors import Refused
from holdfast.formats.dumps.mysql.product import product_in

HEAD_SIZE: Final = 4 + 19 + 57
"""Bytes at the start of a binary log that `parse_head` looks at."""

_MAGIC = b"\xfebin"
_EVENT = struct.Struct("<IBIIIH")
_DESCRIPTION = struct.Struct("<H50sIB")
_FORMAT_DESCRIPTION = 15
_START_ENCRYPTION_MAGIC = b"\xfdbin"
_IN_USE = 0x0001
_NAME = re.compile(r"(.+)\.(\d{6,10})", re.DOTALL)
_POSITION = re.compile(r"(.+\.\d{6,10}):(\d{1,20})", re.DOTALL)
_SHOWN = 5


class BinlogName(NamedTuple):
    """`shop-bin.000042` taken apart."""

    base: str
    number: int


def parse_name(name: str) -> BinlogName | None:
    """None when it does not end in a dot and six digits or more."""
    match = _NAME.fullmatch(name)
    return BinlogName(match[1], int(match[2])) if match and "/" not in name else None


def parse_position(text: str) -> tuple[BinlogName, int] | None:
    """(file, byte in it) of a "binlog" fact, `FILE:POSITION`."""
    match = _POSITION.fullmatch(text)
    name = parse_name(match[1]) if match else None
    return (name, int(match[2])) if match and name else None


@dataclass(frozen=True, slots=True)
class BinlogHead:
    """What a binary log says of itself. `in_use`: the server has not closed it."""

    engine: str
    server: str
    server_id: int
    created: int
    in_use: bool


def parse_head(head: bytes) -> BinlogHead:
    """Raises Refused for anything that is not a binary log of MySQL 5.0, MariaDB 5.1 or later."""
    if head[:4] == _START_ENCRYPTION_MAGIC:
        raise Refused("is an encrypted binary log: what it holds cannot be checked; nothing was stored")
    if head[:4] != _MAGIC:
        raise Refused("is not a binary log: its first bytes are not those of one; nothing was stored")
    if len(head) < HEAD_SIZE:
        raise Refused("ends inside its first event: it was cut short; nothing was stored")
    _, kind, server_id, size, _, flags = _EVENT.unpack_from(head, 4)
    version, server, created, length = _DESCRIPTION.unpack_from(head, 4 + _EVENT.size)
    if kind != _FORMAT_DESCRIPTION or version != 4 or length != _EVENT.size or size < HEAD_SIZE - 4:
        raise Refused("does not begin with a format description of version 4; nothing was stored")
    text = server.rstrip(b"\0").decode("ascii", "replace")
    return BinlogHead(product_in(text), text, server_id, created, bool(flags & _IN_USE))


class Gap(NamedTuple):
    """Files `first` to `last` of a series are missing, by number, both included."""

    base: str
    first: int
    last: int


def gaps(names: Iterable[str]) -> list[Gap]:
    """The numbers missing in each series of files between its first and its last. O(n log n)."""
    there = sorted({parsed for name in names if (parsed := parse_name(name))})
    return [
        Gap(a.base, a.number + 1, b.number - 1)
        for a, b in pairwise(there)
        if a.base == b.base and b.number > a.number + 1
    ]


def archive_findings(names: Iterable[str], positions: Iterable[tuple[str, str]]) -> list[str]:
    """What is wrong with an archive of binary logs and the dumps that rely on it, one sentence each.

    `positions` are (label, "binlog" fact) of the dumps.
    """
    all_names = list(names)
    found = gaps(all_names)
    findings = [
        f"binary logs are missing: {gap.base}.{gap.first:06}"
        + (f" to .{gap.last:06}" if gap.last > gap.first else "")
        for gap in found[:_SHOWN]
    ]
    if len(found) > _SHOWN:
        findings.append(f"binary logs are missing in {len(found) - _SHOWN} more places")
    there = {parsed for name in all_names if (parsed := parse_name(name))}
    for label, fact in positions:
        position = parse_position(fact)
        # The file that was being written then is archived only when it is closed.
        if position and position[0] not in there and any(_follows(name, position[0]) for name in there):
            name = position[0]
            findings.append(f"{label} cannot be rolled forward: {name.base}.{name.number:06} is not archived")
    return findings


def _follows(name: BinlogName, other: BinlogName) -> bool:
    return name.base == other.base and name.number > other.number


def is_before(name: str, oldest: BinlogName) -> bool:
    """Whether a file of the same series was complete before the position in `oldest`."""
    parsed = parse_name(name)
    return parsed is not None and parsed.base == oldest.base and parsed.number < oldest.number
