"""Containers around file systems, made by real tools without device-mapper: LUKS and logical volumes."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from support.basics import need
from support.guest_images import blank, loop_device, run

PASSPHRASE = "open sesame"


def ext4_with(path: Path, size: int, name: str, content: bytes) -> Path:
    """A small ext4 file system with one file, made without mounting it."""
    tree = path.with_suffix(".tree")
    tree.mkdir()
    (tree / name).write_bytes(content)
    run("mkfs.ext4", "-q", "-d", tree, blank(path, size))
    return path


def luks(path: Path, payload: bytes, *options: str, sector: int = 512) -> Path:
    """A container made by cryptsetup around a payload encrypted here, as the kernel would."""
    blank(path, (16 << 20) + len(payload))
    key = path.with_suffix(".key")
    key.write_bytes(bytes(range(64)))
    run(
        "cryptsetup", "luksFormat", "--batch-mode", "--volume-key-file", key, "--key-size", "512",
        "--cipher", "aes-xts-plain64", "--key-file", "-", *options, path, data=PASSPHRASE.encode(),
    )  # fmt: skip
    offset = _payload_offset(path)
    step = sector // 512
    encrypted = bytearray()
    for number in range(len(payload) // sector):
        iv = (number * step).to_bytes(16, "little")
        context = Cipher(algorithms.AES(key.read_bytes()), modes.XTS(iv)).encryptor()
        encrypted += context.update(payload[number * sector : (number + 1) * sector])
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(encrypted)
        file.truncate(offset + len(payload))
    return path


def _payload_offset(path: Path) -> int:
    """The offset of the payload according to cryptsetup, not to the parser under test."""
    dump = run("cryptsetup", "luksDump", path)
    if "Payload offset:" in dump:
        return int(dump.split("Payload offset:")[1].split()[0]) * 512
    return int(
        json.loads(run("cryptsetup", "luksDump", "--dump-json-metadata", path))["segments"]["0"]["offset"]
    )


def logical_volumes(
    images: list[Path], group: str, *creations: tuple[str, ...], extend: tuple[str, str] | None = None
) -> dict[str, list[tuple[str, int]]]:
    """Make a group over images, with logical volumes in extents of 1 MiB, one of them extended at the end.
    For each volume (image, physical extent) in order, as lvs says."""
    need(Path("/etc/lvm").exists(), "no lvm2")
    with ExitStack() as stack:
        devices = [stack.enter_context(loop_device(image)) for image in images]
        allowed = ", ".join(f'"a|^{device}$|"' for device in devices)
        settings = f'devices {{ filter=[{allowed}, "r|.*|"] use_devicesfile=0 }}'
        common = ("--config", settings)
        run("vgcreate", *common, "-s", "1m", group, *devices)
        for creation in creations:
            run("lvcreate", *common, "--driverloaded", "n", "-an", "-Zn", "-Wn", *creation, group)
        if extend is not None:
            name, size = extend
            run("lvextend", *common, "--driverloaded", "n", "-L", f"+{size}", f"{group}/{name}")
        report = run(
            "lvs", *common, "--reportformat", "json", "-a", "--segments", "-o", "lv_name,seg_pe_ranges", group
        )
        found: dict[str, list[tuple[str, int]]] = {}
        for row in json.loads(report)["report"][0]["seg"]:
            for piece in row["seg_pe_ranges"].split():
                device, _, extents = piece.partition(":")
                if "-" in extents and device in devices:
                    first, last = map(int, extents.split("-"))
                    found.setdefault(row["lv_name"].strip("[]"), []).extend(
                        (images[devices.index(device)].name, extent) for extent in range(first, last + 1)
                    )
        return found
