"""A PostgreSQL cluster as a tar, made by hand: what pg_basebackup would write."""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Mapping

from support.basics import random_bytes

SYSTEM = 7_712_022_956_134_023_898


LABEL = "START WAL LOCATION: 0/200028 (file 000000010000000000000002)\nSTART TIMELINE: 1\n"


CONTROL = struct.pack("<QII", SYSTEM, 1300, 2022_09041).ljust(8192, b"\0")


RELATION = random_bytes(40_000, 1)


CLUSTER: Mapping[str, bytes] = {
    "backup_label": LABEL.encode(),
    "PG_VERSION": b"15\n",
    "base/5/2619": RELATION,
    "base/5/empty": b"",
    "global/pg_control": CONTROL,
}


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode, info.mtime, info.uname = (
        len(data),
        kind,
        0o600,
        1_700_000_000,
        "postgres",
    )
    for field, value in fields.items():
        setattr(info, field, value)
    return info
