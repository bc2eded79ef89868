"""A small repository with a disk, a dump, files and logs, and the questions whose answers are frozen."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from support.basics import need
from support.cli import Place
from support.golden_support import Normaliser
from support.guest_images import blank, run

UUID: Final = "11111111-2222-3333-4444-555555555555"
SYSTEM: Final = "7412345678901234567"
SEGMENT: Final = 1 << 20
MADE: Final = 1_600_000_000
"""When everything was last changed: 2020-09-13T12:26:40Z."""
DAYS: Final = frozenset({"2020-09-13", "2021-03-01", "2021-03-02"})
"""When files were changed, and when the first and the second round of backups are said to be from."""

POSTGRES: Final = """--
-- PostgreSQL database dump
--

-- Dumped from database version 15.8 (Debian 15.8-0+deb12u1)
-- Dumped by pg_dump version 15.8 (Debian 15.8-0+deb12u1)

SET client_encoding = 'UTF8';
SELECT pg_catalog.set_config('search_path', '', false);

--
-- Name: orders; Type: TABLE; Schema: public; Owner: shop
--

CREATE TABLE public.orders (
    id integer NOT NULL,
    item text
);


ALTER TABLE public.orders OWNER TO shop;

--
-- Data for Name: orders; Type: TABLE DATA; Schema: public; Owner: shop
--

COPY public.orders (id, item) FROM stdin;
1\tapple
2\tpear
\\.


--
-- PostgreSQL database dump complete
--

"""
SQLITE: Final = """PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE things(id integer, name text);
INSERT INTO things VALUES(1,'one');
INSERT INTO things VALUES(2,NULL);
COMMIT;
"""


# ---- what is backed up --------------------------------------------------------------------------------


def write(place: Place, name: str, content: str | bytes) -> Path:
    """A file that was last changed at MADE."""
    path = place.write(name, content)
    os.utime(path, (MADE, MADE))
    return path


def make_disk(place: Place, name: str, hostname: str, *more: str) -> Path:
    """A disk with ext4 on it that comes out the same each time: debugfs writes it, not the kernel. `more` are
    further commands of debugfs."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    for tool in ("mkfs.ext4", "debugfs"):
        need(shutil.which(tool, path=path), f"no {tool}")
    image = blank(place.root / name, 4 << 20)
    fixed = (f"E2FSPROGS_FAKE_TIME={MADE}", f"PATH={path}")
    made = ("mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", "-L", "root", "-U", UUID)
    run("env", *fixed, *made, "-O", "^has_journal", "-E", f"root_owner=0:0,hash_seed={UUID}", image)
    script = [
        "mkdir /etc",
        f"write {place.write('hostname', hostname)} /etc/hostname",
        "set_inode_field /etc/hostname mode 0100644",
        f"set_inode_field /etc/hostname mtime @{MADE + 1}",
        "symlink /etc/link hostname",
        "mkdir /dev",
        "cd /dev",
        "mknod pipe p",
        *more,
    ]
    commands = place.write("commands", "\n".join(script) + "\n")
    run("env", *fixed, "debugfs", "-w", "-f", commands, image)
    os.utime(image, (MADE, MADE))
    return image


def wal_segment(place: Place, number: int) -> Path:
    """A segment of PostgreSQL's log, of 1 MiB: its head, and zeros."""
    header = struct.pack("<HHIQI4xQII", 0xD110, 2, 1, number * SEGMENT, 0, int(SYSTEM), SEGMENT, 8192)
    return write(place, f"{1:08X}{0:08X}{number:08X}", header + bytes(SEGMENT - len(header)))


def binary_log(place: Place, name: str, *, in_use: bool = False) -> Path:
    """A binary log of a MariaDB server."""
    event = struct.pack("<IBIIIH", MADE, 15, 7, 122, 126, in_use)
    head = b"\xfebin" + event + struct.pack("<H50sIB", 4, b"10.11.6-MariaDB-log", 0, 19)
    return write(place, name, head + bytes(100))


# ---- asking -------------------------------------------------------------------------------------------


@dataclass
class Story:
    """Commands that are run one after the other with --json, and what they answered, normalised."""

    place: Place
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    normal: Normaliser = field(init=False)

    def __post_init__(self) -> None:
        self.normal = Normaliser(self.place.root, DAYS)

    def ask(self, name: str, *args: str | Path, **env: Any) -> None:
        """Keep the answer under a name. `env` None takes a variable away."""
        result = self.place.run("--json", *args, **env)
        self.keep(name, args, result.exit_code, result.stdout, result.stderr)

    def keep(self, name: str, args: tuple[str | Path, ...], code: int, out: str, err: str) -> None:
        assert name not in self.answers
        self.answers[name] = {
            "command": self.normal.text(shlex.join(map(str, args))),
            "exit_code": code,
            "stdout": self.normal.documents(out),
            "stderr": self.normal.documents(err),
        }

    def back_up(self, name: str, label: str, *args: str | Path, day: int = 1) -> None:
        """Back up, and call the snapshot by its label from here on. Each is from another minute of the day:
        those of the same time stand in the order of their IDs."""
        when = f"2021-03-{day:02}T02:{len(self.answers):02}:00"
        args = ("backup", "--host", "host", "--time", when, *args)
        result = self.place.run("--json", *args)
        summary = json.loads(result.stdout.splitlines()[-1])
        self.normal.learn(summary["id"], label)
        self.keep(name, args, result.exit_code, result.stdout, result.stderr)


def tell_all(place: Place) -> Story:
    """The whole story, but for what needs servers or a mount."""
    story = Story(place)
    _begin(story)
    _back_up(story)
    _look(story)
    _restore(story)
    _logs(story)
    _maintain(story)
    _keys(story)
    return story


def _begin(story: Story) -> None:
    story.ask("init", "init", "-r", story.place.root / "new")
    story.ask("init-recovery-key", "init", "--recovery-key", "-r", story.place.root / "another")
    story.ask("version", "version")
    story.ask("completion", "completion", "bash")
    story.ask("snapshots-none", "snapshots")


def _back_up(story: Story) -> None:
    place = story.place
    disk = make_disk(place, "sda.raw", "web01\n")
    story.back_up("backup-disk", "web01 1", disk, "--name", "web01", "--uuid", UUID, "--tag", "daily")
    make_disk(place, "sda.raw", "web01.example\n", "rm /dev/pipe", "symlink /etc/new hostname")
    story.back_up("backup-disk-again", "web01 2", disk, "--name", "web01", "--uuid", UUID, day=2)
    story.back_up("backup-dump", "shop", write(place, "shop.sql", POSTGRES))
    story.back_up("backup-dump-cut-off", "cut", write(place, "cut.sql", POSTGRES[: POSTGRES.index("2\t")]))
    files = (write(place, "one.txt", "one\n"), write(place, "two.txt", "two\n" * 1000))
    story.back_up("backup-files", "etc 1", *files, "--name", "etc")
    story.back_up("backup-files-again", "etc 2", files[0], "--name", "etc", day=2)
    stream = ("--name", "stream", "--stdin-from-command", "--", "echo", "hello")
    story.back_up("backup-stream", "stream", *stream)


def _look(story: Story) -> None:
    inside = "web01:files/sda/p0"
    story.ask("snapshots", "snapshots")
    story.ask("snapshots-filtered", "snapshots", "--kind", "vm", "--tag", "daily")
    story.ask("ls-disk", "ls", "web01")
    story.ask("ls-dump", "ls", "shop")
    story.ask("ls-dump-tables", "ls", "shop:tables")
    story.ask("ls-files", "ls", "etc@2021-03-01")
    story.ask("ls-guest-disks", "ls", "web01:files")
    story.ask("ls-guest-volumes", "ls", "web01:files/sda")
    story.ask("ls-guest-folder", "ls", f"{inside}/etc")
    story.ask("ls-guest-file", "ls", f"{inside}/etc/hostname")
    story.ask("ls-guest-recursive", "ls", "-R", "web01@2021-03-01:files/sda/p0")
    story.ask("find", "find", "hostname", "one.txt", "nothing")
    story.ask("diff-disk", "diff", "web01")
    story.ask("diff-files", "diff", "etc@2021-03-01", "etc@2021-03-02")
    story.ask("info", "info")
    story.ask("info-disk", "info", "web01@2021-03-01")
    story.ask("info-dump", "info", "shop")
    story.ask("info-dump-cut-off", "info", "cut")
    story.ask("stats", "stats")


def _restore(story: Story) -> None:
    root = story.place.root
    story.ask("restore-disk", "restore", "web01:disks/sda.raw", "--target", root / "back.raw")
    other = ("--format", "qcow2", "--verify", "--target", f"{root}/disks/")
    story.ask("restore-disk-format", "restore", "web01", *other)
    story.ask("restore-partial", "restore", "cut", "--target", f"{root}/cut/")
    table = "shop:tables/public.orders.sql"
    story.ask("restore-table", "restore", table, "--target", root / "orders.sql")
    guest = "web01@2021-03-01:files/sda/p0/"
    story.ask("restore-guest-file", "restore", f"{guest}etc/hostname", "--target", root / "h", "--no-owner")
    story.ask("restore-guest-special", "restore", f"{guest}dev", "--target", root / "dev", "--no-owner")


def _logs(story: Story) -> None:
    place = story.place
    story.ask("logs-none", "logs")
    pushed = [wal_segment(place, number) for number in (1, 2, 4)]
    for name, path in zip(("wal-push", "wal-push-more", "wal-push-after-a-gap"), pushed, strict=True):
        story.ask(name, "wal-push", path, "--system-id", SYSTEM)
    story.ask("wal-push-again", "wal-push", pushed[0], "--system-id", SYSTEM)
    story.ask("wal-fetch", "wal-fetch", pushed[0].name, place.root / "fetched", "--system-id", SYSTEM)
    binlogs = [binary_log(place, f"shop-bin.00000{number}") for number in (1, 2)]
    story.ask("binlog-push", "binlog-push", "--name", "maria", *binlogs)
    story.ask("logs", "logs")
    story.ask("logs-archive", "logs", "maria")
    story.ask("logs-write", "logs", "maria", binlogs[0].name, "--target", place.root / "logs")


def _maintain(story: Story) -> None:
    idle = ("--max-unused", "100")  # which packs are worth a rewrite is a matter of their sizes
    story.ask("check-structure", "check", "--structure")
    story.ask("check", "check")
    story.ask("check-read-data", "check", "--read-data")
    story.ask("forget-policy", "forget", "--keep-last", "1", "--keep-tag", "daily", "--name", "etc", "-n")
    story.ask("forget-policy-tag", "forget", "-l", "1", "--keep-tag", "daily", "--name", "web01", "-n")
    story.ask("forget-named", "forget", "etc@2021-03-01", "cut")
    story.ask("undelete-list", "undelete")
    story.ask("prune-dry-run", "prune", "--dry-run", *idle)
    story.ask("forget-and-prune", "forget", "etc@2021-03-02", "--prune", "--dry-run")
    story.ask("undelete", "undelete", "etc@2021-03-01")
    story.ask("prune", "prune", "--quarantine", "none", *idle)


def _keys(story: Story) -> None:
    place = story.place
    story.ask("key-list", "key", "list")
    new = place.write("new-password", "a new password\n")
    story.ask("key-add", "key", "add", "--label", "office", "--new-password-file", new)
    story.ask("key-add-recovery", "key", "add", "--recovery")
    (office,) = (key["id"] for key in place.json("key", "list")["keys"] if key["label"] == "office")
    story.normal.learn(office, "office's key slot")
    story.ask("key-remove", "key", "remove", office)
    story.ask("key-passwd", "key", "passwd", "--new-password-file", new)
