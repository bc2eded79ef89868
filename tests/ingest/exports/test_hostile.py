"""Crafted exports: none of them carries off a file that the user did not hand over."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.base.errors import HoldfastError
from holdfast.formats.disks.base.errors import ImageRefused, UnnamedFile
from holdfast.ingest.exports.opened import ExportDirectory
from holdfast.ingest.exports.recognise import find_export
from support.export import (
    content_of,
    everything,
)
from support.hostile_exports import (
    CANARY,
    CRAFTED,
    backing,
    sibling,
)


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


# ---- crafted exports ----------------------------------------------------------------------------------


@pytest.mark.parametrize("craft", CRAFTED, ids=lambda craft: craft.__name__)
def test_no_crafted_export_reveals_a_file(
    folder: Path, canary: Path, craft: Callable[[Path, Path], None]
) -> None:
    craft(folder, canary)
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    heard = b""
    try:
        export = find_export(folder, scratch=folder, follow_backing=craft is not sibling)
        assert export is not None
        with export:
            heard = everything(export)
    except HoldfastError as error:
        heard = str(error).encode()
    assert b"the canary sings" not in heard
    assert set(os.listdir("/proc/self/fd")) <= before, "nothing stays open"  # noqa: PTH208


def test_the_canary_would_be_heard(folder: Path, canary: Path) -> None:
    """The same crafted disk reveals the file when the user names it: the test above is not deaf."""
    backing(folder, canary)
    export = find_export(folder, named=[canary])
    assert export is not None
    with export:
        assert CANARY[:512] in everything(export)
        assert export.disks[0].files == ("a.qcow2", "canary.raw")


def test_a_definition_that_becomes_a_link_once_it_was_found_is_not_followed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the export's folder can swap files while they are looked at."""
    elsewhere = tmp_path / "elsewhere.vmx"
    elsewhere.write_text("")
    (folder / "a.vmx").write_text("")
    names = ExportDirectory.files

    def swap(self: ExportDirectory) -> list[str]:
        found = names(self)
        (folder / "a.vmx").unlink()
        (folder / "a.vmx").symlink_to(elsewhere)
        return found

    monkeypatch.setattr(ExportDirectory, "files", swap)
    with pytest.raises(ImageRefused, match="symbolic link"):
        find_export(folder)


def test_backing_files_beside_an_image_are_followed_only_when_allowed(folder: Path, canary: Path) -> None:
    sibling(folder, canary)
    (folder / "letters.raw").rename(folder / "base.raw")
    subprocess.run(
        ["qemu-img", "rebase", "-u", "-b", "base.raw", "-F", "raw", folder / "a.qcow2"], check=True
    )
    with pytest.raises(UnnamedFile):
        find_export(folder / "a.xml")
    for options in ({"follow_backing": True}, {"named": [folder / "base.raw"]}):
        export = find_export(folder / "a.xml", **options)
        assert export is not None
        with export:
            assert content_of(export.disks[0].image).startswith(CANARY)
