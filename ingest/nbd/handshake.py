"""The NBD handshake: negotiates options on a new connection and opens an export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.base.errors import SourceError
from holdfast.base.escaping import foreign_words
from holdfast.ingest.nbd.protocol import (
    BASE_ALLOCATION,
    CAN_READ_WHOLE,
    CLIENT_FLAGS,
    DIRTY_BITMAP,
    ERROR_BIT,
    GREETING,
    INFO_BLOCK_SIZE,
    INFO_EXPORT,
    INIT_MAGIC,
    MINIMUM_LIMIT,
    OLDSTYLE_MAGIC,
    OPTION,
    OPTION_DATA_LIMIT,
    OPTION_ERRORS,
    OPTION_MAGIC,
    OPTION_REPLIES_LIMIT,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    REQUEST_LIMIT,
    SIZE_LIMIT,
    STRING_LIMIT,
    U16,
    U32,
    HandshakeFlag,
    NbdInfo,
    Option,
    OptionReply,
)
from holdfast.ingest.nbd.uri import Wire

_SHOWN = 20
"""Most names of exports or bitmaps that an error lists."""


@dataclass(frozen=True, slots=True)
class NbdExport:
    """The negotiated properties of an export, in bytes. Requests are multiples of `minimum`, up to `maximum`.

    `allocation` and `dirty` are the IDs of the contexts `base:allocation` and `qemu:dirty-bitmap:NAME`, None
    where the server lacks them. `reads_whole`: requests may have the flag READ_WHOLE.
    """

    size: int
    minimum: int
    maximum: int
    structured: bool
    reads_whole: bool
    allocation: int | None
    dirty: int | None


class _OptionRefused(Exception):
    """The server answered an option with an error."""

    def __init__(self, kind: int, message: str) -> None:
        known = {int(reply): text for reply, text in OPTION_ERRORS.items()}
        reason = known.get(kind, f"error {kind & ~ERROR_BIT}")
        super().__init__(f"{reason} ({message})" if message else reason)
        self.kind = kind


def negotiate(wire: Wire, export: str, bitmap: str) -> NbdExport:
    """Negotiate structured replies, block status and the dirty bitmap `bitmap` (unless ""); open the export.

    Raises SourceError when the server has no such export or bitmap, StreamFailed when it breaks the protocol.
    """
    _greet(wire)
    try:
        _acknowledged(wire, Option.STRUCTURED_REPLY, b"")
        structured = True
    except _OptionRefused:
        structured = False
    contexts = _set_contexts(wire, export, bitmap) if structured else {}
    dirty = contexts.get(DIRTY_BITMAP + bitmap) if bitmap else None
    if bitmap and dirty is None:
        raise SourceError(f"{wire.where}: {_no_bitmap(wire, export, bitmap, structured=structured)}")
    size, flags, minimum, maximum = _go(wire, export)
    return NbdExport(
        size=size,
        minimum=minimum,
        maximum=maximum,
        structured=structured,
        reads_whole=structured and bool(flags & CAN_READ_WHOLE),
        allocation=contexts.get(BASE_ALLOCATION),
        dirty=dirty,
    )


def _greet(wire: Wire) -> None:
    first, second, number = GREETING.unpack(wire.receive(GREETING.size))
    if first != INIT_MAGIC:
        raise wire.failed("this is no NBD server")
    if second == OLDSTYLE_MAGIC or not number & HandshakeFlag.FIXED_NEWSTYLE:
        raise wire.failed("the server speaks only the oldstyle NBD handshake")
    if second != OPTION_MAGIC:
        raise wire.failed("this is no NBD server")
    wire.send(CLIENT_FLAGS.pack(number & (HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)))


def _replies(wire: Wire, option: Option, data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, data) of the replies to an option, up to the acknowledgement. Raises _OptionRefused."""
    wire.send(OPTION.pack(OPTION_MAGIC, option, len(data)) + data)
    for _ in range(OPTION_REPLIES_LIMIT):
        magic, about, kind, length = OPTION_REPLY.unpack(wire.receive(OPTION_REPLY.size))
        if magic != OPTION_REPLY_MAGIC or about != option or length > OPTION_DATA_LIMIT:
            raise wire.failed(f"broken reply to option {option.name}")
        body = wire.receive(length)
        if kind & ERROR_BIT:
            raise _OptionRefused(kind, foreign_words(body, STRING_LIMIT))
        if kind == OptionReply.ACK:
            return
        yield kind, body
    raise wire.failed(f"endless replies to option {option.name}")


def _acknowledged(wire: Wire, option: Option, data: bytes) -> None:
    for _ in _replies(wire, option, data):
        raise wire.failed(f"unexpected reply to option {option.name}")


def _string(value: str) -> bytes:
    return U32.pack(len(value.encode())) + value.encode()


def _set_contexts(wire: Wire, export: str, bitmap: str) -> dict[str, int]:
    """IDs by name of those metadata contexts that we need and the server has."""
    wanted = [BASE_ALLOCATION] + ([DIRTY_BITMAP + bitmap] if bitmap else [])
    try:
        found = _contexts(wire, Option.SET_META_CONTEXT, export, wanted)
    except _OptionRefused:
        return {}
    if len(set(found.values())) < len(found) or not found.keys() <= set(wanted):
        raise wire.failed("the server chose metadata contexts nobody asked for")
    return found


def _contexts(wire: Wire, option: Option, export: str, queries: list[str]) -> dict[str, int]:
    request = _string(export) + U32.pack(len(queries)) + b"".join(_string(query) for query in queries)
    found: dict[str, int] = {}
    for kind, body in _replies(wire, option, request):
        if kind != OptionReply.META_CONTEXT or not U32.size < len(body) <= U32.size + STRING_LIMIT:
            raise wire.failed(f"broken reply to option {option.name}")
        found[body[U32.size :].decode(errors="replace")] = U32.unpack_from(body)[0]
    return found


def _no_bitmap(wire: Wire, export: str, bitmap: str, *, structured: bool) -> str:
    """The reason why there is no such dirty bitmap, and the names of those that exist."""
    if not structured:
        return f"no dirty bitmap {bitmap!r}: the server knows no structured replies"
    try:
        offered = _contexts(wire, Option.LIST_META_CONTEXT, export, [DIRTY_BITMAP])
    except _OptionRefused as refused:
        return f"no dirty bitmap {bitmap!r}, and no list of those there are: {refused}"
    names = [
        repr(name.removeprefix(DIRTY_BITMAP)) for name in sorted(offered) if name.startswith(DIRTY_BITMAP)
    ]
    return f"no dirty bitmap {bitmap!r}; the server offers {_listed(names)}"


def _go(wire: Wire, export: str) -> tuple[int, int, int, int]:
    """Open the export. Returns (size, flags, minimum, maximum request length)."""
    request = _string(export) + U16.pack(1) + U16.pack(NbdInfo.BLOCK_SIZE)
    size = None
    flags = 0
    minimum, maximum = 1, REQUEST_LIMIT
    try:
        for kind, body in _replies(wire, Option.GO, request):
            if kind != OptionReply.INFO or len(body) < U16.size:
                raise wire.failed("broken reply to option GO")
            info = U16.unpack_from(body)[0]
            if info == NbdInfo.EXPORT:
                if len(body) != INFO_EXPORT.size:
                    raise wire.failed("broken description of the export")
                _, size, flags = INFO_EXPORT.unpack(body)
            elif info == NbdInfo.BLOCK_SIZE:
                minimum, maximum = _block_sizes(wire, body)
    except _OptionRefused as refused:
        raise SourceError(f"{wire.where}: the server refuses it: {refused}{_others(wire, refused)}") from None
    if size is None:
        raise wire.failed("the server does not tell the export's size")
    if size > SIZE_LIMIT or size % minimum:
        raise wire.failed(f"impossible size of {size} bytes in blocks of {minimum}")
    return size, flags, minimum, maximum


def _block_sizes(wire: Wire, body: bytes) -> tuple[int, int]:
    if len(body) != INFO_BLOCK_SIZE.size:
        raise wire.failed("broken block sizes")
    _, minimum, _, maximum = INFO_BLOCK_SIZE.unpack(body)
    if not 0 < minimum <= MINIMUM_LIMIT or minimum & (minimum - 1) or maximum < minimum:
        raise wire.failed(f"impossible block sizes: {minimum} to {maximum} bytes")
    return minimum, min(maximum, REQUEST_LIMIT) // minimum * minimum


def _others(wire: Wire, refused: _OptionRefused) -> str:
    """The names of the server's exports, for an error about an unknown one."""
    if refused.kind != OptionReply.ERR_UNKNOWN:
        return ""
    names: list[str] = []
    try:
        for kind, body in _replies(wire, Option.LIST, b""):
            if kind != OptionReply.SERVER or len(body) < U32.size:
                raise wire.failed("broken list of exports")
            length = U32.unpack_from(body)[0]
            if length > len(body) - U32.size:
                raise wire.failed("broken list of exports")
            names.append(repr(body[U32.size : U32.size + length].decode(errors="replace")))
    except _OptionRefused:
        return ""
    return f"; it offers {_listed(names)}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"
