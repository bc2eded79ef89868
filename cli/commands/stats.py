"""`holdfast stats`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.base.errors import Damaged, Unsupported
from holdfast.base.types import PackID, RecordType
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import count, fields, percent, size
from holdfast.repo.core.repository import Repository
from holdfast.repo.packs.reader import read_directory
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.repo.store.interface import FileKind


@dataclass(slots=True)
class Totals:
    """All in bytes but `chunks` and `packs`. `raw` is what chunks were before compression."""

    size: int = 0
    allocated: int = 0
    raw: int = 0
    stored: int = 0
    trash: int = 0
    chunks: int = 0
    packs: int = 0


@command("stats")
@pass_settings
def stats_command(settings: RunSettings) -> None:
    """Show how much is backed up, how much is stored, and what saved the difference."""
    with settings.opened() as repository:
        found = settings.snapshots(repository).good
        totals = _measure(settings, repository)
    totals.size = sum(stored.snapshot.size for stored in found)
    items = [item for stored in found for item in stored.snapshot.items]
    # What stands where in a dump is stored too: it belongs to what was backed up.
    totals.allocated = sum(i.allocated + (i.catalogue.size if i.catalogue else 0) for i in items)
    t = totals
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
    """What the figures mean, in sentences."""
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
    return "\n".join(lines)


def _measure(settings: RunSettings, repository: Repository) -> Totals:
    """Add up what the directories of the packs say."""
    totals = Totals()
    packs = list(repository.store.listing(FileKind.PACK))
    with progress(settings.output, "reading directories", len(packs), unit="packs") as meter:
        for entry in packs:
            totals.packs += 1
            totals.stored += entry.size
            try:
                records = read_directory(repository.store, repository.ciphers, PackID(entry.name), entry.size)
            except FileNotFoundError:
                continue  # a prune took it since
            except (Damaged, Unsupported) as error:
                settings.output.warn(f"{error}; left out of the figures; run `holdfast check`")
                continue
            data = [header.raw for _, header in records if header.type is RecordType.DATA]
            totals.raw += sum(data)
            totals.chunks += len(data)
            meter.add(1)
    totals.trash = sum(entry.size for entry in repository.store.listing(FileKind.PACK, trashed=True))
    return totals


def _ratio(whole: int, part: int) -> float | None:
    return round(whole / part, 3) if part else None


def _times(whole: int, part: int) -> str:
    return f"{whole / part:.2f} to 1" if part and whole else "-"
