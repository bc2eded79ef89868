"""`holdfast stats`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import count, fields, percent, size
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.repo.store.interface import FileKind
from holdfast.tasks.measure import Totals, measure

_WIDTH: Final = 80
"""Columns of a sentence."""


@command("stats")
@pass_settings
def stats_command(settings: RunSettings) -> None:
    """Show how much is backed up, how much is stored, and what saved the difference."""
    with settings.opened() as repository:
        found = settings.snapshots(repository).good
        t = _measured(settings, repository, found)
    settings.output.document(
        {
            "snapshots": len(found),
            "size": t.size,
            "allocated": t.allocated,
            "chunks": t.chunks,
            "raw": t.raw,
            "stored": t.stored,
            "trash": t.trash,
            "packs": t.packs,
            "deduplication_ratio": _ratio(t.allocated, t.raw),
            "compression_ratio": _ratio(t.raw, t.stored),
            "total_ratio": _ratio(t.allocated, t.stored),
        }
    )
    settings.output.result(
        fields(
            [
                ("snapshots", f"{len(found)}"),
                ("backed up", f"{size(t.size)}, {size(t.allocated)} of it data, the rest holes"),
                ("distinct", f"{size(t.raw)} in {count(t.chunks, 'chunk')}"),
                ("stored", f"{size(t.stored)} in {count(t.packs, 'pack')}"),
                ("trash", size(t.trash) if t.trash else ""),
                ("deduplication", _times(t.allocated, t.raw)),
                ("compression", _times(t.raw, t.stored)),
                ("together", _times(t.allocated, t.stored)),
            ]
        )
    )
    if found:
        settings.output.result("\n" + explain(found, t))


def explain(found: Sequence[StoredSnapshot], t: Totals) -> str:
    """Sentences that explain the figures."""
    these = "this snapshot" if len(found) == 1 else f"these {len(found)} snapshots"
    lines = [f"Copied one by one, the data of {these} would take {size(t.allocated)}."]
    again = t.allocated - t.raw
    if again > 0:
        lines.append(
            f"{size(again)} of that was there already when it came again and is stored only once "
            f"({percent(again, t.allocated)} saved by deduplication)."
        )
    elif again < 0:
        lines.append(
            f"The packs hold {size(-again)} more than that, of forgotten snapshots or broken-off backups: "
            "`holdfast prune` frees it."
        )
    if t.stored < t.raw:
        lines.append(f"Compression makes {size(t.stored)} of the {size(t.raw)} that are left.")
    return "\n".join(textwrap.fill(line, _WIDTH) for line in lines)


def _measured(settings: RunSettings, repository: Repository, found: Sequence[StoredSnapshot]) -> Totals:
    packs = list(repository.store.listing(FileKind.PACK))
    with progress(settings.output, "reading directories", len(packs), unit="packs") as meter:
        totals = measure(repository, packs, found, lambda: meter.add(1))
    for error in totals.damaged:
        settings.output.warn(f"{error}; left out of the figures; run `holdfast check`")
    return totals


def _ratio(whole: int, part: int) -> float | None:
    return round(whole / part, 3) if part else None


def _times(whole: int, part: int) -> str:
    return f"{whole / part:.2f} to 1" if part and whole else "-"
