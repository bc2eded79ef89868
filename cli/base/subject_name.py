"""Names of subjects on the command line."""

from __future__ import annotations

import click

from holdfast.base.escaping import escape
from holdfast.tasks.subject_names import name_fault


def subject_name(name: str) -> str:
    """The name. Raises UsageError for one that could not be selected later."""
    reason = name_fault(name)
    if reason:
        raise click.UsageError(f"{escape(name)!r} cannot be a name: {reason}; give another with --name")
    return name
