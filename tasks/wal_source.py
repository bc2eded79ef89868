"""Identifies the cluster whose WAL is pushed, and the program that pushes it."""

from __future__ import annotations

import socket
from pathlib import Path

from holdfast import __version__
from holdfast.formats.dumps.postgresql.physical.control import CONTROL_HEAD, CONTROL_PATH, parse_control
from holdfast.tasks.push_logs import Pusher
from holdfast.tasks.source_errors import NoCluster


def pusher() -> Pusher:
    """This host and program, as log snapshots record them."""
    return Pusher(socket.gethostname(), f"holdfast {__version__}")


def system_id_in(folder: Path) -> str:
    """The system identifier of the cluster whose data directory this is. Raises NoCluster."""
    path = folder / CONTROL_PATH
    try:
        with path.open("rb") as file:
            control = parse_control(file.read(CONTROL_HEAD))
    except OSError as error:
        raise NoCluster(f"cannot read {path} ({error.strerror})") from None
    if control is None:
        raise NoCluster(f"{path} is not the control file of a PostgreSQL cluster")
    return control.system_id
