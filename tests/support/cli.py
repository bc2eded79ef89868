"""A small repository, and ways to run the command line on it: in this process, or for real."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import random
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from holdfast.cli.main import cli
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import Argon2Cost
from holdfast.repo.store.local import LocalStore

PASSWORD = "correct horse"
CHEAP = Argon2Cost(memory_kib=1024, passes=1, lanes=1)
HOLDFAST = Path(sys.executable).with_name("holdfast")

PG_HEAD = b"--\n-- PostgreSQL database dump\n--\n\n"
PG_TAIL = b"--\n-- PostgreSQL database dump complete\n--\n\n"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with a repository in it, and the environment that names it."""

    root: Path
    extra: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def make(root: Path) -> Place:
        """With an empty repository, whose password is cheap to try."""
        place = Place(root)
        with closing(LocalStore.create(place.repository)) as store:
            Repository.create(store, PASSWORD, created=datetime.now(UTC), cost=CHEAP)
        return place

    @property
    def repository(self) -> Path:
        return self.root / "repo"

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "HOLDFAST_REPOSITORY": str(self.repository),
            "HOLDFAST_PASSWORD": PASSWORD,
            "HOLDFAST_CACHE_DIR": str(self.root / "cache"),
        }
        return own | dict(self.extra)

    def run(self, *args: str | Path, input: bytes | None = None, **env: str | None) -> Result:
        """The command line in this process. `env` None takes a variable away."""
        variables: dict[str, str | None] = {**self.environment, **env}
        with tempfile.TemporaryFile() as stdin:  # a real one: sources read its descriptor
            stdin.write(input or b"")
            stdin.seek(0)
            return CliRunner().invoke(cli, [str(arg) for arg in args], input=stdin, env=variables)

    def ok(self, *args: str | Path, input: bytes | None = None) -> str:
        """Its standard output; fails the test unless it ends with 0."""
        result = self.run(*args, input=input)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    def json(self, *args: str | Path, input: bytes | None = None) -> Any:
        """The one document it prints, or the last line of several."""
        return json.loads(self.ok(*args, "--json", input=input).splitlines()[-1])

    def process(self, *args: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """The installed command in a process of its own, without a terminal."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")} | self.environment
        defaults: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "start_new_session": True,
            "env": env,
        }
        return subprocess.Popen([HOLDFAST, *args], **{**defaults, **options})

    def execute(self, *args: str | Path, **options: Any) -> Finished:
        """The same, waited for."""
        with self.process(*args, **options) as process:
            out, err = process.communicate(timeout=120)
        return Finished(process.returncode, out or b"", (err or b"").decode())

    def on_terminal(self, *args: str | Path, columns: int, **env: str) -> str:
        """What it writes to a terminal so wide, without colours; fails the test unless it ends with 0."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        variables |= self.environment | {"NO_COLOR": "1", "TERM": "xterm"} | env
        with self.process(*args, stdout=theirs, stderr=subprocess.PIPE, env=variables) as process:
            os.close(theirs)
            written = bytearray()
            with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
                while part := os.read(ours, 1 << 16):
                    written += part
            os.close(ours)
            _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return written.decode().replace("\r\n", "\n")

    def disk(self, name: str = "web01.raw", *, seed: int = 1, size: int = 4 << 20) -> Path:
        """A raw disk image with holes in it."""
        path = self.root / name
        noise = random.Random(seed)
        with path.open("wb") as file:
            file.truncate(size)
            for offset in (0, size // 2):
                file.seek(offset + 8192)
                file.write(noise.randbytes(300_000))
        return path

    def dump(self, name: str = "shop.sql", *, rows: int = 2000) -> Path:
        """A PostgreSQL dump."""
        path = self.root / name
        path.write_bytes(pg_dump(rows))
        return path

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.root / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


@dataclass(frozen=True, slots=True)
class Finished:
    """How a process ended and what it said."""

    code: int
    out: bytes
    err: str


def pg_dump(rows: int) -> bytes:
    lines = (f"insert into orders values ({n}, 'item {n * 7919 % 977}');\n" for n in range(rows))
    return PG_HEAD + "".join(lines).encode() + PG_TAIL


def python(code: str) -> Sequence[str]:
    """A command that runs a line of Python."""
    return [sys.executable, "-c", code]


def flip_byte(path: Path, offset: int) -> None:
    """Damage a file."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x20]))


def files(repository: Path, folder: str) -> list[Path]:
    """The files of a kind, in order."""
    return sorted(path for path in (repository / folder).rglob("*") if path.is_file())
