"""How consistent an item is, by what happened while it was read."""

from __future__ import annotations

from holdfast.ingest.recognise import Form
from holdfast.ingest.source import CommandSource, Graded, Source
from holdfast.ingest.wrapped import SectionedSource, innermost
from holdfast.repo.snapshot import Consistency, Item, ItemKind


def judge(source: Source, form: Form, item: Item, note: str) -> tuple[Consistency, str, list[str]]:
    """(consistency, evidence, warnings); `note` is what the source had to say at its end."""
    notes = [note] if note else []
    if any(not bad.length for bad in item.bad):
        return Consistency.UNKNOWN, "the dump is not whole", notes
    if item.bad:
        return Consistency.UNKNOWN, "not all of it could be read", []
    inner = innermost(source)
    if isinstance(inner, Graded):
        return inner.grade, inner.evidence, notes
    if isinstance(source, SectionedSource) or isinstance(inner, CommandSource):
        return Consistency.APPLICATION, _of_a_dump(source, form), notes
    return _as_found(form, note)


def _of_a_dump(source: Source, form: Form) -> str:
    exited = isinstance(innermost(source), CommandSource)
    if not isinstance(source, SectionedSource):
        return "the command exited with 0"
    seen = "manifest is right" if form.form == "tar" else "trailer was seen"
    return f"the dump command exited with 0 and its {seen}" if exited else f"the dump's {seen}"


def _as_found(form: Form, note: str) -> tuple[Consistency, str, list[str]]:
    if note:
        return Consistency.UNKNOWN, "it was written to while it was read", [note]
    if form.item is ItemKind.DISK:
        return Consistency.CRASH, "a disk as found", []
    return Consistency.UNKNOWN, "files as found", []
