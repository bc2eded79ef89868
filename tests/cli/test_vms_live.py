"""Live disks through the command line: NBD servers and the dirty bitmaps that they serve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.cli import Place
from support.export import MIB
from support.nbd import nbdkit, qemu_img
from support.vm import LIVE_SIZE, Live, nothing_committed, restored, told


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


# ---- NBD ----------------------------------------------------------------------------------------------


@pytest.fixture
def live(place: Place) -> Live:
    return Live(place.root)


def disk_of(place: Place, snapshot: str) -> bytes:
    return restored(place, snapshot)["disks/vda.raw"]


def test_a_live_disk_is_read_without_its_holes(place: Place, live: Live) -> None:
    with live.served() as uri:
        about = place.json("backup", uri, "--name", "web01")
        (item,) = about["items"]
        assert (about["kind"], about["name"], item["path"]) == ("vm", "web01", "disks/vda.raw")
        assert (about["consistency"], about["source"]) == ("crash", "vda")
        assert item["size"] == LIVE_SIZE
        place.ok("backup", live.raw, "--name", "raw")
        assert item["allocated"] == place.json("info", "raw")["allocated"]
        assert item["allocated"] <= live.received < LIVE_SIZE * 0.8
    assert disk_of(place, "web01") == live.content()


def test_a_live_disk_needs_a_name(place: Place, live: Live) -> None:
    with live.served() as uri:
        result = place.run("backup", uri)
    assert result.exit_code == 2
    assert "--name" in result.stderr


def test_a_chain_of_bitmaps_reads_only_what_changed(place: Place, live: Live) -> None:
    live.begin("b0")
    with live.served() as uri:
        first = place.json("backup", uri, "--name", "web01", "--checkpoint", "b0")
    parent = first["id"]
    changes = {
        "b0": ["write -P 7 5M 4k", "write -P 8 9M 100k", "discard 2M 1M", "write -z 12M 64k"],
        "b1": ["write -P 1 0 4k", f"write -P 2 {LIVE_SIZE - 4096} 4k", "write -P 3 5000192 70000"],
        "b2": [],
    }
    for number, (bitmap, commands) in enumerate(changes.items(), 1):
        live.change(*commands or ["read 0 512"])
        live.begin(f"b{number}")
        with live.served("-B", bitmap) as uri:
            result = place.run(
                *("backup", uri, "--name", "web01", "--bitmap", bitmap, "--checkpoint", f"b{number}")
            )
        assert result.exit_code == 0, result.stderr
        assert "reading all of it" not in result.stderr
        about = place.json("info", "web01")
        assert about["parent"] == parent
        assert live.received < (2 * MIB if commands else 128 << 10)
        assert about["new"] < MIB
        assert disk_of(place, "web01") == live.content()
        place.ok("backup", live.raw, "--name", "whole")
        assert about["allocated"] == place.json("info", "whole")["allocated"]
        parent = about["id"]
    place.ok("check", "--read-data")


def resized(live: Live) -> None:
    qemu_img("resize", "-f", "qcow2", live.image, f"{LIVE_SIZE + MIB}")


@pytest.mark.parametrize(
    ("first", "between", "reason"),
    [
        (None, None, "there is no earlier snapshot"),
        (["--checkpoint", "other"], None, "was not taken at the start of bitmap b0"),
        ([], None, "was not taken at the start of bitmap b0"),
        (["--checkpoint", "b0"], resized, f"with {LIVE_SIZE} bytes, now there are {LIVE_SIZE + MIB}"),
    ],
)
def test_a_bitmap_that_counts_from_elsewhere_has_all_read_and_says_so(
    place: Place,
    live: Live,
    first: list[str] | None,
    between: Callable[[Live], None] | None,
    reason: str,
) -> None:
    if first is not None:
        with live.served() as uri:
            place.ok("backup", uri, "--name", "web01", *first)
    if between:
        between(live)
    live.begin("b0")
    live.change("write -P 9 3M 64k")
    with live.served("-B", "b0") as uri:
        result = place.run("backup", uri, "--name", "web01", "--bitmap", "b0", "--checkpoint", "b1")
    assert result.exit_code == 0
    assert reason in result.stderr
    assert "reading all of it" in result.stderr
    assert live.received > 4 * MIB
    assert disk_of(place, "web01") == live.content()


def test_the_warning_stands_in_the_document_too(place: Place, live: Live) -> None:
    live.begin("b0")
    with live.served("-B", "b0") as uri:
        about = place.json("backup", uri, "--name", "web01", "--bitmap", "b0")
    (warning,) = about["warnings"]
    assert "vda: there is no earlier snapshot: reading all of it" in warning


def test_another_disk_of_the_same_name_is_no_parent(place: Place, live: Live) -> None:
    """The snapshot before holds a disk, but not this one."""
    place.ok("backup", live.raw, "--name", "web01", "--checkpoint", "b0")
    live.begin("b0")
    with live.served("-B", "b0") as uri:
        result = place.run("backup", uri, "--name", "web01", "--bitmap", "b0")
    assert "has no disks/vda.raw: reading all of it" in result.stderr
    assert disk_of(place, "web01") == live.content()


FLAKY = """if [ $4 -lt 1048576 ] && [ $(($4 + $3)) -gt 1048576 ] || [ $4 -eq 1048576 ]
then echo EIO bad sector >&2; exit 1; fi; dd if={raw} iflag=skip_bytes,count_bytes skip=$4 count=$3 bs=64k"""


def test_what_cannot_be_read_makes_it_partial_and_no_parent_of_a_bitmap(place: Place, live: Live) -> None:
    script = FLAKY.format(raw=live.raw)
    with nbdkit(place.root, "eval", f"get_size=echo {LIVE_SIZE}", f"pread={script}") as socket:
        uri = f"nbd+unix:///vda?socket={socket}"
        result = place.run("backup", uri, "--name", "web01", "--checkpoint", "b0")
    assert result.exit_code == 3
    assert "4096 bytes at offset 1048576" in result.stderr
    about = place.json("info", "web01")
    assert about["partial"]
    assert about["consistency"] == "unknown"
    wanted = bytearray(live.content())
    wanted[MIB : MIB + 4096] = bytes(4096)
    result = place.run("restore", "web01:disks/vda.raw", "--target", place.root / "partial.raw")
    assert result.exit_code == 3
    assert (place.root / "partial.raw").read_bytes() == wanted
    live.begin("b0")
    with live.served("-B", "b0") as uri:
        result = place.run("backup", uri, "--name", "web01", "--bitmap", "b0")
    assert "lacks parts of disks/vda.raw that could not be read: reading all of it" in result.stderr
    assert disk_of(place, "web01") == live.content()


def test_a_bitmap_that_is_not_there_is_told_with_those_that_are(place: Place, live: Live) -> None:
    live.begin("b0")
    live.begin("b1")
    with nothing_committed(place), live.served("-B", "b0") as uri:
        said = told(place.run("backup", uri, "--name", "web01", "--bitmap", "b7"))
    assert "'b7'; the server offers 'b0'" in said
    with nothing_committed(place):
        said = told(place.run("backup", live.raw, "--name", "web01", "--bitmap", "b0"))
    assert "only a live disk" in said


def test_a_server_that_dies_leaves_nothing(place: Place, live: Live) -> None:
    half = f"if [ $4 -ge {LIVE_SIZE // 2} ]; then kill -9 $PPID; fi"
    script = f"{half}; dd if=/dev/urandom count=$3 bs=64k iflag=count_bytes"
    with (
        nothing_committed(place),
        nbdkit(place.root, "eval", f"get_size=echo {LIVE_SIZE}", f"pread={script}") as socket,
    ):
        uri = f"nbd+unix:///?socket={socket}"
        assert "nothing was committed" in told(place.run("backup", uri, "--name", "web01"))
        (place.root / "nbd.pid").unlink()
    with nothing_committed(place):
        told(place.run("backup", f"nbd+unix:///?socket={place.root}/gone", "--name", "web01"))
