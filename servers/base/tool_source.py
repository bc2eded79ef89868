"""The output of a database's own program, as a source or as a short answer."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

from holdfast.base.errors import StreamFailed
from holdfast.base.processes import last_words
from holdfast.formats.dumps.core.end_mark import EndMark
from holdfast.ingest.sources.source import CommandSource
from holdfast.repo.snapshots.snapshot import Consistency
from holdfast.servers.base.secrets import Access

_ANSWER: Final = 64 << 20
"""Bytes of an answer that are read, at most."""


class ToolSource(CommandSource):
    """The output of a database's program, which must exit with 0 and end with `end` if there is one.

    `grade` and `evidence` are the consistency of the output when both hold. `finish` raises
    StreamFailed with the program's last words, without the password.
    """

    def __init__(
        self,
        access: Access,
        argv: Sequence[str],
        name: str,
        *,
        end: EndMark | None = None,
        grade: Consistency = Consistency.APPLICATION,
        evidence: str = "",
    ) -> None:
        self._access = access
        self._end = end.watch() if end else None
        self.tool = PurePath(argv[0]).name
        self.grade = grade
        self.evidence = evidence or f"{self.tool} exited with 0" + (
            " and its end mark was seen" if end else ""
        )
        super().__init__(argv, name, environment=access.environment, descriptors=access.descriptors)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        count = super().read_into(buffer, offset)
        if self._end is not None:
            self._end.feed(buffer[:count])
        return count

    def finish(self) -> str:
        said = super().finish()
        if self._end is not None and not self._end.is_complete:
            raise StreamFailed(
                f"{self.name}: {self.tool} exited with 0, but its output has no end mark: it ended early; "
                "nothing was committed"
            )
        return said

    def _last_words(self) -> str:
        return self._access.scrub(super()._last_words())


def ask_program(access: Access, argv: Sequence[str], *, stdin: str = "", limit: float = 60.0) -> bytes:
    """The output of a program that ends within `limit` seconds. Raises StreamFailed with its last words."""
    tool = PurePath(argv[0]).name
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(
                argv,
                input=stdin.encode(errors="surrogateescape"),
                stdout=output,
                stderr=errors,
                env=dict(access.environment),
                pass_fds=access.descriptors,
                timeout=limit,
                check=False,
            )
        except OSError as error:
            raise StreamFailed(f"cannot run {argv[0]}: {error.strerror}; nothing was stored") from error
        except subprocess.TimeoutExpired:
            raise StreamFailed(
                f"{access.connection.origin} did not answer {tool} within {limit:g} s; nothing was stored"
            ) from None
        if done.returncode:
            said = access.scrub(last_words(errors).expandtabs(2))
            raise StreamFailed(f"{access.connection.origin}: {tool} failed: {said}; nothing was stored")
        output.seek(0)
        answer = output.read(_ANSWER + 1)
    if len(answer) > _ANSWER:
        raise StreamFailed(f"{access.connection.origin}: an answer is longer than {_ANSWER} bytes")
    return answer


def tool_version(access: Access, program: str) -> str:
    """The output of `--version`, in one line."""
    line = ask_program(access, [program, "--version"]).decode(errors="replace").strip()
    return line.splitlines()[0][:200] if line else ""
