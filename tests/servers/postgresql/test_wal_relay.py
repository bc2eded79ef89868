"""The way of archived log into a rehearsal, against a server's user who wants something else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.base.confinement.plan import User
from holdfast.base.confinement.spare_user import spare_user
from holdfast.servers.postgresql.wal_relay import WalRelay
from support.scratch import open_folder

NAME = "000000010000000000000001"


@pytest.fixture
def user() -> Iterator[User]:
    with spare_user() as user:
        yield user


@pytest.fixture
def folder(user: User) -> Iterator[Path]:
    with open_folder() as made:
        private = made / "p"
        private.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(private, user.uid, user.gid)
        yield private


def fetch(name: str, path: Path) -> bool:
    if name == NAME:
        path.write_bytes(b"log")
    return name == NAME


def as_user(user: User, folder: Path, *argv: str) -> int:
    """As the server runs things."""
    who = {"user": user.uid, "group": user.gid, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(argv, cwd=folder, check=False, timeout=20, stderr=subprocess.DEVNULL, **who)  # type: ignore[call-overload]
    return int(done.returncode)


def test_a_file_comes_to_where_the_server_wants_it(user: User, folder: Path) -> None:
    with WalRelay(folder, user, fetch) as relay:
        assert as_user(user, folder, *relay.command, NAME, "got") == 0
        assert as_user(user, folder, *relay.command, "00000002.history", "none") == 1
        assert as_user(user, folder, *relay.command, NAME, "no/such/folder") == 200
    assert (folder / "got").read_bytes() == b"log"
    assert relay.files == 2
    assert relay.trouble is None


def test_damage_stops_a_recovery(user: User, folder: Path) -> None:
    def damaged(name: str, path: Path) -> bool:
        raise ValueError(name)

    with WalRelay(folder, user, damaged) as relay:
        assert as_user(user, folder, *relay.command, NAME, "got") == 200
        assert as_user(user, folder, *relay.command, "00000002.history", "none") == 200
    assert isinstance(relay.trouble, ValueError)


def test_what_the_servers_user_puts_there_leads_no_write_elsewhere(user: User, folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    with WalRelay(folder, user, fetch) as relay:
        (folder / "log").rename(folder / "moved")
        (folder / "log").symlink_to(elsewhere)
        script = str(folder / "moved" / "fetch")
        assert as_user(user, folder, "/bin/sh", script, NAME, "got") == 0
        if os.geteuid() == 0:
            assert as_user(user, folder, "ln", "-sf", str(elsewhere / "x"), str(folder / "moved" / "file"))
    assert list(elsewhere.iterdir()) == []
    assert (folder / "got").read_bytes() == b"log"
    assert relay.trouble is None


def test_who_asks_and_never_listens_keeps_nobody_waiting(user: User, folder: Path) -> None:
    with WalRelay(folder, user, lambda name, path: False) as relay:
        ask = os.open(folder / "log" / "ask", os.O_WRONLY)
        try:
            for _ in range(2 << 16 >> 10):  # more answers than a pipe holds
                os.write(ask, b"x\n" * 1024)
        finally:
            os.close(ask)
        relay.close()
    relay.close()
