"""What tests may not do: change the product's modules, import each other, reach for what is private."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(TESTS.rglob("*.py")):
        yield path.relative_to(TESTS), ast.parse(path.read_text())


def product_modules(tree: ast.Module) -> set[str]:
    """Names that stand for modules of the product in a test: the file or the folder exists."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, alias.asname or alias.name.split(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(f"{node.module}.{alias.name}", alias.asname or alias.name) for alias in node.names]
        else:
            continue
        found |= {name for module, name in names if is_module(module)}
    return found


def is_module(name: str) -> bool:
    if name.split(".", maxsplit=1)[0] != "holdfast":
        return False
    path = TESTS.parent / "src" / Path(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def patched(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, what) of attributes of the product's modules that a test sets, by whatever means."""
    own = product_modules(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "setattr",
            "patch",
            "object",
        ):
            for argument in node.args[:1]:
                root = ast.unparse(argument)
                if root.split(".")[0] in own or root.strip("'\"").startswith("holdfast."):
                    yield node.lineno, root
        elif isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Attribute) and ast.unparse(target).split(".")[0] in own:
                    yield node.lineno, ast.unparse(target)


def test_no_test_changes_a_module_of_the_product() -> None:
    """What tests vary is a parameter: a constant that is set from outside says nothing about the product."""
    assert [f"{path}:{line} {what}" for path, tree in modules() for line, what in patched(tree)] == []


def test_no_test_imports_another_test() -> None:
    """What several share is in `support`, which imports no test either."""
    found = [
        f"{path}:{node.lineno} {node.module}"
        for path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and any(part.startswith("test_") for part in (node.module or "").split("."))
    ]
    assert found == []


def test_a_change_of_a_module_is_seen_however_it_is_written() -> None:
    """The check itself."""
    code = """
import holdfast.repo
from holdfast.repo.core import writer as w
from holdfast.repo.core.writer import Writer
def test(monkeypatch):
    monkeypatch.setattr(w, "_BATCH", 1)
    monkeypatch.setattr("holdfast.repo.core.writer._BATCH", 1)
    monkeypatch.setattr(holdfast.repo, "x", 1)
    monkeypatch.setattr(Writer, "put", None)
    monkeypatch.setenv("A", "b")
    w.BATCH = 1
    setattr(w, "BATCH", 1)
"""
    assert [line for line, _ in sorted(patched(ast.parse(code)))] == [6, 7, 8, 11, 12]
