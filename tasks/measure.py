"""How much is backed up and how much of it is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from holdfast.base.errors import Damaged, Unsupported
from holdfast.base.types import PackID, RecordType
from holdfast.repo.core.repository import Repository
from holdfast.repo.packs.reader import read_directory
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.repo.store.interface import FileKind, StoredFile


@dataclass(slots=True)
class Totals:
    """All in bytes but `chunks` and `packs`. `size` and `allocated` are what was backed up, with and without
    holes; `raw` is what chunks were before compression. Packs in `damaged` count in `stored` only."""

    size: int = 0
    allocated: int = 0
    raw: int = 0
    stored: int = 0
    trash: int = 0
    chunks: int = 0
    packs: int = 0
    damaged: list[Damaged | Unsupported] = field(default_factory=list)


def measure(
    repository: Repository,
    packs: Iterable[StoredFile],
    snapshots: Sequence[StoredSnapshot],
    advance: Callable[[], None],
) -> Totals:
    """Add up what snapshots and the directories of packs say; `advance` is called after each pack."""
    totals = Totals(size=sum(stored.snapshot.size for stored in snapshots))
    items = [item for stored in snapshots for item in stored.snapshot.items]
    # The catalogue of a dump is stored too, so it counts.
    totals.allocated = sum(i.allocated + (i.catalogue.size if i.catalogue else 0) for i in items)
    for entry in packs:
        totals.packs += 1
        totals.stored += entry.size
        try:
            records = read_directory(repository.store, repository.ciphers, PackID(entry.name), entry.size)
        except FileNotFoundError:
            continue  # a prune took it since
        except (Damaged, Unsupported) as error:
            totals.damaged.append(error)
            continue
        data = [header.raw for _, header in records if header.type is RecordType.DATA]
        totals.raw += sum(data)
        totals.chunks += len(data)
        advance()
    totals.trash = sum(entry.size for entry in repository.store.listing(FileKind.PACK, trashed=True))
    return totals
