"""Physical backups as tar streams: members found in any cut, faults named, hostile archives refused."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.formats.dumps.core.catalogue import Catalogue, decode, encode
from holdfast.formats.dumps.postgresql.physical.basebackup_tar import TarScanner, files, is_physical_backup
from holdfast.formats.dumps.postgresql.physical.control import parse_control
from holdfast.formats.dumps.postgresql.physical.manifest import ManifestError, ManifestReader
from support.cluster_tar import CLUSTER, CONTROL, LABEL, RELATION, SYSTEM, member
from support.physical import scan

SEGMENT = 1 << 20
WAL = struct.pack("<HHIQI4xQII", 0xD110, 2, 1, 2 * SEGMENT, 0, SYSTEM, SEGMENT, 8192).ljust(SEGMENT, b"w")


def manifest(files_: Mapping[str, bytes], *, version: int = 1, ranges: str = "", head: str = "") -> bytes:
    entries = [
        json.dumps(
            {
                "Path": path,
                "Size": len(data),
                "Last-Modified": "2026-11-25 08:27:48 GMT",
                "Checksum-Algorithm": "SHA256",
                "Checksum": hashlib.sha256(data).hexdigest(),
            }
        )
        for path, data in files_.items()
    ]
    ranges = ranges or '{ "Timeline": 1, "Start-LSN": "0/200028", "End-LSN": "0/200100" }'
    text = (
        f'{{ "PostgreSQL-Backup-Manifest-Version": {version},\n{head}"Files": [\n'
        + ",\n".join(entries)
        + f'\n],\n"WAL-Ranges": [\n{ranges}\n],\n'
    ).encode()
    return text + b'"Manifest-Checksum": "' + hashlib.sha256(text).hexdigest().encode() + b'"}\n'


def archive(
    contents: Mapping[str, bytes] = CLUSTER,
    *,
    said: bytes | None = None,
    wal: Mapping[str, bytes] | None = None,
    extra: Sequence[tuple[tarfile.TarInfo, bytes]] = (),
    form: int = tarfile.USTAR_FORMAT,
) -> bytes:
    """A backup's tar; `said` is its manifest, b"" for none."""
    logs = {"pg_wal/000000010000000000000002": WAL} if wal is None else wal
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        tar.addfile(member("pg_notify", kind=tarfile.DIRTYPE, mode=0o700))
        for name, data in {**contents, **logs}.items():
            tar.addfile(member(name, data), io.BytesIO(data))
        for info, data in extra:
            tar.addfile(info, io.BytesIO(data))
        text = manifest(contents) if said is None else said
        if text:
            tar.addfile(member("backup_manifest", text), io.BytesIO(text))
    return out.getvalue()


def fault(data: bytes) -> str:
    return scan(data)[1].fault


def found(catalogue: Catalogue, data: bytes) -> dict[str, bytes]:
    made = files(catalogue, len(data)).items()
    return {
        path: b"".join(data[p.start : p.start + p.length] for p in file.pieces)
        for path, file in made
        if not path.endswith("/")
    }


def test_a_whole_backup_has_no_fault_and_says_where_it_stands() -> None:
    _, catalogue = scan(archive())
    assert catalogue.complete, catalogue.fault
    assert catalogue.facts == {
        "physical": "yes",
        "system_id": str(SYSTEM),
        "server": "PostgreSQL 15",
        "lsn": "0/200028",
        "timeline": "1",
        "stop_lsn": "0/200100",
        "stop_time": "2023-11-14T22:13:21+00:00",
    }


def test_a_backup_is_known_by_its_first_bytes() -> None:
    head = archive()[512:]  # behind the folder, which pg_basebackup's does not begin with
    assert is_physical_backup(head)
    assert not is_physical_backup(head[:600].replace(b"START", b"BEGIN"))
    assert not is_physical_backup(head[:200])
    assert not is_physical_backup(b"backup_label\0".ljust(1024, b"x"))


def test_files_are_the_members_and_empty_folders_are_kept() -> None:
    data = archive()
    _, catalogue = scan(data)
    assert decode(encode(catalogue), "here", len(data)) == catalogue
    made = files(catalogue, len(data))
    assert made["data/pg_notify/"].mode == 0o700
    assert made["data/base/5/2619"].mtime == 1_700_000_000 * 10**9
    contents = found(catalogue, data)
    assert contents["data/base/5/2619"] == RELATION
    assert contents["data/base/5/empty"] == b""
    assert set(CLUSTER) <= {path.removeprefix("data/") for path in contents}


def test_borders_stand_where_the_data_of_larger_members_begins_and_ends() -> None:
    data = archive()
    borders, catalogue = scan(data)
    wanted = {p for s in catalogue.sections if s.length >= 4096 for p in (s.start, s.start + s.length)}
    assert borders == sorted(wanted)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60))
def test_any_cut_of_the_stream_gives_the_same(steps: list[int]) -> None:
    data = archive({**CLUSTER, "base/5/x": b"x" * 5000})
    whole = scan(data)
    scanner, borders, at = TarScanner(), [], 0
    for step in steps:
        borders += scanner.feed(data[at : at + step])
        assert not borders or borders[-1] <= at + step
        at += step
    borders += scanner.feed(data[at:])
    assert (borders, scanner.finish()) == whole


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read_in_every_dialect(form: int) -> None:
    name = f"pg_logical/snapshots/{'s' * 98}/{'n' * 99}" if form == tarfile.USTAR_FORMAT else f"a/{'n' * 250}"
    contents = {**CLUSTER, name: b"long"}
    data = archive(contents, form=form)
    _, catalogue = scan(data)
    assert catalogue.complete, catalogue.fault
    assert found(catalogue, data)[f"data/{name}"] == b"long"


def test_a_size_in_base_256_is_read() -> None:
    data = bytearray(archive())
    at = data.index(b"base/5/2619")
    data[at + 124 : at + 136] = b"\x80" + len(RELATION).to_bytes(11, "big")
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    assert not fault(bytes(data))


def test_a_flipped_byte_names_the_file() -> None:
    data = bytearray(archive())
    data[data.index(RELATION) + 12_345] ^= 1
    assert fault(bytes(data)) == "base/5/2619 is not what the manifest says: its checksum differs"


def test_every_prefix_is_a_fault() -> None:
    data = archive()
    end = len(data.rstrip(b"\0")) + 512
    for length in [*range(0, len(data) - 20_000, 9973), *range(end - 3000, end, 211)]:
        _, catalogue = scan(data[:length])
        assert catalogue.fault, length
        decode(encode(catalogue), "here", length)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (archive(said=b""), "backup_manifest: there is none"),
        (archive(said=manifest(CLUSTER)[:-20]), "backup_manifest: it ends early"),
        (archive(said=manifest(CLUSTER).replace(b"2619", b"2618")), "its own checksum is wrong"),
        (archive(said=manifest({**CLUSTER, "base/1/1": b"x"})), "base/1/1 is in the manifest, and is not"),
        (archive(said=manifest({**CLUSTER, "PG_VERSION": b"15"})), "PG_VERSION has 3 bytes, the manifest"),
        (
            archive(extra=[(member("base/5/odd", b"odd"), b"odd")]),
            "base/5/odd is not in the manifest",
        ),
        (archive(wal={}), "no WAL segments"),
        (
            archive(
                said=manifest(CLUSTER, ranges='{"Timeline":1,"Start-LSN":"0/200028","End-LSN":"0/300001"}')
            ),
            "pg_wal/000000010000000000000003 is needed, and is not there",
        ),
        (
            archive(
                said=manifest(CLUSTER, ranges='{"Timeline":1,"Start-LSN":"0/200028","End-LSN":"FF/300001"}')
            ),
            "not all segments from 0/200028 to FF/300001 are there",
        ),
        (archive(wal={"pg_wal/000000010000000000000003": WAL}), "not what its name says"),
        (archive(wal={"pg_wal/000000010000000000000002": WAL[:-512]}), "no size of a WAL segment"),
        (
            archive(said=manifest(CLUSTER, version=2, head='"System-Identifier": 1234567,\n')),
            "the manifest is of system identifier 1234567",
        ),
        (archive(said=manifest(CLUSTER, version=3)), "version 3"),
        (
            archive({**CLUSTER, "backup_label": LABEL.encode() + b"INCREMENTAL FROM LSN: 0/1\n"}),
            "incremental",
        ),
    ],
)
def test_what_is_not_whole_is_a_fault(data: bytes, words: str) -> None:
    assert words in fault(data)


def test_a_manifest_with_the_right_system_identifier_is_accepted() -> None:
    assert not fault(archive(said=manifest(CLUSTER, version=2, head=f'"System-Identifier": {SYSTEM},\n')))


def test_other_checksums_are_not_compared_and_that_is_told() -> None:
    data = archive(said=manifest(CLUSTER))
    text = manifest(CLUSTER).split(b'"Manifest-Checksum"')[0].replace(b"SHA256", b"CRC32C")
    said = text + b'"Manifest-Checksum": "' + hashlib.sha256(text).hexdigest().encode() + b'"}\n'
    assert "uncompared" not in scan(data)[1].extra
    _, catalogue = scan(archive(said=said))
    assert catalogue.complete
    assert catalogue.extra["uncompared"] == "CRC32C"


def _linked(target: str, name: str) -> Sequence[tuple[tarfile.TarInfo, bytes]]:
    return [(member(name, kind=tarfile.SYMTYPE, linkname=target), b"")]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ([(member("../evil", b"x"), b"x")], "no plain path"),
        ([(member("/etc/passwd", b"x"), b"x")], "no plain path"),
        ([(member("base//x", b"x"), b"x")], "no plain path"),
        ([(member("base/5/2619", b"x"), b"x")], "twice"),
        ([(member("PG_VERSION/x", b"x"), b"x")], "which is no folder"),
        (_linked("/etc", "base/9"), "is a symbolic link"),
        ([*_linked("/srv/ts", "pg_tblspc/16389"), (member("pg_tblspc/16389/x", b"x"), b"x")], "no folder"),
        ([(member("hard", kind=tarfile.LNKTYPE, linkname="PG_VERSION"), b"")], "is a hard link"),
        ([(member("null", kind=tarfile.CHRTYPE), b"")], "is a device"),
        ([(member("fifo", kind=tarfile.FIFOTYPE), b"")], "is a named pipe"),
        ([(member("folder", b"x", kind=tarfile.DIRTYPE), b"x" * 512)], "is no file and has 1 bytes"),
    ],
)
def test_hostile_members_end_the_scan(extra: Sequence[tuple[tarfile.TarInfo, bytes]], words: str) -> None:
    assert words in fault(archive(extra=extra, form=tarfile.GNU_FORMAT))


@pytest.mark.parametrize("place", [0, 124, 150, 156])
def test_a_damaged_header_is_a_fault(place: int) -> None:
    data = bytearray(archive())
    data[data.index(b"base/5/2619") + place] ^= 0x5A
    assert fault(bytes(data)).startswith("byte 3072: a header has an impossible") or "the wrong sum" in fault(
        bytes(data)
    )


def test_something_behind_the_end_is_a_fault() -> None:
    assert "something follows the end" in fault(archive() + b"x")


def test_huge_extensions_are_not_read() -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    assert "extended headers of" in fault(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict") + bytes(1 << 20))


@given(st.binary(max_size=4000), st.integers(0, 20_000))
def test_bytes_that_are_no_archive_never_raise(noise: bytes, at: int) -> None:
    data = archive()[:70_000]
    scan(data[:at] + noise + data[at + len(noise) :], step=777)


@given(st.binary(max_size=300), st.integers(0, 1500), st.integers(1, 200))
def test_a_hostile_manifest_is_an_error_of_its_own(noise: bytes, at: int, step: int) -> None:
    good = manifest(CLUSTER)
    bad = good[:at] + noise + good[at + len(noise) :]
    reader = ManifestReader()
    try:
        seen = [f for n in range(0, len(bad), step) for f in reader.feed(bad[n : n + step])]
        reader.finish()
    except ManifestError:
        assert bad != good
    else:
        assert bad == good
        assert [f.path for f in seen] == list(CLUSTER)


def test_a_line_that_never_ends_is_not_kept() -> None:
    reader = ManifestReader()
    reader.feed(b"x" * 60_000)
    with pytest.raises(ManifestError, match="more than 65536 bytes"):
        reader.feed(b"x" * 6_000)


def test_encoded_paths_are_read() -> None:
    entry = {"Encoded-Path": b"odd\xff".hex(), "Size": 0, "Checksum-Algorithm": "NONE"}
    reader = ManifestReader()
    (file,) = reader.feed(
        b'{ "PostgreSQL-Backup-Manifest-Version": 1,\n"Files": [\n' + json.dumps(entry).encode() + b"\n"
    )
    assert file.path == "odd\udcff"


def test_a_control_file_tells_its_cluster_in_either_byte_order() -> None:
    for order in "<>":
        control = parse_control(struct.pack(f"{order}QII", SYSTEM, 1300, 2022_09041))
        assert control is not None
        assert (control.system_id, control.control_version) == (str(SYSTEM), 1300)
    assert parse_control(bytes(16)) is None
    assert parse_control(CONTROL[:15]) is None
