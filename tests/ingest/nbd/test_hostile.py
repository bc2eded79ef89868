"""The NBD client believes no server: what breaks the protocol ends the backup, with a reason."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.errors import SourceError, StreamFailed
from holdfast.ingest.nbd.source import NbdSource
from holdfast.ingest.nbd.uri import NbdAddress, Wire
from support.basics import random_bytes
from support.nbd import (
    ACK,
    ALLOCATION,
    INFO,
    META,
    SERVER,
    UNKNOWN,
    Answer,
    FakeServer,
    Request,
    Server,
    block_sizes,
    chunk,
    data_chunk,
    error_chunk,
    export_info,
    go,
    hole_chunk,
    option_reply,
    read,
    status_chunk,
    usual,
)

MIB = 1 << 20
CONTENT = random_bytes(4 * MIB, 1)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return lambda **settings: FakeServer(str(tmp_path / "nbd.sock"), **({"content": CONTENT} | settings))


# ---- a server that does not: the handshake ------------------------------------------------------------


def contexts(*replies: bytes) -> dict[str, bytes]:
    return {"contexts": b"".join(option_reply(10, META, r) for r in replies) + option_reply(10, ACK)}


BASE = struct.pack(">I", 1) + b"base:allocation"


@pytest.mark.parametrize(
    ("greeting", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no NBD server"),
        (b"NBDMAGIC" + bytes(12), "no NBD server|oldstyle"),
        (b"NBDMAGIC" + bytes.fromhex("0000420281861253") + bytes(140), "oldstyle"),
        (b"NBDMAGICIHAVEOPT\0\2", "oldstyle"),
        (b"", "in time"),
    ],
)
def test_no_nbd_server_is_told(server: Server, greeting: bytes, reason: str) -> None:
    with server(greeting=greeting) as fake, pytest.raises(StreamFailed, match=reason):
        NbdSource(fake.uri, timeout=0.3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (go(), "does not tell the export's size"),
        (go(export_info((1 << 50) + 1)), "impossible size"),
        (go(export_info(MIB)[:-1]), "broken description"),
        (go(b"\0"), "broken reply to option GO"),
        (go(export_info(1000), block_sizes(512, MIB)), "impossible size of 1000 bytes in blocks of 512"),
        (go(export_info(MIB), block_sizes(0, MIB)), "impossible block sizes"),
        (go(export_info(MIB), block_sizes(3000, MIB)), "impossible block sizes"),
        (go(export_info(MIB), block_sizes(128 << 10, MIB)), "impossible block sizes"),
        (go(export_info(MIB), block_sizes(4096, 512)), "impossible block sizes"),
        (go(export_info(MIB), block_sizes(1, MIB) + b"x"), "broken block sizes"),
        ({"go": option_reply(7, INFO, export_info(MIB)) * 20_000}, "endless replies to option GO"),
        ({"go": option_reply(7, SERVER, b"")}, "broken reply to option GO"),
        ({"go": struct.pack(">QIII", 0x3E889045565A9, 7, ACK, 1 << 31)}, "broken reply to option GO"),
        ({"go": option_reply(6, ACK)}, "broken reply to option GO"),
        ({"go": b"x" * 20}, "broken reply to option GO"),
        ({"go": b""}, "in time|closed"),
        ({"structured": option_reply(8, INFO)}, "unexpected reply to option STRUCTURED_REPLY"),
        (contexts(b"\0\0\0"), "broken reply to option SET_META_CONTEXT"),
        (contexts(BASE + b"x" * 5000), "broken reply to option SET_META_CONTEXT"),
        (contexts(struct.pack(">I", 1) + b"qemu:other"), "nobody asked for"),
        (contexts(BASE, struct.pack(">I", 1) + b"qemu:dirty-bitmap:monday"), "nobody asked for"),
    ],
)
def test_a_handshake_that_breaks_the_protocol_is_told(
    server: Server, options: dict[str, bytes], reason: str
) -> None:
    with server(options=options) as fake, pytest.raises(StreamFailed, match=reason):
        NbdSource(fake.uri, bitmap="monday", timeout=0.5)


def test_refusals_are_told_with_what_there_is_instead(server: Server) -> None:
    names = b"".join(option_reply(3, SERVER, struct.pack(">I", 3) + b"\x1b[A") for _ in range(30))
    refusal = {"go": option_reply(7, UNKNOWN, b"go\x1b[2Jaway"), "list": names + option_reply(3, ACK)}
    with server(options=refusal) as fake, pytest.raises(SourceError) as caught:
        NbdSource(fake.uri, timeout=5)
    assert r"it has no such export (go\x1b[2Jaway); it offers" in str(caught.value)
    assert "and 10 more" in str(caught.value)
    for lie in (struct.pack(">I", 99) + b"x", b"x"):
        broken = refusal | {"list": option_reply(3, SERVER, lie)}
        with server(options=broken) as fake, pytest.raises(StreamFailed, match="broken list of exports"):
            NbdSource(fake.uri, timeout=5)
    with server() as fake, pytest.raises(SourceError, match="bitmap 'tuesday'; the server offers 'monday'"):
        NbdSource(fake.uri, bitmap="tuesday", timeout=5)


# ---- a server that does not: transmission -------------------------------------------------------------


def other(r: Request) -> Request:
    return Request(0, r.cookie + 1000, r.offset, r.length)


READS: dict[str, tuple[Answer, str]] = {
    "no magic": (lambda s, r: b"x" * 20, "no reply where one should begin"),
    "simple": (lambda s, r: struct.pack(">IIQ", 0x67446698, 0, r.cookie) + bytes(r.length), "a simple reply"),
    "unknown cookie": (lambda s, r: usual(s, other(r)), "a reply to no request"),
    "twice": (lambda s, r: usual(s, r) + usual(s, r), "a reply to no request"),
    "before": (lambda s, r: data_chunk(r, r.offset - 1, bytes(9)), "not part of its read"),
    "beyond": (lambda s, r: data_chunk(r, r.offset + 1, bytes(r.length)), "not part of its read"),
    "far off": (lambda s, r: data_chunk(r, (1 << 64) - 1, bytes(r.length)), "not part of its read"),
    "too much": (lambda s, r: usual(s, r, done=False) + hole_chunk(r, r.offset, 1), "not part of its read"),
    "nothing": (lambda s, r: chunk(r, 0), "lacks some of its bytes"),
    "half": (lambda s, r: hole_chunk(r, r.offset, r.length // 2), "lacks some of its bytes"),
    "overlap": (
        lambda s, r: hole_chunk(r, r.offset, 100, done=False) + hole_chunk(r, r.offset + 99, r.length - 100),
        "overlap",
    ),
    "huge": (
        lambda s, r: struct.pack(">IHHQI", 0x668E33EF, 1, 1, r.cookie, 0xFFFFFFFF) + bytes(8),
        "not part",
    ),
    "huge hole": (lambda s, r: hole_chunk(r, r.offset, 0xFFFFFFFF), "not part of its read"),
    "no bytes": (lambda s, r: chunk(r, 1, bytes(8)), "a chunk of type 1"),
    "empty hole": (lambda s, r: hole_chunk(r, r.offset, 0), "not part of its read"),
    "crumbs": (
        lambda s, r: b"".join(hole_chunk(r, r.offset + n, 1, done=False) for n in range(r.length)),
        "too many pieces",
    ),
    "unfinished": (lambda s, r: chunk(r, 0, done=False), "not empty"),
    "full nothing": (lambda s, r: chunk(r, 0, b"x"), "not empty"),
    "status": (lambda s, r: status_chunk(r, ALLOCATION, (1, 0)), "a chunk of type 5"),
    "unknown type": (lambda s, r: chunk(r, 77, b"x"), "a chunk of type 77"),
    "short error": (lambda s, r: chunk(r, (1 << 15) | 1, b"x"), "error message of impossible length"),
    "long error": (
        lambda s, r: struct.pack(">IHHQI", 0x668E33EF, 1, (1 << 15) | 1, r.cookie, 1 << 30),
        "impossible length",
    ),
    "errors": (lambda s, r: error_chunk(r, 5, done=False) * 2000, "too many of them"),
    "no error": (lambda s, r: error_chunk(r, 0), "an error that is none"),
    "shutdown": (lambda s, r: error_chunk(r, 108), "the server is shutting down"),
    "silence": (lambda s, r: b"", "does not answer in time"),
    "half a reply": (lambda s, r: usual(s, r)[:5000], "does not answer in time"),
}


@pytest.mark.parametrize("name", READS)
def test_a_read_that_breaks_the_protocol_ends_the_backup(server: Server, name: str) -> None:
    answer, reason = READS[name]
    with server() as fake, NbdSource(fake.uri, timeout=0.5) as source:
        fake.read = answer
        if name == "twice":
            read(source, MIB, 128 << 10)  # what is too much is seen by who reads next
        with pytest.raises(StreamFailed, match=f"{reason}.*; nothing was committed"):
            read(source, MIB, 128 << 10)


STATUS: dict[str, tuple[Answer, str]] = {
    "nothing": (lambda s, r: chunk(r, 0), "says nothing"),
    "no length": (lambda s, r: status_chunk(r, ALLOCATION, (4096, 0), (0, 0)), "impossible block status"),
    "beyond": (lambda s, r: status_chunk(r, ALLOCATION, (r.length, 0), (9, 0)), "impossible block status"),
    "no runs": (lambda s, r: status_chunk(r, ALLOCATION), "impossible length"),
    "odd": (lambda s, r: chunk(r, 5, bytes(13)), "impossible length"),
    "huge": (
        lambda s, r: struct.pack(">IHHQI", 0x668E33EF, 1, 5, r.cookie, 4 + (1 << 31)),
        "impossible length",
    ),
    "another context": (lambda s, r: status_chunk(r, 99, (4096, 0)), "nobody asked for"),
    "twice": (
        lambda s, r: (
            status_chunk(r, ALLOCATION, (4096, 0), done=False) + status_chunk(r, ALLOCATION, (4096, 0))
        ),
        "nobody asked for",
    ),
    "data": (lambda s, r: data_chunk(r, 0, b"x"), "impossible length"),
    "error": (lambda s, r: error_chunk(r, 22), "no block status at offset 0: Invalid argument"),
}


@pytest.mark.parametrize("name", STATUS)
def test_a_block_status_that_breaks_the_protocol_ends_the_backup(server: Server, name: str) -> None:
    answer, reason = STATUS[name]
    with (
        server(status=answer) as fake,
        NbdSource(fake.uri, timeout=0.5) as source,
        pytest.raises(StreamFailed, match=reason),
    ):
        list(source.extents(holes=True))


def test_a_server_that_lets_bytes_trickle_in_is_out_of_time(tmp_path: Path) -> None:
    """Each of them comes in time."""
    path = str(tmp_path / "s")
    over = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)

        def trickle() -> None:
            client, _ = listener.accept()
            with client, suppress(OSError):
                while not over.wait(0.01):
                    client.send(b"N")

        thread = threading.Thread(target=trickle)
        thread.start()
        wire = Wire(NbdAddress("", socket=path), 0.2)
        with pytest.raises(StreamFailed, match="does not answer in time"):
            wire.receive(1000)
        assert wire.received < 200
        wire.close()
        over.set()
        thread.join()


@settings(max_examples=60)
@given(st.data())
def test_bytes_of_a_conversation_that_are_changed_never_end_in_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A result or one of our errors: no crash, no endless loop, nothing outside of the export."""
    place, value = data.draw(st.integers(0, 60)), data.draw(st.integers(0, 255))
    where = data.draw(st.sampled_from(["read", "status", "go", "contexts"]))

    def spoilt(answer: bytes) -> bytes:
        at = place % len(answer)
        return answer[:at] + bytes([value]) + answer[at + 1 :]

    path = str(tmp_path_factory.mktemp("nbd") / "s")
    fake = FakeServer(path, content=CONTENT[: 64 << 10])
    read_well, status_well = fake.read, fake.status
    if where == "read":
        fake.read = lambda s, r: spoilt(read_well(s, r))
    elif where == "status":
        fake.status = lambda s, r: spoilt(status_well(s, r))
    elif where == "go":
        fake.options = {"go": spoilt(go(export_info(64 << 10), block_sizes(512, MIB))["go"])}
    else:
        fake.options = {
            "contexts": spoilt(contexts(struct.pack(">I", ALLOCATION) + b"base:allocation")["contexts"])
        }
    with fake:
        try:
            with NbdSource(fake.uri, timeout=0.2) as source:
                if source.size == 64 << 10:
                    for extent in source.extents(holes=True):
                        assert extent.length
                        assert extent.start + extent.length <= 64 << 10
                        read(source, extent.start, extent.length)
        except SourceError:
            pass
