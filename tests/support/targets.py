"""Targets of a restore by their paths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from holdfast.base.device_target import DeviceTarget
from holdfast.base.target_folder import TargetFolder
from holdfast.base.targets import FileTarget


class _PathTarget(FileTarget):
    """A file target that opens the folder for itself, and closes it."""

    def __exit__(self, *error: object) -> None:
        with closing(self._folder):
            super().__exit__(*error)  # type: ignore[arg-type]  # passed on as it came


def file_target(
    path: Path,
    size: int,
    *,
    sparse: bool = True,
    overwrite: bool = False,
    mtime: int | None = None,
    written: set[tuple[int, int]] | None = None,
) -> FileTarget:
    """A file at a path whose folder is there."""
    folder = TargetFolder.top(path.parent, overwrite=overwrite, make=False)
    return _PathTarget(folder, path.name, size, sparse=sparse, mtime=mtime, written=written)


@contextmanager
def device_target(path: Path, size: int) -> Iterator[DeviceTarget]:
    """A device at a path."""
    with (
        closing(TargetFolder.top(path.parent, overwrite=False, make=False)) as folder,
        DeviceTarget(folder, path.name, size) as device,
    ):
        yield device
