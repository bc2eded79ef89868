"""Backups that hold their source still: commands before and after, the guest agent, signals in between."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from holdfast.ingest.sources.image import ImageSource
from holdfast.repo.store.interface import LockMode
from holdfast.repo.store.local import LocalStore
from support.basics import need
from support.cli import Finished, Place
from support.disk import raw_disk
from support.export import MIB
from support.guest_agent import FakeAgent
from support.nbd import FakeServer, usual
from support.vm import Live, make_image, nothing_committed, restored, told


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


# ---- commands before and after ------------------------------------------------------------------------


class Hooks:
    """Commands that note in a file that they ran, and then run a line of Python."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str, code: str = "") -> str:
        path = self.folder / name
        note = f"open({str(self.folder / 'log')!r}, 'a').write({name + ' '!r})"
        path.write_text(f"#!{sys.executable}\nimport os, shutil, subprocess, sys\n{note}\n{code}\n")
        path.chmod(0o755)
        return str(path)

    @property
    def ran(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().split() if log.exists() else []


@pytest.fixture
def hooks(place: Place) -> Hooks:
    return Hooks(place.root)


def test_the_source_may_come_into_being_before_and_go_after(place: Place, hooks: Hooks) -> None:
    """A snapshot volume does: it is made, read, closed, and removed."""
    disk = raw_disk(place.root / "disk", 4 * MIB, seed=1)
    image = place.root / "web01.raw"
    before = hooks.make("before", f"shutil.copy({str(disk)!r}, {str(image)!r})")
    is_open = f"""
links = [os.readlink(f'/proc/{{os.getppid()}}/fd/{{fd}}') for fd in os.listdir(f'/proc/{{os.getppid()}}/fd')
         if os.path.exists(f'/proc/{{os.getppid()}}/fd/{{fd}}')]
sys.exit({str(image)!r} in links or os.remove({str(image)!r}))"""
    about = place.json("backup", image, "--before", before, "--after", hooks.make("after", is_open))
    assert hooks.ran == ["before", "after"]
    assert (about["consistency"], about["warnings"]) == ("crash", [])
    told = f"`{before}` was run before, `{hooks.folder / 'after'}` was run afterwards"
    assert about["evidence"] == f"a disk as found; {told}"
    assert not image.exists()
    assert restored(place, "web01") == {"disks/web01.raw": disk.read_bytes()}


def test_only_a_command_that_is_said_to_freeze_raises_the_grade(place: Place, hooks: Hooks) -> None:
    options = ["--freeze", hooks.make("freeze"), "--thaw", hooks.make("thaw")]
    about = place.json("backup", place.disk(), *options, "--require", "filesystem")
    assert hooks.ran == ["freeze", "thaw"]
    assert about["consistency"] == "filesystem"
    assert "as whoever gave the command says, thawed after" in about["evidence"]
    assert "filesystem" in place.ok("snapshots")
    with nothing_committed(place):
        options = ["--before", "true", "--require", "filesystem"]
        assert place.run("backup", place.disk(), *options).exit_code == 20
        result = place.run("backup", place.disk(), "--thaw", "true")
    assert result.exit_code == 2
    assert "--freeze" in result.stderr


def test_a_command_for_a_shell_is_refused_before_anything_runs(place: Place, hooks: Hooks) -> None:
    for option in ("--before", "--after", "--freeze"):
        with nothing_committed(place):
            options = ["--before", hooks.make("before"), option, "echo x && touch y"]
            result = place.run("backup", place.disk(), *options)
        assert result.exit_code == 2
        assert "sh -c 'echo x && touch y'" in result.stderr
    assert hooks.ran == []


@pytest.mark.parametrize("kind", ["vhdx", "vmdk split flat", "qcow2"])
def test_images_and_what_they_refer_to_are_closed_before_the_command_after(
    place: Place, hooks: Hooks, kind: str
) -> None:
    disk = raw_disk(place.root / "disk", 4 * MIB, seed=1)
    image = make_image(kind, disk, place.root / "images" / "web01")
    code = f"""
links = [os.readlink(e.path) for e in os.scandir(f'/proc/{{os.getppid()}}/fd') if os.path.exists(e.path)]
sys.exit(any(link.startswith({str(image.parent)!r}) for link in links))"""
    about = place.json("backup", image, "--after", hooks.make("after", code))
    assert (hooks.ran, about["warnings"], about["consistency"]) == (["after"], [], "crash")
    folder = place.json("backup", image.parent, "--after", hooks.make("again", code))
    assert (hooks.ran, folder["warnings"]) == (["after", "again"], [])


def test_a_device_is_free_when_the_command_after_runs(place: Place, hooks: Hooks) -> None:
    disk = raw_disk(place.root / "disk", 4 * MIB, seed=1)
    need(Path("/dev/loop-control").exists(), "loop devices")
    link = place.root / "snapshot"
    before = hooks.make(
        "before",
        f"done = subprocess.run(['losetup', '-f', '--show', '-r', {str(disk)!r}], capture_output=True, "
        f"check=True, text=True)\nos.symlink(done.stdout.strip(), {str(link)!r})",
    )
    after = hooks.make(
        "after",
        f"device = os.readlink({str(link)!r})\nsubprocess.run(['losetup', '-d', device], check=True)\n"
        f"sys.exit(os.path.exists(f'/sys/block/{{device[5:]}}/loop/backing_file'))",
    )
    about = place.json("backup", link, "--name", "web01", "--before", before, "--after", after)
    assert (about["consistency"], about["warnings"]) == ("crash", [])
    assert restored(place, "web01") == {"disks/snapshot.raw": disk.read_bytes()}


def test_a_command_before_that_fails_ends_it_before_anything_is_read(place: Place, hooks: Hooks) -> None:
    before = hooks.make("before", "print('no such domain'); sys.exit(7)")
    with nothing_committed(place):
        said = told(
            place.run("backup", place.root / "never made", "--before", before, "--after", hooks.make("after"))
        )
    assert "exited with 7: no such domain" in said
    assert "nothing was committed" in said
    assert hooks.ran == ["before", "after"]


def test_a_command_after_that_fails_ends_with_3_and_stands_in_the_snapshot(
    place: Place, hooks: Hooks
) -> None:
    after = hooks.make("after", "print('volume busy'); sys.exit(8)")
    result = place.run("-q", "backup", place.disk(), "--after", after)
    assert result.exit_code == 3
    assert "exited with 8: volume busy" in result.stderr
    about = place.json("info", "web01")
    assert about["consistency"] == "crash"
    assert "after` exited with 8: volume busy" in about["evidence"]


def test_a_thaw_that_fails_lowers_the_grade(place: Place, hooks: Hooks) -> None:
    thaw = hooks.make("thaw", "print('still frozen'); sys.exit(8)")
    options = ["--freeze", hooks.make("freeze"), "--thaw", thaw]
    result = place.run("backup", place.disk(), *options)
    assert result.exit_code == 3
    assert "exited with 8: still frozen" in result.stderr
    assert place.json("info", "web01")["consistency"] == "crash"
    with nothing_committed(place):
        result = place.run("backup", place.disk(), *options, "--require", "filesystem")
    assert result.exit_code == 20
    assert "exited with 8: still frozen" in result.stderr, "it may still be frozen: to be told, whatever else"


def test_what_is_required_is_held_against_what_the_commands_gave(place: Place, hooks: Hooks) -> None:
    with nothing_committed(place):
        result = place.run("backup", place.disk(), "--require", "filesystem", "--after", hooks.make("after"))
        assert result.exit_code == 20
        assert hooks.ran == ["after"]
        result = place.run(
            *("backup", place.disk(), "--require", "application", "--freeze", hooks.make("before"))
        )
        assert result.exit_code == 20
    place.ok("backup", place.disk(), "--require", "filesystem", "--freeze", hooks.make("before"))
    place.ok("backup", place.disk(), "--require", "crash")


def test_the_command_after_runs_when_the_backup_fails(place: Place, hooks: Hooks) -> None:
    image = make_image("qcow2", place.disk("disk"), place.root / "web01")
    with image.open("r+b") as file:
        file.truncate(image.stat().st_size // 2)
    with nothing_committed(place):
        options = ["--before", hooks.make("before"), "--after", hooks.make("after", "sys.exit('stuck')")]
        said = told(place.run("backup", image, *options))
    assert hooks.ran == ["before", "after"]
    assert "damaged at offset" in said
    assert "stuck" in said


def test_commands_do_not_run_when_the_repository_does_not_open(place: Place, hooks: Hooks) -> None:
    result = place.run(*("backup", place.disk(), "--before", hooks.make("before")), HOLDFAST_PASSWORD="wrong")
    assert (result.exit_code, hooks.ran) == (12, [])


def test_nothing_is_frozen_while_a_prune_is_waited_for(place: Place, hooks: Hooks) -> None:
    with closing(LocalStore.open(place.repository)) as store, store.lock(LockMode.EXCLUSIVE, 0):
        options = ["--before", hooks.make("before"), "--lock-timeout", "0"]
        assert place.run("backup", place.disk(), *options).exit_code == 11
    assert hooks.ran == []


def test_an_image_that_is_written_to_meanwhile_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image("qcow2", place.disk("disk"), place.root / "web01")
    read_into = ImageSource.read_into

    def touch(self: ImageSource, buffer: memoryview, offset: int) -> int:
        image.touch()
        return read_into(self, buffer, offset)

    monkeypatch.setattr(ImageSource, "read_into", touch)
    about = place.json("backup", image)
    assert about["warnings"] == ["web01.qcow2: written to while it was read"]
    assert about["consistency"] == "unknown"


# ---- interrupted --------------------------------------------------------------------------------------


@contextmanager
def stuck(place: Place) -> Iterator[tuple[FakeServer, threading.Event, threading.Event]]:
    """A server that says when it is asked for data, and answers when it is told to."""
    asked, answer = threading.Event(), threading.Event()

    def read(server: FakeServer, request: object) -> bytes:
        if request.offset >= MIB:  # type: ignore[attr-defined]  # a Request: behind what tells what it is
            asked.set()
            assert answer.wait(120)
        return usual(server, request)  # type: ignore[arg-type]  # a Request

    with FakeServer(str(place.root / "fake.sock"), content=b"x" * (4 * MIB), read=read) as server:
        try:
            yield server, asked, answer
        finally:
            answer.set()


def interrupt(place: Place, number: int, *options: str) -> Finished:
    """A backup that is ended by a signal while it reads, also where this run was told to ignore it."""
    with (
        nothing_committed(place),
        stuck(place) as (server, asked, _),
        place.process(
            *("backup", server.uri, "--name", "web01", *options),
            preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
        ) as process,
    ):
        assert asked.wait(120)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    return Finished(process.returncode, out, err.decode())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_command_after_runs_when_the_backup_is_interrupted(
    place: Place, hooks: Hooks, number: int
) -> None:
    ended = interrupt(place, number, "--before", hooks.make("before"), "--after", hooks.make("after"))
    assert ended.code == 130
    assert "no snapshot was made" in ended.err
    assert hooks.ran == ["before", "after"]


# ---- the guest agent ----------------------------------------------------------------------------------


@pytest.fixture
def agent(place: Place) -> Iterator[FakeAgent]:
    fake = FakeAgent(str(place.root / "agent.sock"))
    fake.serve()
    yield fake
    fake.stop()


@pytest.mark.parametrize(
    ("system", "grade", "how"), [("debian", "filesystem", ""), ("mswindows", "application", " through VSS")]
)
def test_a_guest_frozen_by_its_agent_is_as_consistent_as_its_system_makes_it(
    place: Place, agent: FakeAgent, system: str, grade: str, how: str
) -> None:
    agent.system = system
    with Live(place.root).served() as uri:
        options = ["--agent", agent.path, "--require", grade]
        about = place.json("backup", uri, "--name", "web01", *options)
    assert (about["consistency"], about["warnings"]) == (grade, [])
    assert (
        about["evidence"] == f"a disk as found; 2 file systems frozen by the guest agent{how}, thawed after"
    )
    assert agent.calls[-3:] == ["fsfreeze-status", "fsfreeze-thaw", "fsfreeze-status"]
    assert agent.calls.count("fsfreeze-freeze") == 1
    assert not agent.is_frozen


def test_the_commands_stand_around_the_agent(place: Place, hooks: Hooks, agent: FakeAgent) -> None:
    states: list[str] = []
    agent.scripted["fsfreeze-freeze"] = [lambda: states.extend(["freeze", *hooks.ran])]
    agent.scripted["fsfreeze-thaw"] = [lambda: states.extend(["thaw", *hooks.ran])]
    options = ["--before", hooks.make("before"), "--after", hooks.make("after"), "--agent", agent.path]
    about = place.json("backup", place.disk(), *options)
    assert states == ["freeze", "before", "thaw", "before"]
    assert hooks.ran == ["before", "after"]
    assert about["consistency"] == "filesystem", "the lesser of both"


def test_a_guest_that_cannot_be_frozen_is_not_backed_up(place: Place, hooks: Hooks, agent: FakeAgent) -> None:
    agent.scripted["fsfreeze-freeze"] = [{"error": {"class": "GenericError", "desc": "no \x1b[2J"}}]
    with nothing_committed(place):
        options = ["--agent", agent.path, "--before", hooks.make("before"), "--after", hooks.make("after")]
        said = told(place.run("backup", place.disk(), *options))
        assert "GenericError: no" in said
        assert "\x1b" not in said
        assert hooks.ran == ["before", "after"]
        assert "cannot reach the guest agent" in told(
            place.run("backup", place.disk(), "--agent", place.root / "nobody.sock")
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_guest_is_thawed_when_the_backup_is_ended_by_a_signal(
    place: Place, agent: FakeAgent, number: int
) -> None:
    ended = interrupt(place, number, "--agent", agent.path)
    assert ended.code == 130
    assert "fsfreeze-freeze" in agent.calls
    assert agent.calls[-2:] == ["fsfreeze-thaw", "fsfreeze-status"]
    assert not agent.is_frozen


def test_the_guest_is_thawed_when_the_backup_fails(place: Place, agent: FakeAgent) -> None:
    image = make_image("vhdx", place.disk("disk"), place.root / "web01")
    with image.open("r+b") as file:
        file.truncate(3 * MIB)
    with nothing_committed(place):
        assert "damaged" in told(place.run("backup", image, "--agent", agent.path))
    assert "fsfreeze-thaw" in agent.calls
    assert not agent.is_frozen
