"""The pages for readers: links lead somewhere, commands are what the program takes, names are the code's."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.main import cli
from support import module_map
from support.commands import program_context

ROOT = module_map.ROOT
PAGES = sorted(
    path.relative_to(ROOT)
    for folder in (ROOT, ROOT / "docs", ROOT / "docs" / "decisions", ROOT / "changes")
    for path in folder.glob("*.md")
)

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
SHELL = re.compile(r"\|\||&&|[|;<>]|\d?>&\d")


def slug(heading: str) -> str:
    """A heading's anchor as forges make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def prose(page: Path) -> str:
    return FENCE.sub("", (ROOT / page).read_text())


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if anchor:
            text = FENCE.sub("", path.read_text())
            assert anchor in {slug(h) for h in re.findall(r"^#+ (.*)$", text, re.M)}, target


# ---- commands --------------------------------------------------------------------------------------


def command_lines() -> Iterator[tuple[str, str]]:
    """(page, command) of each `holdfast ...`, in blocks of code and in prose."""
    for page in PAGES:
        if (ROOT / page) == module_map.MAP:
            continue
        text = (ROOT / page).read_text()
        for block in FENCE.findall(text):
            for line in block.replace("\\\n", " ").splitlines():
                if found := re.search(r"(?:^|[\s'\"/(])(holdfast [a-z].*)", line.removeprefix("$ ")):
                    yield str(page), found[1]
        for quoted in re.findall(r"`(holdfast [^`]+)`", FENCE.sub("", text)):
            yield str(page), quoted


def words(line: str) -> list[str]:
    """The words of the first command of a line of shell, without comment and redirections."""
    lexer = shlex.shlex(
        line if line.count("'") % 2 == 0 else line.rstrip("'"), posix=True, punctuation_chars="|;<>&"
    )
    lexer.whitespace_split = True
    lexer.commenters = "#"
    found: list[str] = []
    for word in lexer:
        if SHELL.match(word):
            break
        found.append(word)
    return found


def check_command(arguments: list[str]) -> None:
    """Raises click.UsageError for an unknown command or option and for values of the wrong kind."""
    command: click.Command = cli
    context = program_context()
    while isinstance(command, click.Group):
        name, found, arguments = command.resolve_command(context, arguments)
        assert found is not None, name
        command = found
        context = click.Context(command, parent=context, info_name=name)
    values, rest, _ = command.make_parser(context).parse_args(list(arguments))
    assert not rest, f"superfluous: {rest}"
    for parameter in command.params:
        value = values.get(parameter.name)
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            parameter.type.convert(value, parameter, context)
        if isinstance(parameter, click.Argument) and parameter.required:
            assert value not in (None, ()), f"{parameter.name} is missing"


COMMANDS = sorted(set(command_lines()))


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_command_in_the_pages_is_one_that_the_program_takes(page: str, line: str) -> None:
    arguments = words(line)[1:]
    if arguments[:1] == ["version"] or not arguments:
        return
    check_command([a for a in arguments if a != "..."])


def test_there_are_commands_to_check_and_wrong_ones_are_noticed() -> None:
    assert len(COMMANDS) > 60
    for wrong in (
        ["bakup", "x"],
        ["backup", "--nmae", "x", "y"],
        ["restore", "x", "--format", "vhs"],
        ["ls", "a", "b", "c"],
    ):
        with pytest.raises((click.UsageError, AssertionError)):
            check_command(wrong)


def test_the_exit_codes_of_the_page_are_the_programs() -> None:
    section = (ROOT / "docs/operator.md").read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    listed = {int(number) for number in re.findall(r"\b(\d+)\b", section)}
    assert listed == {int(code) for code in ExitCode}


# ---- names -------------------------------------------------------------------------------------------


def test_the_tests_that_the_threat_model_names_exist() -> None:
    named = set(re.findall(r"`(tests/[^`]+)`", (ROOT / "docs/threat-model.md").read_text()))
    assert len(named) > 20
    assert [name for name in sorted(named) if not re.fullmatch(r"tests/[a-z0-9_/]+\.py", name)] == []
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_the_map_of_modules_is_what_the_modules_say() -> None:
    assert module_map.MAP.read_text() == module_map.render(), "docs/modules.md is out of date: ./dev map"


def test_every_module_says_what_it_is() -> None:
    assert [str(path) for path in module_map.modules() if not module_map.summary(path)] == []


TERMS = re.findall(
    r"^\| ([^|]+) \| [^|]+ \| `([^`:]+)(?:: (\w+))?` \|", (ROOT / "docs/glossary.md").read_text(), re.M
)


@pytest.mark.parametrize(("term", "module", "name"), TERMS)
def test_a_term_of_the_glossary_has_its_name_in_the_code(term: str, module: str, name: str) -> None:
    path = ROOT / module
    assert path.is_file(), term
    if name:
        tree = ast.parse(path.read_text())
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        assert name in {node.name for node in tree.body if isinstance(node, kinds)}, term


def test_the_glossary_is_read_in_full() -> None:
    rows = re.findall(r"^\| (?!word |---)", (ROOT / "docs/glossary.md").read_text(), re.M)
    assert len(rows) == len(TERMS) >= 40


def test_the_modules_that_internals_names_exist() -> None:
    text = (ROOT / "docs/internals.md").read_text()
    floors = "|".join(module_map.FLOORS)
    named = re.findall(rf"`((?:{floors})/[\w/.]*)`", text)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []
