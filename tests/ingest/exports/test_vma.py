"""Proxmox archives: random access to shuffled clusters, compressed or not, and no damage overlooked."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.errors import HoldfastError, Refused, SourceError
from holdfast.formats.disks.base.errors import ImageDamaged
from holdfast.formats.disks.base.files import BytesFile
from holdfast.ingest.exports.recognise import find_export
from holdfast.ingest.exports.vma import VmaArchive
from holdfast.ingest.exports.vzdump import parse_config
from support.basics import random_bytes
from support.export import MIB, UUID, VmaDisk, content_of, pack, raw_disk, vma, vma_extent

CONFIG = f"""#qmdump#map:scsi0:drive-scsi0:local-lvm:raw:
boot: order=scsi0;ide2;net0
cores: 2
ide2: none,media=cdrom
memory: 2048
name: web01
scsi0: local-lvm:vm-100-disk-0,iothread=1,size=9M
scsi1: local-lvm:vm-100-disk-1,backup=0,size=32G
scsihw: virtio-scsi-single
smbios1: uuid={UUID.upper()}
virtio0: local-lvm:vm-100-disk-2,size=1M

[before-upgrade]
name: another
virtio7: local-lvm:snap
""".encode()
NAME = "vzdump-qemu-100-2026_11_22-02_00_00.vma"


def archive_of(tmp_path: Path) -> tuple[bytes, list[bytes]]:
    """An archive of two disks and a memory state, and the disks."""
    disks = [raw_disk(tmp_path / "a", 1), raw_disk(tmp_path / "b", 2, MIB + 3 * 4096)]
    devices = [
        VmaDisk(1, "drive-scsi0", disks[0]),
        VmaDisk(2, "drive-virtio0", disks[1]),
        VmaDisk(3, "vmstate", random_bytes(200_000, 3)),
    ]
    return vma(devices, {"qemu-server.conf": CONFIG, "qemu-server.fw": b"[OPTIONS]\n"}), disks


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Path, list[bytes]]:
    data, disks = archive_of(tmp_path)
    path = tmp_path / NAME
    path.write_bytes(data)
    return path, disks


# ---- whole archives -----------------------------------------------------------------------------------


def test_an_archive_is_one_vm_with_all_its_disks(archive: tuple[Path, list[bytes]]) -> None:
    path, disks = archive
    export = find_export(path)
    assert export is not None
    with export:
        assert (export.kind, export.name, export.uuid) == ("vzdump", "web01", UUID)
        assert [(d.name, d.bus, d.files) for d in export.disks] == [
            ("scsi0", "scsi0", (NAME,)),
            ("virtio0", "virtio0", (NAME,)),
        ]
        assert [content_of(d.image) for d in export.disks] == disks
        assert {d.image.format for d in export.disks} == {"vma"}
        assert {d.mtime for d in export.disks} == {1_700_000_000 * 10**9}
        assert [(d.name, d.data) for d in export.definitions] == [
            ("qemu-server.conf", CONFIG),
            ("qemu-server.fw", b"[OPTIONS]\n"),
        ]
        assert any("memory" in w for w in export.warnings)
        assert any("scsi1 is not in the archive" in w for w in export.warnings)
        assert len(export.warnings) == 2
        assert export.changed() == []


@pytest.mark.parametrize("unit", [512, 4096, 12_288, 65_536, 65_536 + 512, 3 * MIB])
def test_reads_of_any_size_give_the_disk(archive: tuple[Path, list[bytes]], unit: int) -> None:
    path, disks = archive
    export = find_export(path)
    assert export is not None
    with export:
        assert content_of(export.disks[1 if unit < 4096 else 0].image, unit) == disks[1 if unit < 4096 else 0]


@settings(max_examples=20)
@given(
    st.lists(st.sampled_from([0, 1, 15, 16, 17, 40]), max_size=8),
    st.integers(0, 5000),
    st.integers(0, 100),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**6)), min_size=1, max_size=5),
)
def test_any_disk_comes_back_from_clusters_in_any_order(
    runs: list[int], odd: int, seed: int, reads: list[tuple[int, int]]
) -> None:
    blocks = [random_bytes(4096, n) if i % 2 else bytes(4096) for i, n in enumerate(runs) for _ in range(n)]
    content = b"".join(blocks) + random_bytes(odd, 7) + b"\1"
    file = BytesFile(vma([VmaDisk(9, "drive-sata0", content)], {}, seed=seed))
    archive = VmaArchive(file)
    image = archive.image(archive.header.devices[0])
    assert content_of(image) == content
    for start, length in reads:
        start %= len(content)  # noqa: PLW2901
        part = bytearray(b"?" * min(length, len(content) - start))
        image.read_into(memoryview(part), start)
        assert part == content[start : start + len(part)]


@pytest.mark.parametrize("packing", ["gz", "zst", "lzo"])
def test_a_compressed_archive_is_unpacked_beside_the_repository(
    archive: tuple[Path, list[bytes]], tmp_path: Path, packing: str
) -> None:
    path, disks = archive
    packed = pack(path, packing)
    path.unlink()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done: list[int] = []
    export = find_export(packed, scratch=scratch, progress=done.append)
    assert export is not None
    with export:
        assert export.name == "web01"
        assert [content_of(d.image) for d in export.disks] == disks
        assert list(scratch.iterdir()) == []
        assert sum(done) == packed.stat().st_size
        assert export.disks[0].files == (packed.name,)


def test_streams_of_several_members_and_frames_are_one_archive(
    archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    path, disks = archive
    data = path.read_bytes()
    halves = [tmp_path / "one", tmp_path / "two"]
    halves[0].write_bytes(data[:5_000_000])
    halves[1].write_bytes(data[5_000_000:])
    for packing in ("gz", "zst"):
        both = b"".join(pack(half, packing).read_bytes() for half in halves)
        packed = tmp_path / f"{NAME}.{packing}"
        packed.write_bytes(both)
        export = find_export(packed, scratch=tmp_path)
        assert export is not None
        with export:
            assert content_of(export.disks[0].image) == disks[0]


def test_the_name_comes_from_the_number_where_there_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(vma([VmaDisk(1, "drive-ide0", b"x" * 512)], {}))
    export = find_export(tmp_path / NAME)
    assert export is not None
    with export:
        assert (export.name, export.uuid, export.warnings) == ("vm-100", "", ())


def test_a_folder_with_one_archive_is_that_archive_and_with_two_is_refused(
    archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    folder = tmp_path / "dump"
    folder.mkdir()
    shutil.copy(archive[0], folder)
    export = find_export(folder)
    assert export is not None
    with export:
        assert export.name == "web01"
    shutil.copy(archive[0], folder / "vzdump-qemu-101-2026_11_22-02_00_00.vma.zst")
    with pytest.raises(Refused, match=r"several VMs.*qemu-100.*qemu-101"):
        find_export(folder)


# ---- damage and refusals ------------------------------------------------------------------------------


def test_a_cut_archive_is_refused_wherever_it_is_cut(archive: tuple[Path, list[bytes]]) -> None:
    data = archive[0].read_bytes()
    VmaArchive(BytesFile(data))
    starts = [at for at in range(12288, len(data), 512) if data[at : at + 4] == b"VMAE"]
    assert len(starts) > 2
    for end in (
        0,
        3,
        100,
        12287,
        12288,
        starts[0],
        starts[-1] - 1,
        starts[-1],
        starts[-1] + 512,
        len(data) - 1,
    ):
        with pytest.raises(ImageDamaged):
            VmaArchive(BytesFile(data[:end]))
    with pytest.raises(ImageDamaged):
        VmaArchive(BytesFile(data + bytes(512)))


def test_a_byte_changed_in_any_header_is_found(archive: tuple[Path, list[bytes]]) -> None:
    data = archive[0].read_bytes()
    starts = [at for at in range(12288, len(data), 512) if data[at : at + 4] == b"VMAE"]
    for at in (
        0,
        5,
        20,
        40,
        57,
        2047,
        4096 + 32,
        12300,
        *(s + n for s in starts for n in (0, 7, 9, 30, 41, 511)),
    ):
        changed = bytearray(data)
        changed[at] ^= 0x10
        with pytest.raises(ImageDamaged):
            VmaArchive(BytesFile(bytes(changed)))


def sealed(data: bytes, at: int, change: dict[int, bytes]) -> bytes:
    """The archive with bytes of the extent at `at` changed and its checksum made right again."""
    header = bytearray(data[at : at + 512])
    for place, new in change.items():
        header[place : place + len(new)] = new
    header[24:40] = bytes(16)
    header[24:40] = hashlib.md5(header).digest()
    return data[:at] + bytes(header) + data[at + 512 :]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({0: b"VMAX"}, "no extent"),
        ({4: b"\0\1"}, "no extent"),
        ({8: b"u" * 16}, "another archive"),
        ({6: b"\0\3"}, "as many|no extent"),
        ({6: b"\xff\xff"}, "reaches to"),
        ({43: b"\7"}, "clusters of"),
        ({44: b"\0\0\0\1"}, "twice"),
        ({44: b"\xff\0\0\0"}, "behind its end"),
        ({43: b"\0"}, "clusters of"),
        ({40: b"\x7f\xff"}, "as many"),
        ({56: b"\0\1\0\0"}, "blocks of no device"),
        ({56: b"\0\0\0\7"}, "device 7, which is not listed"),
    ],
)
def test_an_extent_with_a_right_checksum_must_still_make_sense(change: dict[int, bytes], said: str) -> None:
    content = random_bytes(2 << 16, 4)
    data = vma([VmaDisk(1, "drive-scsi0", content)], {}, seed=0)
    start = data.index(b"VMAE")
    assert data[start + 44 : start + 48] == b"\0\0\0\0", "the first cluster comes first"
    assert len(VmaArchive(BytesFile(data)).header.devices) == 1
    with pytest.raises(ImageDamaged, match=said):
        VmaArchive(BytesFile(sealed(data, start, change)))


def test_an_unfinished_archive_is_refused_though_all_its_checksums_are_right() -> None:
    data = vma([VmaDisk(1, "drive-scsi0", random_bytes(9 << 16, 4))], {}, skip=frozenset({5}))
    with pytest.raises(ImageDamaged, match="8 clusters of 9"):
        VmaArchive(BytesFile(data))


def test_extents_that_hold_nothing_are_not_collected_without_end() -> None:
    data = vma([VmaDisk(1, "drive-scsi0", b"x")], {})
    nothing = vma_extent(random_bytes(16, 77), [])
    with pytest.raises(ImageDamaged, match="more extents than"):
        VmaArchive(BytesFile(data + nothing * 3))


def test_a_later_version_is_not_guessed_at() -> None:
    data = bytearray(vma([VmaDisk(1, "drive-scsi0", b"x")], {}))
    data[7] = 2
    with pytest.raises(ImageDamaged, match="version 2"):
        VmaArchive(BytesFile(bytes(data)))


def test_a_device_of_any_claimed_size_costs_nothing() -> None:
    """The header is right but for a device of 256 TiB, for which there are no clusters."""
    data = bytearray(vma([VmaDisk(1, "drive-scsi0", b"x")], {}))
    data[4096 + 32 + 8 : 4096 + 48] = (1 << 48).to_bytes(8, "big")
    size = int.from_bytes(data[56:60], "big")
    data[32:48] = bytes(16)
    data[32:48] = hashlib.md5(data[:size]).digest()
    with pytest.raises(ImageDamaged, match="1 clusters of 4294967296"):
        VmaArchive(BytesFile(bytes(data)))


def test_a_file_that_shrinks_is_damage_and_not_zeros(archive: tuple[Path, list[bytes]]) -> None:
    export = find_export(archive[0])
    assert export is not None
    with export:
        with archive[0].open("r+b") as file:
            file.truncate(20_000)
        with pytest.raises(ImageDamaged, match="shrank"):
            content_of(export.disks[0].image)
        assert export.changed() == [NAME]


def test_a_compressed_archive_needs_a_scratch_folder_with_room(
    archive: tuple[Path, list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = pack(archive[0], "gz")
    with pytest.raises(Refused, match="no folder to unpack"):
        find_export(packed)
    with pytest.raises(SourceError, match="cannot unpack into"):
        find_export(packed, scratch=tmp_path / "nowhere")
    full = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "fstatvfs", lambda fd: os.statvfs_result((*full[:4], 0, *full[5:])))
    with pytest.raises(SourceError, match="too little room"):
        find_export(packed, scratch=tmp_path)


@pytest.mark.parametrize("packing", ["gz", "zst", "lzo"])
def test_a_compressed_file_that_is_cut_or_no_archive_is_refused(
    archive: tuple[Path, list[bytes]], tmp_path: Path, packing: str
) -> None:
    packed = pack(archive[0], packing)
    data = packed.read_bytes()
    for bad in (
        data[:-1],
        data[: len(data) // 2],
        data[:-300] + bytes(300),
        b"",
        b"\0" * 600,
        archive[0].read_bytes(),
    ):
        packed.write_bytes(bad)
        with pytest.raises(SourceError):
            find_export(packed, scratch=tmp_path)


def test_lzop_that_is_missing_is_said(
    archive: tuple[Path, list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = pack(archive[0], "lzo")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="needs the program lzop"):
        find_export(packed, scratch=tmp_path)


def test_a_zstd_frame_with_a_huge_window_is_refused(
    archive: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    packed = tmp_path / f"{NAME}.zst"
    # A frame header that declares a window of 2 GiB, and an empty last block.
    packed.write_bytes(bytes.fromhex("28b52ffd 00 a8 010000"))
    with pytest.raises(ImageDamaged, match="too much memory"):
        find_export(packed, scratch=tmp_path)


@given(
    st.lists(st.tuples(st.integers(0, 60_000), st.binary(min_size=1, max_size=8)), max_size=4), st.booleans()
)
def test_no_mutation_makes_the_reader_fail_otherwise(changes: list[tuple[int, bytes]], seal: bool) -> None:
    content = random_bytes(40_000, 8)
    data = bytearray(vma([VmaDisk(1, "drive-scsi0", content)], {"qemu-server.conf": CONFIG}))
    for at, new in changes:
        at = at % len(data)  # noqa: PLW2901
        data[at : at + len(new)] = new[: len(data) - at]
    if seal:
        data[32:48] = bytes(16)
        data[32:48] = hashlib.md5(data[: int.from_bytes(data[56:60], "big")]).digest()
    try:
        archive = VmaArchive(BytesFile(bytes(data)))
        for device in archive.header.devices:
            if device.name != "vmstate":
                content_of(archive.image(device))
    except HoldfastError:
        pass


@given(st.binary(max_size=300))
def test_no_configuration_makes_its_reader_fail(data: bytes) -> None:
    parse_config(data)
    parse_config(b"smbios1: " + data + b"\nscsi0: " + data)
