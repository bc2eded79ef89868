"""The ranges that a restore does not write, and verification of the bytes that it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.base.device_target import DeviceTarget
from holdfast.base.errors import TargetError
from holdfast.base.ranges import joined
from holdfast.base.targets import FileTarget
from holdfast.base.types import ChunkID, ProgressFunction
from holdfast.repo.chunks.chunker import is_zero
from holdfast.repo.chunks.recipe import Extent, Recipe
from holdfast.repo.format.crypto import Keys

_HOLE_STEP: Final = 4 << 20
"""Most bytes of a hole that are read back in one call."""


def gaps(recipe: Recipe, keys: Keys) -> Iterator[tuple[int, int]]:
    """(offset, length) of every range that a restore does not write: holes and chunks of zeros.

    The ID of a chunk tells whether it is all zeros. Disks have few different chunk lengths, so this computes
    few hashes.
    """
    zeros: dict[int, ChunkID] = {}

    def is_gap(extent: Extent) -> bool:
        if extent.id is not None and extent.length not in zeros:
            if len(zeros) >= 4096:  # streams have chunks of any length
                zeros.clear()
            zeros[extent.length] = keys.data_chunk_id(bytes(extent.length))
        return extent.id is None or extent.id == zeros[extent.length]

    empty = ((extent.start, extent.start + extent.length) for extent in recipe.extents() if is_gap(extent))
    for start, end in joined(empty):
        yield start, end - start


def read_back(
    recipe: Recipe, keys: Keys, target: FileTarget | DeviceTarget, progress: ProgressFunction
) -> None:
    """Read a restored file from the disk and compare every chunk. Raises TargetError when one differs."""
    target.settle()
    for extent in recipe.extents():
        for offset, length in _steps(extent):
            data = target.read(offset, length)
            good = is_zero(data) if extent.id is None else keys.data_chunk_id(data) == extent.id
            if len(data) != length or not good:
                raise TargetError(
                    f"{target.path} reads back differently at offset {offset}: its disk or memory is faulty"
                )
            progress(length)


def _steps(extent: Extent) -> Iterator[tuple[int, int]]:
    """(offset, length) of the reads that verify an extent: a whole chunk, or parts of a hole."""
    step = extent.length if extent.id is not None else _HOLE_STEP
    end = extent.start + extent.length
    for at in range(extent.start, end, max(step, 1)):
        yield at, min(step, end - at)
