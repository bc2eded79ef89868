"""Guest disks made by real tools, and what the kernel or ntfs-3g sees in them: the oracle of the parsers."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import socket
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.devices import WholeDisk
from holdfast.formats.guests.filesystems.base.interface import FileSystem
from holdfast.formats.guests.values.values import Entry, NodeType
from support.basics import need, random_bytes

MIB = 1 << 20
MANY = 20_000
ACL = struct.pack(
    "<I" + "HHI" * 5, 2, 1, 6, 0xFFFFFFFF, 2, 4, 1234, 4, 4, 0xFFFFFFFF, 16, 6, 0xFFFFFFFF, 32, 0, 0xFFFFFFFF
)
"""user::rw-, user:1234:r--, group::r--, mask::rw-, other::---, as the attribute has it on Linux."""

_libc = ctypes.CDLL(None)
_CLONE_NEWNS = 0x00020000
_TYPES = {
    stat.S_IFREG: NodeType.FILE,
    stat.S_IFDIR: NodeType.FOLDER,
    stat.S_IFLNK: NodeType.LINK,
    stat.S_IFIFO: NodeType.FIFO,
    stat.S_IFSOCK: NodeType.SOCKET,
    stat.S_IFCHR: NodeType.CHARACTER,
    stat.S_IFBLK: NodeType.BLOCK,
}


class Seen(NamedTuple):
    """The compared facts of a path. `content`: hash of a file, target of a link."""

    type: NodeType
    mode: int
    uid: int
    gid: int
    links: int
    size: int
    times: tuple[int, int, int]
    device: int
    xattrs: dict[bytes, bytes]
    content: bytes


def run(*command: str | Path, data: bytes | None = None) -> str:
    """Run a tool that must succeed; skip when it is missing."""
    need(shutil.which(str(command[0]), path=os.environ["PATH"] + ":/sbin:/usr/sbin"), f"no {command[0]}")
    result = subprocess.run(
        [str(part) for part in command], input=data, capture_output=True, check=False, timeout=120
    )
    assert result.returncode == 0, f"{command}: {result.stderr.decode(errors='replace')}"
    return result.stdout.decode(errors="replace")


def blank(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def dirty(path: Path, size: int) -> Path:
    """A disk that was in use before: what a file system never wrote does not read as zeros."""
    block = random_bytes(MIB, 99)
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(block)
    return path


@contextmanager
def file_disk(path: Path) -> Iterator[WholeDisk]:
    """An image file as the disk that the parsers get."""
    fd = os.open(path, os.O_RDONLY)
    try:
        yield WholeDisk(os.fstat(fd).st_size, lambda offset, length: os.pread(fd, length, offset))
    finally:
        os.close(fd)


@contextmanager
def mounted(image: Path, folder: Path, options: str = "") -> Iterator[Path]:
    """Mount an image with the kernel's own driver."""
    need(os.geteuid() == 0, "mounting takes root")
    own_mounts()
    folder.mkdir(exist_ok=True)
    with loop_device(image) as device:
        run("mount", *(["-o", options] if options else []), device, folder)
        try:
            yield folder
        finally:
            run("umount", folder)


@cache
def own_mounts() -> None:
    """A mount namespace of this process's own: a sandbox started elsewhere copies the mounts it finds, and
    then they stay busy after they were unmounted here."""
    assert _libc.unshare(_CLONE_NEWNS) == 0
    run("mount", "--make-rprivate", "/")


@contextmanager
def loop_device(image: Path, *options: str) -> Iterator[str]:
    """Not left to `mount -o loop`, which may find its device taken by another process."""
    device = run("losetup", "--find", "--show", *options, image).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


def populate(top: Path, *, xattr_size: int = 700, many: int = 0) -> None:
    """A tree with everything a Unix file system can hold."""
    (top / "folder" / "deeper").mkdir(parents=True)
    (top / "folder" / "empty").write_bytes(b"")
    (top / "folder" / "tiny").write_bytes(b"tiny")
    for number in range(30):
        (top / "folder" / f"small {number}").write_bytes(random_bytes(137 * number, number))
    (top / "large").write_bytes(random_bytes(3 * MIB + 123, 1))
    os.link(top / "large", top / "folder" / "hard link")
    (top / "folder" / "short").symlink_to("tiny")
    (top / "folder" / "link of 59").symlink_to("x" * 59)
    (top / "folder" / "link of 60").symlink_to("y/" * 30)
    (top / "folder" / "long").symlink_to("z" * 900)
    (top / "absolute").symlink_to("/etc/passwd")
    (top / ("n" * 255)).write_bytes(b"255 bytes")
    (top / ("ü" * 127)).write_bytes("Grüße, 漢字, 🦊".encode())
    (top / "漢字 🦊 \u202e.txt").write_bytes(b"unicode")
    os.mkfifo(top / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(top)  # the path of a socket is short
        server.bind("socket")
        os.chdir(here)
    os.mknod(top / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(top / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70_000))
    _sparse(top / "sparse")
    _fragmented(top / "fragmented", top / "between")
    (top / "text").write_bytes(b"".join(b"line %d of a text\n" % number for number in range(30_000)))
    with (top / "preallocated").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 256 << 10)
        os.pwrite(file.fileno(), random_bytes(8192, 9), 64 << 10)
    for name, value in (
        (b"user.comment", b"a note"),
        (b"user.empty", b""),
        (b"user.large", b"v" * xattr_size),
    ):
        os.setxattr(top / "folder" / "tiny", name, value)
    os.setxattr(top / "large", b"system.posix_acl_access", ACL)
    os.setxattr(top / "folder", b"system.posix_acl_default", ACL)
    (top / "folder" / "tiny").chmod(0o4751)
    (top / "folder" / "deeper").chmod(0o1777)
    os.chown(top / "folder" / "tiny", 70_000, 123_456)
    os.chown(top / "folder" / "short", 1, 2, follow_symlinks=False)
    os.utime(top / "folder" / "tiny", ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
    os.utime(top / "folder" / "empty", ns=(-1_000_000_000, -123_456_789_000_000_000))
    os.utime(top / "folder" / "small 1", ns=(4_000_000_000_000_000_001, 4_100_000_000_000_000_001))
    if many:
        (top / "many").mkdir()
        for number in range(many):
            fd = os.open(top / "many" / f"file number {number:05}", os.O_CREAT | os.O_WRONLY)
            os.write(fd, b"%d" % number)
            os.close(fd)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        for place in (0, 300_000, 5 * MIB, 20 * MIB):
            file.seek(place)
            file.write(random_bytes(10_000, place))
        file.truncate(50 * MIB + 17)


def _fragmented(path: Path, other: Path) -> None:
    """Blocks in pieces too many for an inode: written in turns with another file, backwards."""
    with path.open("wb") as one, other.open("wb") as two:
        for number in reversed(range(150)):
            for file in (one, two):
                os.pwrite(file.fileno(), random_bytes(4096, number), number * 8192)
                os.fdatasync(file.fileno())


def oracle(top: Path, *, xattrs: bool = True) -> dict[bytes, Seen]:
    """The facts of all paths of the mounted image, by path below its top."""
    found: dict[bytes, Seen] = {}
    root = os.fsencode(top)
    pending = [b""]
    while pending:
        below = pending.pop()
        path = root + b"/" + below if below else root
        status = os.lstat(path)
        type_ = _TYPES[stat.S_IFMT(status.st_mode)]
        content = b""
        if type_ is NodeType.FILE:
            with open(path, "rb") as file:  # noqa: PTH123  names as bytes, as below
                content = hashlib.file_digest(file, "sha256").digest()
        elif type_ is NodeType.LINK:
            content = os.readlink(path)  # noqa: PTH115
        elif type_ is NodeType.FOLDER:
            pending += [below + b"/" + name if below else name for name in os.listdir(path)]  # noqa: PTH208
        found[below] = Seen(
            type_,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_nlink,
            0 if type_ is NodeType.FOLDER else status.st_size,
            (status.st_mtime_ns, status.st_ctime_ns, status.st_atime_ns),
            status.st_rdev,
            _kernel_xattrs(path) if xattrs else {},
            content,
        )
    return found


def _kernel_xattrs(path: bytes) -> dict[bytes, bytes]:
    names = [os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False)]
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in names
        if name.startswith((b"user.", b"system.posix_acl_"))
    }


def parsed(file_system: FileSystem, disk: WholeDisk, *, xattrs: bool = True) -> dict[bytes, Seen]:
    """The same from a parser. File contents by its extents and the disk, and again by `read`."""
    found: dict[bytes, Seen] = {}
    pending = [(b"", file_system.entry(file_system.root))]
    while pending:
        below, entry = pending.pop()
        assert entry.inode < 1 << 44
        content = b""
        size = entry.size
        if entry.type is NodeType.FILE:
            content = _content(file_system, disk, entry)
        elif entry.type is NodeType.LINK:
            content = file_system.readlink(entry.inode)
        elif entry.type is NodeType.FOLDER:
            size = 0
            for name, child in file_system.list(entry.inode):
                pending.append((below + b"/" + name if below else name, child))
        found[below] = Seen(
            entry.type,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.links,
            size,
            (entry.mtime, entry.ctime, entry.atime),
            entry.device,
            file_system.xattrs(entry.inode) if xattrs and not entry.plain else {},
            content,
        )
    return found


def _content(file_system: FileSystem, disk: WholeDisk, entry: Entry) -> bytes:
    by_read = hashlib.sha256()
    position = 0
    while data := file_system.read(entry.inode, position, 777_777):
        by_read.update(data)
        position += len(data)
    assert position == entry.size
    if entry.extents is not None:
        by_extents = hashlib.sha256()
        position = 0
        for start, length, place in entry.extents:
            assert start == position
            assert length > 0
            by_extents.update(disk.read(place, length) if place >= 0 else bytes(length))
            position += length
        assert position == entry.size
        assert by_extents.digest() == by_read.digest()
    return by_read.digest()


def differences(expected: dict[bytes, Seen], found: dict[bytes, Seen], *ignore: str) -> list[str]:
    """Sentences on the differences."""
    lines = [f"missing: {path!r}" for path in expected.keys() - found.keys()]
    lines += [f"not there: {path!r}" for path in found.keys() - expected.keys()]
    for path in expected.keys() & found.keys():
        for field in Seen._fields:
            if field not in ignore and getattr(expected[path], field) != getattr(found[path], field):
                wrong, right = getattr(found[path], field), getattr(expected[path], field)
                lines.append(f"{path!r}: {field} {wrong!r}, not {right!r}")
    return sorted(lines)[:20]
