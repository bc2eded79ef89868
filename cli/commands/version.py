"""`holdfast version`."""

from __future__ import annotations

import platform

from holdfast import __version__
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.options import command, pass_settings
from holdfast.repo.format.format import VERSION


@command("version")
@pass_settings
def version_command(settings: RunSettings) -> None:
    """Show the version of the program and of the repository format it writes."""
    python = platform.python_version()
    settings.output.document({"version": __version__, "repository_format": VERSION, "python": python})
    detail = f" (repository format {VERSION}, Python {python})" if settings.output.verbose else ""
    settings.output.result(f"holdfast {__version__}{detail}")
