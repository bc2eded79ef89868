"""Findings of a check: the file, what is wrong, how bad it is, and what helps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Weight(StrEnum):
    """How bad a finding is. MEND: nothing is lost, and the next prune or key command puts it right.
    NOTE: nothing is wrong with the repository."""

    DAMAGE = "damage"
    MEND = "mend"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem, the selectors of the snapshots that it affects, and advice."""

    where: str
    problem: str
    affects: tuple[str, ...] = ()
    advice: str = ""
    weight: Weight = Weight.DAMAGE
