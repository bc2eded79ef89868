"""dm-crypt: sectors decrypted by their number.

Source: Documentation/admin-guide/device-mapper/dm-crypt of Linux. AES in XTS mode, as cryptsetup makes it, and
in CBC mode, as it did before 2013.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from holdfast.guests.blocks import check_range
from holdfast.guests.filesystem import BlockDevice, Run
from holdfast.guests.values import GuestDamaged

_MODES = ("xts-plain64", "xts-plain", "cbc-plain64", "cbc-plain", "cbc-essiv:sha256")


class CipherUnknown(GuestDamaged):
    """A cipher that nobody here can decrypt."""


def sector_decryptor(cipher: str, key: bytes, sector: int) -> Callable[[bytes, int], bytes]:
    """A function (data, number of the first IV) -> plaintext of whole sectors, for `aes-xts-plain64` and its
    like. IVs count 512 bytes. Raises CipherUnknown."""
    name, _, mode = cipher.partition("-")
    if name != "aes" or mode not in _MODES or len(key) not in ((32, 64) if "xts" in mode else (16, 24, 32)):
        raise CipherUnknown(f"its cipher is {cipher} with {len(key) * 8} bits, which is not known here")
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


class CryptDevice:
    """The payload of a container. Nothing of it lies on the disk as it is: `runs` is None."""

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

    def runs(self, offset: int, length: int) -> tuple[Run, ...] | None:
        check_range(self.size, offset, length)
        return None
