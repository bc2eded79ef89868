"""The table of contents of a custom archive on its way in, and the form in which it is stored."""

from __future__ import annotations

from typing import Final

from holdfast.base.errors import Refused
from holdfast.base.types import Buffer
from holdfast.formats.dumps.postgresql.custom.format import (
    NO_DATA,
    NOT_SET,
    Entry,
    Head,
    Short,
    parse_entry,
    parse_head,
)

_LIMIT: Final = 320 << 20
"""Bytes of memory that a table of contents may take, in the backup and whenever the dump is opened."""
_ENTRY: Final = 4500
"""Of one entry, measured; its bytes are in memory some three times besides. So there may be 70,000."""
_COPIES: Final = 3
_WITHOUT: Final = "dump with -Z0, which Holdfast compresses itself"


class TocReader:
    """Takes an archive's bytes until its table of contents is `complete`. Memory grows with that alone, up to
    a limit: then `bound` says why the archive cannot be taken apart, and `raw` hands back what was taken."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self.entries: Final[list[Entry]] = []
        self.complete = False
        self.bound = ""
        self._data = bytearray()
        self._at = 0
        self._needed = 0
        self._ids: set[int] = set()

    def feed(self, data: Buffer) -> bytes:
        """Return the bytes after the table of contents; b"" until it is complete.

        Raises Refused for what is damaged or not supported: its first bytes tell.
        """
        self._data += data
        try:
            while len(self._data) >= self._needed and not self.complete and not self._is_large():
                self._step()
        except Short as short:
            self._needed = short.size
        entries = self.head.entries if self.head else 0
        taken = max(self._needed, len(self._data)) if not self.complete else self._at
        if entries * _ENTRY + taken * _COPIES > _LIMIT:
            self.bound = (
                f"its table of contents, of {entries} entries and at least {taken} bytes, would take more "
                f"than {_LIMIT >> 20} MiB of memory"
            )
            self.complete = False
            self.entries.clear()
        if not self.complete:
            return b""
        rest = bytes(self._data[self._at :])
        del self._data[self._at :]
        return rest

    def raw(self) -> bytes:
        """All bytes so far, as they came. Hands them over: to be called once."""
        data, self._data = self._data, bytearray()
        return bytes(data)

    def stored(self) -> bytes:
        """The bytes from the beginning of the archive to the end of its table of contents, as those of an
        archive without compression that went into a pipe: the same whatever options it was made with.

        Hands them over: to be called once.
        """
        assert self.head
        data, self._data = self._data, bytearray()
        start, end = self.head.gap
        data[start:end] = bytes(end - start)
        size = self.head.offset
        for entry in self.entries:
            if entry.state != NO_DATA:
                data[entry.end - size - 1 : entry.end] = bytes([NOT_SET]) + bytes(size)
        return bytes(data)

    def _is_large(self) -> bool:
        return self.head is not None and self.head.entries * _ENTRY > _LIMIT

    def _step(self) -> None:
        if self.head is None:
            self.head = parse_head(self._data)
            self._at = self.head.length
            _check_compression(self.head.compression)
        elif len(self.entries) < self.head.entries:
            entry = parse_entry(self._data, self._at, self.head)
            if entry.id in self._ids:
                raise Refused(f"is damaged: two entries with ID {entry.id}; nothing was stored")
            self._ids.add(entry.id)
            self.entries.append(entry)
            self._at = entry.end
        else:
            self.complete = True


def _check_compression(name: str) -> None:
    if name not in ("none", "gzip", "zstd"):
        raise Refused(
            f"is compressed with {name}, which this program cannot unpack; {_WITHOUT}, or hand in what "
            "`pg_restore -f -` makes of it; nothing was stored"
        )
