"""Commands before and after: what is frozen is let go again, whatever happens."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.base.errors import StreamFailed
from holdfast.ingest.freeze.commands import CommandHooks, HookFacts, ShellSyntax, shell_syntax
from holdfast.ingest.freeze.hooks import FAILED, READ, FreezeResult, Frozen, frozen
from holdfast.repo.snapshots.snapshot import Consistency


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    """Makes commands that note their name in `log` and run some Python."""

    def make(name: str, code: str = "") -> str:
        path = tmp_path / name
        log = f"open({str(tmp_path / 'log')!r}, 'a').write({name + ' '!r})"
        path.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{log}\n{code}\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def log(tmp_path: Path) -> Callable[[], list[str]]:
    return lambda: (tmp_path / "log").read_text().split() if (tmp_path / "log").exists() else []


Script = Callable[..., str]
Log = Callable[[], list[str]]


def test_two_commands_that_succeed_make_it_filesystem_consistent(script: Script, log: Log) -> None:
    before = script("before", "sys.exit(sys.argv[1:] != ['a b', '$HOME'])")
    with frozen([CommandHooks(f"{before} 'a b' '$HOME'", script("after"), freezes=True)]) as held:
        assert log() == ["before"]
        assert held.ended == []
    assert log() == ["before", "after"]
    assert held.grade is Consistency.FILESYSTEM
    assert held.evidence == f"frozen by `{before}`, as whoever gave the command says, thawed after"
    assert held.warnings == ()


def test_nothing_given_is_nothing_claimed() -> None:
    with frozen([CommandHooks("", "")]) as held:
        pass
    assert (held.grade, held.evidence, held.warnings) == (Consistency.CRASH, "", ())
    with frozen([]) as none:
        pass
    assert none.grade is Consistency.CRASH


def test_a_command_afterwards_freezes_nothing(script: Script, log: Log) -> None:
    with frozen([CommandHooks("", script("after"))]) as held:
        assert log() == []
    assert log() == ["after"]
    assert held.grade is Consistency.CRASH


def test_commands_that_say_nothing_of_freezing_give_no_consistency(script: Script) -> None:
    before = script("before")
    with frozen([CommandHooks(before, script("after"))]) as held:
        pass
    assert held.grade is Consistency.CRASH
    assert held.evidence == f"`{before}` was run before, `{script('after')}` was run afterwards"
    assert not held.failed


def test_a_command_afterwards_that_fails_is_in_the_evidence(script: Script) -> None:
    with frozen([CommandHooks("", script("after", "sys.exit(3)"))]) as held:
        pass
    assert held.failed
    assert held.evidence.startswith("afterwards `")
    assert held.evidence.endswith("after` exited with 3")
    assert "may be left" in held.warnings[0]


@pytest.mark.parametrize("ends", [READ, FAILED])
def test_commands_are_told_what_they_are_run_for(script: Script, tmp_path: Path, ends: str) -> None:
    told = "open({!r}, 'w').write(repr({{k[14:]: v for k, v in os.environ.items() if 'HOLDFAST_HOOK' in k}}))"
    one, two = (script(name, told.format(str(tmp_path / f"told-{name}"))) for name in ("before", "after"))
    facts = HookFacts("web01", "vm", "/srv/backups")
    hooks = CommandHooks(one, two, facts, freezes=True)
    hooks.start()
    hooks.end(ends)
    seen = [eval((tmp_path / f"told-{name}").read_text()) for name in ("before", "after")]
    common = {"NAME": "web01", "KIND": "vm", "REPOSITORY": "/srv/backups"}
    assert seen == [common | {"PHASE": "freeze", "RESULT": ""}, common | {"PHASE": "thaw", "RESULT": ends}]


def test_the_command_afterwards_is_told_of_a_failure(script: Script, tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'told')!r}, 'w').write(os.environ['HOLDFAST_HOOK_RESULT'])"
    with pytest.raises(RuntimeError), frozen([CommandHooks("", script("after", code))]):
        raise RuntimeError
    assert (tmp_path / "told").read_text() == FAILED


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("a && b", "&&"),
        ("a || b", "||"),
        ("a; b", ";"),
        ("a | b", "|"),
        ("a & ", "&"),
        ("a > f", ">"),
        ("a >> f", ">>"),
        ("a < f", "<"),
        ("a 2>&1", ">"),
        ("a $(b)", "$("),
        ("a `b`", "`"),
        ("a $HOME", "$"),
        ('a "$HOME"', "$"),
        ('a "`b`"', "`"),
        ("rm *.tmp", "*"),
        ("X=1 a", "X="),
        ("(a)", "("),
        ("a\nb", "\n"),
    ],
)
def test_what_only_a_shell_acts_upon_is_refused(command: str, found: str) -> None:
    assert shell_syntax(command) == found
    with pytest.raises(ShellSyntax, match="commands have no shell"):
        CommandHooks("", command)


@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'a && b; c > d'",
        'a "b; c & d | e > f *"',
        r"a \; \& \$HOME \*",
        "a '$HOME' '`b`'",
        "lvcreate -s -n web-snap -L5G vg0/web --option=x=1",
        "/opt/my tool --at 50% --url nbd://h/x?socket=/a",
        "",
    ],
)
def test_words_and_what_is_quoted_pass(command: str) -> None:
    assert shell_syntax(command) == ""
    CommandHooks(command, "")


def test_a_command_before_that_fails_ends_it_and_the_one_after_still_runs(script: Script, log: Log) -> None:
    before = script("before", "print('out'); print('no such domain', file=sys.stderr); sys.exit(7)")
    with (
        pytest.raises(StreamFailed, match=r"before` exited with 7: [^;]*no such domain[^;]*; nothing was"),
        frozen([CommandHooks(before, script("after"))]),
    ):
        pytest.fail("not reached")
    assert log() == ["before", "after"]


def test_both_failures_are_told(script: Script) -> None:
    hooks = CommandHooks(script("before", "sys.exit(7)"), script("after", "sys.exit(8)"))
    with pytest.raises(StreamFailed, match=r"exited with 7; .*exited with 8; nothing was committed"):
        hooks.start()


def test_a_command_that_cannot_be_run_starts_nothing(script: Script, log: Log) -> None:
    with pytest.raises(StreamFailed, match=r"cannot run /no/such: No such file"):
        CommandHooks("/no/such thing", script("after")).start()
    assert log() == []
    with pytest.raises(StreamFailed, match="cannot understand the command"):
        CommandHooks("'unbalanced", "")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("sys.exit(3)", "after` exited with 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9"),
        ("print('x' * 5000 + 'the end'); sys.exit(1)", "xxxthe end"),
    ],
)
def test_a_failing_command_afterwards_warns_and_lowers_the_grade(
    script: Script, code: str, reason: str
) -> None:
    with frozen([CommandHooks(script("before"), script("after", code), freezes=True)]) as held:
        pass
    assert held.failed
    assert held.grade is Consistency.CRASH
    assert "not thawed" in held.evidence
    (warning,) = held.warnings
    assert reason in warning
    assert "may still be held" in warning
    assert len(warning) < 1200


def test_an_unknown_command_afterwards_is_a_warning_too(script: Script) -> None:
    with frozen([CommandHooks(script("before"), "/no/such")]) as held:
        pass
    assert held.grade is Consistency.CRASH
    assert "cannot run /no/such" in held.warnings[0]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_the_command_afterwards_runs_when_the_backup_fails(
    script: Script, log: Log, kind: type[BaseException]
) -> None:
    with pytest.raises(kind), frozen([CommandHooks(script("before"), script("after"))]):
        raise kind
    assert log() == ["before", "after"]


HANG = "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); time.sleep(600)"


def test_a_command_out_of_time_is_stopped_with_all_it_started(script: Script, log: Log) -> None:
    hooks = CommandHooks(script("before", f"{HANG}"), script("after"), limit=2.0, breath=0.1)
    with pytest.raises(StreamFailed, match=r"took longer than 2 s and was stopped"):
        hooks.start()
    assert log() == ["before", "after"]


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_command_that_cannot_be_stopped_does_not_keep_the_one_after_from_running(
    script: Script, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What sudo runs takes no signals of another user's; what hangs in the kernel takes none at all."""

    groups = set()

    def killpg(group: int, number: int) -> None:
        groups.add(group)
        raise PermissionError

    monkeypatch.setattr(os, "killpg", killpg)
    hooks = CommandHooks(script("before", "time.sleep(600)"), script("after"), limit=2.0, breath=0.1)
    with pytest.raises(StreamFailed, match=r"took longer than 2 s"):
        hooks.start()
    assert log() == ["before", "after"]
    (group,) = groups
    os.kill(group, signal.SIGKILL)
    os.waitpid(group, 0)


def test_an_interrupt_of_the_command_before_stops_it_and_runs_the_one_after(script: Script, log: Log) -> None:
    hooks = CommandHooks(
        script("before", f"os.kill({os.getpid()}, signal.SIGINT); time.sleep(600)"), script("after")
    )
    with pytest.raises(KeyboardInterrupt):
        hooks.start()
    assert log() == ["before", "after"]


def test_an_interrupt_waits_for_the_command_afterwards(script: Script, log: Log) -> None:
    """And does not reach it: Ctrl-C goes to our process group."""
    slow = "time.sleep(0.3); open(os.path.dirname(sys.argv[0]) + '/log', 'a').write('done ')"
    code = f"os.kill({os.getpid()}, signal.SIGINT); {slow}"
    hooks = CommandHooks(script("before"), script("after", code))
    hooks.start()
    with pytest.raises(KeyboardInterrupt):
        hooks.end(READ)
    assert log() == ["before", "after", "done"]


def test_commands_stand_in_process_groups_of_their_own(script: Script) -> None:
    group = os.getpgrp()
    with frozen([CommandHooks(script("before", f"sys.exit(os.getpgrp() == {group})"), "")]):
        pass


# ---- several ------------------------------------------------------------------------------------------


class Fake:
    def __init__(self, log: list[str], name: str, ended: FreezeResult | BaseException) -> None:
        self.log, self.name, self.ended = log, name, ended

    def start(self) -> None:
        self.log.append(f"freeze {self.name}")
        if self.name == "bad":
            raise StreamFailed("bad")

    def end(self, result: str) -> FreezeResult:
        self.log.append(f"thaw {self.name}")
        if isinstance(self.ended, BaseException):
            raise self.ended
        return self.ended


FINE = FreezeResult(Consistency.APPLICATION, "agent")
POOR = FreezeResult(Consistency.FILESYSTEM, "command", ("careful",))


def test_freezes_end_in_reverse_order_and_the_worst_of_them_counts() -> None:
    log: list[str] = []
    with frozen([Fake(log, "a", FINE), Fake(log, "b", POOR)]) as held:
        pass
    assert log == ["freeze a", "freeze b", "thaw b", "thaw a"]
    assert (held.grade, held.evidence, held.warnings) == (
        Consistency.FILESYSTEM,
        "command; agent",
        ("careful",),
    )


@pytest.mark.parametrize(("code", "told"), [("", "run afterwards"), ("sys.exit(3)", "agent")])
def test_a_command_that_only_runs_afterwards_takes_nothing_from_what_froze(
    script: Script, code: str, told: str
) -> None:
    with frozen([CommandHooks("", script("after", code)), Fake([], "agent", FINE)]) as held:
        pass
    assert held.grade is Consistency.APPLICATION
    assert told in held.evidence
    assert "not thawed" not in held.evidence
    assert len(held.warnings) == bool(code)


def test_a_freeze_that_fails_lets_go_of_those_before_it() -> None:
    log: list[str] = []
    with pytest.raises(StreamFailed), frozen([Fake(log, "a", FINE), Fake(log, "bad", FINE)]):
        pytest.fail("not reached")
    assert log == ["freeze a", "freeze bad", "thaw a"]


def test_an_interrupted_thaw_does_not_keep_the_others_frozen() -> None:
    log: list[str] = []
    with (
        pytest.raises(KeyboardInterrupt),
        frozen([Fake(log, "a", FINE), Fake(log, "b", KeyboardInterrupt())]),
    ):
        pass
    assert log[-2:] == ["thaw b", "thaw a"]


def test_what_is_read_may_be_thawed_before_the_block_ends() -> None:
    log: list[str] = []
    with frozen([Fake(log, "a", FINE)]) as held:
        held.thaw()
        assert log == ["freeze a", "thaw a"]
        assert held.grade is Consistency.APPLICATION
        held.thaw()
    assert log == ["freeze a", "thaw a"]
    assert len(held.ended) == 1


def test_what_may_still_be_frozen_is_told_with_the_error() -> None:
    log: list[str] = []
    with pytest.raises(RuntimeError) as caught, frozen([Fake(log, "a", POOR)]):
        raise RuntimeError
    assert caught.value.__notes__ == ["careful"]


def test_what_is_held_is_told_without_any_freeze() -> None:
    assert Frozen().warnings == ()
