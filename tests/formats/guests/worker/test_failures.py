"""A worker that dies, hangs, eats memory or lies costs its call and nothing else."""

from __future__ import annotations

import gc
import os
import resource
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.formats.guests.client.guest import GuestDisk
from holdfast.formats.guests.values.values import GuestDamaged, GuestError, WorkerFailed
from holdfast.formats.guests.worker.process import Limits, WorkerProcess
from holdfast.formats.guests.worker.protocol import Channel, Kind, Layer, pack_layers
from support import guest_hostile
from support.guest import CONTENT, MemoryDisk, open_guest, process_of, said
from support.guest_fakes import FILE, MANY_FOLDER, PACKED, ROOT

HASTY = Limits(answer_seconds=0.4)


# ---- it dies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trick", "reason"),
    [
        ("loop", "took longer than 0.4 s"),
        ("exit", "ended unasked"),
        ("segfault", "was ended by SIGSEGV"),
        ("eat", "ran out of memory"),
        ("eat-small", "ran out of memory|was ended|ended unasked"),
        ("read-on", "read too much of the disk"),
    ],
)
def test_a_worker_that_fails_costs_its_call_and_a_fresh_one_answers(trick: str, reason: str) -> None:
    limits = Limits(answer_seconds=0.4 if trick == "loop" else 20, memory=256 << 20, disk_bytes=64 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_guest(MemoryDisk(), limits=limits) as guest:
        first = process_of(guest)
        with pytest.raises(WorkerFailed, match=f"sda: the parser ({reason})"):
            guest.lookup("p1", ROOT, trick.encode())
        assert guest.entry("p1", FILE).inode == FILE
        assert process_of(guest) != first
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


@pytest.mark.parametrize(
    ("trick", "reason"), [("recurse", "RecursionError"), ("key-error x", "KeyError: 'x'")]
)
def test_what_a_parser_raises_is_damage_and_the_worker_goes_on(trick: str, reason: str) -> None:
    with open_guest(MemoryDisk()) as guest:
        first = process_of(guest)
        with pytest.raises(GuestDamaged, match=f"sda: the parser gave up: {reason}"):
            guest.lookup("p1", ROOT, trick.encode())
        assert process_of(guest) == first


def test_an_answer_that_fits_in_no_message_is_damage_and_the_worker_goes_on() -> None:
    with open_guest(MemoryDisk()) as guest:
        first = process_of(guest)
        with pytest.raises(GuestDamaged, match="is too long"):
            guest.xattrs("p1", PACKED)
        assert process_of(guest) == first


def test_what_a_guest_says_cannot_reach_a_terminal_as_control_characters() -> None:
    with open_guest(MemoryDisk()) as guest:
        assert said(guest, "control") == r"\x1b[31m\x0ared"


@pytest.mark.parametrize(
    ("opener", "reason"),
    [
        ("a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("json", "AttributeError: module 'json' has no attribute 'open_volumes'"),
    ],
)
def test_a_worker_that_does_not_come_up_says_why(opener: str, reason: str) -> None:
    with GuestDisk(MemoryDisk(), name="sda", opener=opener) as guest, pytest.raises(WorkerFailed) as caught:
        guest.volumes()
    assert str(caught.value) == f"sda: the parser did not start: {reason}"


def test_without_a_required_layer_nothing_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    receive = Channel.receive

    def only_landlock(channel: Channel, *, deadline: float | None = None) -> tuple[Kind, bytearray]:
        kind, body = receive(channel, deadline=deadline)
        return kind, bytearray(pack_layers(frozenset({Layer.LANDLOCK}))) if kind is Kind.HELLO else body

    monkeypatch.setattr(Channel, "receive", only_landlock)
    disk = MemoryDisk()
    reason = r"could not be locked in \(missing here: limits, seccomp\)"
    with open_guest(disk) as guest, pytest.raises(WorkerFailed, match=reason):
        guest.volumes()
    with open_guest(disk, limits=Limits(required=frozenset())) as guest:
        assert guest.volumes()
    assert disk.reads == []


def test_a_disk_whose_parser_keeps_failing_is_left_alone_for_a_while() -> None:
    now = [1000.0]
    limits = Limits(failures=3, failure_seconds=100, pause_seconds=60)
    with GuestDisk(
        MemoryDisk(), name="sda", limits=limits, opener="support.guest_fakes", clock=lambda: now[0]
    ) as guest:
        for _ in range(3):
            now[0] += 10
            with pytest.raises(WorkerFailed, match="unasked"):
                guest.lookup("p1", ROOT, b"exit")
        now[0] += 20
        for ask in (guest.volumes, lambda: guest.root("p1")):
            with pytest.raises(WorkerFailed, match="failed 3 times; it is tried again in 40 s"):
                ask()
        now[0] += 40
        assert guest.root("p1").inode == ROOT
        with pytest.raises(WorkerFailed, match="unasked"):
            guest.lookup("p1", ROOT, b"exit")
        with pytest.raises(WorkerFailed, match="again in 60 s"):
            guest.volumes()
        now[0] += 60
        assert guest.root("p1").inode == ROOT


# ---- it lies ------------------------------------------------------------------------------------------


def play(scenario: str, limits: Limits = HASTY) -> GuestDisk:
    disk = MemoryDisk(CONTENT[: guest_hostile.SIZE])
    limits = Limits(answer_seconds=limits.answer_seconds, unlock_seconds=20, names=limits.names)
    return GuestDisk(disk, name="sda", passphrases=[scenario], limits=limits, opener="support.guest_hostile")


@pytest.mark.parametrize("scenario", guest_hostile.LOOKUPS)
def test_a_lie_about_a_file_is_nonsense(scenario: str) -> None:
    with play(scenario) as guest, pytest.raises(WorkerFailed, match="sda: the parser answered nonsense"):
        guest.lookup("p1", ROOT, b"file")


@pytest.mark.parametrize("scenario", guest_hostile.PAGES)
def test_a_lie_about_a_folder_is_nonsense(scenario: str) -> None:
    with play(scenario) as guest, pytest.raises(WorkerFailed, match="sda: the parser answered nonsense"):
        list(guest.list("p1", ROOT))


@pytest.mark.parametrize("scenario", [*guest_hostile.VOLUMES, "two volumes of one name"])
def test_a_lie_about_volumes_is_nonsense(scenario: str) -> None:
    with play(scenario) as guest, pytest.raises(WorkerFailed, match="sda: the parser answered nonsense"):
        guest.volumes()


@pytest.mark.parametrize(
    ("scenario", "ask", "reason"),
    [
        ("too many bytes", lambda guest: guest.read("p1", 11, 0, 100), "nonsense"),
        ("a link to nothing", lambda guest: guest.readlink("p1", 11), "nonsense"),
        ("capabilities", lambda guest: guest.xattrs("p1", 11), "nonsense"),
        ("drip", lambda guest: guest.root("p1"), "took longer than 0.4 s"),
        ("ask without reading", lambda guest: guest.root("p1"), "took longer than 0.4 s"),
        ("hang up", lambda guest: guest.root("p1"), "closed its socket"),
        ("insult", lambda guest: guest.root("p1"), r"the parser \\x1b\]0;owned\\x07\\x0a"),
    ],
)
def test_a_worker_that_misbehaves_is_killed(
    scenario: str, ask: Callable[[GuestDisk], object], reason: str
) -> None:
    before = set(children())
    with play(scenario) as guest:
        with pytest.raises(WorkerFailed, match=reason) as caught:
            ask(guest)
        assert len(str(caught.value)) < 1000
        assert not set(children()) - before


def test_an_endless_folder_of_a_hostile_worker_ends() -> None:
    limits = Limits(names=10_000)
    with (
        play("endless", limits) as guest,
        pytest.raises(GuestDamaged, match=r"names is at least 1\d+; it must be at most 10000$"),
    ):
        list(guest.list("p1", ROOT))


# ---- nothing is left ----------------------------------------------------------------------------------


def descriptors() -> set[str]:
    return {f"{entry.name} {entry.readlink()}" for entry in Path("/proc/self/fd").iterdir() if entry.exists()}


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_no_process_and_no_descriptor_is_left() -> None:
    gc.collect()
    before = descriptors(), children()
    for trick in ("", "exit", "loop"):
        with open_guest(MemoryDisk(), limits=HASTY) as guest:
            guest.volumes()
            assert len(children()) == len(before[1]) + 1
            if trick:
                with pytest.raises(WorkerFailed):
                    guest.lookup("p1", ROOT, trick.encode())
            assert len(children()) == len(before[1]) + (not trick)
    for opener in ("json", "support.guest_hostile"):
        guest = GuestDisk(MemoryDisk(), name="sda", opener=opener, passphrases=["nothing"])
        with guest, pytest.raises(GuestError):
            guest.root("p1")
    with open_guest(MemoryDisk(), limits=Limits(start_seconds=0)) as guest, pytest.raises(WorkerFailed):
        guest.volumes()
    assert (descriptors(), children()) == before


def test_a_disk_that_was_closed_starts_no_other_worker() -> None:
    before = children()
    with open_guest(MemoryDisk()) as guest:
        listing = guest.list("p1", MANY_FOLDER)
        next(listing)
        guest.close()
        with pytest.raises(WorkerFailed, match="sda: is closed"):
            list(listing)
        assert children() == before
    with open_guest(MemoryDisk()) as guest:
        guest.close()
        with pytest.raises(WorkerFailed, match="sda: is closed"):
            guest.volumes()
        assert children() == before


def test_closing_ends_a_call_that_is_under_way() -> None:
    before = children()
    disk = MemoryDisk()
    reached = threading.Event()
    disk.on_read = reached.set
    failed: list[Exception] = []
    with open_guest(disk) as guest:

        def hang() -> None:
            try:
                guest.lookup("p1", ROOT, b"read-then-loop")
            except WorkerFailed as error:
                failed.append(error)

        thread = threading.Thread(target=hang)
        thread.start()
        assert reached.wait(120)
        guest.close()
        thread.join(120)
        assert not thread.is_alive()
    assert len(failed) == 1
    assert "was ended by SIGKILL" in str(failed[0])
    assert children() == before


def test_an_interrupted_call_ends_the_worker() -> None:
    disk = MemoryDisk()
    disk.bad[1000] = KeyboardInterrupt()  # type: ignore[assignment]  # as Ctrl-C arrives
    with open_guest(disk) as guest:
        first = process_of(guest)
        with pytest.raises(KeyboardInterrupt):
            guest.lookup("p1", ROOT, b"read 1000 1")
        assert process_of(guest) != first


def test_two_disks_have_a_worker_each() -> None:
    with open_guest(MemoryDisk(b"a" * 4096)) as a, open_guest(MemoryDisk(b"b" * 4096)) as b:
        assert (said(a, "read 0 2"), said(b, "read 0 2"), said(a, "read 0 2")) == ("6161", "6262", "6161")
        assert process_of(a) != process_of(b)
        with pytest.raises(WorkerFailed):
            a.lookup("p1", ROOT, b"exit")
        assert said(b, "read 0 2") == "6262"


PARENT = """
import signal, sys
from support.guest import MemoryDisk, open_guest, process_of
from holdfast.formats.guests.worker.process import Limits
guest = open_guest(MemoryDisk(), limits=Limits(answer_seconds=1))
print(process_of(guest), flush=True)
sys.stdin.readline()
signal.setitimer(signal.ITIMER_REAL, 0.1)  # ends this process
guest.lookup("p1", 2, b"loop")
"""


@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_does_not_outlive_its_parent(busy: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as parent:
        assert parent.stdout is not None
        worker = os.pidfd_open(int(parent.stdout.readline()))
        try:
            if busy:
                parent.communicate(b"\n")
            else:
                parent.kill()
            ended = select.poll()
            ended.register(worker, select.POLLIN)
            assert ended.poll(20_000)
        finally:
            os.close(worker)


def test_a_worker_is_given_room_for_argon2_only_with_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = []
    real = WorkerProcess.start

    def start(opener: str, memory: int, limits: Limits) -> WorkerProcess:
        rooms.append(memory >> 30)
        return real(opener, memory, limits)

    monkeypatch.setattr(WorkerProcess, "start", start)
    for passphrases in ([], ["secret"]):
        with open_guest(MemoryDisk(), *passphrases) as guest:
            guest.volumes()
    assert rooms == [1, 2]
