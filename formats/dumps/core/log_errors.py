"""Why a recovery cannot reach what was asked for. Nothing was written; the command line says what helps."""

from __future__ import annotations

from holdfast.base.errors import Refused


class NoLogArchive(Refused):
    """No archive holds logs of the backup's server."""


class LogMissing(Refused):
    """A log on the way is missing, while later ones are there."""


class LogsEndBefore(Refused):
    """The archive ends before what was asked for."""
