"""The README's commands, read out of it and typed in their order, in one repository, on real things."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support import module_map
from support.basics import need
from support.cli import HOLDFAST, PG_HEAD, PG_TAIL
from support.database import PostgresServer, postgres_server, run
from support.fuse import need_fuse
from support.scratch import open_folder

README = module_map.ROOT / "README.md"
FENCE = re.compile(r"^```\n(.*?)^```$", re.M | re.S)
SECTION = "## The first backup"
MIB = 1 << 20
DOMAIN = """<domain type='kvm'><name>web01</name><uuid>aaaaaaaa-bbbb-cccc-dddd-000000000001</uuid>
<memory unit='MiB'>256</memory><os><type arch='x86_64'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/x/web01.qcow2'/>
<target dev='vda' bus='virtio'/></disk>
</devices></domain>"""


def commands() -> str:
    """All blocks of commands of that section, one behind another."""
    text = README.read_text().partition(SECTION)[2].partition("\n## ")[0]
    return "".join(FENCE.findall(text))


def make_guest(folder: Path, name: str) -> Path:
    """A disk with two partitions, in the second of which is a system."""
    tree = folder / f"tree-{name}"
    (tree / "etc" / "ssh").mkdir(parents=True)
    (tree / "etc" / "ssh" / "sshd_config").write_text("PermitRootLogin no\n")
    (tree / "usr" / "bin").mkdir(parents=True)
    (tree / "usr" / "bin" / "htop").write_bytes(os.urandom(MIB))
    raw, image = folder / f"{name}.img", folder / f"{name}.qcow2"
    with raw.open("wb") as file:
        file.truncate(64 * MIB)
    run(["sfdisk", str(raw)], stdin=b"label: gpt\nsize=4MiB\nsize=40MiB\n")
    offset = [int(line.split("start=")[1].split(",")[0]) for line in layout(raw)][1] * 512
    run(["mkfs.ext4", "-q", "-F", "-d", str(tree), "-E", f"offset={offset}", str(raw), "40M"])
    run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(image)])
    return image


def layout(raw: Path) -> list[str]:
    return [line for line in run(["sfdisk", "-d", str(raw)]).decode().splitlines() if "start=" in line]


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with open_folder() as folder, postgres_server(folder / "s") as running:
        running.psql("CREATE ROLE backup LOGIN SUPERUSER")
        for name in ("shop", "shop_copy", "shop_copy2", "shop_copy3"):
            running.psql(f"CREATE DATABASE {name}")
        running.psql("CREATE TABLE orders AS SELECT n AS id FROM generate_series(1, 5000) n", "shop")
        yield running


@pytest.mark.slow
def test_the_commands_of_the_readme_work_in_their_order(tmp_path: Path, server: PostgresServer) -> None:
    need_fuse()
    for tool in ("sfdisk", "mkfs.ext4", "qemu-img"):
        need(shutil.which(tool), tool)
    exports = tmp_path / "exports" / "web01"
    exports.mkdir(parents=True)
    shutil.copy(make_guest(tmp_path, "web01"), exports)
    (exports / "web01.xml").write_text(DOMAIN)
    make_guest(tmp_path, "web02")
    (tmp_path / "wiki.sql.gz").write_bytes(gzip.compress(PG_HEAD + PG_TAIL))
    (tmp_path / "images").mkdir()
    script = commands()
    for said, here in {
        "/srv/backups": str(tmp_path / "repo"),
        "/mnt/backups": str(tmp_path / "mnt"),
        "/exports/": f"{tmp_path}/exports/",
        "/tmp/etc": str(tmp_path / "etc"),  # noqa: S108  as the page has it
        "/var/lib/images": str(tmp_path / "images"),
        "postgres://backup@db1/shop": f"'postgres://backup@/shop?host={server.folder}'",
    }.items():
        assert said in script, said
        script = script.replace(said, here)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")},
        "PATH": f"{HOLDFAST.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOLDFAST_PASSWORD": "a password",
        "HOLDFAST_CACHE_DIR": str(tmp_path / "cache"),
        "PGHOST": str(server.folder),
        "PGUSER": "postgres",
    }
    try:
        done = subprocess.run(
            ["bash", "-exuo", "pipefail", "-c", script],
            check=False,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
    finally:
        with suppress(OSError):
            subprocess.run(["umount", tmp_path / "mnt"], check=False, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PermitRootLogin no" in done.stdout
    assert (tmp_path / "etc" / "ssh" / "sshd_config").read_text() == "PermitRootLogin no\n"
    assert (tmp_path / "images" / "web01.raw").stat().st_size == 64 * MIB
    for copy in ("shop_copy", "shop_copy2", "shop_copy3"):
        assert server.psql("SELECT count(*) FROM orders", copy) == "5000\n"
