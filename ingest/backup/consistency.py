"""How consistent an item is, by what happened while it was read."""

from __future__ import annotations

from holdfast.formats.dumps.core.engine import DumpKind
from holdfast.ingest.backup.recognise import Form
from holdfast.ingest.sources.source import CommandSource, Graded, Source
from holdfast.ingest.sources.wrapped import SectionedSource, innermost
from holdfast.repo.snapshots.snapshot import Consistency, Item, ItemKind


def judge(
    source: Source, form: Form, item: Item, note: str, uncompared: str
) -> tuple[Consistency, str, list[str]]:
    """(consistency, evidence, warnings); `note` is what the source had to say at its end, `uncompared` names
    the checksums of a manifest that nobody computed."""
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
    # Of a file that was replaced meanwhile, half may be the old one: both end like a whole dump.
    steady = command or not note or (form.format is not None and form.format.kind is DumpKind.PHYSICAL)
    if command or (isinstance(source, SectionedSource) and steady):
        return Consistency.APPLICATION, _of_a_dump(source, form), notes
    return _as_found(form, note)


def _of_a_dump(source: Source, form: Form) -> str:
    exited = isinstance(innermost(source), CommandSource)
    if not isinstance(source, SectionedSource):
        return "the command exited with 0"
    seen = form.format.evidence if form.format else ""
    return f"the dump command exited with 0 and its {seen}" if exited else f"the dump's {seen}"


def _as_found(form: Form, note: str) -> tuple[Consistency, str, list[str]]:
    if note:
        return Consistency.UNKNOWN, "it was written to while it was read", [note]
    if form.item is ItemKind.DISK:
        return Consistency.CRASH, "a disk as found", []
    return Consistency.UNKNOWN, "files as found", []
