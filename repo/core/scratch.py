"""Where files of one command go that are larger than memory should hold."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Final

_ROOM: Final = 1 << 30
"""Bytes that must be free."""


def scratch_path(name: str, preferred: Path | None = None) -> Path | None:
    """An unused path for a temporary directory, in `preferred` or a folder for temporary files.

    None when none of them has room and can be written to: use memory.
    """
    folders = [*([preferred] if preferred else []), *_temporary_folders()]
    folder = next((folder for folder in folders if _has_room(folder)), None)
    return folder / f"holdfast-{name}-{secrets.token_hex(8)}" if folder else None


def _has_room(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free > _ROOM and os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return False


def _temporary_folders() -> list[Path]:
    try:
        return [Path(tempfile.gettempdir())]
    except OSError:  # none can be written to
        return []
