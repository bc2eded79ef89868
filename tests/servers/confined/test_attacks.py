"""What confined programs try, against the kernel's own answers: nothing outside is seen, reached or kept."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.base.confinement.plan import Ended, Limits
from holdfast.servers.confined.clients import ask
from holdfast.servers.confined.confined import Confinement
from holdfast.servers.confined.errors import RehearsalFailed
from support.basics import need
from support.rehearse import confined_programs, leftovers
from support.scratch import open_folder

PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def confinement(scratch: Path) -> Iterator[Confinement]:
    with confined_programs(scratch) as confined:
        yield confined


def said(confinement: Confinement, code: str) -> str:
    """What Python code prints in there."""
    need(Path(PYTHON).exists(), PYTHON)
    return ask(confinement, [PYTHON, "-c", code], b"", env={})[0].decode().strip()


def shell(confinement: Confinement, script: str) -> str:
    return ask(confinement, ["/bin/sh", "-c", script], b"", env={})[0].decode().strip()


TRIES = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def attempt(number, *words):
    done = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(word) for word in words])
    return "allowed" if done >= 0 else errno.errorcode[ctypes.get_errno()]
print(attempt(%s))
"""
REFUSED = {
    "mount": "165, 0, 0, 0, 0, 0",
    "unshare of users": "272, 0x10000000",
    "unshare of mounts": "272, 0x20000",
    "setns": "308, 0, 0",
    "clone with new users": "56, 0x10000011, 0, 0, 0, 0",
    "ptrace of the first process": "101, 16, 1, 0, 0",
    "process_vm_readv": "310, 1, 0, 0, 0, 0, 0",
    "bpf": "321, 0, 0, 0",
    "perf_event_open": "298, 0, 0, -1, -1, 0",
    "userfaultfd": "323, 1",
    "keyctl": "250, 0, -3, 1",
    "add_key": "248, 0, 0, 0, 0, 0",
    "init_module": "175, 0, 0, 0",
    "io_uring_setup": "425, 1, 0",
    "memfd_create": "319, 0, 0",
    "open_by_handle_at": "304, 0, 0, 0",
    "large shared memory": "29, 0, 1 << 20, 0o1600",
    "inet socket": "41, 2, 1, 0",
    "netlink socket": "41, 16, 3, 0",
    "packet socket": "41, 17, 3, 0",
    "vsock": "41, 40, 1, 0",
    "kernel crypto socket": "41, 38, 5, 0",
    "a call by x32's rules": "0x40000000 + 39",
    "a call newer than the list": "462, 0, 0, 0",
    "chroot": "161, 0",
    "type into a terminal": "16, 0, 0x5412, 0",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_server_does_not_need_the_kernel_does_not_do(confinement: Confinement, what: str) -> None:
    need(platform.machine() == "x86_64", "the numbers of system calls on x86-64")
    outcome = said(confinement, TRIES % REFUSED[what])
    assert outcome in ("EPERM", "ENOSYS", "EAFNOSUPPORT")


@pytest.mark.parametrize("what", ["inet socket", "large shared memory", "unshare of mounts"])
def test_outside_the_kernel_does_it(what: str) -> None:
    """Otherwise the refusals would prove nothing."""
    need(platform.machine() == "x86_64", "the numbers of system calls on x86-64")
    need(os.geteuid() == 0 or "unshare" not in what, "root")
    code = TRIES % REFUSED[what].replace("0o1600", "0o600")
    argv = (
        ["unshare", "--ipc", sys.executable, "-c", code]
        if os.geteuid() == 0
        else [sys.executable, "-c", code]
    )
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "allowed"


def test_the_user_owns_nothing_and_has_no_rights(confinement: Confinement) -> None:
    status = shell(confinement, "cat /proc/self/status")
    found = {line.split(":")[0]: line.split()[1:] for line in status.splitlines()}
    assert {int(found[name][0], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert found["NoNewPrivs"] == ["1"]
    assert found["Seccomp"] == ["2"]
    if os.geteuid() == 0:
        assert all(61184 <= int(number) <= 65519 for number in (*found["Uid"], *found["Gid"]))
        assert found["Groups"] == []


def test_the_root_directory_has_programs_and_one_folder(confinement: Confinement, scratch: Path) -> None:
    secret = scratch / "secret"
    secret.write_text("production")
    secret.chmod(0o644)
    seen = shell(
        confinement, f"ls -A / /etc {scratch} /root /home /run /var /sys 2>/dev/null; cat {secret}; true"
    )
    assert "secret" not in seen
    assert "production" not in seen
    assert "shadow" not in seen
    folders = set(shell(confinement, "ls -A /").split())
    programs = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "nix", "gnu"}
    allowed = programs | {"dev", "etc", "proc", "tmp", "var"}
    assert folders <= allowed | {scratch.parts[1]}
    mounts = shell(confinement, "cat /proc/self/mounts")
    for line in mounts.splitlines():
        kind = line.split()
        writable = "rw" in kind[3].split(",")
        assert "nosuid" in kind[3], line
        if writable and not kind[1].startswith("/dev/") and kind[1] != "/dev":
            assert "noexec" in kind[3], line
            assert "nodev" in kind[3], line


@pytest.mark.parametrize("path", ["/usr/x", "/etc/x", "/x", "/dev/x", "/proc/self/oom_score_adj"])
def test_nothing_but_the_folder_and_small_memory_is_written_to(confinement: Confinement, path: str) -> None:
    assert shell(confinement, f"echo 1 2>/dev/null > {path} && echo written; true") == ""


def test_a_library_in_a_writable_folder_is_not_loaded(confinement: Confinement) -> None:
    """C code of an extension, LOAD, a UDF of MariaDB, load_extension of SQLite."""
    for place in (str(confinement.folder), "/tmp", "/dev/shm", "/var/tmp"):  # noqa: S108
        copy = f"cp $(ls /lib/*/libm.so.6 | head -1) {place}/evil.so"
        shell(confinement, copy)
        outcome = said(
            confinement,
            f"import ctypes\ntry:\n ctypes.CDLL('{place}/evil.so'); print('loaded')\n"
            "except OSError as e: print(e)",
        )
        assert "failed to map" in outcome or "not permitted" in outcome
        shell(confinement, f"cp /bin/true {place}/evil; chmod +x {place}/evil; {place}/evil && exit 7; true")


def test_sockets_of_others_are_not_reached(confinement: Confinement, scratch: Path) -> None:
    """By path, as a production server's, and abstract ones, which live in the network's namespace."""
    with socket.socket(socket.AF_UNIX) as by_path, socket.socket(socket.AF_UNIX) as abstract:
        path = scratch / "production"
        by_path.bind(str(path))
        path.chmod(0o777)
        name = f"\0holdfast-test-{os.getpid()}"
        abstract.bind(name)
        for server in (by_path, abstract):
            server.listen()
        for address in (str(path), name):
            code = (
                f"import socket\ntry: socket.socket(socket.AF_UNIX).connect({address!r}); print('reached')\n"
            )
            outcome = said(confinement, code + "except OSError as e: print(type(e).__name__)")
            assert outcome in ("FileNotFoundError", "ConnectionRefusedError")


def test_processes_outside_are_neither_seen_nor_signalled(confinement: Confinement) -> None:
    assert int(shell(confinement, "ls /proc | grep -c '^[0-9]'")) < 10
    assert "No such process" in shell(confinement, f"kill -9 {os.getpid()} 2>&1; true")
    shell(confinement, "kill -9 -1; kill -9 1; true")
    assert shell(confinement, "echo alive") == "alive"


def test_a_program_cannot_end_or_look_into_the_one_that_keeps_it(confinement: Confinement) -> None:
    code = (
        "import os\nos.kill(1, 9)\nos.kill(1, 15)\nos.kill(1, 2)\n"
        "try: open('/proc/1/mem','rb'); print('open')\nexcept OSError as e: print(type(e).__name__)"
    )
    assert said(confinement, code) == "PermissionError"


@pytest.mark.parametrize(
    ("limits", "code", "met"),
    [
        (Limits(memory=200 << 20), "x = bytearray(600 << 20); import time; time.sleep(60)", Ended.MEMORY),
        (Limits(seconds=1), "while True: pass", Ended.TIME),
        (Limits(spare=1 << 60), "import time; time.sleep(60)", Ended.DISK),
    ],
    ids=["memory", "time", "disk"],
)
def test_a_limit_that_is_met_ends_the_program_and_is_told(
    scratch: Path, limits: Limits, code: str, met: Ended
) -> None:
    with confined_programs(scratch, limits) as confined:
        began = time.monotonic()
        with pytest.raises(RehearsalFailed):
            said(confined, code)
        assert confined.ended_for is met
        assert time.monotonic() - began < 30


def test_bombs_meet_limits_of_processes_files_and_address_space(scratch: Path) -> None:
    limits = Limits(processes=40, file=1 << 20, files=50)
    forks = (
        "import os, time\nn=0\ntry:\n while True:\n  if not os.fork(): time.sleep(60)\n  n+=1\n"
        "except OSError: print(n)"
    )
    large = (
        "try:\n open('f','wb').write(bytes(5 << 20)); print('written')\nexcept OSError as e: print(e.errno)"
    )
    signal_off = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    many = "f=[]\ntry:\n while True: f.append(open('/dev/null'))\nexcept OSError: print(len(f))"
    space = "try: bytearray(64 << 30); print('had')\nexcept MemoryError: print('refused')"
    with confined_programs(scratch, limits) as confined:
        assert int(said(confined, forks)) < (45 if os.geteuid() == 0 else 2000)
        assert said(confined, signal_off + large) == "27"
        assert int(said(confined, many)) < 50
        assert said(confined, space) == "refused"


def test_what_outlives_its_program_dies_with_it(confinement: Confinement, scratch: Path) -> None:
    marker = f"{confinement.folder}/daemon"
    shell(confinement, f"setsid bash -c 'exec -a {marker} sleep 1000' >/dev/null 2>&1 & sleep 0.1")
    assert [words for words in leftovers(scratch) if "daemon" in words] == []


KILLED = """
import sys, time
from pathlib import Path
from support.rehearse import confined_programs
with confined_programs(Path(sys.argv[1])) as confined:
    confined.start(["/bin/bash", "-c", f"exec -a {confined.folder}/server sleep 1000"])
    print("started", flush=True)
    time.sleep(1000)
"""


def test_nothing_is_left_running_of_a_program_that_is_killed() -> None:
    with open_folder() as place:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(place)], env=environment, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"started\n"
            deadline = time.monotonic() + 30
            while not [w for w in leftovers(place) if "server" in w]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.kill()
        while [words for words in leftovers(place) if "server" in words]:
            assert time.monotonic() < deadline + 30
            threading.Event().wait(0.05)
