"""`holdfast info`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from holdfast.base.errors import Damaged, Unsupported
from holdfast.base.moments import moment
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.documents import SHORT_ID, mtime, proof_document, snapshot_document
from holdfast.cli.base.epochs import describe_epoch
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.render import count, duration, fields, iso, rate, size
from holdfast.cli.base.subjects import describe_subject, group_by_subject
from holdfast.cli.base.table import terminal_width
from holdfast.formats.dumps.logs.required_logs import contents, findings, needs
from holdfast.formats.guests.values.values import NodeType
from holdfast.repo.core.keyslots import KeySlot, list_slots
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.format import VERSION
from holdfast.repo.records.log_archive import LogReading, archives
from holdfast.repo.snapshots.select import time_name
from holdfast.repo.snapshots.snapshot import Item, StoredSnapshot, SubjectKind
from holdfast.repo.store.interface import FileKind
from holdfast.repo.upkeep.epochs import left_in_earlier
from holdfast.servers.base.proof import Outcome, Proof, QueryResult, latest_proof
from holdfast.tasks.snapshot_trees import SnapshotTrees
from holdfast.tree.nodes import ImageNode, ItemNode, Node, items_behind, node_type

_CIPHERS = {"AES_256_GCM": "AES-256-GCM", "CHACHA20_POLY1305": "ChaCha20-Poly1305"}
_BAD_SHOWN = 10
_WHOLE_ID = 80
"""Columns of a terminal that has room for a whole ID beside its name."""
_FACTS = {
    "server": "server",
    "tool": "tool",
    "system_id": "system identifier",
    "timeline": "timeline",
    "lsn": "LSN",
    "stop_lsn": "consistent at",
    "stop_time": "ended",
    "binlog": "binlog position",
    "gtid": "GTID",
    "commands": "client commands",
    "not_taken_apart": "not taken apart",
}


@command("info")
@click.argument("snapshot", required=False, metavar="[SNAPSHOT[:PATH]]")
@pass_settings
def info_command(settings: RunSettings, *, snapshot: str | None) -> None:
    """Show all about the repository, or about one snapshot."""
    with settings.opened() as repository:
        if snapshot is None:
            _show_repository(settings, repository)
        else:
            stored, path = settings.pick(repository, snapshot)
            with SnapshotTrees.of(repository).open(stored) as tree:
                # The snapshot is described even if nothing in it can be read.
                node = tree.resolve(path) if path else None
                items = items_behind(node) if node else stored.snapshot.items
            _show_snapshot(settings, repository, stored, items, node)


def _show_repository(settings: RunSettings, repository: Repository) -> None:
    found = settings.snapshots(repository)
    slots = [slot for slot in list_slots(repository.store) if isinstance(slot, KeySlot)]
    packs = list(repository.store.listing(FileKind.PACK))
    trashed = sum(entry.size for entry in repository.store.listing(FileKind.PACK, trashed=True))
    index = repository.index_folder or "none, it cannot be kept"
    config = repository.config
    cipher = _CIPHERS.get(config.suite.name, config.suite.name)
    subjects = len(group_by_subject(found.good))
    stored = sum(entry.size for entry in packs)
    epoch = repository.keyring.epoch
    earlier, earlier_bytes = left_in_earlier(repository.store, epoch)
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
            "epoch": epoch,
            "earlier_epochs": {"packs": earlier, "bytes": earlier_bytes},
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
                ("key epoch", describe_epoch(epoch, earlier, earlier_bytes)),
                ("index", str(index)),
            ]
        )
    )


def _show_snapshot(
    settings: RunSettings,
    repository: Repository,
    stored: StoredSnapshot,
    items: Sequence[Item],
    node: Node | None,
) -> None:
    proof = _proof(settings, repository, stored)
    settings.output.document(snapshot_document(stored) | {"proven": proof_document(proof) if proof else None})
    s = stored.snapshot
    stats = s.stats
    allocated = sum(item.allocated for item in s.items)
    lines = [
        ("ID", _id(stored.id)),
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
        *[(_FACTS.get(name, name), value) for name, value in s.facts.items() if name != "physical"],
        *_describe_proof(proof),
        *_describe_logs(repository, stored),
    ]
    settings.output.result(fields(lines))
    if node is not None and not isinstance(node, ItemNode):
        settings.output.result("")
        settings.output.result(fields(_describe_node(node)))
    for item in items:
        settings.output.result("")
        settings.output.result(fields(_describe_item(item)))


def _id(id_: str) -> str:
    """The whole ID, or as much as can be typed where it would be broken."""
    width = terminal_width()
    return id_ if width is None or width >= _WHOLE_ID else id_[:SHORT_ID]


def _describe_logs(repository: Repository, stored: StoredSnapshot) -> list[tuple[str, str]]:
    """Describe the archive of this database's logs and its faults."""
    if stored.snapshot.subject.kind is not SubjectKind.DATABASE:
        return []
    snapshots = LogReading(repository).snapshots()
    archive = next((a for a in archives(snapshots) if needs(a, stored.snapshot)), None)
    if archive is None:
        return []
    try:
        wrong = findings(repository, archive, [stored])
    except Damaged as error:
        wrong = [str(error)]
    held = "\n".join(f"{archive.subject.name}: {line}" for line in contents(archive))
    return [("logs", held), ("but", "\n".join(wrong))]


def _proof(settings: RunSettings, repository: Repository, stored: StoredSnapshot) -> Proof | None:
    try:
        return latest_proof(repository, stored.id)
    except (Damaged, Unsupported) as error:
        settings.output.warn(f"its proof cannot be read: {error}; run `holdfast check`")
        return None


def _describe_proof(proof: Proof | None) -> list[tuple[str, str]]:
    if proof is None:
        return []
    v = proof.verdict
    how = f"{v.path}, {time_name(v.time)}" if v.path else time_name(v.time)
    how += f" by {v.server or v.engine} on {v.host}, in {duration(v.seconds)}"
    answers = [f"{q.sql}: {_first_answer(q)}" for q in proof.queries]
    return [
        ("proven" if v.outcome is Outcome.PROVEN else "not proven", how),
        ("found", f"{count(v.tables, 'table')}, {count(v.rows, 'row')}" if v.tables else ""),
        ("asked", "\n".join(answers)),
        ("failed with", v.error),
    ]


def _first_answer(query: QueryResult) -> str:
    first = ", ".join("NULL" if cell is None else cell for cell in query.rows[0]) if query.rows else "nothing"
    return first + (" ..." if query.more or len(query.rows) > 1 else "")


def _describe_node(node: Node) -> list[tuple[str, str]]:
    """Describe a node made from items: a directory, a disk as an image, a table, a file of a guest."""
    is_file = node_type(node) is NodeType.FILE
    return [
        ("path", node.path),
        ("type", node_type(node).value),
        ("format", node.format if isinstance(node, ImageNode) else ""),
        ("size", f"{size(node.size)} ({node.size} bytes)" if is_file else ""),
        ("changed", time_name(moment(node.mtime)) if is_file else ""),
    ]


def _describe_item(item: Item) -> list[tuple[str, str]]:
    lost = [b for b in item.bad if b.length]
    bad = [f"{b.length} bytes at offset {b.start}: {b.reason}" for b in lost[:_BAD_SHOWN]]
    if len(lost) > _BAD_SHOWN:
        bad.append(f"and {len(lost) - _BAD_SHOWN} more ranges")
    return [
        ("item", item.path),
        ("type", item.kind.value),
        ("size", f"{size(item.size)} ({item.size} bytes), {size(item.allocated)} of it data"),
        ("read from", item.source_format),
        ("checkpoint", item.checkpoint),
        ("changed", time_name(mtime(item))),
        ("recipe", item.recipe.hex()),
        ("not whole", "\n".join(b.reason for b in item.bad if not b.length)),
        ("unreadable", "\n".join(bad)),
    ]
