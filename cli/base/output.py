"""Output of commands: results go to standard output, all other text to standard error."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import click

from holdfast.base.escaping import escape_message


@dataclass(slots=True)
class Output:
    """Prints text or JSON according to -q, -v and --json."""

    json: bool = False
    quiet: bool = False
    verbose: int = 0

    def result(self, text: str) -> None:
        """Print a result, unless the output is JSON. Names in `text` must be escaped already."""
        if not self.json:
            click.echo(text)

    def document(self, value: object) -> None:
        """Print a JSON document, if the output is JSON."""
        if self.json:
            click.echo(json.dumps(value))

    def message(self, kind: str, /, **values: Any) -> None:
        """Print a JSON line; `kind` is status, summary or error."""
        self.document({"message_type": kind, **values})

    def summary(self, text: str) -> None:
        """Print a summary of the command's work, unless -q."""
        if not self.quiet:
            self.result(text)

    def note(self, text: str) -> None:
        """Print a hint, unless -q or --json."""
        if not self.json and not self.quiet:
            click.echo(escape_message(text), err=True)

    def detail(self, text: str) -> None:
        """Print a detail, if -v."""
        if self.verbose:
            self.note(text)

    def warn(self, text: str) -> None:
        """Print a warning, even with -q."""
        if self.json:
            click.echo(json.dumps({"message_type": "error", "level": "warning", "message": text}), err=True)
        else:
            click.echo(f"warning: {escape_message(text)}", err=True)

    @property
    def shows_progress(self) -> bool:
        """Whether a progress bar may be drawn on standard error."""
        return not self.json and not self.quiet and sys.stderr.isatty()
