"""Errors as JSON, and exit codes, for the golden files."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from support.cli import Place, files, flip_byte, python
from support.golden_story import POSTGRES, SYSTEM, Story, binary_log, wal_segment, write


def tell_errors(place: Place) -> Story:
    """Run commands that all fail, one after the other, on a small repository."""
    story = Story(place)
    story.back_up("backup", "etc", write(place, "one.txt", "one\n"), "--name", "etc")
    _damage(story)
    story.back_up("backup-dump", "shop", write(place, "shop.sql", POSTGRES))
    _usage(story)
    _repositories(story)
    _what_is_not_there(story)
    _refusals(story)
    _logs(story)
    _while_another_runs(story)
    del story.answers["backup"], story.answers["backup-dump"]
    return story


def _usage(story: Story) -> None:
    story.ask("no command")
    story.ask("unknown command", "snapshot")
    story.ask("unknown subcommand", "key", "nope")
    story.ask("unknown option", "snapshots", "--nope")
    story.ask("missing argument", "ls")
    story.ask("missing option", "restore", "etc")
    story.ask("bad choice", "snapshots", "--kind", "tape")
    story.ask("bad number", "init", "--compression", "20", "-r", story.place.root / "new")
    story.ask("bad duration", "forget", "--keep-within", "soon")
    story.ask("bad time", "backup", story.place.root / "one.txt", "--time", "soon")
    story.ask("options that contradict", "check", "--structure", "--read-data")
    story.ask("neither snapshots nor rules", "forget")
    story.ask("prune with rules", "prune", "--keep-daily", "7")
    story.ask("nothing to back up", "backup")
    story.ask("stream without a name", "backup", "--stdin")
    story.ask("dump in JSON", "dump", "etc")
    story.ask("table as a format", "restore", "shop:tables", "--target", "x", "--format", "qcow2")


def _repositories(story: Story) -> None:
    place = story.place
    story.ask("which repository", "snapshots", HOLDFAST_REPOSITORY=None)
    story.ask("repository elsewhere", "snapshots", "-r", "s3:bucket")
    story.ask("no repository", "snapshots", "-r", place.root / "none")
    story.ask("repository exists", "init")
    story.ask("wrong password", "snapshots", HOLDFAST_PASSWORD="wrong")
    story.ask("password file missing", "snapshots", "--password-file", place.root / "none")
    story.ask("password empty", "snapshots", "--password-command", "true")


def _what_is_not_there(story: Story) -> None:
    root = story.place.root
    story.ask("no such snapshot", "info", "nothing")
    story.ask("no such item", "restore", "etc:nothing", "--target", root / "x")
    story.ask("no such table", "restore", "shop:tables/nothing", "--target", root / "x")
    story.ask("no such time", "info", "etc@2021-03-02")
    story.ask("no snapshot before", "diff", "etc")
    story.ask("no such key slot", "key", "remove", "nothing")
    story.ask("empty trash", "undelete", "etc")
    story.ask("no such source", "backup", root / "none")
    story.ask("no such archive", "logs", "nothing")


def _refusals(story: Story) -> None:
    place = story.place
    there = write(place, "there", "x")
    story.ask("target exists", "restore", "etc:one.txt", "--target", there)
    story.ask("target in the repository", "restore", "etc", "--target", place.repository / "x")
    story.ask("nothing would be left", "forget", "--keep-tag", "none")
    story.ask("format without a disk", "restore", "etc", "--format", "qcow2", "--target", f"{place.root}/x/")
    story.ask("last key slot", "key", "remove", place.json("key", "list")["keys"][0]["id"])
    disk = write(place, "disk.raw", bytes(4096))
    story.ask("less consistent", "backup", disk, "--kind", "vm", "--require", "application")
    story.ask("command failed", "backup", "--name", "x", "--stdin-from-command", "--", "false")
    story.ask("no database", "rehearse", "etc")


def _logs(story: Story) -> None:
    place = story.place
    name = wal_segment(place, 1)
    story.ask("wal-push of another cluster", "wal-push", name, "--system-id", "1")
    story.ask("wal-fetch without an archive", "wal-fetch", name.name, place.root / "x", "--system-id", SYSTEM)
    story.ask("wal-fetch used wrongly", "wal-fetch")
    place.ok("wal-push", name, "--system-id", SYSTEM)
    missing = f"{2:024X}"
    story.ask("wal-fetch at the end", "wal-fetch", missing, place.root / "x", "--system-id", SYSTEM)
    story.ask("binlog-push of something else", "binlog-push", "--name", "maria", name)
    binlog = binary_log(place, "shop-bin.000001", in_use=True)
    story.ask("binlog-push of an open log", "binlog-push", "--name", "maria", binlog)


def _while_another_runs(story: Story) -> None:
    """A backup that holds its lock until it is interrupted."""
    place = story.place
    started = place.root / "started"
    code = f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(60)"
    command = ("backup", "--name", "slow", "--stdin-from-command", "--")
    process = place.process(
        *("--json", *command, *python(code)),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    while not started.exists():
        assert process.poll() is None
    story.ask("locked", "prune", "--lock-timeout", "0")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    story.keep("interrupted", (*command, "sleep", "60"), process.returncode, out.decode(), err.decode())


def _damage(story: Story) -> None:
    """Each kind of file is damaged, asked about and mended again."""
    place = story.place
    target = ("--target", f"{place.root}/etc/")
    with _flipped(place, "packs", 20):
        story.ask("damage restored", "restore", "etc", *target)
        story.ask("damage found", "check")
        story.ask("damage found in data", "check", "--read-data")
    with _flipped(place, "snapshots", 100):
        story.ask("damaged snapshots", "snapshots")
        story.ask("damaged snapshots checked", "check", "--structure")
    with _flipped(place, "keys", 30):
        story.ask("damaged key slots", "key", "list")
        story.ask("no whole key slot", "snapshots")
    with _flipped(place, "config", 5):
        story.ask("damaged config", "info")


@contextmanager
def _flipped(place: Place, name: str, offset: int) -> Iterator[None]:
    """With a bit of each file of a kind turned over, both copies of it where there are two."""
    paths = files(place.repository, name) or sorted(place.repository.glob(f"{name}*"))
    for path in paths:
        flip_byte(path, offset)
    yield
    for path in paths:
        flip_byte(path, offset)
