"""Argon2 without threads, for LUKS2.

The cryptography package computes several lanes in as many threads, and fails with "not enough memory" where
threads are refused, as in the worker. libargon2, on which cryptsetup depends, can compute them one after the
other; it is used when it is installed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from cryptography.hazmat.primitives.kdf.argon2 import Argon2d, Argon2i, Argon2id

from holdfast.formats.guests.values.damage import StructureDamaged

_VERSION = 0x13
_TYPES = {"argon2d": 0, "argon2i": 1, "argon2id": 2}
_DERIVERS: dict[str, type[Argon2d] | type[Argon2i] | type[Argon2id]] = {
    "argon2d": Argon2d,
    "argon2i": Argon2i,
    "argon2id": Argon2id,
}
_OUT_OF_MEMORY = -22
_MIN_KIB, _MAX_KIB = 8, 4 << 20
_MAX_LANES = 16
_MAX_PASSES = 10_000
_MAX_SALT = 1024


class _Context(ctypes.Structure):
    """argon2_context of argon2.h."""

    _fields_ = (
        ("out", ctypes.c_void_p),
        ("outlen", ctypes.c_uint32),
        ("pwd", ctypes.c_void_p),
        ("pwdlen", ctypes.c_uint32),
        ("salt", ctypes.c_void_p),
        ("saltlen", ctypes.c_uint32),
        ("secret", ctypes.c_void_p),
        ("secretlen", ctypes.c_uint32),
        ("ad", ctypes.c_void_p),
        ("adlen", ctypes.c_uint32),
        ("t_cost", ctypes.c_uint32),
        ("m_cost", ctypes.c_uint32),
        ("lanes", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("allocate_cbk", ctypes.c_void_p),
        ("free_cbk", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
    )


def _find_library() -> Callable[..., int] | None:
    """Find argon2_ctx, at import: the worker can open no file later."""
    try:
        function: Callable[..., int] = ctypes.CDLL("libargon2.so.1").argon2_ctx
    except (OSError, AttributeError):
        return None
    return function


_argon2_ctx = _find_library()


def argon2(
    kind: str, passphrase: bytes, salt: bytes, *, passes: int, kib: int, lanes: int, length: int
) -> bytes:
    """Derive a key of `length` bytes. Raises StructureDamaged for parameters out of range, MemoryError when
    there are not `kib` KiB."""
    if (
        kind not in _TYPES
        or not 1 <= passes <= _MAX_PASSES
        or not 1 <= lanes <= _MAX_LANES
        or not max(_MIN_KIB * lanes, _MIN_KIB) <= kib <= _MAX_KIB
        or not 8 <= len(salt) <= _MAX_SALT
    ):
        found = f"{kind[:20]}, {passes} passes, {kib} KiB, {lanes} lanes, {len(salt)} bytes of salt"
        limit = (
            f"Argon2, 1 to {_MAX_PASSES} passes, {_MIN_KIB} a lane to {_MAX_KIB} KiB, "
            f"1 to {_MAX_LANES} lanes, 8 to {_MAX_SALT} bytes of salt"
        )
        raise StructureDamaged("luks2 key slot", "key derivation", found, limit)
    if _argon2_ctx is None or lanes == 1:
        type_ = _DERIVERS[kind]
        return type_(salt=salt, length=length, iterations=passes, lanes=lanes, memory_cost=kib).derive(
            passphrase
        )
    out = ctypes.create_string_buffer(length)
    secret = ctypes.create_string_buffer(passphrase, len(passphrase))
    salted = ctypes.create_string_buffer(salt, len(salt))
    context = _Context(
        out=ctypes.addressof(out), outlen=length,
        pwd=ctypes.addressof(secret), pwdlen=len(passphrase),
        salt=ctypes.addressof(salted), saltlen=len(salt),
        t_cost=passes, m_cost=kib, lanes=lanes, threads=1, version=_VERSION,
    )  # fmt: skip
    result = _argon2_ctx(ctypes.byref(context), ctypes.c_int(_TYPES[kind]))
    if result == _OUT_OF_MEMORY:
        raise MemoryError(f"Argon2 needs {kib} KiB")
    if result:
        raise StructureDamaged("luks2 key slot", "result of Argon2", result, "0")
    return out.raw
