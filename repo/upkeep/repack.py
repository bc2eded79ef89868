"""Copies the needed chunks of half-empty, small and old packs into new packs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from holdfast.base.errors import Damaged, NoSpace, StoreError
from holdfast.base.types import PackID, ProgressFunction
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.format import PACK_LIMIT, RecordHeader
from holdfast.repo.index.index import Directory
from holdfast.repo.packs.reader import open_payload, open_record, read_directory
from holdfast.repo.packs.writer import PackWriter, Record
from holdfast.repo.store.interface import FileKind
from holdfast.repo.upkeep.needs import Needs
from holdfast.repo.upkeep.prune_plan import PackUse, Plan, record_at


@dataclass(slots=True)
class Repacked:
    """The packs that nothing needs any more because their needed chunks are in new packs; bytes of the new
    packs; errors that make a pack stay; whether the disk was full."""

    done: list[PackUse] = field(default_factory=list)
    written: int = 0
    damaged: dict[PackID, Damaged] = field(default_factory=dict)
    no_space: bool = False


def repack(
    repository: Repository, plan: Plan, needs: Needs, progress: ProgressFunction, batch: int
) -> Repacked:
    """Write the needed records of the plan's half-empty and small packs into new packs, durably.

    Of a pack all or nothing: what two packs hold would be waste in one of them. So a pack with a damaged
    record that no other pack has stays as it is. The caller holds the shared lock.
    """
    result = Repacked()
    new: list[tuple[PackID, int, Directory]] = []
    writer = PackWriter(
        repository.store,
        repository.keys,
        lambda pack, size, directory: new.append((pack, size, directory)),
        target=repository.pack_target,
    )
    doomed = {use.pack for use in [*plan.repack, *plan.remove]}
    try:
        for use in plan.repack:
            try:
                records = list(_needed_records(repository, use, doomed, needs))
            except Damaged as error:
                result.damaged[use.pack] = error
                doomed.discard(use.pack)
            else:
                _copy(writer, records, needs, batch)
            progress(use.size)
        writer.finish()
    except NoSpace:
        return Repacked(damaged=result.damaged, no_space=True)
    finally:
        writer.abandon()
    repository.index.add(new)
    needs.new_packs = [pack for pack, _, _ in new]
    result.done = [use for use in plan.repack if use.pack not in result.damaged]
    result.written = writer.stored
    return result


def _copy(writer: PackWriter, records: Sequence[Record], needs: Needs, batch: int) -> None:
    """Write the records, `batch` bytes or a little more at a time."""
    waiting: list[Record] = []
    size = 0
    for record in records:
        waiting.append(record)
        needs.copied.add([record[0].id])
        size += record[0].size
        if size >= batch:
            writer.add(waiting)
            waiting, size = [], 0
    if waiting:
        writer.add(waiting)


def _needed_records(
    repository: Repository, use: PackUse, doomed: set[PackID], needs: Needs
) -> Iterator[Record]:
    """The needed records of a doomed pack of which no remaining pack has a good copy, each chunk once.

    Authenticates every record, and of an earlier key epoch compares its ID too: who was removed has the keys
    of that epoch, and what he sealed under an ID must not come into this one.

    Raises Damaged for a record that is damaged in all packs, and when the pack cannot be read.
    """
    pack = use.pack
    where = f"pack {pack}"
    try:
        cipher = repository.ciphers.get(pack)
        data = memoryview(repository.store.read(FileKind.PACK, pack, 0, PACK_LIMIT))
        entries = read_directory(repository.store, repository.ciphers, pack, use.size)
    except StoreError as error:
        raise Damaged(where, str(error)) from error
    wanted_ids = needs.needed.contains([header.id for _, header in entries])
    for (offset, header), wanted in zip(entries, wanted_ids, strict=True):
        if not wanted or needs.copied.contains([header.id])[0]:
            continue
        others = [each for each in repository.index.locations(header.id) if each.pack != pack]
        staying = [location for location in others if location.pack not in doomed]
        if any(record_at(repository, location) == header.id for location in staying):
            continue
        try:
            sealed = data[offset : offset + header.size]
            record = open_payload(cipher, offset, sealed, where)
            if record[0] != header:
                raise Damaged(where, "record and directory disagree", offset=offset)
            if cipher.head.epoch != repository.keys.epoch:
                _compare_id(repository, open_record(cipher, offset, sealed, where), where, offset)
        except Damaged:
            if any(record_at(repository, location) == header.id for location in others):
                continue  # copied from there when its turn comes
            repository.note_damage(pack, [header.id])
            raise
        yield record


def _compare_id(repository: Repository, found: tuple[RecordHeader, bytes], where: str, offset: int) -> None:
    header, plain = found
    if repository.keys.chunk_id(header.type, plain) != header.id:
        raise Damaged(where, f"chunk {header.id.hex()} has other content than its ID says", offset=offset)
