"""The first bytes of a PostgreSQL cluster's global/pg_control: whose cluster it is. Pure.

Layout: `catalog/pg_control.h`, ControlFileData; the same since the file exists, in the server's byte order.

    0   8  system identifier
    8   4  pg_control_version
    12  4  catalog_version_no
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

CONTROL_PATH: Final = "global/pg_control"
CONTROL_HEAD: Final = 16
"""Bytes that `parse_control` needs."""


@dataclass(frozen=True, slots=True)
class Control:
    """`system_id` is a decimal number, as `pg_controldata` prints it."""

    system_id: str
    control_version: int
    catalog_version: int


def parse_control(data: bytes) -> Control | None:
    """None when it is no control file."""
    if len(data) < CONTROL_HEAD:
        return None
    for order in "<>":
        system, control, catalog = struct.unpack_from(f"{order}QII", data)
        # 15 wrote 1300, 17 1700; a catalogue's version is a date and a digit: that tells the byte order.
        if system and 800 <= control <= 9999 and 2000_00000 <= catalog <= 2100_00000:
            return Control(str(system), control, catalog)
    return None
