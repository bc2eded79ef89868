"""`holdfast completion`."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.options import command

_VARIABLE = "_HOLDFAST_COMPLETE"


@command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print a script that completes commands and options in SHELL.

    \b
    bash:  holdfast completion bash > ~/.local/share/bash-completion/completions/holdfast
    zsh:   holdfast completion zsh > "${fpath[1]}/_holdfast"
    fish:  holdfast completion fish > ~/.config/fish/completions/holdfast.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click knows the three
    # Not kind.source: for bash it starts a shell to look at its version.
    script = ShellComplete.source(kind(context.find_root().command, {}, "holdfast", _VARIABLE))
    output = context.ensure_object(RunSettings).output
    output.document({"shell": shell, "script": script})
    output.result(script)
