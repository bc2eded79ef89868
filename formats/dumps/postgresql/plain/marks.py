"""The first and last lines of pg_dump's and pg_dumpall's SQL: the only place that knows them.

A dump begins with a comment that holds HEAD and ends with one that holds HEAD and " complete"; pg_dumpall
says "cluster dump" around the dumps of all databases.
"""

from __future__ import annotations

import re
from typing import Final

from holdfast.formats.dumps.core.end_mark import EndMark
from holdfast.formats.dumps.core.scan_marks import Marks

NAME: Final = "postgresql"
"""The engine's name in the registry and in snapshots."""

_COMMON: Final = b"-- PostgreSQL database "
DATABASE: Final = _COMMON + b"dump"
CLUSTER: Final = _COMMON + b"cluster dump"
_ANY: Final = _COMMON + b"(cluster )?dump"
_COMPLETE: Final = b" complete"

BEGINS: Final = re.compile(rb"\A(?:\s|--)*\n" + _ANY, re.M)
"""A stream that is such a dump."""
HEAD: Final = re.compile(b"^" + _ANY + rb"\r?$", re.M)
"""Group 1 is set for a cluster, here and below."""
TRAILER: Final = re.compile(rb"(?:\A|\n)--\r?\n" + _ANY + _COMPLETE + rb"\r?\n--\s*\Z")
MARKS: Final = Marks(
    heads=(b"\n" + DATABASE + b"\n--\n\n", b"\n" + CLUSTER + b"\n--\n\n"),
    ends=(b"\n" + DATABASE + _COMPLETE + b"\n", b"\n" + CLUSTER + _COMPLETE + b"\n"),
    common=b"\n" + _COMMON,
)


def trailer_line(*, cluster: bool) -> str:
    """The last line of a whole dump."""
    return ((CLUSTER if cluster else DATABASE) + _COMPLETE).decode()


DATABASE_END: Final = EndMark(re.compile(b"^" + DATABASE + _COMPLETE + rb"\s*$", re.M))
CLUSTER_END: Final = EndMark(re.compile(b"^" + CLUSTER + _COMPLETE + rb"\s*$", re.M))
END: Final = EndMark(re.compile(b"^" + _ANY + _COMPLETE + rb"\s*$", re.M))
