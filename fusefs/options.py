"""How to mount."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class MountOptions:
    """`uid` and `gid` None: those of this process. `cache` bounds the decoded chunks, in bytes.

    With `allow_other` everybody may read all that is stored, but for disks, which are the owner's alone;
    files inside guests keep the guests' permissions for others. `passphrases` are tried on LUKS volumes
    inside guests.
    """

    allow_other: bool = False
    uid: int | None = None
    gid: int | None = None
    cache: int = 96 << 20
    passphrases: tuple[str, ...] = field(default=(), repr=False)
