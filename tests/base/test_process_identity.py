"""Whether a process still runs, told from what it wrote down about itself."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

from holdfast.base.process_identity import ProcessIdentity

MINE = ProcessIdentity.of_this_process()


def test_this_process_runs() -> None:
    assert MINE.pid == os.getpid()
    assert MINE.runs() is True


def test_one_that_ended_does_not_run_nor_does_another_of_its_number() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass
    assert replace(MINE, pid=child.pid, started="1").runs() is False
    assert replace(MINE, started=str(int(MINE.started) + 1)).runs() is False


def test_one_of_an_earlier_start_of_the_machine_does_not_run() -> None:
    assert replace(MINE, machine="", boot="another").runs() is None
    if MINE.machine:
        assert replace(MINE, boot="another").runs() is False


def test_of_other_machines_and_containers_nothing_can_be_told() -> None:
    assert replace(MINE, machine="other", boot="another").runs() is None
    assert replace(MINE, namespace="pid:[1]").runs() is None
    assert replace(MINE, namespace="").runs() is None
    assert replace(MINE, boot="").runs() is None
