"""Numbers and structs of the NBD protocol, and our limits. No I/O.

Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md (fixed newstyle, structured
replies, metadata contexts) and docs/interop/nbd.txt of QEMU (`qemu:dirty-bitmap:`). Everything on the wire
is big endian.
"""

from __future__ import annotations

import errno
import os
from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final

DEFAULT_PORT: Final = 10809

# ---- handshake ----------------------------------------------------------------------------------------

INIT_MAGIC: Final = b"NBDMAGIC"
OPTION_MAGIC: Final = b"IHAVEOPT"
OLDSTYLE_MAGIC: Final = bytes.fromhex("0000420281861253")
OPTION_REPLY_MAGIC: Final = 0x0003_E889_0455_65A9

GREETING: Final = Struct(">8s8sH")
"""INIT_MAGIC, OPTION_MAGIC, HandshakeFlag."""
CLIENT_FLAGS: Final = Struct(">I")
OPTION: Final = Struct(">8sII")
"""OPTION_MAGIC, Option, length of the data that follows."""
OPTION_REPLY: Final = Struct(">QIII")
"""OPTION_REPLY_MAGIC, Option, OptionReply, length of the data that follows."""
INFO_EXPORT: Final = Struct(">HQH")
"""NbdInfo.EXPORT, size of the export in bytes, flags, of which CAN_READ_WHOLE matters here."""
CAN_READ_WHOLE: Final = 1 << 7
"""The server supports READ_WHOLE (NBD_CMD_FLAG_DF)."""
INFO_BLOCK_SIZE: Final = Struct(">HIII")
"""NbdInfo.BLOCK_SIZE, minimum, preferred and maximum length of a request in bytes."""
U16: Final = Struct(">H")
U32: Final = Struct(">I")
U64: Final = Struct(">Q")


class HandshakeFlag(IntFlag):
    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class Option(IntEnum):
    ABORT = 2
    LIST = 3
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


ERROR_BIT: Final = 1 << 31


class OptionReply(IntEnum):
    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = ERROR_BIT | 1
    ERR_POLICY = ERROR_BIT | 2
    ERR_INVALID = ERROR_BIT | 3
    ERR_PLATFORM = ERROR_BIT | 4
    ERR_TLS_REQD = ERROR_BIT | 5
    ERR_UNKNOWN = ERROR_BIT | 6
    ERR_SHUTDOWN = ERROR_BIT | 7
    ERR_BLOCK_SIZE_REQD = ERROR_BIT | 8
    ERR_TOO_BIG = ERROR_BIT | 9


OPTION_ERRORS: Final = {
    OptionReply.ERR_UNSUP: "it does not know the option",
    OptionReply.ERR_POLICY: "its policy forbids it",
    OptionReply.ERR_INVALID: "it calls the request invalid",
    OptionReply.ERR_PLATFORM: "its platform cannot do it",
    OptionReply.ERR_TLS_REQD: "it wants TLS, which is not supported",
    OptionReply.ERR_UNKNOWN: "it has no such export",
    OptionReply.ERR_SHUTDOWN: "it is shutting down",
    OptionReply.ERR_BLOCK_SIZE_REQD: "it wants block sizes to be negotiated",
    OptionReply.ERR_TOO_BIG: "it calls the request too big",
}


class NbdInfo(IntEnum):
    EXPORT = 0
    BLOCK_SIZE = 3


BASE_ALLOCATION: Final = "base:allocation"
DIRTY_BITMAP: Final = "qemu:dirty-bitmap:"

# ---- transmission -------------------------------------------------------------------------------------

REQUEST_MAGIC: Final = 0x2560_9513
SIMPLE_MAGIC: Final = 0x6744_6698
STRUCTURED_MAGIC: Final = 0x668E_33EF

REQUEST: Final = Struct(">IHHQQI")
"""REQUEST_MAGIC, flags, NbdCommand, cookie, offset, length."""
SIMPLE_REPLY: Final = Struct(">IIQ")
"""SIMPLE_MAGIC, error, cookie. As long as the start of a structured reply's head, without its length."""
STRUCTURED_REPLY: Final = Struct(">IHHQ")
"""STRUCTURED_MAGIC, ReplyFlag, ReplyType, cookie; U32 length of the data that follows."""
HOLE: Final = Struct(">QI")
"""Offset and length of a run of zeros."""
ERROR: Final = Struct(">IH")
"""Error number, length of the message that follows."""
DESCRIPTOR: Final = Struct(">II")
"""Length and flags of a run, in a block status reply."""


class NbdCommand(IntEnum):
    READ = 0
    DISCONNECT = 2
    BLOCK_STATUS = 7


READ_WHOLE: Final = 1 << 2
"""A flag of NbdCommand.READ: answer in one chunk. Servers may refuse it above 64 KiB, with OVERFLOW_ERROR."""
REPLY_DONE: Final = 1
REPLY_ERROR_BIT: Final = 1 << 15


class ReplyType(IntEnum):
    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5


STATE_ZERO: Final = 1 << 1
"""In `base:allocation`: reads as zeros. STATE_HOLE (1 << 0) alone promises nothing about the content."""
STATE_DIRTY: Final = 1 << 0
"""In `qemu:dirty-bitmap:`: written to since the bitmap began to record."""

OVERFLOW_ERROR: Final = 75
SHUTDOWN_ERROR: Final = 108
_ERRORS: Final = {
    1: errno.EPERM,
    5: errno.EIO,
    12: errno.ENOMEM,
    22: errno.EINVAL,
    28: errno.ENOSPC,
    OVERFLOW_ERROR: errno.EOVERFLOW,
    95: errno.ENOTSUP,
    SHUTDOWN_ERROR: errno.ESHUTDOWN,
}


def error_text(number: int) -> str:
    """The text of a protocol error number (some of Linux's error numbers)."""
    return os.strerror(_ERRORS[number]) if number in _ERRORS else f"error {number}"


# ---- limits -------------------------------------------------------------------------------------------

SIZE_LIMIT: Final = 1 << 50
"""Most bytes of an export: no disk is larger, and querying the status of more would take too long."""
STRING_LIMIT: Final = 4096
"""Most bytes of a name or message in the protocol."""
OPTION_DATA_LIMIT: Final = 64 << 10
"""Most bytes of one reply to an option: at most two strings and some numbers."""
OPTION_REPLIES_LIMIT: Final = 10_000
"""Most replies to one option."""
REQUEST_LIMIT: Final = 32 << 20
"""Most bytes of one read that every server accepts."""
MINIMUM_LIMIT: Final = 64 << 10
"""Largest minimum block size in bytes that the protocol allows."""
STATUS_DATA_LIMIT: Final = 4 + (8 << 20)
"""Most bytes of one block status reply: QEMU sends up to 1 MiB, nbdkit up to 8 MiB."""
STATUS_STEP: Final = 1 << 30
"""Most bytes of the export in one block status request; below 4 GiB, a multiple of all block sizes."""
ERRORS_LIMIT: Final = 1024
"""Most error chunks in the replies to one request."""
