"""What a database file may make SQLite do while it is checked and read: its schema holds expressions.

A file of 8 KB can have a column that is computed as a gigabyte, or by a loop that does not end. Expressions
are not run where that can be had, and what still runs has a budget of memory and of steps that grows with the
file.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

_HEAP: Final = 320 << 20
"""Bytes of memory that SQLite gets in this process: a row as SQL text takes several times its size."""
_STEPS: Final = 50_000_000
_STEPS_PER_BYTE: Final = 64
"""Instructions of SQLite's machine for each byte of the file; its check and a dump take some 5 at most."""
_EACH: Final = 1_000_000
"""Instructions between two looks at the budget."""


def limit(connection: sqlite3.Connection, path: Path) -> None:
    """Bound what statements of this connection to the file at `path` may take. They raise sqlite3.Error
    beyond it: "out of memory", "interrupted"."""
    connection.execute(f"PRAGMA hard_heap_limit={_HEAP}")
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA ignore_check_constraints=ON")
    left = (_STEPS + _STEPS_PER_BYTE * path.stat().st_size) // _EACH

    def step() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    connection.set_progress_handler(step, _EACH)
