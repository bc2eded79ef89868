"""Where words go: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import click

from holdfast.base.escaping import escape_lines


@dataclass(slots=True)
class Output:
    """What -q, -v and --json made of a run's output."""

    json: bool = False
    quiet: bool = False
    verbose: int = 0

    def result(self, text: str) -> None:
        """What was asked for. `text` has its names escaped already."""
        if not self.json:
            click.echo(text)

    def document(self, value: object) -> None:
        """The one JSON document of a command, or a line of several."""
        if self.json:
            click.echo(json.dumps(value))

    def message(self, kind: str, /, **values: Any) -> None:
        """A JSON line: `kind` is status, summary or error."""
        self.document({"message_type": kind, **values})

    def summary(self, text: str) -> None:
        """What was done; -q keeps it back."""
        if not self.quiet:
            self.result(text)

    def note(self, text: str) -> None:
        """Something good to know."""
        if not self.json and not self.quiet:
            click.echo(escape_lines(text), err=True)

    def detail(self, text: str) -> None:
        """Something good to know for those who asked with -v."""
        if self.verbose:
            self.note(text)

    def warn(self, text: str) -> None:
        """Something that needs a look; shown whatever -q says."""
        if self.json:
            click.echo(json.dumps({"message_type": "error", "level": "warning", "message": text}), err=True)
        else:
            click.echo(f"warning: {escape_lines(text)}", err=True)

    @property
    def shows_progress(self) -> bool:
        """Whether a progress bar may be drawn on standard error."""
        return not self.json and not self.quiet and sys.stderr.isatty()
