"""`holdfast info`."""

from __future__ import annotations

import click

from holdfast.cli.context import Settings
from holdfast.cli.documents import mtime, snapshot_document
from holdfast.cli.options import command, pass_settings
from holdfast.cli.render import count, duration, fields, iso, rate, size
from holdfast.cli.snapshots import describe_subject, group_by_subject
from holdfast.repo.format import VERSION
from holdfast.repo.keyslots import KeySlot, list_slots
from holdfast.repo.repository import Repository
from holdfast.repo.select import find_items, time_name
from holdfast.repo.snapshot import Item, StoredSnapshot
from holdfast.repo.store import Kind

_CIPHERS = {"AES_256_GCM": "AES-256-GCM", "CHACHA20_POLY1305": "ChaCha20-Poly1305"}
_BAD_SHOWN = 10


@command("info")
@click.argument("snapshot", required=False, metavar="[SNAPSHOT[:PATH]]")
@pass_settings
def info_command(settings: Settings, *, snapshot: str | None) -> None:
    """Show all about the repository, or about one snapshot."""
    with settings.opened() as repository:
        if snapshot is None:
            _show_repository(settings, repository)
        else:
            stored, path = settings.pick(repository, snapshot)
            _show_snapshot(settings, stored, find_items(stored.snapshot, path))


def _show_repository(settings: Settings, repository: Repository) -> None:
    found = settings.snapshots(repository)
    slots = [slot for slot in list_slots(repository.store) if isinstance(slot, KeySlot)]
    packs = list(repository.store.listing(Kind.PACK))
    trashed = sum(entry.size for entry in repository.store.listing(Kind.PACK, trashed=True))
    index = repository.index_folder
    config = repository.config
    cipher = _CIPHERS.get(config.suite.name, config.suite.name)
    subjects = len(group_by_subject(found.good))
    stored = sum(entry.size for entry in packs)
    settings.output.document(
        {
            "id": config.hex_id,
            "path": str(settings.root),
            "format": VERSION,
            "created": iso(config.created),
            "cipher": cipher,
            "compression": config.compression,
            "snapshots": len(found.good),
            "damaged_snapshots": len(found.damaged),
            "subjects": subjects,
            "packs": len(packs),
            "stored": stored,
            "trash": trashed,
            "key_slots": len(slots),
            "recovery_keys": sum(slot.cost is None for slot in slots),
            "index": str(index),
        }
    )
    recovery = any(slot.cost is None for slot in slots)
    settings.output.result(
        fields(
            [
                ("repository", str(settings.root)),
                ("ID", config.hex_id),
                ("format", f"version {VERSION}"),
                ("created", time_name(config.created)),
                ("cipher", cipher),
                ("compression", f"zstd level {config.compression}"),
                ("snapshots", f"{len(found.good)} of {count(subjects, 'subject')}"),
                ("stored", f"{size(stored)} in {count(len(packs), 'pack')}"),
                ("trash", size(trashed) if trashed else ""),
                ("keys", count(len(slots), "key slot") + (", with a recovery key" if recovery else "")),
                ("index", str(index)),
            ]
        )
    )


def _show_snapshot(settings: Settings, stored: StoredSnapshot, items: tuple[Item, ...]) -> None:
    settings.output.document(snapshot_document(stored))
    s = stored.snapshot
    stats = s.stats
    allocated = sum(item.allocated for item in s.items)
    lines = [
        ("ID", stored.id),
        ("of", describe_subject(s.subject)),
        ("UUID", s.subject.uuid),
        ("time (UTC)", time_name(s.time)),
        ("host", s.host),
        ("source", s.source),
        ("consistency", f"{s.consistency.value}: {s.evidence}"),
        ("partial", "yes, see below" if s.partial else ""),
        ("tags", ", ".join(s.tags)),
        ("previous", s.parent[:8] if s.parent else ""),
        ("size", f"{size(s.size)}, {size(allocated)} of it data"),
        ("new", f"{size(stats.new)} in {stats.new_chunks:,} of {count(stats.chunks, 'chunk')}"),
        ("stored", size(stats.stored)),
        ("took", f"{duration(stats.seconds)} ({rate(allocated, stats.seconds)})"),
        ("made by", s.program),
    ]
    settings.output.result(fields(lines))
    for item in items:
        settings.output.result("")
        settings.output.result(fields(_describe_item(item)))


def _describe_item(item: Item) -> list[tuple[str, str]]:
    bad = [f"{b.length} bytes at offset {b.offset}: {b.reason}" for b in item.bad[:_BAD_SHOWN]]
    if len(item.bad) > _BAD_SHOWN:
        bad.append(f"and {len(item.bad) - _BAD_SHOWN} more stretches")
    return [
        ("item", item.path),
        ("type", item.kind.value),
        ("size", f"{size(item.size)} ({item.size} bytes), {size(item.allocated)} of it data"),
        ("read from", item.source_format),
        ("checkpoint", item.checkpoint),
        ("changed", time_name(mtime(item))),
        ("recipe", item.recipe.hex()),
        ("unreadable", "\n".join(bad)),
    ]
