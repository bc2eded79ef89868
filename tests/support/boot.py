"""A guest small enough to boot in an emulator within a test: Debian's kernel, busybox, one partition."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

from support.basics import need

TOKEN = "these very bytes were backed up"
_SECTOR = 512
_START = 2048
_SECTORS = 32 << 11  # 32 MiB
_MODULES = ("virtio_pci", "virtio_blk")

_INITRD_INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules); do /bin/busybox insmod /lib/$module; done
/bin/busybox mount -t ext4 /dev/vda1 /root || /bin/busybox poweroff -f
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
"""

_GUEST_INIT = """#!/bin/busybox sh
/bin/busybox echo "BOOTED $(/bin/busybox cat /etc/token)"
/bin/busybox echo "written by the guest" > /etc/written && /bin/busybox sync
/bin/busybox echo "WROTE $(/bin/busybox cat /etc/written)"
/bin/busybox poweroff -f
"""


def need_emulator() -> None:
    """Skip (in continuous integration: fail) where no guest can be booted."""
    need(platform.machine() == "x86_64", "an x86-64 machine: the guest's kernel is this machine's")
    for program in ("qemu-system-x86_64", "qemu-img", "busybox", "cpio", "sfdisk", "mkfs.ext4"):
        need(shutil.which(program), f"the program {program}")
    need(_kernels(), "a kernel in /boot")


def make_guest(folder: Path) -> Path:
    """A disk with a bootable guest, in `folder`."""
    tree = folder / "tree"
    for name in ("bin", "sbin", "etc", "dev", "proc"):
        (tree / name).mkdir(parents=True)
    shutil.copy(_busybox(), tree / "bin/busybox")
    _script(tree / "sbin/init", _GUEST_INIT)
    (tree / "etc/token").write_text(TOKEN + "\n")
    disk = folder / "guest.raw"
    with disk.open("wb") as file:
        file.truncate((_START + _SECTORS + 2048) * _SECTOR)
    table = f"start={_START}, size={_SECTORS}, type=83, bootable\n"
    subprocess.run(["sfdisk", "-q", disk], input=table, text=True, check=True)
    offset = f"offset={_START * _SECTOR}"
    size = f"{_SECTORS // 2}k"
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, "-E", offset, disk, size], check=True)
    return disk


def boot(overlay: Path, folder: Path, *, timeout: float = 120) -> str:
    """Boot the guest from a qcow2 overlay. Returns the output of its console."""
    kernel = _kernels()[-1]
    command = [
        *("qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-display", "none", "-serial", "stdio"),
        *("-no-reboot", "-nodefaults", "-kernel", str(kernel), "-initrd", str(_initrd(folder, kernel))),
        *("-append", "console=ttyS0 panic=-1 quiet"),
        *("-drive", f"file={overlay},format=qcow2,if=virtio"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _initrd(folder: Path, kernel: Path) -> Path:
    tree = folder / "initrd"
    target = folder / "initrd.img"
    if target.exists():
        return target
    for name in ("bin", "lib", "dev", "root"):
        (tree / name).mkdir(parents=True)
    shutil.copy(_busybox(), tree / "bin/busybox")
    _script(tree / "init", _INITRD_INIT)
    modules = _with_dependencies(Path("/lib/modules") / kernel.name.removeprefix("vmlinuz-"))
    for module in modules:
        shutil.copy(module, tree / "lib" / module.name)
    (tree / "modules").write_text("\n".join(module.name for module in modules) + "\n")
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    with target.open("wb") as file:
        subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"], input=names.encode(), stdout=file, cwd=tree, check=True
        )
    return target


def _with_dependencies(folder: Path) -> list[Path]:
    """The modules that a virtio disk needs, in the order in which they load."""
    lines = (folder / "modules.dep").read_text().splitlines()
    needs = {line.split(":")[0]: line.split(":")[1].split() for line in lines}
    found: list[str] = []

    def add(path: str) -> None:
        for other in reversed(needs[path]):
            add(other)
        if path not in found:
            found.append(path)

    for name in _MODULES:
        add(next(path for path in needs if Path(path).name.split(".")[0] == name))
    return [folder / path for path in found]


def _busybox() -> str:
    found = shutil.which("busybox")
    assert found
    return found


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _kernels() -> list[Path]:
    return sorted(Path("/boot").glob("vmlinuz-*"))
