"""Names for the mount tree: safe for any file system and shell, unique, always the same. No I/O.

Subjects are named by whoever made the backup, so a name may be anything; names of items are shown as
they are, because a copy out of the mount must be faithful (`check_item_path` keeps them possible).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import pairwise

_LIMIT = 200
"""Bytes of a name; Linux allows 255, and suffixes want some."""
_SHORT_ID = 8
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control and format characters (they rewrite terminals), lone surrogates, line separators."""


def safe_name(text: str) -> str:
    """`text` as the name of one directory; unchanged when it is harmless."""
    name = "".join("_" if c in "/:" or unicodedata.category(c) in _UNSAFE else c for c in text)
    if name in (".", ".."):
        return "_" * len(name)
    if not name:
        return "unnamed"
    encoded = name.encode()
    if len(encoded) > _LIMIT:
        return encoded[:_LIMIT].decode(errors="ignore") + "~" + digest(text)
    return name


def digest(text: str) -> str:
    """Six hex digits that tell equal-looking names apart."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=3).hexdigest()


def unique_name(name: str, identity: str, taken: Collection[str]) -> str:
    """`name` if it is free, else with a suffix that depends on nothing but the identity."""
    candidate, salt = name, identity
    while candidate in taken:
        candidate = f"{name}~{digest(salt)}"
        salt += "+"
    return candidate


def time_name(time: datetime) -> str:
    """A backup's time as a directory name, UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%d_%H-%M-%S")


def short_ids(ids: Sequence[str]) -> list[str]:
    """The first eight digits of each of some distinct IDs, more where that would be ambiguous."""
    order = sorted(range(len(ids)), key=ids.__getitem__)
    lengths = [_SHORT_ID] * len(ids)
    for a, b in pairwise(order):
        common = next((n for n, (x, y) in enumerate(zip(ids[a], ids[b], strict=False)) if x != y), 64)
        lengths[a] = max(lengths[a], common + 1)
        lengths[b] = max(lengths[b], common + 1)
    return [id_[:length] for id_, length in zip(ids, lengths, strict=True)]
