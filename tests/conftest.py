"""Fixtures of all tests, and what makes them deterministic and quiet."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("support")

from holdfast.repo.core.repository import Repository  # noqa: E402  after the rewrite of assertions
from holdfast.repo.store.local import LocalStore  # noqa: E402
from holdfast.repo.store.memory import MemoryStore  # noqa: E402
from support import scratch  # noqa: E402
from support.basics import new_repository  # noqa: E402

# The same examples in every run; "search" looks for new ones: HYPOTHESIS_PROFILE=search pytest
_QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=50, suppress_health_check=_QUIET
)
settings.register_profile("search", deadline=None, max_examples=1000, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


_RUN = pytest.StashKey[scratch.Run]()
_LEFT = pytest.StashKey[list[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    _take_signals()
    if not hasattr(config, "workerinput"):  # a worker of a parallel run has the controller's
        run = config.stash[_RUN] = scratch.start()
        config.option.basetemp = config.option.basetemp or run.base


def _take_signals() -> None:
    """Programs that are started by tests must not inherit ignored signals.

    A shell starts a job in the background with SIGINT ignored, nohup ignores SIGHUP; both stay ignored over
    exec, a handler does not. This process keeps ignoring SIGHUP: nohup is to outlive its terminal.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run that leaves files, processes or mounts behind has failed."""
    run = session.config.stash.get(_RUN, None)
    if run is None:
        return
    left = session.config.stash[_LEFT] = run.finish(keep=exitstatus == pytest.ExitCode.TESTS_FAILED)
    if left and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    if left := config.stash.get(_LEFT, None):
        terminalreporter.section("left behind by this run", red=True)
        for line in left:
            terminalreporter.line(line)
    run = config.stash.get(_RUN, None)
    if run is not None and run.root.exists():
        terminalreporter.line(f"files of failed tests, until the next run: {run.base}")


@pytest.fixture(autouse=True)
def _no_unexpected_log_lines(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("expects_warnings"):
        return
    lines = [
        r for when in ("setup", "call") for r in caplog.get_records(when) if r.levelno >= logging.WARNING
    ]
    assert not lines, "unexpected: " + "; ".join(f"{r.name}: {r.getMessage()}" for r in lines)


@pytest.fixture
def memory_repository(tmp_path: Path) -> Iterator[Repository]:
    """A fresh repository in memory. A process may open an index once, so it is closed at the end."""
    with new_repository(MemoryStore(), tmp_path / "cache") as repository:
        yield repository


@pytest.fixture
def local_store(tmp_path: Path) -> Iterator[LocalStore]:
    """An empty store in a directory, its folders made."""
    store = LocalStore.create(tmp_path / "repository")
    yield store
    store.close()


@pytest.fixture
def local_repository(local_store: LocalStore, tmp_path: Path) -> Iterator[Repository]:
    """A fresh repository in a directory."""
    with new_repository(local_store, tmp_path / "cache") as repository:
        yield repository
