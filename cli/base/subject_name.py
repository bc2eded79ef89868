"""Names of subjects on the command line."""

from __future__ import annotations

import click

from holdfast.base.escaping import escape
from holdfast.tasks.subject_names import name_fault


def subject_name(name: str) -> str:
    """Return the name. Raises UsageError for a name that no selector could say."""
    reason = name_fault(name)
    if reason:
        raise click.UsageError(f"{escape(name)!r} cannot be a name: {reason}; give another with --name")
    return name
