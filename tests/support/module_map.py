"""Writes docs/modules.md: each module of the product with the first sentence of its docstring.

`python tests/support/module_map.py` writes it, `./dev map` calls that; a test compares.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
MAP: Final = ROOT / "docs" / "modules.md"
FLOORS: Final = ("cli", "fusefs", "tasks", "servers", "ingest", "tree", "formats", "repo", "base")
"""Top to bottom: each imports only what is below."""

_HEAD: Final = """# Map of modules

Written by `./dev map` from the first sentence of each module's docstring: change that, not this file.
Packages from top to bottom: each imports only packages below it. How they work together is in
[internals.md](internals.md).
"""


def modules() -> Iterator[Path]:
    """Every Python file of the product, relative to the root, package by package."""
    for floor in FLOORS:
        files = [path for suffix in ("py", "pyi") for path in (ROOT / floor).rglob(f"*.{suffix}")]
        files.sort(key=lambda path: (path.parent.parts, path.name))
        yield from (path.relative_to(ROOT) for path in files)


def summary(path: Path) -> str:
    """The first sentence of the docstring of a module, "" without one."""
    text = ast.get_docstring(ast.parse((ROOT / path).read_text())) or ""
    first = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[^.]\.) (?=[A-Z])", first)[0]


def render() -> str:
    lines = [_HEAD]
    for path in modules():
        if path.name == "__init__.py":
            level = "##" if len(path.parts) == 2 else "###"
            lines.append(f"\n{level} {path.parent}\n\n{_escaped(summary(path))}\n\n")
        else:
            lines.append(f"- `{path.stem}`: {_escaped(summary(path))}\n")
    return re.sub(r"\n{3,}", "\n\n", "".join(lines)).rstrip() + "\n"


def _escaped(text: str) -> str:
    """No HTML out of NAME in angle brackets, no emphasis out of stars."""
    return re.sub(r"(`[^`]*`)|([<*])", lambda found: found[1] or "\\" + found[2], text)


if __name__ == "__main__":
    MAP.write_text(render())
