"""Byte layout of repository files, format version 2. No other module knows offsets or magic numbers.

Integers are little endian. docs/format.md has the same tables with the reasons.

    head (64 bytes; starts packs and sealed objects, in clear)
    0   8   magic "HOLDFAST"
    8   1   format version
    9   1   cipher suite
    10  1   object type
    11  1   zero
    12  2   key epoch
    14  2   client: 0, an owner
    16  32  salt
    48  16  key commitment

    pack        head | record* | padding record? | sealed directory | sealed foot (64)
    record      sealed header (64) | sealed payload, with zeros up to a multiple of 64
    object      head | sealed body                  (config body, snapshot, pending, proof)

Sealed means AEAD ciphertext and then its 16-byte tag.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from holdfast.base.errors import Damaged, Unsupported
from holdfast.base.types import Buffer, ChunkID, Codec, RecordType

VERSION = 2
MAGIC = b"HOLDFAST"
TAG = 16
ALIGN = 64

_HEAD = struct.Struct("<8sBBBxHH32s16s")
HEAD_SIZE = _HEAD.size  # 64
_OWNER = 0
"""The client of files that somebody wrote who can read everything."""

#   associated data
#   0   16  repository ID
#   16  1   object type
#   17  1   format version
#   18  2   key epoch
#   20  2   client
_BINDING = struct.Struct("<16sBBHH")

#   record header, plaintext
#   0   1   record type
#   1   1   codec
#   2   2   zero
#   4   4   raw length
#   8   4   encoded length (before sealing)
#   12  4   zero
#   16  32  chunk ID
_RECORD = struct.Struct("<BB2xII4x32s")
RECORD_HEADER = _RECORD.size + TAG  # 64

_TYPES = {int(kind): kind for kind in RecordType}
_LISTED = _TYPES.keys() - {RecordType.PADDING}
_CODECS = {int(codec): codec for codec in Codec}
_NONCE = struct.Struct("<BQ3x")

#   directory entry, plaintext: the header again, without its zeros; offsets follow from the lengths. After
#   the last entry come less than 128 zeros.
_ENTRY = struct.Struct("<32sIIBB")

#   foot, plaintext
#   0   4   "FOOT"
#   4   4   number of directory entries
#   8   8   offset of the sealed directory
#   16  32  zero
_FOOT = struct.Struct("<4sIQ32s")
FOOT_SIZE = _FOOT.size + TAG  # 64

PACK_TARGET = 64 << 20
"""Bytes of a new pack that is full. 64 MiB gives 16,384 files per TiB and directories of about 60 KiB; larger
packs would save little more."""
PACK_LIMIT = PACK_TARGET + (16 << 20)
"""Readers refuse packs larger than this."""
_PADDING_MIN = RECORD_HEADER + ALIGN
"""Bytes of the smallest padding record; less room than that is filled inside of the directory's seal."""
KEY_SLOT_LIMIT = CONFIG_LIMIT = 64 << 10
KEYRING_LIMIT = 1 << 20
"""Readers refuse larger ones: they are read before anything in them is authentic."""
CHUNK_LIMIT = 4 << 20
"""Most bytes of a chunk or recipe node: writers make none longer, readers refuse them."""
OBJECT_LIMIT = 64 << 20
"""Readers refuse snapshots, proofs and other sealed objects larger than this."""


class ObjectType(IntEnum):
    """The type of a file; part of its associated data, so a file of one type cannot pass for another."""

    PACK = 1
    CONFIG = 2
    SNAPSHOT = 3
    PROOF = 4
    KEYRING = 5
    FORGOTTEN = 6
    SEEN = 7
    """In a user's cache, never in a repository."""
    QUARANTINE = 8
    DAMAGE = 9
    SUBJECTS = 10


class NonceDomain(IntEnum):
    """First byte of a nonce: the kind of the part that is sealed at that offset."""

    RECORD_HEADER = 1
    RECORD_PAYLOAD = 2
    DIRECTORY = 3
    FOOT = 4
    OBJECT = 5


@dataclass(frozen=True, slots=True)
class FileHead:
    """The unencrypted start of a pack or sealed object."""

    suite: int
    type: ObjectType
    epoch: int
    salt: bytes
    commitment: bytes

    def pack(self) -> bytes:
        return _HEAD.pack(
            MAGIC, VERSION, self.suite, self.type, self.epoch, _OWNER, self.salt, self.commitment
        )

    def binding(self, repository: bytes) -> bytes:
        """The associated data of all that is sealed in the file, 22 bytes."""
        return _BINDING.pack(repository, self.type, VERSION, self.epoch, _OWNER)


class RecordHeader(NamedTuple):
    """A record's header. `raw` is the chunk's length, `encoded` the payload's length before sealing."""

    type: RecordType
    codec: Codec
    raw: int
    encoded: int
    id: ChunkID

    def pack(self) -> bytes:
        return _RECORD.pack(self.type, self.codec, self.raw, self.encoded, self.id)

    @property
    def size(self) -> int:
        """Bytes the record takes in a pack, padding included."""
        return record_size(self.encoded)

    @property
    def filled(self) -> int:
        """Length of the payload with the zeros that are sealed behind it."""
        return record_size(self.encoded) - RECORD_HEADER - TAG


def record_size(encoded: int) -> int:
    """Bytes that a record with an `encoded` bytes long payload takes in a pack."""
    return RECORD_HEADER + (encoded + TAG + ALIGN - 1) // ALIGN * ALIGN


def parse_head(data: Buffer, where: str, expected: ObjectType) -> FileHead:
    """Parse a file's head. Raises Damaged when it is not of that type, Unsupported for a newer version."""
    if len(data) < HEAD_SIZE:
        raise Damaged(where, f"only {len(data)} bytes long")
    magic, version, suite, kind, epoch, client, salt, commitment = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise Damaged(where, "does not start like a Holdfast file", offset=0)
    if version != VERSION:
        raise Unsupported(f"{where}: format version {version}; this program reads version {VERSION}")
    if kind != expected or data[11]:
        raise Damaged(where, f"not a {expected.name.lower()}", offset=10)
    if client != _OWNER:
        raise Damaged(where, f"was written by client {client}, and there is none", offset=14)
    return FileHead(suite, expected, epoch, salt, commitment)


def _record(where: str, *, kind: int, codec: int, raw: int, encoded: int, id_: bytes) -> RecordHeader:
    try:
        header = RecordHeader(_TYPES[kind], _CODECS[codec], raw, encoded, ChunkID(id_))
    except KeyError:
        raise Damaged(where, f"record of unknown type {kind} or codec {codec}") from None
    if max(raw, encoded) > (PACK_LIMIT if kind == RecordType.PADDING else CHUNK_LIMIT):
        raise Damaged(where, f"record claims {max(raw, encoded)} bytes")
    return header


def parse_record(plain: bytes, where: str) -> RecordHeader:
    """Parse a decrypted record header. Raises Damaged."""
    kind, codec, raw, encoded, id_ = _RECORD.unpack(plain)
    return _record(where, kind=kind, codec=codec, raw=raw, encoded=encoded, id_=id_)


def pack_directory(entries: list[RecordHeader]) -> bytes:
    """The directory's plaintext."""
    return b"".join(_ENTRY.pack(e.id, e.raw, e.encoded, e.type, e.codec) for e in entries)


def parse_directory(plain: bytes, count: int, where: str) -> Iterator[tuple[int, RecordHeader]]:
    """Yields (offset in the pack, header) of each of the `count` records. Raises Damaged."""
    offset = HEAD_SIZE
    for id_, raw, encoded, kind, codec in _ENTRY.iter_unpack(plain[: count * _ENTRY.size]):
        if kind not in _LISTED:
            raise Damaged(where, f"its directory lists a record of type {kind}")
        header = _record(where, kind=kind, codec=codec, raw=raw, encoded=encoded, id_=id_)
        yield offset, header
        offset += header.size


def directory_size(count: int) -> int:
    """Fewest bytes of a sealed directory with that many entries, a multiple of 64."""
    return _aligned(count * _ENTRY.size + TAG)


def _aligned(size: int) -> int:
    return (size + ALIGN - 1) // ALIGN * ALIGN


@dataclass(frozen=True, slots=True)
class PackEnd:
    """The end of a pack: bytes of its padding record (0: none) and of its sealed directory."""

    padding: int
    directory: int


def full_end(end: int, count: int, size: int) -> PackEnd:
    """Fill a pack of `count` records that end at `end` up to `size` bytes, a multiple of 64."""
    directory = directory_size(count)
    padding = size - FOOT_SIZE - directory - end
    assert padding >= 0
    return PackEnd(padding, directory) if padding >= _PADDING_MIN else PackEnd(0, directory + padding)


def last_end(end: int, count: int, target: int) -> PackEnd:
    """Fill the last pack of a run, of at most `target` bytes, up to its size rounded by `padme`."""
    return full_end(end, count, min(target, _aligned(padme(end + directory_size(count) + FOOT_SIZE))))


def padme(size: int) -> int:
    """The padded size of an object: at most 12 % more, and few different ones.

    Of a size of about 2^e only the first log2(e) + 1 bits may tell anything: O(log log) bits in all (Nikitin
    et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", PETS 2019).
    """
    e = size.bit_length() - 1
    free = e - e.bit_length()
    return size if free <= 0 else -(-size >> free) << free


def padding_header(size: int) -> RecordHeader:
    """The header of a padding record that takes `size` bytes; its payload is all zeros."""
    encoded = size - RECORD_HEADER - TAG
    return RecordHeader(RecordType.PADDING, Codec.RAW, encoded, encoded, ChunkID(bytes(32)))


def pack_foot(count: int, offset: int) -> bytes:
    """The foot's plaintext."""
    return _FOOT.pack(b"FOOT", count, offset, bytes(32))


def parse_foot(plain: bytes, where: str, pack_size: int) -> tuple[int, int]:
    """Returns (number of entries, directory offset). Raises Damaged when they do not fit the pack's size."""
    magic, count, offset, _ = _FOOT.unpack(plain)
    slack = pack_size - FOOT_SIZE - offset - directory_size(count)
    if magic != b"FOOT" or not 0 <= slack < _PADDING_MIN:
        raise Damaged(where, f"foot does not fit a pack of {pack_size} bytes", offset=pack_size - FOOT_SIZE)
    return count, offset


def nonce(domain: NonceDomain, offset: int) -> bytes:
    """12 bytes: the domain, then the offset. Unique because every file has its own key."""
    return _NONCE.pack(domain, offset)
