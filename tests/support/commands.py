"""The program's commands, walked as `holdfast --help` would."""

from __future__ import annotations

from collections.abc import Iterator

import click

from holdfast.cli.main import cli


def program_context() -> click.Context:
    """The context that all commands are looked up in, made as the program makes it.

    A command remembers the help option of the first context that it meets.
    """
    return click.Context(cli, info_name="holdfast", **cli.context_settings)


def every_command() -> Iterator[tuple[str, click.Command]]:
    """(words, command) of the program, its commands and those below them."""

    def walk(words: str, context: click.Context) -> Iterator[tuple[str, click.Command]]:
        command = context.command
        yield words, command
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None, f"{words} {name}"
                yield from walk(f"{words} {name}", click.Context(below, parent=context, info_name=name))

    return walk("holdfast", program_context())
