"""The walk over a tar archive: it takes what an OVA may hold and is not led astray by anything else."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import HoldfastError
from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import BytesFile
from holdfast.ingest.exports.tar_index import tar_members


def make_tar(*members: tuple[tarfile.TarInfo, bytes], format_: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", pax: Mapping[str, str] = {}
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    info.pax_headers = dict(pax)
    return info


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (member("l.vmdk", tarfile.SYMTYPE, "/etc/passwd"), "symbolic link"),
        (member("l.vmdk", tarfile.LNKTYPE, "x.ovf"), "hard link"),
        (member("d", tarfile.CHRTYPE), "device"),
        (member("d", tarfile.BLKTYPE), "device"),
        (member("f", tarfile.FIFOTYPE), "named pipe"),
        (member("folder", tarfile.DIRTYPE), "folder"),
        (member("s", tarfile.GNUTYPE_SPARSE), "sparse"),
        (member("c", tarfile.CONTTYPE), "contiguous"),
        (member("z", b"Z"), "unknown type"),
        (member("/etc/x.vmdk"), "no plain file name"),
        (member("../x.vmdk"), "no plain file name"),
        (member("sub/x.vmdk"), "no plain file name"),
        (member("x\\y.vmdk"), "no plain file name"),
        (member("x\ny"), "no plain file name"),
        (member(".."), "no plain file name"),
        (member("x.ovf"), "two members"),
        (member("./x.ovf"), "two members"),
    ],
)
def test_an_archive_with_anything_but_plain_files_is_refused(info: tarfile.TarInfo, said: str) -> None:
    with pytest.raises(ImageRefused, match=said):
        tar_members(BytesFile(make_tar((member("x.ovf"), b"1"), (info, b""))))


@pytest.mark.parametrize(
    "pax",
    [
        {"GNU.sparse.major": "1"},
        {"GNU.sparse.name": "x"},
        {"linkpath": "/etc/passwd"},
        {"path": "/etc/passwd"},
        {"path": "../x"},
        {"size": "99"},
    ],
)
def test_a_pax_header_cannot_say_what_a_header_may_not(pax: dict[str, str]) -> None:
    data = make_tar((member("x.ovf", pax=pax), b"some bytes"), format_=tarfile.PAX_FORMAT)
    with pytest.raises(ImageRefused):
        tar_members(BytesFile(data))


def test_names_and_sizes_from_extended_headers_are_taken() -> None:
    name = "n" * 150 + ".vmdk"
    for format_ in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        data = make_tar((member("a.ovf"), b"1" * 700), (member(name), b"2" * 512), format_=format_)
        found = tar_members(BytesFile(data))
        assert [m.name for m in found] == ["a.ovf", name]
        assert [data[m.start : m.start + m.size] for m in found] == [b"1" * 700, b"2" * 512]
    with_size = make_tar((member("x", pax={"size": "10"}), b"ten bytes!"), format_=tarfile.PAX_FORMAT)
    assert tar_members(BytesFile(with_size))[0].size == 10


def test_a_size_above_8_gib_is_understood() -> None:
    """GNU writes it in base 256; the archive ends long before."""
    info = member("big.vmdk")
    info.size = 20 << 30
    with pytest.raises(ImageDamaged, match=r"reaches to 21474836992, the file ends"):
        tar_members(BytesFile(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048)))


def test_a_cut_archive_is_refused_wherever_it_is_cut() -> None:
    data = make_tar((member("a.ovf"), b"1" * 700), (member("b.vmdk"), b"2" * 512))
    end = 512 + 1024 + 512 + 512
    assert not any(data[end:])
    assert len(tar_members(BytesFile(data[: end + 512]))) == 2
    for cut in range(0, end + 512, 100):
        with pytest.raises(ImageDamaged):
            tar_members(BytesFile(data[:cut]))


def test_a_changed_header_is_found() -> None:
    data = bytearray(make_tar((member("a.ovf"), b"1" * 700)))
    for at in (0, 50, 124, 136, 148, 156, 257, 300):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(ImageDamaged):
            tar_members(BytesFile(bytes(changed)))


@given(
    st.lists(st.tuples(st.integers(0, 2600), st.binary(min_size=1, max_size=12)), max_size=4),
    st.booleans(),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_no_mutation_makes_the_walk_fail_otherwise(
    changes: list[tuple[int, bytes]], sealed: bool, format_: int
) -> None:
    data = bytearray(
        make_tar(
            (member("n" * 99, pax={"comment": "x"}), b"1" * 700), (member("b.vmdk"), b"2"), format_=format_
        )
    )
    for at, new in changes:
        data[at : at + len(new)] = new
    if sealed:
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
    try:
        for found in tar_members(BytesFile(bytes(data))):
            assert found.start + found.size <= len(data)
    except HoldfastError:
        pass


def test_endless_extensions_are_cut_short() -> None:
    info = member("x", pax={"comment": "c" * 60_000})
    data = info.tobuf(tarfile.PAX_FORMAT)[:-512]
    with pytest.raises(ImageDamaged, match="extended headers of"):
        tar_members(BytesFile(data * 100))
