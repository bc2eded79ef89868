"""The error that ends a rehearsal."""

from __future__ import annotations

from holdfast.base.errors import HoldfastError


class RehearsalFailed(HoldfastError):
    """The snapshot could not be loaded, recovered or asked: what the server said last. A result, not a
    fault."""
