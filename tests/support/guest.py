"""A disk in memory, and requests to a fake parser for tricks, for tests of a guest's worker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.formats.guests.client.guest import GuestDisk
from holdfast.formats.guests.values.values import GuestDamaged
from holdfast.formats.guests.worker.process import Limits
from support.basics import random_bytes
from support.guest_fakes import ROOT

SIZE = (16 << 20) + 12_345
CONTENT = random_bytes(SIZE, 1)


class MemoryDisk:
    """A DiskSource that remembers what was read, and fails where it is told."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.size = len(content)
        self.content = content
        self.reads: list[tuple[int, int]] = []
        self.bad: dict[int, Exception] = {}
        self.on_read: Callable[[], object] = lambda: None

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= self.size
        self.reads.append((offset, length))
        self.on_read()
        for at, error in self.bad.items():
            if offset <= at < offset + length:
                raise error
        return self.content[offset : offset + length]


def open_guest(disk: MemoryDisk, *passphrases: str, limits: Limits = Limits()) -> GuestDisk:  # noqa: B008
    return GuestDisk(disk, name="sda", passphrases=passphrases, limits=limits, opener="support.guest_fakes")


def said(guest: GuestDisk, trick: str) -> str:
    """The parser's answer to a trick."""
    with pytest.raises(GuestDamaged) as caught:
        guest.lookup("p1", ROOT, trick.encode())
    return str(caught.value).removeprefix("sda: ").removeprefix(trick.split(" ", maxsplit=1)[0]).strip()


def process_of(guest: GuestDisk) -> int:
    return int(said(guest, "identity").split(",")[0].strip("("))
