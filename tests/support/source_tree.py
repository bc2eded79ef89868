"""The product's source as data: its modules, their syntax trees and who imports whom."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("base", "repo", "formats", "tree", "ingest", "servers", "tasks", "fusefs", "cli")


@cache
def modules() -> Mapping[str, Path]:
    """Dotted name (without `holdfast.`) to file, of every module; a package has the name of its folder."""
    found = {}
    for top in PACKAGES:
        for file in sorted((ROOT / top).rglob("*.py")):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = file
    return found


@cache
def syntax(file: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(file.read_text(), str(file))


def package_of(name: str) -> str:
    """The package that a module is in; a package is in itself."""
    file = modules().get(name)  # None: an extension in C
    return name if file is not None and file.name == "__init__.py" else name.rpartition(".")[0]


@cache
def imports() -> Mapping[str, frozenset[str]]:
    """Module to the modules of the product that it imports, inside functions too."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, file in modules().items():
        for node in ast.walk(syntax(file)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("holdfast."):
                base = (node.module or "").removeprefix("holdfast.")
                targets = {f"{base}.{alias.name}" for alias in node.names}
                found[name] |= {target if target in modules() else base for target in targets}
    return {name: frozenset(found[name]) for name in modules()}
