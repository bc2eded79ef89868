"""An engine is a thing: its name is known to its own folders and to the registry, to nobody else."""

from __future__ import annotations

import ast

from support.source_tree import modules, syntax

NAMES = {"postgresql", "mariadb", "mysql", "sqlite"}
REGISTRY = {"formats.dumps.engines"}


def test_engines_are_known_by_name_in_their_folders_and_the_registry_only() -> None:
    knowing = set()
    for name, file in modules().items():
        nodes = list(ast.walk(syntax(file)))
        if any(isinstance(node, ast.Constant) and node.value in NAMES for node in nodes):
            knowing.add(name)
    own = {name for name in knowing if NAMES & set(name.split("."))}
    assert knowing - own - REGISTRY == set()
