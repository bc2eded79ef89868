"""How much is sealed in which key epoch: what a rotation leaves for prunes to seal anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from holdfast.base.errors import Damaged, Unsupported
from holdfast.base.types import PackID
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.format import HEAD_SIZE, ObjectType, parse_head
from holdfast.repo.store.interface import FileKind, Store


def stored_by_epoch(store: Store) -> dict[int, tuple[int, int]]:
    """(number, bytes) of the packs of each epoch, by their heads, which nobody vouches for here."""
    found: dict[int, tuple[int, int]] = {}
    for entry in store.listing(FileKind.PACK):
        try:
            head = store.read(FileKind.PACK, entry.name, 0, HEAD_SIZE)
            epoch = parse_head(head, f"pack {entry.name}", ObjectType.PACK).epoch
        except (FileNotFoundError, Damaged, Unsupported):
            continue  # removed since, or for `check` to report
        number, size = found.get(epoch, (0, 0))
        found[epoch] = (number + 1, size + entry.size)
    return found


def left_in_earlier(store: Store, epoch: int) -> tuple[int, int]:
    """(number, bytes) of the packs of epochs before `epoch`. Reads all heads, unless it is the first."""
    if epoch <= 1:
        return 0, 0
    older = [use for each, use in stored_by_epoch(store).items() if each < epoch]
    return sum(number for number, _ in older), sum(size for _, size in older)


def earlier_packs(repository: Repository, packs: Iterable[PackID]) -> Iterator[tuple[int, PackID]]:
    """(epoch, pack) of those packs that are sealed in an epoch before the newest."""
    newest = repository.keys.epoch
    if newest == 1:
        return
    for pack in packs:
        try:
            epoch = repository.ciphers.get(pack).head.epoch
        except (FileNotFoundError, Damaged):
            continue
        if epoch < newest:
            yield epoch, pack
