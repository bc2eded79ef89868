"""What the worker of a guest's disk cannot do any more when it sees the first byte of the disk."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.formats.guests.client.guest import GuestDisk
from holdfast.formats.guests.worker.process import Limits
from holdfast.formats.guests.worker.protocol import Channel, Layer
from holdfast.formats.guests.worker.seccomp import MACHINES, allow_list
from support import guest_fakes
from support.basics import need
from support.guest import MemoryDisk, open_guest, process_of, said


@pytest.fixture(scope="module")
def guest() -> Iterator[GuestDisk]:
    """A worker whose parent has secrets in its environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOLDFAST_PASSWORD", "secret")
        patch.setenv("PGPASSWORD", "secret")
        with open_guest(MemoryDisk()) as guest:
            guest.volumes()
            yield guest


@pytest.mark.parametrize("escape", guest_fakes.ESCAPES)
def test_a_way_out_is_closed(guest: GuestDisk, escape: str) -> None:
    need(platform.machine() == "x86_64", "the numbers of system calls on x86-64")
    assert said(guest, f"escape {escape}").startswith("refused: ")


def test_nothing_was_written_and_the_parent_lives() -> None:
    assert not Path("/tmp/escaped").exists()  # noqa: S108  as the escape has it


def test_the_ways_out_are_open_outside() -> None:
    """Otherwise the refusals would prove nothing."""
    for escape in (
        "open",
        "stat",
        "list",
        "proc-self",
        "socket",
        "socketpair",
        "pipe",
        "memfd",
        "code",
        "import",
    ):
        code = (
            f"from support import guest_fakes; print(guest_fakes._refused(guest_fakes.ESCAPES[{escape!r}]))"
        )
        found = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.startswith("allowed: "), escape


def test_it_has_neither_environment_nor_passphrases_in_its_arguments(guest: GuestDisk) -> None:
    assert said(guest, "environment") == "['LC_ALL', 'PYTHONPATH']"
    with open_guest(MemoryDisk(), "correct horse") as other:
        other.volumes()
        line = Path(f"/proc/{process_of(other)}/cmdline").read_bytes()
        environment = Path(f"/proc/{process_of(other)}/environ").read_bytes() if os.geteuid() == 0 else b""
    assert b"holdfast.formats.guests.worker.worker" in line
    assert b"horse" not in line + environment
    assert b"secret" not in environment


def test_it_has_one_descriptor_and_that_is_the_socket(guest: GuestDisk) -> None:
    need(os.geteuid() == 0, "root: the descriptors of what is not dumpable")
    (descriptor,) = Path(f"/proc/{process_of(guest)}/fd").iterdir()
    assert str(descriptor.readlink()).startswith("socket:")


def test_the_kernel_says_that_it_is_locked_in(guest: GuestDisk) -> None:
    process = Path(f"/proc/{process_of(guest)}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    assert os.getsid(int(process.name)) == int(process.name)
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    assert status["Threads"].strip() == "1"
    assert {int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert "0" not in status["Uid"].split() or os.geteuid() != 0
    limits = (process / "limits").read_text()
    for name in ("Max file size", "Max core file size", "Max processes", "Max open files"):
        (line,) = [line for line in limits.splitlines() if line.startswith(name)]
        assert line.removeprefix(name).split()[:2] == ["0", "0"]
    assert f"Max address space         {1 << 30}" in limits


def test_every_layer_holds_here() -> None:
    with open_guest(MemoryDisk(), limits=Limits(required=frozenset(Layer))) as guest:
        assert guest.volumes()


def test_what_parsers_need_works(guest: GuestDisk) -> None:
    for codec in ("utf-16-le", "cp437", "utf-8", "latin-1", "ascii", "utf-16-be"):
        assert "LookupError" not in said(guest, f"codec {codec}")


NEEDED = """
import json, sys, zlib, hashlib, os, random, time, datetime, uuid
import socket
import zstandard
from holdfast.formats.guests.worker.worker import one_processor
assert "cryptography" not in sys.modules
with one_processor():
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from holdfast.formats.guests.worker.protocol import Channel, Kind
from holdfast.formats.guests.worker.sandbox import lock_in

ours = socket.socket(fileno=int(sys.argv[1]))
compressed = zlib.compress(bytes(1 << 20)), zstandard.compress(bytes(1 << 20))
lock_in(ours.fileno(), 1 << 30)
found = {}
try:
    found["zlib"] = len(zlib.decompress(compressed[0]))
    found["zstd"] = len(zstandard.ZstdDecompressor().decompress(compressed[1]))
    found["pbkdf2"] = hashlib.pbkdf2_hmac("sha256", b"a", b"b" * 8, 10).hex()[:8]
    argon2 = Argon2id(salt=bytes(32), length=64, iterations=1, lanes=4, memory_cost=1 << 19)
    found["argon2"] = len(argon2.derive(b"a"))
    xts = Cipher(algorithms.AES(bytes(range(64))), modes.XTS(bytes(16))).decryptor()
    found["xts"] = len(xts.update(bytes(512)) + xts.finalize())
    found["random"] = len(os.urandom(8))
    found["time"] = time.time() > 0 and str(datetime.datetime.fromtimestamp(0, datetime.timezone.utc))
    found["uuid"] = str(uuid.UUID(bytes=bytes(16)))
    found["large"] = len(bytearray(200 << 20))
except BaseException as error:
    found["error"] = repr(error)
Channel(ours).send(Kind.RAW, json.dumps(found).encode())
os._exit(0)
"""


def test_libraries_that_parsers_use_work_inside() -> None:
    """Compression, ciphers, and Argon2id with four lanes and 512 MiB, which must not take threads."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", NEEDED, str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        _, body = Channel(ours).receive()
        process.wait()
    assert json.loads(body) == {
        "zlib": 1 << 20,
        "zstd": 1 << 20,
        "pbkdf2": hashlib.pbkdf2_hmac("sha256", b"a", b"b" * 8, 10).hex()[:8],
        "argon2": 64,
        "xts": 512,
        "random": 8,
        "time": "1970-01-01 00:00:00+00:00",
        "uuid": "00000000-0000-0000-0000-000000000000",
        "large": 200 << 20,
    }


LAYER = """
import errno, os, socket, sys
from holdfast.formats.guests.worker import sandbox
open("/etc/passwd").close()
getattr(sandbox, sys.argv[1])()
for act in (lambda: open("/etc/passwd"), lambda: os.listdir("/"), lambda: os.mkdir(sys.argv[2]),
            lambda: os.kill(os.getppid(), 0), lambda: socket.create_connection(("127.0.0.1", 9))):
    try:
        act()
        print("allowed")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def alone(layer: str, folder: Path) -> list[str]:
    """What opening, listing, making, signalling and connecting come to with one layer only."""
    found = subprocess.run(
        [sys.executable, "-c", LAYER, layer, str(folder)],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.split()


def test_landlock_alone_closes_the_file_systems_the_network_and_signals(tmp_path: Path) -> None:
    assert alone("_close_file_systems", tmp_path / "made") == [
        "EACCES",
        "EACCES",
        "EACCES",
        "EPERM",
        "EACCES",
    ]


def test_namespaces_alone_close_the_network(tmp_path: Path) -> None:
    assert alone("_leave_namespaces", tmp_path / "made")[-1] == "ENETUNREACH"


def test_no_root_alone_can_signal_nobody(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "root")
    assert alone("_drop_root", tmp_path / "made")[3] == "EPERM"


CAPABILITIES = """
import ctypes, os
from holdfast.formats.guests.worker import sandbox
ctypes.CDLL(None).unshare(0x10000000)  # a user namespace: all capabilities in it
def capabilities():
    return [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")][0]
before = capabilities()
os.geteuid = lambda: 1000
sandbox._drop_root()
print(int(before, 16) != 0, int(capabilities(), 16))
"""


def test_the_capabilities_in_a_user_namespace_are_given_up() -> None:
    found = subprocess.run(
        [sys.executable, "-c", CAPABILITIES],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.split() == ["True", "0"]


# ---- the filter, read as the kernel reads it ----------------------------------------------------------


def run_filter(code: bytes, audit: int, number: int, protection: int = 0) -> str:
    """Run the program over a call, as linux/filter.h says."""
    data = {0: number, 4: audit, 32: protection}
    at = accumulator = 0
    lines = list(struct.iter_unpack("<HBBI", code))
    while True:
        operation, if_true, if_false, value = lines[at]
        at += 1
        match operation:
            case 0x20:
                accumulator = data[value]
            case 0x15:
                at += if_true if accumulator == value else if_false
            case 0x45:
                at += if_true if accumulator & value else if_false
            case 0x06:
                return {0x7FFF0000: "allow", 0x80000000: "kill", 0x00050001: "EPERM"}[value]


@pytest.mark.parametrize("name", MACHINES)
def test_the_filter_allows_its_list_and_nothing_else(name: str) -> None:
    machine = MACHINES[name]
    code = allow_list(machine)
    checked = {machine.calls["mmap"], machine.calls["mprotect"]}
    for number in range(600):
        expected = "allow" if number in machine.calls.values() else "EPERM"
        assert run_filter(code, machine.audit, number) == expected
        assert run_filter(code, machine.audit, number, 7) == ("EPERM" if number in checked else expected)
        assert run_filter(code, machine.audit, number | 0x40000000) == "EPERM"  # x32
        assert run_filter(code, 0x40000003, number) == "kill"  # i386


@pytest.mark.parametrize("name", MACHINES)
def test_the_numbers_of_calls_are_those_of_the_kernels_headers(name: str) -> None:
    header = Path(
        {
            "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
            "aarch64": "/usr/include/asm-generic/unistd.h",
        }[name]
    )
    need(header.exists(), str(header))
    numbers: dict[str, str] = {}
    for line in header.read_text().splitlines():
        words = line.split()
        if len(words) >= 3 and words[0] == "#define" and words[1].startswith(("__NR_", "__NR3264_")):
            numbers.setdefault(words[1].split("_", 3)[-1], words[2])
    for call, number in MACHINES[name].calls.items():
        assert int(numbers[call]) == number
