"""Grades the consistency of an item by what happened while its source was read."""

from __future__ import annotations

from holdfast.formats.dumps.core.engine import DumpKind
from holdfast.ingest.backup.recognise import SourceType
from holdfast.ingest.sources.source import CommandSource, Graded, Source
from holdfast.ingest.sources.wrapped import SectionedSource, innermost
from holdfast.repo.snapshots.snapshot import Consistency, Item, ItemKind


def grade_consistency(
    source: Source, source_type: SourceType, item: Item, note: str, uncompared: str
) -> tuple[Consistency, str, list[str]]:
    """(consistency, evidence, warnings); `note` is the warning that the source's `finish` returned,
    `uncompared` the checksum algorithm of a manifest whose checksums were not computed, or ""."""
    notes = [note] if note else []
    inner = innermost(source)
    if any(not bad.length for bad in item.bad):
        return Consistency.UNKNOWN, "the dump is not whole", notes
    if item.bad:
        return Consistency.UNKNOWN, "not all of it could be read", []
    if isinstance(inner, Graded):
        return inner.grade, inner.evidence, notes
    if uncompared:
        told = f"of the files only sizes were compared with the manifest, whose checksums are {uncompared}"
        return Consistency.UNKNOWN, told, [*notes, f"{told}; pg_basebackup --manifest-checksums=SHA256"]
    command = isinstance(inner, CommandSource)
    # If the file was replaced while it was read, its end is a whole dump's but its start may be another's.
    steady = (
        command
        or not note
        or (source_type.format is not None and source_type.format.kind is DumpKind.PHYSICAL)
    )
    if command or (isinstance(source, SectionedSource) and steady):
        return Consistency.APPLICATION, _of_a_dump(source, source_type), notes
    return _as_found(source_type, note)


def _of_a_dump(source: Source, source_type: SourceType) -> str:
    exited = isinstance(innermost(source), CommandSource)
    if not isinstance(source, SectionedSource):
        return "the command exited with 0"
    seen = source_type.format.evidence if source_type.format else ""
    return f"the dump command exited with 0 and its {seen}" if exited else f"the dump's {seen}"


def _as_found(source_type: SourceType, note: str) -> tuple[Consistency, str, list[str]]:
    if note:
        return Consistency.UNKNOWN, "it was written to while it was read", [note]
    if source_type.item is ItemKind.DISK:
        return Consistency.CRASH, "a disk as found", []
    return Consistency.UNKNOWN, "files as found", []
