"""What ends a rehearsal."""

from __future__ import annotations

from holdfast.repo.errors import HoldfastError


class RehearsalFailed(HoldfastError):
    """The snapshot could not be loaded, recovered or asked: what the server said last. A result, not a
    fault."""
