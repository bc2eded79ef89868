"""A process that holds keys, kept from others: no core dump, no secret in the environment that /proc
shows."""

from __future__ import annotations

import ctypes
import re
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

SECRETS: Final = "HOLDFAST_PASSWORD"
"""Variables whose names begin so are or name the repository's password."""
_PR_SET_DUMPABLE: Final = 4
_ENV_START: Final = 49
_ENV_END: Final = 50
"""Fields of /proc/PID/stat, counted from 0."""


def become_private() -> None:
    """Keep the memory of this process out of core dumps and away from other processes, as far as the kernel
    allows.

    Variables that are or name the password are emptied where /proc/PID/environ shows them, which is the
    memory that the process was started with: changing the environment leaves that as it was for as long as
    the process lives, and a mount lives for months. Call it before there are threads, after the interpreter
    has made its own copy, which stays (`os.environ`). Not dumpable also means: no other process of the same
    user looks in.
    """
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError, IndexError):
        _empty_variables()
    # Last: of a process that is not dumpable, parts of /proc belong to root.
    ctypes.CDLL(None).prctl(ctypes.c_int(_PR_SET_DUMPABLE), *[ctypes.c_ulong(0)] * 4)


def _empty_variables() -> None:
    fields = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()
    start, end = int(fields[_ENV_START - 2]), int(fields[_ENV_END - 2])
    if not 0 < start < end:
        return
    block = ctypes.string_at(start, end - start)
    for found in re.finditer(rb"(?:\A|(?<=\0))" + SECRETS.encode() + rb"[^=\0]*=([^\0]+)", block):
        ctypes.memset(start + found.start(1), 0, len(found[1]))
