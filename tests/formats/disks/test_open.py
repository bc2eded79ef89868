"""Which format an image is taken for."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.formats.disks.base.errors import ImageDamaged, UnclearFormat
from holdfast.formats.disks.base.files import BytesFile, OpenFile
from holdfast.formats.disks.open import image_format

QCOW2 = b"QFI\xfb".ljust(512, b"\0")


class _Unreadable:
    """A file whose first sector is a bad one."""

    size = 4096

    def __init__(self, name: str) -> None:
        self.name = name

    def read_into(self, buffer: memoryview, offset: int) -> int:
        raise OSError(5, "Input/output error")

    def holes(self) -> Iterator[tuple[int, int]]:
        yield from ()


@pytest.mark.parametrize("name", ["disk.raw", "disk.dd"])
def test_what_a_raw_disk_begins_with_is_the_guests_and_is_not_even_read(name: str) -> None:
    assert image_format(BytesFile(QCOW2, name)) == "raw"
    assert image_format(_Unreadable(name)) == "raw"


def test_a_file_that_cannot_be_read_is_told_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def preadv(fd: int, buffers: object, offset: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "disk.qcow2").write_bytes(QCOW2)
    with OpenFile(tmp_path / "disk.qcow2") as file:
        monkeypatch.setattr(os, "preadv", preadv)
        with pytest.raises(OSError, match="Input/output error") as caught:
            image_format(file)
    assert caught.value.filename == "disk.qcow2"


def test_content_decides_where_the_name_says_nothing() -> None:
    assert image_format(BytesFile(QCOW2, "disk")) == "qcow2"
    assert image_format(BytesFile(bytes(512), "disk.img")) is None
    with pytest.raises(UnclearFormat, match="begins like a qcow2 image"):
        image_format(BytesFile(QCOW2, "disk.img"))


@pytest.mark.parametrize("name", ["disk.vmdk", "disk.vhd", "disk.vdi", "disk.vhdx"])
def test_a_name_that_promises_a_format_keeps_its_promise(name: str) -> None:
    with pytest.raises(ImageDamaged, match="looks like qcow2"):
        image_format(BytesFile(QCOW2, name))
