"""Where files of one command go that are larger than memory should hold."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

_ROOM: Final = 1 << 30
"""Bytes that must be free."""


def scratch_path(name: str, preferred: Path) -> Path:
    """An unused path for a temporary directory: in `preferred` if there is room, else in TMPDIR."""
    with suppress(OSError):
        if shutil.disk_usage(preferred).free > _ROOM and os.access(preferred, os.W_OK):
            return preferred / f"scratch-{name}-{secrets.token_hex(4)}"
    return Path(tempfile.gettempdir()) / f"holdfast-{name}-{secrets.token_hex(4)}"
