"""The server side of each engine, found through the engine's one entry and imported when it is used."""

from __future__ import annotations

from typing import cast

from holdfast.base.errors import Refused
from holdfast.formats.dumps.engines import ENGINES, load_object
from holdfast.servers.confined.engine_server import EngineServer


def engine_server(name: str) -> EngineServer:
    """The server side of the engine of that name. Raises Refused for an unknown engine."""
    entry = ENGINES.entry(name)
    if entry is None:
        raise Refused(f"{name} is no database engine that this program knows")
    return cast(EngineServer, load_object(entry.server))
