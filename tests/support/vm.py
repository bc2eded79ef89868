"""What end-to-end tests of VMs share: images and exports of every kind, and what must come out again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from click.testing import Result

from support.cli import Place
from support.disk import raw_disk as mixed_disk
from support.export import (
    MIB,
    UUID,
    VBOX,
    VMX,
    VmaDisk,
    convert,
    domain,
    domain_disk,
    manifest,
    ovf,
    pack,
    put_disk,
    raw_disk,
    tar,
    vma,
)
from support.nbd import qemu_img, qemu_io, qemu_nbd

SIZE = 9 * MIB
LIVE_SIZE = 16 * MIB

IMAGES: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "raw": ("raw", "raw", ()),
    "qcow2": ("qcow2", "qcow2", ()),
    "qcow2 zlib": ("qcow2", "qcow2", ("-c",)),
    "qcow2 zstd": ("qcow2", "qcow2", ("-c", "-o", "compression_type=zstd")),
    "qcow2 v2": ("qcow2", "qcow2", ("-o", "compat=0.10,cluster_size=4k")),
    "qcow2 extended": ("qcow2", "qcow2", ("-o", "extended_l2=on,cluster_size=64k")),
    "vmdk sparse": ("vmdk", "vmdk", ("-o", "subformat=monolithicSparse")),
    "vmdk flat": ("vmdk", "vmdk", ("-o", "subformat=monolithicFlat")),
    "vmdk split sparse": ("vmdk", "vmdk", ("-o", "subformat=twoGbMaxExtentSparse")),
    "vmdk split flat": ("vmdk", "vmdk", ("-o", "subformat=twoGbMaxExtentFlat")),
    "vmdk stream": ("vmdk", "vmdk", ("-o", "subformat=streamOptimized")),
    "vhdx": ("vhdx", "vhdx", ()),
    "vhdx fixed": ("vhdx", "vhdx", ("-o", "subformat=fixed")),
    "vhd": ("vhd", "vpc", ("-o", "force_size=on")),
    "vhd fixed": ("vhd", "vpc", ("-o", "subformat=fixed,force_size=on")),
    "vdi": ("vdi", "vdi", ()),
    "vdi static": ("vdi", "vdi", ("-o", "static=on")),
}
"""Suffix, qemu-img's format and options of every way in which qemu-img writes a disk that is read here."""


def make_image(label: str, raw: Path, stem: Path) -> Path:
    """A raw disk as an image of that kind, called `stem` with the format's suffix, in a folder of its own if
    that is not there yet. Returns the image."""
    suffix, format_, options = IMAGES[label]
    stem.parent.mkdir(exist_ok=True)
    image = stem.with_name(f"{stem.name}.{suffix}")
    if format_ == "raw":
        return Path(shutil.copy(raw, image))
    return convert(raw, image, format_, *options)


# ---- exports ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Made:
    """An export: what to back up, and what every item of the snapshot must be."""

    path: Path
    name: str
    uuid: str
    items: Mapping[str, bytes]


def _items(folder: Path, disks: Mapping[str, bytes], *definitions: str) -> dict[str, bytes]:
    found = {f"disks/{name}.raw": content for name, content in disks.items()}
    return found | {f"definition/{name}": (folder / name).read_bytes() for name in definitions}


def _ovf_files(folder: Path) -> Made:
    """Two disks; the names of the files are `web01.*`."""
    disks = {}
    for seed in (1, 2):
        name = f"web01-disk{seed}"
        options = ("-o", "subformat=streamOptimized")
        disks[name] = put_disk(folder / f"{name}.vmdk", "vmdk", seed, *options)
    names = [f"{name}.vmdk" for name in disks]
    (folder / "web01.ovf").write_text(ovf([(name, SIZE) for name in names]))
    (folder / "web01.mf").write_text(manifest(folder, "web01.ovf", *names))
    return Made(folder, "web01", UUID, _items(folder, disks, "web01.ovf", "web01.mf"))


def ovf_folder(folder: Path) -> Made:
    return _ovf_files(folder)


def ova(folder: Path) -> Made:
    made = _ovf_files(folder)
    names = ("web01.ovf", "web01.mf", "web01-disk1.vmdk", "web01-disk2.vmdk")
    archive = tar(folder / "moved.ova", folder, *names)
    for name in names:
        (folder / name).unlink()
    return Made(archive, made.name, made.uuid, made.items)


def vmware(folder: Path) -> Made:
    disks = {
        "web01": put_disk(folder / "web01.vmdk", "vmdk", 1, "-o", "subformat=monolithicFlat"),
        "web01_1": put_disk(folder / "web01_1.vmdk", "vmdk", 2, "-o", "subformat=twoGbMaxExtentSparse"),
    }
    (folder / "web01.vmx").write_text(VMX)
    (folder / "web01.nvram").write_bytes(b"\0nv")
    (folder / "vmware.log").write_text("no part of it")
    return Made(folder, "web 01 _größe_", UUID, _items(folder, disks, "web01.vmx", "web01.nvram"))


def hyperv(folder: Path) -> Made:
    machines, drives = folder / "Virtual Machines", folder / "Virtual Hard Disks"
    machines.mkdir()
    drives.mkdir()
    (machines / f"{UUID.upper()}.vmcx").write_bytes(b"\1binary")
    (machines / f"{UUID.upper()}.vmrs").write_bytes(b"memory, which is left out")
    disks = {
        "web01": put_disk(drives / "web01.vhdx", "vhdx", 1),
        "data": put_disk(drives / "data.vhd", "vpc", 2, "-o", "force_size=on"),
    }
    return Made(folder, folder.name, UUID, _items(machines, disks, f"{UUID.upper()}.vmcx"))


def libvirt(folder: Path) -> Made:
    disks = {"web01": put_disk(folder / "web01.qcow2", "qcow2", 1), "data": raw_disk(folder / "data.img", 2)}
    elements = [
        domain_disk("/var/lib/libvirt/images/web01.qcow2", "qcow2"),
        domain_disk("/srv/data.img", "raw", "vdb"),
    ]
    (folder / "dumped.xml").write_text(domain(*elements))
    return Made(folder, "web01", UUID, _items(folder, disks, "dumped.xml"))


def virtualbox(folder: Path) -> Made:
    disks = {
        "web01": put_disk(folder / "web01.vdi", "vdi", 1),
        "data": put_disk(folder / "data.vmdk", "vmdk", 2),
    }
    (folder / "machine.vbox").write_text(VBOX)
    return Made(folder, "web01", UUID, _items(folder, disks, "machine.vbox"))


def _vzdump(folder: Path, packing: str) -> Made:
    config = f"name: web01\nsmbios1: uuid={UUID}\nscsi0: local:100/a.raw,size=9M\nvirtio1: local:100/b.raw\n"
    disks = {"scsi0": raw_disk(folder / "1", 1), "virtio1": raw_disk(folder / "2", 2)}
    written = [VmaDisk(number, f"drive-{bus}", data) for number, (bus, data) in enumerate(disks.items(), 1)]
    archive = folder / "vzdump-qemu-100-2026_11_22-02_00_00.vma"
    archive.write_bytes(vma(written, {"qemu-server.conf": config.encode()}, seed=3))
    items = _items(folder, disks) | {"definition/qemu-server.conf": config.encode()}
    path = pack(archive, packing) if packing else archive
    for extra in [entry for entry in folder.iterdir() if entry != path]:
        extra.unlink()
    return Made(path, "web01", UUID, items)


def plain_folder(folder: Path) -> Made:
    disks = {
        "a": put_disk(folder / "a.qcow2", "qcow2", 1),
        "b": put_disk(folder / "b.vmdk", "vmdk", 2, "-o", "subformat=twoGbMaxExtentFlat"),
        "c": raw_disk(folder / "c.img", 3),
    }
    return Made(folder, folder.name, "", _items(folder, disks))


EXPORTS: Mapping[str, Callable[[Path], Made]] = {
    "ova": ova,
    "ovf": ovf_folder,
    "vmware": vmware,
    "hyper-v": hyperv,
    "libvirt": libvirt,
    "virtualbox": virtualbox,
    "vma": lambda folder: _vzdump(folder, ""),
    "vma.zst": lambda folder: _vzdump(folder, "zst"),
    "vma.gz": lambda folder: _vzdump(folder, "gz"),
    "vma.lzo": lambda folder: _vzdump(folder, "lzo"),
    "folder": plain_folder,
}


def make_export(kind: str, folder: Path) -> Made:
    folder.mkdir()
    return EXPORTS[kind](folder)


# ---- live disks ---------------------------------------------------------------------------------------


class Live:
    """A disk that qemu-nbd serves, and what was read of it since it was last served."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.raw = mixed_disk(folder / "live.raw", LIVE_SIZE, seed=3)
        self.image = folder / "live.qcow2"
        qemu_img("convert", "-f", "raw", "-O", "qcow2", self.raw, self.image)

    @contextmanager
    def served(self, *options: str) -> Iterator[str]:
        trace = self.folder / "trace"
        trace.unlink(missing_ok=True)
        wanted = ["-r", "-f", "qcow2", "-x", "vda", "-T", f"nbd_co_send_structured_read*,file={trace}"]
        with qemu_nbd(self.folder, *wanted, *options, str(self.image)) as socket:
            yield f"nbd+unix:///vda?socket={socket}"

    @property
    def received(self) -> int:
        """Bytes that the server sent as data."""
        text = (self.folder / "trace").read_text()
        return sum(int(length) for length in re.findall(r"data = \S+, len = (\d+)", text))

    def begin(self, bitmap: str) -> None:
        qemu_img("bitmap", "--add", self.image, bitmap)

    def change(self, *commands: str) -> None:
        qemu_io(self.image, *commands)

    def content(self) -> bytes:
        qemu_img("convert", "-f", "qcow2", "-O", "raw", self.image, self.raw)
        return self.raw.read_bytes()


# ---- out again ----------------------------------------------------------------------------------------


def restored(place: Place, snapshot: str, *, target: str = "restored") -> dict[str, bytes]:
    """Everything in a snapshot, restored into a new folder and read from there."""
    top = place.root / target
    place.ok("restore", snapshot, "--target", f"{top}/")
    found = {str(file.relative_to(top)): file.read_bytes() for file in top.rglob("*") if file.is_file()}
    shutil.rmtree(top)
    return found


@contextmanager
def nothing_committed(place: Place) -> Iterator[None]:
    """The block changes no list of snapshots, and leaves a repository without a fault."""
    before = place.json("snapshots")
    yield
    assert place.json("snapshots") == before
    place.ok("check")


def told(result: Result) -> str:
    """What a command that failed said: one message, neither a traceback nor an internal error."""
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("holdfast: "), result.stderr
    assert "internal error" not in result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr
