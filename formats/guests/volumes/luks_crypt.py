"""dm-crypt: sectors decrypted by their number.

Source: Documentation/admin-guide/device-mapper/dm-crypt of Linux. AES in XTS mode, as cryptsetup makes it,
and in CBC mode, as it did before 2013.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from holdfast.formats.guests.filesystems.base.devices import check_range
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.values.damage import GuestUnsupported
from holdfast.formats.guests.values.values import DiskExtent

_MANY_SECTORS = 32
_MODES = ("xts-plain64", "xts-plain", "cbc-plain64", "cbc-plain", "cbc-essiv:sha256")


class CipherUnknown(GuestUnsupported):
    """A container that this program cannot decrypt: its cipher, hash or layout is not known."""


def sector_decryptor(cipher: str, key: bytes, sector: int) -> Callable[[bytes, int], bytes]:
    """Return a function (data, number of the first IV) -> plaintext, for whole sectors of `sector` bytes.

    `cipher` is a name such as `aes-xts-plain64`. IVs count units of 512 bytes. Raises CipherUnknown.
    """
    name, _, mode = cipher.partition("-")
    if name != "aes" or mode not in _MODES or len(key) not in ((32, 64) if "xts" in mode else (16, 24, 32)):
        bits = len(key) * 8
        raise CipherUnknown(
            "luks header", f"its cipher is {cipher} with {bits} bits, which is not known here"
        )
    if mode == "xts-plain64" and sector == 512 and sys.byteorder == "little":
        return _small_sectors(key)
    return _each_sector(mode, key, sector)


def _each_sector(mode: str, key: bytes, sector: int) -> Callable[[bytes, int], bytes]:
    """Decrypt each sector with a context of its own: 200 to 500 MB/s with 4096 bytes, 60 to 110 with 512."""
    step = sector // 512
    aes = algorithms.AES(key)
    limit = 1 << 64 if mode.endswith("64") else 1 << 32
    essiv = Cipher(algorithms.AES(hashlib.sha256(key).digest()), modes.ECB()).encryptor()

    def initial(number: int) -> bytes:
        plain = (number % limit if "plain" in mode else number).to_bytes(16, "little")
        return essiv.update(plain) if "essiv" in mode else plain

    def decrypt(data: bytes, first: int) -> bytes:
        out = bytearray(len(data) + 15)
        view = memoryview(out)
        source = memoryview(data)
        number = first
        for place in range(0, len(data), sector):
            iv = initial(number)
            context = Cipher(aes, modes.XTS(iv) if "xts" in mode else modes.CBC(iv)).decryptor()
            context.update_into(source[place : place + sector], view[place:])
            number += step
        return bytes(view[: len(data)])

    return decrypt


def _small_sectors(key: bytes) -> Callable[[bytes, int], bytes]:
    """XTS over sectors of 512 bytes, many at once: 150 MB/s.

    XTS is ECB between two XORs with a tweak that is doubled in GF(2^128) from block to block (IEEE 1619).
    Here the tweaks of all sectors are doubled together, as lanes of one large number.
    """
    half = len(key) // 2
    data_key, tweak_key = algorithms.AES(key[:half]), algorithms.AES(key[half:])
    few = _each_sector("xts-plain64", key, 512)

    def decrypt(data: bytes, first: int) -> bytes:
        count = len(data) // 512
        if count < _MANY_SECTORS:
            return few(data, first)
        numbers = array("Q", bytes(16 * count))
        numbers[::2] = array("Q", range(first, first + count))
        start = Cipher(tweak_key, modes.ECB()).encryptor().update(numbers.tobytes())
        tweak = int.from_bytes(start, "little")
        tops = int.from_bytes((bytes(15) + b"\x80") * count, "little")
        others = tops ^ ((1 << 128 * count) - 1)
        tweaks = bytearray(len(data))
        view = memoryview(tweaks).cast("Q")
        for block in range(32):
            lanes = memoryview(tweak.to_bytes(16 * count, "little")).cast("Q")
            view[2 * block :: 64] = lanes[0::2]
            view[2 * block + 1 :: 64] = lanes[1::2]
            tweak = ((tweak & others) << 1) ^ ((tweak & tops) >> 127) * 0x87
        mask = int.from_bytes(tweaks, "little")
        masked = (int.from_bytes(data, "little") ^ mask).to_bytes(len(data), "little")
        plain = Cipher(data_key, modes.ECB()).decryptor().update(masked)
        return (int.from_bytes(plain, "little") ^ mask).to_bytes(len(data), "little")

    return decrypt


class CryptDevice:
    """The payload of a container. The disk holds nothing of it unchanged: `extents` is None."""

    def __init__(
        self, device: BlockDevice, decrypt: Callable[[bytes, int], bytes], sector: int, first: int
    ) -> None:
        """`device` is the encrypted payload in sectors of `sector` bytes, `first` the IV of its start."""
        self.size = device.size // sector * sector
        self._device = device
        self._decrypt = decrypt
        self._sector = sector
        self._first = first

    def read(self, offset: int, length: int) -> bytes:
        check_range(self.size, offset, length)
        sector = self._sector
        start = offset // sector * sector
        end = -(-(offset + length) // sector) * sector
        data = self._decrypt(self._device.read(start, end - start), self._first + start // 512)
        return data[offset - start : offset - start + length]

    def extents(self, offset: int, length: int) -> tuple[DiskExtent, ...] | None:
        check_range(self.size, offset, length)
        return None
