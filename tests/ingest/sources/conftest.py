"""Sources are tested where images and dumps lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.scratch import disk_folder


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """On a disk: holes and allocated sizes are the file system's."""
    with disk_folder() as folder:
        yield folder
