"""What to type next is for the command line to say: below it, errors carry data."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from holdfast.cli.main import VERBS
from support.commands import every_command
from support.source_tree import ROOT

_FLOORS: Final = ("base", "repo", "formats", "tree", "ingest", "servers", "tasks", "fusefs")
_CONTEXTS: Final = ("holdfast key slot", "holdfast repository", "holdfast cutter ")
"""Contexts of keys and digests: a part of the repository's format."""
_WRITTEN: Final = {"\n# Recovery, written by holdfast restore.\n"}
"""What stands in files that are written, to say where they come from."""
_COMMAND: Final = re.compile(r"holdfast (?:-\S+ \S+ )?(" + "|".join(VERBS) + r")\b")
_OPTION: Final = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def own_options() -> set[str]:
    """The long options of all commands."""
    parameters = [parameter for _, command in every_command() for parameter in command.params]
    return {name for parameter in parameters for name in parameter.opts if name.startswith("--")}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of the string constants that are prose: no docstring, and no single word of an argv."""
    module = ast.parse(path.read_text())
    documents = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            text = node.value
            if not text.startswith(_CONTEXTS) and text not in _WRITTEN and (" " in text or "`" in text):
                yield node.lineno, text


def advice_in(path: Path, options: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for line, text in texts(path)
        if _COMMAND.search(text) or any(word in options for word in _OPTION.findall(text))
    ]


def test_nothing_below_the_command_line_says_what_to_type() -> None:
    options = own_options()
    assert "--disk-format" in options
    paths = [path for floor in _FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
    assert len(paths) > 300
    assert [line for path in paths for line in advice_in(path, options)] == []
