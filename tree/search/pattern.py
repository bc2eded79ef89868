"""Patterns for paths in a snapshot."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence


class Pattern:
    """A glob for the end of a path: `passwd`, `*.conf`, `etc/*.conf`.

    Each part between slashes matches one name; `*` matches no slash. A pattern with a slash in front matches
    whole paths: that in the snapshot, or that inside a volume (`/etc/passwd`).
    """

    def __init__(self, text: str, *, ignore_case: bool = False) -> None:
        flags = re.IGNORECASE if ignore_case else 0
        self._anchored = text.startswith("/")
        self._parts = [re.compile(fnmatch.translate(part), flags) for part in text.split("/") if part]

    def matches(self, names: Sequence[str], above: int) -> bool:
        """Whether a path matches; its first `above` names lead to the volume's root (0 outside of one)."""
        count = len(self._parts)
        if not 0 < count <= len(names) or (self._anchored and count not in (len(names), len(names) - above)):
            return False
        ends = zip(reversed(self._parts), reversed(names), strict=False)
        return all(part.match(name) for part, name in ends)
