"""Where the index of an open repository is: in the user's cache, else where this command finds room."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.base.errors import StoreError
from holdfast.base.filesystems import is_fit_for_mmap
from holdfast.base.private_folder import open_private_folder
from holdfast.repo.core.scratch import scratch_path
from holdfast.repo.index.index import Index
from holdfast.repo.index.opening import remove_index


class IndexPlace:
    """A place that fails is given up for the next: the cache, a folder for temporary files, memory.

    `reason` says why the cache was given up, "" while it was not.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._scratch: Path | None = None
        self.reason = ""

    @property
    def folder(self) -> Path | None:
        """The index's directory in the cache; None for an index that is not kept."""
        return None if self.reason else self._cache / "index"

    def open(self, key: bytes) -> Index:
        """Open the index, or make a new one. Raises StoreError when that is not possible anywhere."""
        while True:
            if not self.reason:
                self._look_at_cache()
            try:
                return Index(self.folder, key, scratch=self._scratch)
            except StoreError as error:
                if not self.leave(str(error)):
                    raise

    def _look_at_cache(self) -> None:
        try:
            os.close(open_private_folder(self._cache))
            if not is_fit_for_mmap(self._cache):
                self.leave(f"{self._cache} is on a file system that LMDB cannot use")
        except OSError as error:
            self.leave(f"{error.filename}: {error.strerror}")

    def is_here(self, error: StoreError) -> bool:
        """Whether an error is of the index, and not of the repository's files."""
        return error.path.startswith(str(self.folder or self._scratch or "memory"))

    def leave(self, reason: str) -> bool:
        """Use the next place from now on. False when there is none."""
        if not self.reason:
            self.reason = reason
            self._scratch = scratch_path("index")
            return True
        if self._scratch:
            self._scratch = None
            return True
        return False

    def drop(self) -> None:
        """Delete the index, which is not open."""
        if self.folder is not None:
            remove_index(self.folder)
