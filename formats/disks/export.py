"""Writes a stored disk as an image of another format: to a file, or as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from holdfast.base.errors import TargetError
from holdfast.base.target_folder import TargetFolder
from holdfast.base.targets import FileTarget
from holdfast.base.types import Buffer
from holdfast.formats.disks.base.view import View
from holdfast.formats.disks.export_formats import VIEWS
from holdfast.repo.chunks.recipe import Recipe
from holdfast.repo.core.restore import Restorer, zeros
from holdfast.repo.snapshots.snapshot import Item


def stored_view(item: Item, recipe: Recipe, format_: str) -> View:
    """Show a stored disk as an image of a format. The same disk always gives the same bytes.

    Raises ViewImpossible when the format cannot hold it.
    """
    return VIEWS[format_](item.size, recipe.data_runs, item.recipe[:16])


def stream(view: View, recipe: Recipe, restorer: Restorer) -> Iterator[Buffer]:
    """Yield all bytes of a view in order. The disk's chunks are decoded ahead."""
    yield from _made_up(view, 0, view.data_start)
    yield from restorer.in_order(recipe)
    yield from _made_up(view, view.data_start + recipe.size, view.size)


def _made_up(view: View, start: int, end: int) -> Iterator[Buffer]:
    for part in view.parts(start, end):
        if part.data is not None:
            yield part.data
            continue
        assert part.disk < 0, "the disk stands in one piece"
        yield from zeros(part.length)


class ViewTarget(FileTarget):
    """Writes a view to a file. The caller restores the disk to it, at the disk's offsets; entering the
    context manager writes the tables around the disk."""

    def __init__(
        self,
        folder: TargetFolder,
        name: str,
        view: View,
        *,
        sparse: bool = True,
        mtime: int | None = None,
        written: set[tuple[int, int]] | None = None,
    ) -> None:
        super().__init__(folder, name, view.size, sparse=sparse, mtime=mtime, written=written)
        self._view = view

    def __enter__(self) -> ViewTarget:
        super().__enter__()
        try:
            for start, data in self._tables():
                super().write(start, data)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)

    def write(self, offset: int, data: Buffer) -> None:
        super().write(self._view.data_start + offset, data)

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes of the disk, at the disk's offset."""
        return super().read(self._view.data_start + offset, length)

    def compare_tables(self) -> None:
        """Read the tables back, after `settle`. Raises TargetError when they differ from what was written."""
        for start, data in self._tables():
            if super().read(start, len(data)) != data:
                raise TargetError(f"{self.path} reads back differently at offset {start}")

    def _tables(self) -> Iterator[tuple[int, bytes]]:
        for start, end in self._view.tables():
            for part in self._view.parts(start, end):
                if part.data is not None:
                    yield part.start, part.data
