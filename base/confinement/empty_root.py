"""The root directory that confined programs see: programs, libraries, a made-up /etc, and one folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from holdfast.base.confinement import kernel
from holdfast.base.confinement.kernel import NO_DEVICES, NO_PROGRAMS, NO_SETUID, READ_ONLY
from holdfast.base.confinement.plan import Plan, User

_PLACE: Final = "/tmp"  # noqa: S108  a folder there is everywhere, to mount over in a namespace of our own
_PROGRAMS: Final = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "nix/store", "gnu/store")
PROGRAM_FOLDERS: Final = tuple(f"/{name}/" for name in _PROGRAMS)
_COPIED: Final = ("ld.so.cache", "ld.so.conf", "timezone")
_COPY_LIMIT: Final = 4 << 20
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_SMALL: Final = "size=64m,nr_inodes=4096,mode=1777"
_BARE: Final = NO_SETUID | NO_DEVICES
_DATA: Final = _BARE | NO_PROGRAMS


def enter_empty_root(plan: Plan) -> None:
    """Make it and go there for good. Call it in a mount namespace of our own. Raises OSError."""
    kernel.make_mounts_private()
    folder = os.open(plan.folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    localtime = _localtime()
    kernel.mount("tmpfs", _PLACE, _BARE, "size=16m,nr_inodes=8192,mode=755")
    root = Path(_PLACE)
    host = Path(f"/proc/self/fd/{top}")
    _show_programs(host, root)
    _make_devices(host, root)
    for name in ("tmp", "var/tmp", "dev/shm"):
        (root / name).mkdir(parents=True, exist_ok=True)
        kernel.mount("tmpfs", root / name, _DATA, _SMALL)
    (root / "proc").mkdir()
    kernel.mount("proc", root / "proc", _DATA)
    _write_etc(host, root / "etc", plan.user, localtime)
    place = root / plan.folder.relative_to("/")
    place.mkdir(parents=True, exist_ok=True)
    kernel.bind(f"/proc/self/fd/{folder}", place, _DATA)
    os.close(folder)
    os.close(top)
    kernel.pivot_root(_PLACE)
    kernel.restrict("/", _BARE | READ_ONLY)


def own_processes() -> None:
    """Show the processes of our own namespace in /proc, and nothing to write to. Raises OSError."""
    try:
        kernel.mount("proc", "/proc", _DATA | READ_ONLY, "subset=pid")
    except OSError:  # before Linux 5.8
        kernel.mount("proc", "/proc", _DATA | READ_ONLY)


def _show_programs(host: Path, root: Path) -> None:
    for name in _PROGRAMS:
        source = host / name
        if source.is_symlink():
            (root / name).symlink_to(source.readlink())
        elif source.is_dir():
            (root / name).mkdir(parents=True)
            kernel.bind(source, root / name, _BARE | READ_ONLY)


def _make_devices(host: Path, root: Path) -> None:
    (root / "dev").mkdir()
    for name in _DEVICES:
        (root / "dev" / name).touch()
        kernel.bind(host / "dev" / name, root / "dev" / name, NO_SETUID | NO_PROGRAMS)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        (root / "dev" / name).symlink_to(f"/proc/self/fd{target}")


def _localtime() -> Path | None:
    """Where /etc/localtime leads when that is below /usr."""
    try:
        found = Path("/etc/localtime").resolve(strict=True)
    except OSError:
        return None
    return found if found.is_relative_to("/usr") else None


def _write_etc(host: Path, etc: Path, user: User, localtime: Path | None) -> None:
    etc.mkdir()
    home, none = "/", "/usr/sbin/nologin"
    (etc / "passwd").write_text(
        f"root:x:0:0::{home}:{none}\n{user.name}:x:{user.uid}:{user.gid}::{home}:{none}\n"
    )
    (etc / "group").write_text(f"root:x:0:\n{user.name}:x:{user.gid}:\n")
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    for name in _COPIED:
        source = host / "etc" / name
        if source.is_file():
            with source.open("rb") as file:
                (etc / name).write_bytes(file.read(_COPY_LIMIT))
    if localtime is not None:
        (etc / "localtime").symlink_to(localtime)
    alternatives = host / "etc" / "alternatives"
    if alternatives.is_dir():
        (etc / "alternatives").mkdir()
        kernel.bind(alternatives, etc / "alternatives", _DATA | READ_ONLY)
