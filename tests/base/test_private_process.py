"""What a process that holds keys shows of itself: nothing to other processes, nothing in a core dump."""

from __future__ import annotations

import os
import subprocess
import sys

_LOOK = """
import ctypes, os, resource
from pathlib import Path
from holdfast.base.private_process import become_private

before = dict(os.environ)
become_private()
print(Path("/proc/self/environ").read_bytes())
dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
print(resource.getrlimit(resource.RLIMIT_CORE), dumpable, before == dict(os.environ))
"""


def test_a_private_process_shows_no_password_and_dumps_no_core() -> None:
    env = {
        "HOLDFAST_PASSWORD": "correct=horse",
        "HOLDFAST_PASSWORD_COMMAND": "pass show x",
        "NOT_HOLDFAST_PASSWORD": "stays",
        "PATH": os.environ["PATH"],
        "HOLDFAST_REPOSITORY": "/r",
    }
    done = subprocess.run([sys.executable, "-c", _LOOK], env=env, capture_output=True, text=True, check=True)
    shown, rest = done.stdout.splitlines()
    assert "horse" not in shown
    assert "pass show" not in shown
    assert "HOLDFAST_PASSWORD=\\x00" in shown
    for kept in ("NOT_HOLDFAST_PASSWORD=stays\\x00", "HOLDFAST_REPOSITORY=/r\\x00"):
        assert kept in shown
    assert rest == "(0, 0) 0 True"
