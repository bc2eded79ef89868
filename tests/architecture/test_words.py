"""One word, one thing: who searches for a class finds one."""

from __future__ import annotations

import ast
from collections import defaultdict

from support.source_tree import modules, syntax

MOST_PERCENT = 10.0


def test_few_classes_share_their_name_with_another() -> None:
    where: dict[str, list[str]] = defaultdict(list)
    for name, file in modules().items():
        for node in syntax(file).body:
            if isinstance(node, ast.ClassDef):
                where[node.name.lstrip("_")].append(name)
    shared = {name: places for name, places in where.items() if len(places) > 1}
    percent = 100 * sum(map(len, shared.values())) / sum(map(len, where.values()))
    assert percent <= MOST_PERCENT, f"{percent:.0f} % of the classes share a name: {shared}"
