"""How much memory a dump may make its catalogue take, in the backup and whenever it is opened.

Estimates, by which 24 KB of a hostile dump cannot ask for a gigabyte. Measured: a section takes 700 bytes
when its dump is scanned, and 1,700 when the dump is opened and the section is a table with its own file; a
name some 64 beside its own bytes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

SECTION: Final = 700
"""Bytes of one without names."""
_NAME: Final = 64
LIMIT: Final = 160 << 20
"""Bytes: 230,000 sections of plain names, or two million names. pg_dump writes some 8 sections for a
table."""


def names_weight(names: Collection[str]) -> int:
    """Bytes that these names take."""
    return _NAME * len(names) + sum(map(len, names))
