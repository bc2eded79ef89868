"""LUKS1 and LUKS2: headers, key slots, and the opened container as a device.

Source: "LUKS1 On-Disk Format Specification" 1.2.3, "LUKS2 On-Disk Format Specification" 1.1.1. Big-endian.

    LUKS1    592 bytes of header with 8 key slots; key material; the payload
    LUKS2    4096 bytes of binary header, a JSON description; the same again; key material; the payload
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

from holdfast.formats.guests.filesystems.base.devices import DeviceRange
from holdfast.formats.guests.filesystems.base.directory_tree import PARSE_ERRORS
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.layout import At, Layout
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import GuestDamaged
from holdfast.formats.guests.volumes.luks_argon2 import argon2
from holdfast.formats.guests.volumes.luks_crypt import CipherUnknown, CryptDevice, sector_decryptor

MAGIC = b"LUKS\xba\xbe"
SECOND_MAGIC = b"SKUL\xba\xbe"
"""Begins the second copy of a LUKS2 header."""
_SECTOR = 512
_SLOTS1 = 8
_ENABLED = 0x00AC71F3
_BINARY_HEADER = 4096
"""Bytes of a LUKS2 header before its description."""
_CHECKSUM_OFFSET = 448
_CHECKSUM_SIZE = 64
_MAX_HEADER = 4 << 20
_MAX_SLOTS = 32
_MAX_ITERATIONS = 100_000_000
_MAX_STRIPES = 16_000
_HASHES = ("sha1", "sha256", "sha384", "sha512", "sha224", "ripemd160")
_SECONDS_2 = (0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000)


_SECTOR_SIZES = (512, 1024, 2048, 4096)
_MAX_KEY = 128


class _Header1(NamedTuple):
    """struct luks_phdr, LUKS1 figure 1."""

    magic: Annotated[bytes, At(0, "6s")]
    version: Annotated[int, At(6, "H")]
    cipher_name: Annotated[bytes, At(8, "32s")]
    cipher_mode: Annotated[bytes, At(40, "32s")]
    hash: Annotated[bytes, At(72, "32s")]
    payload_sector: Annotated[int, At(104, "I")]
    key_size: Annotated[int, At(108, "I")]
    digest: Annotated[bytes, At(112, "20s")]
    digest_salt: Annotated[bytes, At(132, "32s")]
    digest_rounds: Annotated[int, At(164, "I")]


class _Slot1(NamedTuple):
    """A key slot, LUKS1 figure 2: 48 bytes."""

    active: Annotated[int, At(0, "I")]
    rounds: Annotated[int, At(4, "I")]
    salt: Annotated[bytes, At(8, "32s")]
    sector: Annotated[int, At(40, "I")]
    """The first sector of the key material."""
    stripes: Annotated[int, At(44, "I")]


class _Header2(NamedTuple):
    """struct luks2_hdr_disk, LUKS2 figure 2."""

    magic: Annotated[bytes, At(0, "6s")]
    version: Annotated[int, At(6, "H")]
    size: Annotated[int, At(8, "Q")]
    """Bytes of the header with its description."""
    checksum_type: Annotated[bytes, At(72, "32s")]
    offset: Annotated[int, At(256, "Q")]
    """Byte offset of this copy on the device."""


_HEADER1: Final = Layout(_Header1, ">", "luks1 header")
_SLOT1: Final = Layout(_Slot1, ">", "luks1 key slot")
_SLOTS1_OFFSET: Final = 208
_HEADER2: Final = Layout(_Header2, ">", "luks2 header")


class WrongPassphrase(GuestDamaged):
    """No key slot opens with any of the passphrases."""


class _Kdf(NamedTuple):
    """How a key is derived from a passphrase: by PBKDF2 in `rounds` rounds (`type` is its hash, `kib` is 0),
    or by Argon2 in `rounds` passes over `kib` KiB in `lanes` lanes."""

    type: str
    salt: bytes
    rounds: int
    kib: int = 0
    lanes: int = 0


class _Slot(NamedTuple):
    """A key slot. It holds a key of `key` bytes, split into `stripes` and encrypted with a derived key of
    `area_key` bytes. `offset` is the byte offset of the key material."""

    kdf: _Kdf
    cipher: str
    area_key: int
    key: int
    offset: int
    stripes: int
    hash: str


class LuksHeader(NamedTuple):
    """A header of either version. Sizes and offsets are in bytes; `size` is None when the payload reaches to
    the end of the device."""

    version: int
    slots: tuple[_Slot, ...]
    digest: bytes
    digest_salt: bytes
    digest_rounds: int
    digest_hash: str
    cipher: str
    sector: int
    offset: int
    size: int | None
    first_iv: int


def read_header(device: BlockDevice) -> LuksHeader:
    """Read the header. Raises GuestDamaged when no copy of it is sound."""
    header = _HEADER1.read(device.read(0, _SECTOR))
    if header.magic == MAGIC and header.version == 1:
        return _header1(device)
    try:
        return _header2(device, 0, MAGIC)
    except PARSE_ERRORS as error:
        for offset in _SECONDS_2:
            try:
                return _header2(device, offset, SECOND_MAGIC)
            except PARSE_ERRORS:
                continue
        if isinstance(error, GuestDamaged):
            raise
        field, limit = "description", "one of the specification"
        raise StructureDamaged("luks2 header", field, f"{type(error).__name__}: {error}", limit) from error


def open_luks(device: BlockDevice, header: LuksHeader, passphrases: Sequence[str]) -> CryptDevice:
    """Open the container: the payload, decrypted. Raises WrongPassphrase, CipherUnknown, GuestDamaged, and
    MemoryError when a key slot asks for more memory than there is."""
    sector_decryptor(header.cipher, bytes(_key_size(header)), header.sector)
    for slot in header.slots:
        for passphrase in passphrases:
            key = _slot_key(device, slot, passphrase.encode())
            digest = hashlib.pbkdf2_hmac(
                header.digest_hash, key, header.digest_salt, header.digest_rounds, len(header.digest)
            )
            if hmac.compare_digest(digest, header.digest):
                size = device.size - header.offset if header.size is None else header.size
                decrypt = sector_decryptor(header.cipher, key, header.sector)
                payload = DeviceRange(device, header.offset, size)
                return CryptDevice(payload, decrypt, header.sector, header.first_iv)
    raise WrongPassphrase("luks: no key slot opens with these passphrases")


def _key_size(header: LuksHeader) -> int:
    if not header.slots:
        raise StructureDamaged("luks header", "number of known key slots", 0, "at least 1")
    return header.slots[0].key


def _slot_key(device: BlockDevice, slot: _Slot, passphrase: bytes) -> bytes:
    kdf = slot.kdf
    if kdf.kib:
        secret = argon2(
            kdf.type, passphrase, kdf.salt, passes=kdf.rounds, kib=kdf.kib, lanes=kdf.lanes,
            length=slot.area_key,
        )  # fmt: skip
    else:
        secret = hashlib.pbkdf2_hmac(kdf.type, passphrase, kdf.salt, kdf.rounds, slot.area_key)
    size = -(-slot.key * slot.stripes // 512) * 512
    area = sector_decryptor(slot.cipher, secret, 512)(device.read(slot.offset, size), 0)
    return _merge(area, slot.key, slot.stripes, slot.hash)


def _merge(area: bytes, size: int, stripes: int, name: str) -> bytes:
    """Join the stripes of a key, as AFmerge of the specification."""
    width = hashlib.new(name).digest_size
    block = bytes(size)
    for number in range(stripes):
        stripe = area[number * size : (number + 1) * size]
        block = (int.from_bytes(block) ^ int.from_bytes(stripe)).to_bytes(size)
        if number < stripes - 1:
            cut = [block[start : start + width] for start in range(0, size, width)]
            parts = [
                hashlib.new(name, index.to_bytes(4, "big") + part).digest() for index, part in enumerate(cut)
            ]
            parts[-1] = parts[-1][: size - (len(parts) - 1) * width]
            block = b"".join(parts)
    return block


def _header1(device: BlockDevice) -> LuksHeader:
    raw = device.read(0, 1024)
    stored = _HEADER1.read(raw)
    cipher = f"{_word(stored.cipher_name)}-{_word(stored.cipher_mode)}"
    hash_ = _hash(_word(stored.hash))
    slots = []
    for number in range(_SLOTS1):
        slot = _SLOT1.read(raw, _SLOTS1_OFFSET + number * _SLOT1.size)
        if slot.active == _ENABLED:
            kdf = _Kdf(hash_, slot.salt, _rounds(slot.rounds))
            key, offset = stored.key_size, slot.sector * _SECTOR
            slots.append(_checked(_Slot(kdf, cipher, key, key, offset, slot.stripes, hash_)))
    return LuksHeader(
        1,
        tuple(slots),
        stored.digest,
        stored.digest_salt,
        _rounds(stored.digest_rounds),
        hash_,
        cipher,
        _SECTOR,
        stored.payload_sector * _SECTOR,
        None,
        0,
    )


def _header2(device: BlockDevice, offset: int, magic: bytes) -> LuksHeader:
    """Read and check the copy of a LUKS2 header at an offset."""
    stored = _HEADER2.read(device.read(offset, _BINARY_HEADER))
    structure = f"luks2 header at {offset}"
    if stored.magic != magic:
        raise StructureDamaged(structure, "magic number", stored.magic, str(magic))
    if stored.version != 2:
        raise StructureDamaged(structure, "version", stored.version, "2")
    if stored.offset != offset:
        raise StructureDamaged(structure, "offset in it", stored.offset, f"{offset}")
    if not _BINARY_HEADER < stored.size <= _MAX_HEADER:
        limit = f"{_BINARY_HEADER + 1} to {_MAX_HEADER} bytes"
        raise StructureDamaged(structure, "size", stored.size, limit)
    whole = device.read(offset, stored.size)
    digest = hashlib.new(_hash(_word(stored.checksum_type)))
    end = _CHECKSUM_OFFSET + _CHECKSUM_SIZE
    digest.update(whole[:_CHECKSUM_OFFSET] + bytes(_CHECKSUM_SIZE) + whole[end:])
    found = whole[_CHECKSUM_OFFSET : _CHECKSUM_OFFSET + digest.digest_size]
    if digest.digest() != found:
        raise StructureDamaged(structure, "checksum", found.hex()[:16], digest.hexdigest()[:16])
    try:
        return _described(json.loads(whole[_BINARY_HEADER:].split(b"\0", 1)[0]))
    except (TypeError, AttributeError, RecursionError) as error:
        limit = "one of the specification"
        raise StructureDamaged(structure, "description", f"wrong: {error}", limit) from error


def _described(text: dict[str, Any]) -> LuksHeader:
    """The header that a LUKS2 description gives: its one crypt segment, and the slots of that segment's
    digest."""
    segments = sorted(text["segments"].items(), key=lambda item: int(item[0]))
    if len(segments) != 1 or segments[0][1]["type"] != "crypt" or "integrity" in segments[0][1]:
        raise CipherUnknown(
            "luks2 description", "it is being reencrypted, or has checksums, which is not known here"
        )
    number, segment = segments[0]
    for digest in text["digests"].values():
        if number in digest["segments"] and digest["type"] == "pbkdf2":
            break
    else:
        raise StructureDamaged("luks2 description", "number of digests of its segment", 0, "at least 1")
    slots = []
    for name in digest["keyslots"][:_MAX_SLOTS]:
        found = text["keyslots"].get(name)
        if found is not None and found["type"] == "luks2":
            slots.append(_slot2(found))
    size = segment["size"]
    sector = int(segment["sector_size"])
    if sector not in _SECTOR_SIZES:
        sizes = ", ".join(map(str, _SECTOR_SIZES))
        raise StructureDamaged("luks2 description", "sector size", sector, f"one of {sizes} bytes")
    return LuksHeader(
        2,
        tuple(slots),
        base64.b64decode(digest["digest"]),
        base64.b64decode(digest["salt"]),
        _rounds(int(digest["iterations"])),
        _hash(digest["hash"]),
        str(segment["encryption"]),
        sector,
        int(segment["offset"]),
        None if size == "dynamic" else int(size),
        int(segment.get("iv_tweak", 0)),
    )


def _slot2(slot: dict[str, Any]) -> _Slot:
    kdf, area, split = slot["kdf"], slot["area"], slot["af"]
    salt = base64.b64decode(kdf["salt"])
    if kdf["type"] == "pbkdf2":
        derive = _Kdf(_hash(kdf["hash"]), salt, _rounds(int(kdf["iterations"])))
    else:
        derive = _Kdf(str(kdf["type"]), salt, int(kdf["time"]), int(kdf["memory"]), int(kdf["cpus"]))
    return _checked(
        _Slot(
            derive,
            str(area["encryption"]),
            int(area["key_size"]),
            int(slot["key_size"]),
            int(area["offset"]),
            int(split["stripes"]),
            _hash(split["hash"]),
        )
    )


def _checked(slot: _Slot) -> _Slot:
    """Return the slot. Raises StructureDamaged when one of its sizes is out of range."""
    for field, value in (("key size", slot.key), ("key size of its area", slot.area_key)):
        if not 0 < value <= _MAX_KEY:
            raise StructureDamaged("luks key slot", field, value, f"1 to {_MAX_KEY} bytes")
    if not 0 < slot.stripes <= _MAX_STRIPES:
        raise StructureDamaged("luks key slot", "number of stripes", slot.stripes, f"1 to {_MAX_STRIPES}")
    return slot


def _rounds(count: int) -> int:
    if not 0 < count <= _MAX_ITERATIONS:
        raise StructureDamaged("luks header", "number of hash rounds", count, f"1 to {_MAX_ITERATIONS}")
    return count


def _hash(name: str) -> str:
    if name not in _HASHES:
        raise CipherUnknown("luks header", f"its hash is {name}, which is not known here")
    return name


def _word(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("ascii", "replace")
