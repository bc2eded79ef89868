"""The floor plan: sizes of modules and packages, no circles. Who may import whom is in pyproject.toml."""

from __future__ import annotations

from collections import Counter

from support.source_tree import PACKAGES, ROOT, imports, modules, package_of

MOST_LINES = 350
MOST_MODULES = 25


def test_every_folder_with_modules_is_a_package_that_says_what_it_is_for() -> None:
    folders = {file.parent for file in modules().values()}
    silent = [f for f in folders if not (f / "__init__.py").read_text().startswith('"""')]
    assert folders
    assert silent == []


def test_the_installed_package_is_made_of_the_folders_at_the_top() -> None:
    links = {p.name for p in (ROOT / "src" / "holdfast").iterdir() if p.is_symlink()}
    assert links == set(PACKAGES)


def test_no_module_is_too_long() -> None:
    lengths = {name: len(file.read_text().splitlines()) for name, file in modules().items()}
    assert {name: n for name, n in lengths.items() if n > MOST_LINES} == {}


def test_no_package_is_too_large() -> None:
    sizes = Counter(package_of(name) for name, file in modules().items() if file.name != "__init__.py")
    assert {name: n for name, n in sizes.items() if n > MOST_MODULES} == {}


def test_packages_do_not_import_each_other_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for name, targets in imports().items():
        here = package_of(name)
        graph.setdefault(here, set()).update(t for t in map(package_of, targets) if t != here)

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = graph.get(todo.pop(), set()) - seen
            seen |= new
            todo.extend(new)
        return seen

    assert [package for package in graph if package in reachable(package)] == []
