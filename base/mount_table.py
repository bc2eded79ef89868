"""The kernel's table of what is mounted where (proc_pid_mountinfo(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TABLE: Final = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class MountEntry:
    """A line of the table. `device` is "major:minor"; `type` as the kernel names it: ext4, fuse.holdfast."""

    mountpoint: str
    device: str
    type: str


def parse_mounts(table: str) -> list[MountEntry]:
    """The entries of a mountinfo file, in the order they were mounted; damaged lines are left out."""
    entries = []
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) > 4 and right:
            # Blanks, tabs, newlines and backslashes are escaped as three octal digits.
            path = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])
            entries.append(MountEntry(path, fields[2], right.split(" ")[0]))
    return entries


def read_mounts() -> list[MountEntry]:
    """What this process sees mounted now. Raises OSError without /proc."""
    return parse_mounts(_TABLE.read_text(encoding="utf-8", errors="surrogateescape"))


def mounted_at(path: Path) -> MountEntry | None:
    """The topmost mount at an absolute path; None if there is none. Does not access the mount itself."""
    return next((entry for entry in reversed(read_mounts()) if entry.mountpoint == str(path)), None)
