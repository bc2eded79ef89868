"""A data directory that is filled while somebody else may move things in it."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from holdfast.base.errors import TargetError
from holdfast.base.target_folder import TargetFolder
from holdfast.servers.postgresql.data_directory import Changes, _Directory
from support.basics import need
from support.stranger import STRANGER, give, state


@pytest.mark.parametrize("filled", [False, True])
def test_a_folder_that_was_moved_in_is_not_given_away(filled: bool, tmp_path: Path) -> None:
    """The target is the stranger's; what root made elsewhere in his reach, he could put into it."""
    need(os.geteuid() == 0, "root")
    target, victim = tmp_path / "data", tmp_path / "victim"
    for folder in (target, victim):
        folder.mkdir(mode=0o700)
    if filled:
        (victim / "secret").write_text("precious")
    give(target)
    before = state(victim)
    changes = Changes(owner=(STRANGER, STRANGER))
    with (
        closing(TargetFolder.top(target, overwrite=False)) as top,
        _Directory(top, changes) as directory,
    ):
        directory._into(["base", "1"]).close()
        directory._into(["base", "1"]).close()
        assert (target / "base/1").stat().st_uid == STRANGER
        (target / "base").rename(tmp_path / "aside")
        victim.rename(target / "base")
        with pytest.raises(TargetError, match="base was put there by somebody else"):
            directory._into(["base", "1"])
    (target / "base").rename(victim)
    assert state(victim) == before
