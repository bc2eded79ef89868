"""What a confinement is made of: who, where, how much. Values, and their JSON on the way to the warden."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from holdfast.base.errors import Refused


class NotConfined(Refused):
    """A layer of the confinement cannot be had here; the message says which and what the system said."""


class Ended(StrEnum):
    """Which limit a program met."""

    MEMORY = "memory"
    DISK = "disk"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class User:
    """Whom programs run as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What programs may use. `memory`, bytes: of each program with all that it starts; `processes`: of all
    together, threads count; `seconds` of wall time and `cpu` seconds of each process; `spare`: bytes that
    stay free where the folder is; `file`: the largest file, bytes."""

    memory: int = 4 << 30
    processes: int = 1024
    files: int = 4096
    seconds: float = 3600
    cpu: int = 7200
    spare: int = 0
    file: int = 1 << 50


@dataclass(frozen=True, slots=True)
class Plan:
    """A confinement: programs run as `user`; of the host they see programs, libraries and `folder`, which
    alone they can write to. `confined` false: they run in the host's namespaces and root directory, with
    its network; what is left is the user, the limits and the end."""

    user: User
    folder: Path
    limits: Limits
    confined: bool = True

    def pack(self) -> str:
        return json.dumps(asdict(replace(self)) | {"folder": str(self.folder)})

    @staticmethod
    def unpack(text: str) -> Plan:
        found: dict[str, Any] = json.loads(text)
        return Plan(
            User(**found["user"]), Path(found["folder"]), Limits(**found["limits"]), found["confined"]
        )
