"""Key epochs in words."""

from __future__ import annotations

from holdfast.cli.base.render import count, size


def describe_epoch(epoch: int, packs: int, held: int) -> str:
    """A key epoch, and how much is still sealed in earlier ones."""
    return f"{epoch}; {size(held)} in {count(packs, 'pack')} sealed in earlier ones" if packs else str(epoch)
