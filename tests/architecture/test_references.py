"""What docstrings and comments name by a path or a dotted name is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from support.module_map import ROOT

FLOORS = ("base", "repo", "formats", "tree", "ingest", "servers", "tasks", "fusefs", "cli")
REFERENCE = re.compile(rf"`((?:{'|'.join(FLOORS)})[./][\w./]+)`")


def modules() -> list[Path]:
    return sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


@cache
def names_in(path: Path) -> frozenset[str]:
    """Every name that a module defines, at whatever depth."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                found.add(name)
    return frozenset(found)


def is_there(reference: str) -> bool:
    """Whether a file, a package, or a name in a module is there."""
    path = ROOT / reference
    if path.exists():
        return True
    parts = reference.removesuffix(".py").replace("/", ".").split(".")
    for at in range(len(parts), 0, -1):
        module = ROOT.joinpath(*parts[:at]).with_suffix(".py")
        if module.is_file():
            return all(name in names_in(module) for name in parts[at:])
        if module.with_suffix("").is_dir():
            return at == len(parts)
    return False


@pytest.mark.parametrize(
    ("reference", "there"),
    [
        ("repo.snapshots.heads", True),
        ("repo/snapshots/heads.py", True),
        ("repo.index", True),
        ("ingest.backup.backup.back_up", True),
        ("ingest.backup.back_up", False),
        ("repo.snapshots.heads.tails", False),
        ("repo/snapshots/tails.py", False),
    ],
)
def test_what_is_there_is_told_from_what_is_not(reference: str, there: bool) -> None:
    assert is_there(reference) is there


def test_what_modules_refer_to_is_there() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {reference}"
        for path in modules()
        for reference in REFERENCE.findall(path.read_text())
    ]
    assert len(found) >= 15
    assert [line for line in found if not is_there(line.partition(": ")[2])] == []
