"""The commands that make Holdfast and its peers do the same thing.

Every tool runs as its manual suggests, encrypted, with its own defaults but for what is said here.
All see a source under the same path every day, as in real life, so each may use its knowledge of
the last backup.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PASSWORD = "benchmark"  # noqa: S105  # of throw-away repositories


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tool works: everything here is removed before the next run."""

    repository: Path
    state: Path  # caches and home: the user's own settings must not leak into the figures


@dataclass(frozen=True, slots=True)
class Source:
    """Something to back up. `kind` is vm, db or mix."""

    kind: str
    name: str
    file: Path


class Tool(Protocol):
    name: str
    binary: str

    def environment(self, place: Place) -> dict[str, str]: ...
    def init(self, place: Place) -> Sequence[str]: ...
    def backup(self, place: Place, source: Source, label: str) -> Sequence[str]: ...
    def reads_stdin(self, source: Source) -> bool: ...
    def restore(self, place: Place, source: Source, label: str, target: Path) -> Sequence[str]: ...
    def restored(self, source: Source, target: Path) -> Path: ...
    def mount(self, place: Place, label: str, mountpoint: Path) -> Sequence[str]:
        """A command that stays in front until the unmount, so that its memory can be watched."""

    def mounted(self, source: Source, mountpoint: Path) -> Path: ...


def below(folder: Path, absolute: Path) -> Path:
    return folder / absolute.relative_to("/")


class Holdfast:
    name = "holdfast"

    def __init__(self, binary: str) -> None:
        self.binary = binary

    def environment(self, place: Place) -> dict[str, str]:
        own = {"REPOSITORY": place.repository, "PASSWORD": PASSWORD, "CACHE_DIR": place.state / "cache"}
        return clean_environment(place) | {f"HOLDFAST_{key}": str(value) for key, value in own.items()}

    def init(self, place: Place) -> Sequence[str]:
        return [self.binary, "init", "-q"]

    def backup(self, place: Place, source: Source, label: str) -> Sequence[str]:
        command = [self.binary, "backup", "-q", "--name", source.name]
        if self.reads_stdin(source):
            return [*command, "--stdin"]
        return [*command, *(["--kind", "files"] if source.kind == "mix" else []), str(source.file)]

    def reads_stdin(self, source: Source) -> bool:
        return source.kind == "db"  # a dump comes out of a pipe

    def item(self, source: Source) -> str:
        return {"vm": f"disks/{source.file.name}", "db": "dump.sql", "mix": source.file.name}[source.kind]

    def restore(self, place: Place, source: Source, label: str, target: Path) -> Sequence[str]:
        what = f"{source.name}@latest:{self.item(source)}"
        return [self.binary, "restore", "-q", what, "--target", str(self.restored(source, target))]

    def restored(self, source: Source, target: Path) -> Path:
        return target / source.file.name

    def mount(self, place: Place, label: str, mountpoint: Path) -> Sequence[str]:
        return [self.binary, "mount", "-q", "-f", str(mountpoint)]

    def mounted(self, source: Source, mountpoint: Path) -> Path:
        folder = {"vm": "vms", "db": "databases/postgresql", "mix": "files"}[source.kind]
        return mountpoint / folder / source.name / "latest" / self.item(source)


class Restic:
    name = "restic"

    def __init__(self, binary: str) -> None:
        self.binary = binary

    def environment(self, place: Place) -> dict[str, str]:
        own = {"REPOSITORY": place.repository, "PASSWORD": PASSWORD, "CACHE_DIR": place.state / "cache"}
        return clean_environment(place) | {f"RESTIC_{key}": str(value) for key, value in own.items()}

    def init(self, place: Place) -> Sequence[str]:
        return [self.binary, "-q", "init"]

    def backup(self, place: Place, source: Source, label: str) -> Sequence[str]:
        return [self.binary, "-q", "backup", "--tag", label, str(source.file)]

    def reads_stdin(self, source: Source) -> bool:
        return False

    def restore(self, place: Place, source: Source, label: str, target: Path) -> Sequence[str]:
        sparse = ["--sparse"] if version_of(self) >= (0, 15) else []
        return [self.binary, "-q", "restore", *sparse, "--target", str(target), "latest"]

    def restored(self, source: Source, target: Path) -> Path:
        return below(target, source.file)

    def mount(self, place: Place, label: str, mountpoint: Path) -> Sequence[str]:
        return [self.binary, "-q", "mount", str(mountpoint)]

    def mounted(self, source: Source, mountpoint: Path) -> Path:
        return below(mountpoint / "snapshots" / "latest", source.file)


class Borg:
    """Borg 1, compressing as its default does (lz4) or, as `borg-zstd`, about as restic and Holdfast do."""

    def __init__(self, binary: str, name: str, compression: str) -> None:
        self.binary = binary
        self.name = name
        self.compression = compression

    def environment(self, place: Place) -> dict[str, str]:
        own = {"BORG_REPO": place.repository, "BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": place.state}
        return clean_environment(place) | {key: str(value) for key, value in own.items()}

    def init(self, place: Place) -> Sequence[str]:
        return [self.binary, "init", "-e", "repokey-blake2"]

    def backup(self, place: Place, source: Source, label: str) -> Sequence[str]:
        return [self.binary, "create", "-C", self.compression, "--sparse", f"::{label}", str(source.file)]

    def reads_stdin(self, source: Source) -> bool:
        return False

    def restore(self, place: Place, source: Source, label: str, target: Path) -> Sequence[str]:
        return [self.binary, "extract", "--sparse", f"::{label}"]  # into the working folder

    def restored(self, source: Source, target: Path) -> Path:
        return below(target, source.file)

    def mount(self, place: Place, label: str, mountpoint: Path) -> Sequence[str]:
        return [self.binary, "mount", "-f", f"::{label}", str(mountpoint)]

    def mounted(self, source: Source, mountpoint: Path) -> Path:
        return below(mountpoint, source.file)


PEERS = ("restic", "borg", "borg-zstd")


def make_tool(name: str, binaries: dict[str, str]) -> Tool:
    """`binaries` names another program for a tool: {"restic": "/opt/restic"}."""
    program = "borg" if name.startswith("borg") else name
    binary = binaries.get(name) or binaries.get(program) or program
    if name == "holdfast":
        return Holdfast(binary)
    if name == "restic":
        return Restic(binary)
    if name in {"borg", "borg-zstd"}:
        return Borg(binary, name, "zstd,3" if name == "borg-zstd" else "lz4")
    raise ValueError(f"no such tool: {name}")


def clean_environment(place: Place) -> dict[str, str]:
    prefixes = ("HOLDFAST_", "RESTIC_", "BORG_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}
    return kept | {"HOME": str(place.state), "XDG_CACHE_HOME": str(place.state / "xdg")}


def version_text(tool: Tool) -> str:
    """The first line of the tool's output for its version."""
    option = "--version" if tool.binary.endswith(("borg", "holdfast")) else "version"
    answer = subprocess.run([tool.binary, option], capture_output=True, text=True, check=False, timeout=30)
    lines = (answer.stdout or answer.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"


def version_of(tool: Tool) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)", version_text(tool))
    return tuple(int(part) for part in found.groups()) if found else ()
