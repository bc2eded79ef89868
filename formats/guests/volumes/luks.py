"""LUKS1 and LUKS2: headers, key slots, and the opened container as a device.

Source: "LUKS1 On-Disk Format Specification" 1.2.3, "LUKS2 On-Disk Format Specification" 1.1.1.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from holdfast.formats.guests.filesystems.base.devices import DeviceRange
from holdfast.formats.guests.filesystems.base.directory_tree import PARSE_ERRORS
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.values.values import GuestDamaged
from holdfast.formats.guests.volumes.luks_argon2 import argon2
from holdfast.formats.guests.volumes.luks_crypt import CipherUnknown, CryptDevice, sector_decryptor

MAGIC = b"LUKS\xba\xbe"
_HEAD1 = struct.Struct(">6sH32s32s32sII20s32sI40s")
_SLOT1 = struct.Struct(">II32sII")
_SLOTS1 = 8
_ENABLED = 0x00AC71F3
_HEAD2 = struct.Struct(">6sHQQ48s32s64s40s48sQ")
_CHECKSUM_OFFSET = 448
_MAX_HEADER = 4 << 20
_MAX_SLOTS = 32
_MAX_ITERATIONS = 100_000_000
_MAX_STRIPES = 16_000
_HASHES = ("sha1", "sha256", "sha384", "sha512", "sha224", "ripemd160")
_SECONDS_2 = (0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000)


class WrongPassphrase(GuestDamaged):
    """No key slot opens with any of the passphrases."""


class _Kdf(NamedTuple):
    """Cost is in rounds for PBKDF2 (`type` is its hash), in passes, KiB and lanes for Argon2."""

    type: str
    salt: bytes
    rounds: int
    kib: int = 0
    lanes: int = 0


class _Slot(NamedTuple):
    kdf: _Kdf
    cipher: str
    area_key: int
    key: int
    offset: int
    stripes: int
    hash: str


class Header(NamedTuple):
    """What both versions come to. `size` is None for "up to the end"."""

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


def read_header(device: BlockDevice) -> Header:
    """Raises GuestDamaged when no copy of the header is whole."""
    head = device.read(0, 512)
    magic, version = struct.unpack_from(">6sH", head)
    if magic == MAGIC and version == 1:
        return _header1(device)
    try:
        return _header2(device, 0, MAGIC)
    except PARSE_ERRORS as error:
        for offset in _SECONDS_2:
            try:
                return _header2(device, offset, b"SKUL\xba\xbe")
            except PARSE_ERRORS:
                continue
        raise GuestDamaged(f"luks: {error}") from error


def open_luks(device: BlockDevice, header: Header, passphrases: Sequence[str]) -> CryptDevice:
    """The payload. Raises WrongPassphrase, CipherUnknown, GuestDamaged, and MemoryError when a key slot asks
    for more memory than there is."""
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
    raise WrongPassphrase("luks: no key slot opens")


def _key_size(header: Header) -> int:
    if not header.slots:
        raise GuestDamaged("luks: there is no key slot that is known here")
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
    """Put together what the anti-forensic splitter took apart."""
    width = hashlib.new(name).digest_size
    block = bytes(size)
    for number in range(stripes):
        stripe = area[number * size : (number + 1) * size]
        block = (int.from_bytes(block) ^ int.from_bytes(stripe)).to_bytes(size)
        if number < stripes - 1:
            cut = [block[at : at + width] for at in range(0, size, width)]
            parts = [
                hashlib.new(name, struct.pack(">I", index) + part).digest() for index, part in enumerate(cut)
            ]
            parts[-1] = parts[-1][: size - (len(parts) - 1) * width]
            block = b"".join(parts)
    return block


def _header1(device: BlockDevice) -> Header:
    raw = device.read(0, 1024)
    (_, _, name, mode, hash_, payload, key, digest, salt, rounds, _) = _HEAD1.unpack_from(raw)
    cipher = f"{_word(name)}-{_word(mode)}"
    slots = []
    for number in range(_SLOTS1):
        active, slot_rounds, slot_salt, offset, stripes = _SLOT1.unpack_from(raw, 208 + number * _SLOT1.size)
        if active == _ENABLED:
            kdf = _Kdf(_hash(_word(hash_)), slot_salt, _rounds(slot_rounds))
            slots.append(_checked(_Slot(kdf, cipher, key, key, offset * 512, stripes, _hash(_word(hash_)))))
    return Header(
        1,
        tuple(slots),
        digest,
        salt,
        _rounds(rounds),
        _hash(_word(hash_)),
        cipher,
        512,
        payload * 512,
        None,
        0,
    )


def _header2(device: BlockDevice, place: int, expected: bytes) -> Header:
    raw = device.read(place, 4096)
    magic, version, size, _, _, kind, _, _, _, offset = _HEAD2.unpack_from(raw)
    if magic != expected or version != 2 or offset != place:
        raise GuestDamaged(f"the header at {place} is none of version 2")
    if not 4096 < size <= _MAX_HEADER:
        raise GuestDamaged(f"a header of {size} bytes")
    whole = device.read(place, size)
    digest = hashlib.new(_hash(_word(kind)))
    digest.update(whole[:_CHECKSUM_OFFSET] + bytes(64) + whole[_CHECKSUM_OFFSET + 64 :])
    if digest.digest() != whole[_CHECKSUM_OFFSET : _CHECKSUM_OFFSET + digest.digest_size]:
        raise GuestDamaged(f"the checksum of the header at {place} is wrong")
    try:
        return _described(json.loads(whole[4096:].split(b"\0", 1)[0]))
    except (TypeError, AttributeError, RecursionError) as error:
        raise GuestDamaged(f"the header's description is damaged: {error}") from error


def _described(text: dict[str, Any]) -> Header:
    """The first crypt segment, and the slots of its digest."""
    segments = sorted(text["segments"].items(), key=lambda item: int(item[0]))
    if len(segments) != 1 or segments[0][1]["type"] != "crypt" or "integrity" in segments[0][1]:
        raise CipherUnknown("it is being encrypted anew, or has checksums: that is not known here")
    number, segment = segments[0]
    for digest in text["digests"].values():
        if number in digest["segments"] and digest["type"] == "pbkdf2":
            break
    else:
        raise GuestDamaged("no digest belongs to the segment")
    slots = []
    for name in digest["keyslots"][:_MAX_SLOTS]:
        found = text["keyslots"].get(name)
        if found is not None and found["type"] == "luks2":
            slots.append(_slot2(found))
    size = segment["size"]
    sector = int(segment["sector_size"])
    if sector not in (512, 1024, 2048, 4096):
        raise GuestDamaged(f"sectors of {sector} bytes")
    return Header(
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
    if not 0 < slot.key <= 128 or not 0 < slot.area_key <= 128 or not 0 < slot.stripes <= _MAX_STRIPES:
        raise GuestDamaged(f"a key slot with a key of {slot.key} bytes in {slot.stripes} stripes")
    return slot


def _rounds(count: int) -> int:
    if not 0 < count <= _MAX_ITERATIONS:
        raise GuestDamaged(f"{count} rounds of a hash")
    return count


def _hash(name: str) -> str:
    if name not in _HASHES:
        raise CipherUnknown(f"its hash is {name}, which is not known here")
    return name


def _word(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("ascii", "replace")
