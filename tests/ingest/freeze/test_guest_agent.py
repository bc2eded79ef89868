"""The guest agent's client: a guest that was frozen is thawed, and nothing the guest says is trusted."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.base.errors import StreamFailed
from holdfast.ingest.freeze.guest_agent import Agent, AgentError, AgentFreeze
from holdfast.ingest.freeze.hooks import frozen
from holdfast.repo.snapshots.snapshot import Consistency
from support.basics import need
from support.guest_agent import Answer, FakeAgent


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    fake = FakeAgent(str(tmp_path / "agent.sock"))
    fake.serve()
    yield fake
    fake.stop()


def freeze(agent: FakeAgent, limit: float = 10.0) -> AgentFreeze:
    return AgentFreeze(agent.path, limit=limit, freeze_limit=limit)


REFUSED = {"error": {"class": "GenericError", "desc": "failed to open /mnt\x1b[2J: No such device"}}
THAW = ["fsfreeze-thaw", "fsfreeze-status"]

# ---- a guest that behaves -----------------------------------------------------------------------------


def test_a_guest_frozen_all_along_is_consistent(agent: FakeAgent) -> None:
    with frozen([freeze(agent)]) as held:
        during = agent.is_frozen
    assert (during, agent.is_frozen) == (True, False)
    assert held.grade is Consistency.FILESYSTEM
    assert held.evidence == "2 file systems frozen by the guest agent, thawed after"
    assert held.warnings == ()
    before = ["sync-delimited", "fsfreeze-status", "get-osinfo", "fsfreeze-freeze", "fsfreeze-status"]
    assert agent.calls == [*before, *THAW]


def test_an_agent_that_does_not_know_its_system_freezes_all_the_same(agent: FakeAgent) -> None:
    agent.scripted["get-osinfo"] = [REFUSED]
    with frozen([freeze(agent)]) as held:
        assert agent.is_frozen
    assert held.grade is Consistency.FILESYSTEM


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_the_guest_is_thawed_when_the_backup_fails(agent: FakeAgent, kind: type[BaseException]) -> None:
    with pytest.raises(kind), frozen([freeze(agent)]):
        raise kind
    assert not agent.is_frozen


@pytest.mark.parametrize(
    "stale",
    [
        b'{"return": {"half": ',
        b'{"return": {}}\n\xff{"return": 77}\n',
        b'\xff\n\xff[1, 2]\n\xff"x"\n\xffnot json\n' * 20,
        b"\xff" + b"[" * 60_000 + b"\n",
        b"x" * 300_000,
    ],
)
def test_what_is_left_of_earlier_talks_is_skipped(agent: FakeAgent, stale: bytes) -> None:
    agent.stale = stale
    with Agent(agent.path, limit=10) as client:
        assert client.call("guest-fsfreeze-status") == "thawed"


# ---- a guest that does not ----------------------------------------------------------------------------


def test_a_guest_that_thaws_by_itself_is_crash_consistent(agent: FakeAgent) -> None:
    with frozen([freeze(agent)]) as held:
        agent.is_frozen = False
    assert held.grade is Consistency.CRASH
    assert "thawed by itself" in held.warnings[0]
    assert agent.calls[-2:] == THAW


def test_a_guest_without_file_systems_to_freeze_is_crash_consistent(agent: FakeAgent) -> None:
    agent.filesystems = 0
    with frozen([freeze(agent)]) as held:
        pass
    assert held.grade is Consistency.CRASH
    assert "froze no file system" in held.warnings[0]


def test_a_guest_that_somebody_else_froze_is_left_alone(agent: FakeAgent) -> None:
    agent.is_frozen = True
    with pytest.raises(StreamFailed, match="frozen already; nothing was committed"):
        freeze(agent).start()
    assert agent.is_frozen
    assert "fsfreeze-thaw" not in agent.calls


def test_a_refused_freeze_is_told_in_the_agents_words_and_thawed(agent: FakeAgent) -> None:
    agent.scripted["fsfreeze-freeze"] = [REFUSED]
    with pytest.raises(StreamFailed) as caught:
        freeze(agent).start()
    assert r"refused guest-fsfreeze-freeze: GenericError: failed to open /mnt\x1b[2J" in str(caught.value)
    assert agent.calls[-2:] == THAW


@pytest.mark.parametrize("answer", [b'{"return": "many"}\n', b'{"return": true}\n', b"[]\n", b"{}\n", b"{\n"])
def test_a_freeze_that_cannot_be_understood_is_thawed(agent: FakeAgent, answer: bytes) -> None:
    agent.scripted["fsfreeze-freeze"] = [answer]
    with pytest.raises(StreamFailed):
        freeze(agent).start()
    assert agent.calls[-2:] == THAW


def test_a_freeze_out_of_time_is_thawed_over_a_new_connection(agent: FakeAgent) -> None:
    """And its answer, which may come late, is not taken for the thaw's."""
    agent.scripted["fsfreeze-freeze"] = [b""]
    with pytest.raises(StreamFailed, match="does not answer in time"):
        freeze(agent, limit=0.3).start()
    assert agent.calls[-3:] == ["sync-delimited", *THAW]


@pytest.mark.parametrize("answers", [[REFUSED, REFUSED], [None], [b"", None], [b'{"return": 1}\n']])
def test_a_thaw_that_fails_is_tried_again(agent: FakeAgent, answers: list[Answer]) -> None:
    """Over a new connection each time; an agent that says it thawed is asked whether that is true."""
    agent.scripted["fsfreeze-thaw"] = list(answers)
    with frozen([freeze(agent, limit=0.5)]) as held:
        pass
    assert not agent.is_frozen
    assert held.grade is Consistency.FILESYSTEM


def test_a_thaw_that_keeps_failing_is_a_warning_that_says_what_to_do(agent: FakeAgent) -> None:
    agent.scripted["fsfreeze-thaw"] = [REFUSED] * 3
    with frozen([freeze(agent)]) as held:
        pass
    assert held.grade is Consistency.CRASH
    assert "GenericError" in held.warnings[0]
    assert "may still be frozen; thaw it with guest-fsfreeze-thaw" in held.warnings[0]


def test_an_agent_lost_meanwhile_is_found_again_to_thaw(agent: FakeAgent) -> None:
    with frozen([freeze(agent)]) as held:
        agent.scripted["fsfreeze-status"] = [None]
    assert not agent.is_frozen
    assert held.grade is Consistency.CRASH
    assert "whether the guest stayed frozen is not known" in held.warnings[0]


def test_an_interrupt_waits_for_the_thaw(agent: FakeAgent) -> None:
    target = threading.main_thread().ident
    assert target
    held = freeze(agent)
    held.start()
    agent.scripted["fsfreeze-thaw"] = [lambda: signal.pthread_kill(target, signal.SIGINT)]
    with pytest.raises(KeyboardInterrupt):
        held.end("read")
    assert not agent.is_frozen


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([b'{"return": 5}\n' * 10_000], "not answer in time"),
        ([b"\xff" + b"1" * 300_000], "is longer than"),
        ([b"x" * 3_000_000], "is longer than"),
        ([(b"\xff" + b"1" * 60_000 + b"\n") * 40], "no reply to guest-sync"),
        ([None], "hung up"),
        ([b""], "not answer in time"),
    ],
)
def test_an_agent_that_does_not_come_in_step_is_given_up(
    agent: FakeAgent, answers: list[Answer], reason: str
) -> None:
    agent.scripted["sync-delimited"] = answers
    with pytest.raises(AgentError, match=reason):
        Agent(agent.path, limit=0.5)
    agent.scripted["sync-delimited"] = [b""]
    with pytest.raises(StreamFailed, match="nothing was committed"):
        freeze(agent, limit=0.3).start()


def test_an_endless_answer_is_cut_off(agent: FakeAgent) -> None:
    agent.scripted["fsfreeze-status"] = [b"x" * 200_000]
    with Agent(agent.path, limit=10) as client, pytest.raises(AgentError, match="is longer than"):
        client.call("guest-fsfreeze-status")


def test_nobody_at_the_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(StreamFailed, match=r"cannot reach the guest agent at .*: No such file"):
        AgentFreeze(str(tmp_path / "none")).start()
    with pytest.raises(StreamFailed, match="path too long"):
        AgentFreeze("x" * 200).start()


# ---- the real one -------------------------------------------------------------------------------------


def listens(path: Path) -> bool:
    """Whether a server accepts connections there: the socket's file is there before it does."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@pytest.fixture
def real_agent(tmp_path: Path) -> Iterator[str]:
    """qemu-ga, which may not freeze or thaw: this host would be its guest."""
    program = shutil.which("qemu-ga") or shutil.which("qemu-ga", path="/usr/sbin")
    need(program and os.geteuid() == 0, "qemu-ga, as root")
    assert program
    path = tmp_path / "qga.sock"
    blocked = "guest-fsfreeze-freeze,guest-fsfreeze-freeze-list,guest-fsfreeze-thaw"
    options = ["-m", "unix-listen", "-p", str(path), "-t", str(tmp_path), "-f", str(tmp_path / "pid")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, *options, "-b", blocked], stdout=log, stderr=log)
    try:
        for _ in range(10_000):
            if listens(path) or process.poll() is not None:
                break
            threading.Event().wait(0.005)
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield str(path)
    finally:
        process.kill()
        process.wait()


def test_the_real_agent_is_understood(real_agent: str) -> None:
    for _ in range(2):
        with Agent(real_agent, limit=20) as client:
            assert client.call("guest-ping") == {}
            assert client.call("guest-fsfreeze-status") == "thawed"
            with pytest.raises(AgentError, match="CommandNotFound"):
                client.call("guest-no-such-command")


def test_the_real_agents_refusal_to_freeze_ends_the_backup(real_agent: str) -> None:
    with pytest.raises(StreamFailed, match=r"refused guest-fsfreeze-freeze: .*may still be frozen"):
        AgentFreeze(real_agent, limit=20).start()
