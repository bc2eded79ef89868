"""Fixtures of all tests, and what makes them deterministic and quiet."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("support")

from holdfast.repo.core.repository import Repository  # noqa: E402  after the rewrite of assertions
from holdfast.repo.store.local import LocalStore  # noqa: E402
from holdfast.repo.store.memory import MemoryStore  # noqa: E402
from support.basics import new_repository  # noqa: E402

# The same examples in every run; "search" looks for new ones: HYPOTHESIS_PROFILE=search pytest
_QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=50, suppress_health_check=_QUIET
)
settings.register_profile("search", deadline=None, max_examples=1000, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "expects_warnings: log lines of WARNING and above are part of the test"
    )


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
