"""Which further files an image gets, and the small parts that names and files are made of."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import HoldfastError, SourceError
from holdfast.formats.disks.base.errors import ImageRefused
from holdfast.formats.disks.base.files import BytesFile
from holdfast.formats.disks.open import open_image
from holdfast.ingest.exports.companions import companions_for, extent_stem
from holdfast.ingest.exports.joined import JoinedFile
from holdfast.ingest.exports.names import base_name, canonical_uuid, is_plain, shown_name, unique_name
from holdfast.ingest.exports.opened import ExportDirectory, OpenedFiles
from holdfast.ingest.exports.recognise import find_export
from support.basics import random_bytes
from support.export import (
    content_of,
    convert,
    manifest,
    ovf,
    qcow2,
    raw_disk,
)

CANARY = b"the canary sings " * 4096
"""A whole number of sectors, so that it can pass for a disk."""


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "host" / "canary.raw"
    path.parent.mkdir()
    path.write_bytes(CANARY)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "export"
    path.mkdir()
    return path


# ---- single images ------------------------------------------------------------------------------------


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])
def test_a_vmdks_own_extents_are_found(tmp_path: Path, subformat: str) -> None:
    content = raw_disk(tmp_path / "raw", 1)
    path = convert(tmp_path / "raw", tmp_path / "web.vmdk", "vmdk", "-o", f"subformat={subformat}")
    with companions_for(path, (), follow_backing=False) as companions:
        image = open_image(BytesFile(path.read_bytes(), "web.vmdk"), companions)
        assert content_of(image) == content
        assert len(companions.names) == 1
        assert companions.changed() == []
        os.utime(tmp_path / companions.names[0], (1, 1))
        assert companions.changed() == list(companions.names)
        with pytest.raises(ImageRefused, match="only read when it is named too"):
            companions("other-flat.vmdk")
        with pytest.raises(ImageRefused):
            companions("web.vmdk")


def test_a_backing_chain_of_the_users_own_files_is_read(tmp_path: Path) -> None:
    content = raw_disk(tmp_path / "base.raw", 1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    above = elsewhere / "above.qcow2"
    qcow2(above, "-b", str(tmp_path / "base.raw"), "-F", "raw")
    data = above.read_bytes()

    def opened(named: list[Path]) -> bytes:
        with companions_for(above, named, follow_backing=True) as companions:
            return content_of(open_image(BytesFile(data, "above.qcow2"), companions))

    with pytest.raises(ImageRefused, match="only read when it is named too"):
        opened([])
    assert opened([tmp_path / "base.raw"]) == content[: 1 << 20]
    shutil.copy(tmp_path / "base.raw", elsewhere)
    with pytest.raises(SourceError, match="same name"):
        opened([tmp_path / "base.raw", elsewhere / "base.raw"])


def test_loops_and_endless_chains_end(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    for number in range(100):
        (tmp_path / f"{number}.qcow2").write_bytes(b"x")
    with companions_for(path, (), follow_backing=True) as companions:
        with pytest.raises(ImageRefused, match="loop"):
            companions("a.qcow2")
        for number in range(64):
            companions(f"./{number}.qcow2")
        with pytest.raises(ImageRefused, match="loop"):
            companions("7.qcow2")
        with pytest.raises(ImageRefused, match="more than 64"):
            companions("64.qcow2")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\nb", "x" * 256]
)
def test_names_that_are_paths_are_refused_whatever_is_allowed(tmp_path: Path, name: str) -> None:
    assert not is_plain(name)
    with (
        companions_for(tmp_path / "a.qcow2", (), follow_backing=True) as companions,
        pytest.raises(ImageRefused),
    ):
        companions(name)


def test_special_files_are_no_companions(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.raw")
    (tmp_path / "folder.raw").mkdir()
    (tmp_path / "link.raw").symlink_to("/etc/passwd")
    with companions_for(tmp_path / "a.qcow2", (), follow_backing=True) as companions:
        for name in ("pipe.raw", "folder.raw", "link.raw", "gone.raw"):
            with pytest.raises((ImageRefused, SourceError)):
                companions(name)


def test_a_folder_hands_out_plain_files_and_nothing_in_their_place(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = OpenedFiles()
    inside = ExportDirectory(canary.parent, opened)
    for name in ("../host/canary.raw", str(canary)):
        with pytest.raises(ImageRefused, match="no plain file name"):
            ExportDirectory(tmp_path / "host", opened).open(name)
    (canary.parent / "link").symlink_to(canary)
    with pytest.raises(ImageRefused, match="symbolic link"):
        inside.open("link")
    with suppress(PermissionError):
        os.mknod(canary.parent / "device", stat.S_IFBLK | 0o600, os.makedev(7, 0))
        with pytest.raises(HoldfastError):
            inside.open("device")
    # A link that takes the file's place after the look at it.
    monkeypatch.setattr(ExportDirectory, "_mode", lambda folder, name: stat.S_IFREG)
    with pytest.raises(SourceError):
        inside.open("link")
    assert inside.open("canary.raw").size == len(CANARY)
    opened.close()


# ---- small parts --------------------------------------------------------------------------------------


@given(st.text(max_size=300), st.sets(st.sampled_from(["a", "a-2", "disk", "x"])))
def test_shown_names_are_names_and_unique(name: str, taken: set[str]) -> None:
    shown = shown_name(name, "disk")
    unique = unique_name(shown, set(taken))
    assert is_plain(unique)
    assert not unique.startswith(".")
    assert unique.casefold() not in taken
    assert len(unique.encode()) < 240


def test_identities_are_written_in_one_way() -> None:
    right = "564d0a1b-2c3d-4e5f-6071-8293a4b5c6d7"
    for text in (
        right.upper(),
        f"{{{right}}}",
        right.replace("-", ""),
        "56 4d 0a 1b 2c 3d 4e 5f-60 71 82 93 a4 b5 c6 d7",
    ):
        assert canonical_uuid(text) == right
    for text in ("", "web01", right[:-1], "0" * 32, f"{right}0"):
        assert canonical_uuid(text) == ""
    assert base_name("C:\\vms\\a.vhdx") == base_name("/vms/a.vhdx") == "a.vhdx"
    assert (
        extent_stem("web-flat.vmdk") == extent_stem("web-s001.vmdk") == extent_stem("web-f010.VMDK") == "web"
    )
    assert extent_stem("web.vmdk") is extent_stem("web-s1.vmdk") is None


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 300), st.integers(1, 300))
def test_joined_files_read_as_one(sizes: list[int], start: int, length: int) -> None:
    parts = [random_bytes(size, seed) for seed, size in enumerate(sizes)]
    joined = JoinedFile([BytesFile(part) for part in parts], "x")
    whole = b"".join(parts)
    buffer = bytearray(length)
    assert joined.size == len(whole)
    assert joined.read_into(memoryview(buffer), start) == len(whole[start : start + length])
    assert buffer.startswith(whole[start : start + length])


def test_a_manifest_made_by_others_is_understood(folder: Path) -> None:
    """sha256sum --tag writes nearly the same lines."""
    raw_disk(folder / "a (1).raw", 1)
    (folder / "a.ovf").write_text(ovf([("a (1).raw", 9 << 20)]))
    (folder / "a.mf").write_text(manifest(folder, "a.ovf", "a (1).raw"))
    made = subprocess.run(
        ["sha256sum", "--tag", "a.ovf", "a (1).raw"], cwd=folder, check=True, capture_output=True, text=True
    )
    (folder / "a.mf").write_text(made.stdout)
    export = find_export(folder)
    assert export is not None
    with export:
        assert export.warnings == ()
