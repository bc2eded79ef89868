"""Golden files: what the command line says, kept as text, with all that varies from run to run taken out.

A golden file is written by the program, read by people and compared by tests. When the program is meant to
say something else, write them anew and read the difference before it is committed:

    HOLDFAST_WRITE_GOLDEN=1 pytest tests/cli/test_golden.py    # writes, and fails, so that nobody forgets it
    git diff tests/cli/golden
    pytest tests/cli/test_golden.py

Help and the words of wrong usage are click's in part; golden/click.txt says which version of it they are of.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pytest

from holdfast import __version__

FOLDER: Final = Path(__file__).parents[1] / "cli" / "golden"
_CLICK: Final = FOLDER / "click.txt"
WRITE: Final = "HOLDFAST_WRITE_GOLDEN"


# ---- comparing ----------------------------------------------------------------------------------------


def compare(texts: Mapping[str, str], *, folder: str = "", apart: Iterable[str] = ()) -> None:
    """Fail with a unified diff unless the golden files say `texts`, a mapping of names to contents.

    With `folder` no other files may be in it, but for those that other tests compare (`apart`).
    """
    there = {str(path.relative_to(FOLDER)) for path in (FOLDER / folder).glob("*")} if folder else set()
    stale = there - set(texts) - set(apart)
    if os.environ.get(WRITE):
        _write(texts, stale)
        pytest.fail(f"{len(texts)} golden files written; read the difference, then run without {WRITE}")
    differences = [_difference(name, text) for name, text in texts.items()]
    differences += [f"{name}: nothing says this any more" for name in sorted(stale)]
    told = "\n".join(difference for difference in differences if difference)
    if told:
        pytest.fail(f"{told}\n\n{_hint()}If this is meant, {WRITE}=1 writes them anew", pytrace=False)


def _hint() -> str:
    then, now = _CLICK.read_text(encoding="utf-8").strip(), version("click")
    return "" if then == now else f"They are of click {then}, this is {now}: that alone may be it.\n"


def _write(texts: Mapping[str, str], stale: Iterable[str]) -> None:
    for name in stale:
        (FOLDER / name).unlink()
    for name, text in texts.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    _CLICK.write_text(version("click") + "\n", encoding="utf-8")


def _difference(name: str, text: str) -> str:
    path = FOLDER / name
    frozen = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = difflib.unified_diff(
        frozen.splitlines(), text.splitlines(), f"golden/{name}", f"{name}, as it is now", lineterm=""
    )
    return "\n".join(lines)


def as_text(value: object) -> str:
    """JSON as text for a golden file. Keys keep their order: the order is frozen too."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


# ---- normalising --------------------------------------------------------------------------------------

_VARYING: Final = frozenset(
    {
        *("allocated", "new", "chunks", "chunks_new", "raw", "stored", "trash"),  # keys decide where cuts are
        *("differing", "bytes", "bytes_read", "freed", "repacked_bytes"),  # and what the pieces come to
        *("rate", "pid"),
    }
)
"""Keys of whole numbers that differ between two runs. 0 and null are kept; and sizes of no holes."""
_TEXTS: Final = {
    "recovery_key": "<recovery key>",
    "script": "<script>",  # click's, which changes with click
    "python": "<version>",
    "error": "<error>",  # of the server that a backup is rehearsed in
}
_ID: Final = re.compile(r"(?<![\w-])(?:[0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{16}|[0-9a-f]{8})(?![\w-])")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")
_PACK: Final = re.compile(r"/[0-9a-f]{2}/<64 hex>")
_SQLITE: Final = re.compile(r"SQLite [\d.]+")


@dataclass
class Normaliser:
    """Takes out what differs from run to run and leaves everything else: keys, their order, types, values.

    - IDs that the story has learned become `<ID of web01 1>`, or `<short ID of ...>`; others `<64 hex>`.
    - Times become their shape, `####-##-##T##:##:##Z`, but for those of the days that the story sets itself.
    - Fractions (seconds, ratios) become `<float>`; whole numbers under the keys of _VARYING `<int>`, and both
      figures of a set of packs that a prune chose, be they 0 or not.
    - A status line keeps its keys, and only the first of those that stand together is kept: how many come,
      and how far the work is then, is a matter of time.
    - The test's folder, this host, and versions of Holdfast, Python and servers become `<root>`, `<host>`,
      `<version>`.
    """

    root: Path
    days: frozenset[str]
    _known: dict[str, str] = field(init=False, default_factory=dict)

    def learn(self, id_: str, label: str) -> None:
        self._known |= {id_: f"<ID of {label}>", id_[:8]: f"<short ID of {label}>"}

    def documents(self, output: str) -> list[Any]:
        """The lines of JSON that a command wrote. Of other text the first line stands for all."""
        found: list[Any] = []
        for line in output.splitlines():
            try:
                document = json.loads(line)
            except ValueError:
                return [*found, f"text: {self.text(line)}"]
            if not (found and _is_status(document) and _is_status(found[-1])):
                found.append(document)
        return [self.value(_of_status(document)) for document in found]

    def value(self, value: Any, key: str = "", of: Mapping[str, Any] | None = None) -> Any:
        """`key` is where it stands in the object `of`."""
        match value:
            case {"packs": int(), "bytes": int()} if len(value) == 2:
                return dict.fromkeys(value, "<int>")
            case dict():
                return {name: self.value(inner, name, value) for name, inner in value.items()}
            case list():
                return [self.value(inner, key) for inner in value]
            case str():
                return self._string(value, key)
        return _number(value, key, of)

    def text(self, text: str) -> str:
        text = text.replace(str(self.root), "<root>")
        for id_ in sorted(self._known, key=len, reverse=True):
            text = text.replace(id_, self._known[id_])
        text = _TIME.sub(self._time, text)
        text = _ID.sub(lambda found: f"<{len(found[0])} hex>", text)
        text = _PACK.sub("/<2 hex>/<64 hex>", text)
        text = _SQLITE.sub("SQLite <version>", text)
        return text.replace(f"holdfast {__version__}", "holdfast <version>")

    def _string(self, value: str, key: str) -> str:
        if key in _TEXTS:
            return _TEXTS[key]
        if key == "host" and value == socket.gethostname():
            return "<host>"
        if key == "version" and value == __version__:
            return "<version>"
        return self.text(value)

    def _time(self, found: re.Match[str]) -> str:
        time = found[0]
        return time if time[:10] in self.days else re.sub(r"\d", "#", time)


def _is_status(document: Any) -> bool:
    return isinstance(document, dict) and document.get("message_type") == "status"


def _of_status(document: Any) -> Any:
    if not _is_status(document):
        return document
    return {
        key: value if isinstance(value, str) else f"<{type(value).__name__}>"
        for key, value in document.items()
    }


def _number(value: Any, key: str, of: Mapping[str, Any] | None) -> Any:
    """A number, or true, false and null, which stay."""
    if isinstance(value, float):
        return "<float>"
    varies = key in _VARYING and not (key == "allocated" and _is_full(of))
    varies |= key == "size" and of is not None and of.get("type") == "document"  # this host's name is in it
    return "<int>" if varies and value and not isinstance(value, bool) else value


def _is_full(document: Mapping[str, Any] | None) -> bool:
    return document is not None and document.get("allocated") == document.get("size")
