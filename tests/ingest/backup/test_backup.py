"""Whole backups into a directory: items, parents, grades of consistency, and what is never committed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.base.errors import MissingChunk, Refused, SourceError, StreamFailed
from holdfast.ingest.backup.backup import LessConsistent
from holdfast.ingest.sources.source import CommandSource, FileSource, Source
from holdfast.repo.chunks.chunker import DISK, DUMP, STREAM
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.histories import newest_of
from holdfast.repo.snapshots.snapshot import BadRange, Consistency, Item, ItemKind, SubjectKind
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.local import LocalStore
from holdfast.repo.upkeep.check import Depth, check
from support.basics import NOW, MemorySource, backup, new_repository, open_repository, random_bytes, read_item

ROWS = b"".join(b"INSERT INTO orders VALUES (%d, 'row');\n" % n for n in range(20_000))
PG = b"--\n-- PostgreSQL database dump\n--\n\n" + ROWS
PG_END = b"--\n-- PostgreSQL database dump complete\n--\n\n"
BOOT = (
    random_bytes(446, 1)
    + bytes([0x80, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0]).ljust(64, b"\0")
    + b"\x55\xaa"
)
IMAGE = BOOT + bytes((1 << 20) - 512) + random_bytes(3 << 20, 2) + bytes(4 << 20) + random_bytes(1 << 20, 3)


@pytest.fixture
def repository(local_repository: Repository) -> Repository:
    return local_repository


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def nothing_was_committed(repository: Repository) -> bool:
    store = repository.store
    return not list(store.listing(FileKind.SNAPSHOT)) and not list(store.listing(FileKind.PENDING))


def command(closing: ExitStack, code: str, name: str = "shop") -> CommandSource:
    source = CommandSource([sys.executable, "-c", code], name)
    closing.callback(source.close)
    return source


def prints(path: Path, then: str = "") -> str:
    return f"import sys, shutil\nshutil.copyfileobj(open({str(path)!r}, 'rb'), sys.stdout.buffer)\n{then}"


def test_a_disk_image_becomes_a_vm_with_one_disk(repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "web01.raw"
    path.write_bytes(IMAGE)
    with FileSource(path) as source:
        outcome = backup(repository, source, name="web01", tags=("daily",))
    snapshot = outcome.stored.snapshot
    (item,) = snapshot.items
    assert outcome.warnings == ()
    assert (snapshot.subject.kind, snapshot.subject.name, snapshot.subject.engine) == (
        SubjectKind.VM,
        "web01",
        "",
    )
    assert (item.path, item.kind, item.chunker) == ("disks/web01.raw", ItemKind.DISK, DISK)
    assert (item.size, item.mtime) == (len(IMAGE), path.stat().st_mtime_ns)
    assert 4 << 20 <= item.allocated <= (4 << 20) + 8192
    assert (snapshot.consistency, snapshot.evidence) == (Consistency.CRASH, "a disk as found")
    assert (snapshot.tags, snapshot.host, snapshot.source) == (("daily",), "host", "web01.raw")
    assert read_item(repository, item) == IMAGE


def test_it_is_there_after_the_repository_was_opened_again(local_store: LocalStore, tmp_path: Path) -> None:
    with new_repository(local_store, tmp_path / "cache") as repository:
        outcome = backup(repository, MemorySource(IMAGE, "a.raw"))
    again = LocalStore.open(local_store.root)
    with open_repository(again, tmp_path / "cache") as repository:
        assert repository.snapshots().good == (outcome.stored,)
        assert read_item(repository, outcome.stored.snapshot.items[0]) == IMAGE
    again.close()


def test_several_items_become_one_snapshot(repository: Repository) -> None:
    sources = [
        MemorySource(IMAGE, "sda.raw"),
        MemorySource(random_bytes(1 << 20, 9), "sdb.img"),
        MemorySource(b"name = 'web01'\n", "web01.conf"),
        MemorySource(b"", "empty"),
    ]
    snapshot = backup(repository, *sources).stored.snapshot
    assert [(item.path, item.kind) for item in snapshot.items] == [
        ("disks/sda.raw", ItemKind.DISK),
        ("disks/sdb.raw", ItemKind.DISK),
        ("definition/web01.conf", ItemKind.FILE),
        ("definition/empty", ItemKind.FILE),
    ]
    for item, source in zip(snapshot.items, sources, strict=True):
        assert read_item(repository, item) == source.content
    assert snapshot.source == "sda.raw, sdb.img, web01.conf, empty"
    assert snapshot.subject.kind is SubjectKind.VM


def test_files_are_files_when_it_is_said_so(repository: Repository) -> None:
    sources = [MemorySource(PG, "shop.sql"), MemorySource(b"x", "a.conf")]
    snapshot = backup(repository, *sources, kind=SubjectKind.FILES).stored.snapshot
    assert [(i.path, i.kind, i.chunker) for i in snapshot.items] == [
        ("shop.sql", ItemKind.FILE, STREAM),
        ("a.conf", ItemKind.FILE, STREAM),
    ]
    assert snapshot.subject.engine == ""


@pytest.mark.parametrize("names", [("a", "a"), ("a.raw", "a.img")])
def test_two_sources_that_would_be_one_item_are_refused(
    repository: Repository, names: tuple[str, str]
) -> None:
    sources = [MemorySource(IMAGE if "." in name else b"x", name) for name in names]
    with pytest.raises(Refused, match="two sources would both be"):
        backup(repository, *sources)
    assert nothing_was_committed(repository)


def test_a_name_that_leads_elsewhere_is_refused(repository: Repository) -> None:
    with pytest.raises(Refused, match="impossible item path"):
        backup(repository, MemorySource(b"x", ".."))
    assert nothing_was_committed(repository)


# ---- parents ------------------------------------------------------------------------------------------


def test_each_backup_has_the_one_before_as_its_parent_and_stores_what_is_new(repository: Repository) -> None:
    changed = bytearray(IMAGE)
    changed[2 << 20 : (2 << 20) + 4096] = random_bytes(4096, 7)
    outcomes = [
        backup(repository, MemorySource(bytes(content), "a.raw"), time=NOW + timedelta(days=day))
        for day, content in enumerate([IMAGE, IMAGE, changed])
    ]
    first, second, third = (outcome.stored for outcome in outcomes)
    assert [s.snapshot.parent for s in (first, second, third)] == [None, first.id, second.id]
    assert first.snapshot.items == second.snapshot.items
    assert (second.snapshot.stats.new, second.snapshot.stats.stored) == (0, 0)
    assert 0 < third.snapshot.stats.new < 1 << 20
    assert first.snapshot.stats.read == len(IMAGE)
    assert read_item(repository, third.snapshot.items[0]) == changed
    assert read_item(repository, first.snapshot.items[0]) == IMAGE
    assert newest_of(repository.snapshots().good, third.snapshot.subject.identity) == third


def test_a_backup_of_another_subject_is_no_parent(repository: Repository) -> None:
    backup(repository, MemorySource(IMAGE, "a.raw"), name="one")
    other = backup(repository, MemorySource(IMAGE, "a.raw"), name="two").stored.snapshot
    assert other.parent is None
    assert other.stats.new == 0


def test_an_item_that_is_cut_by_another_rule_now_has_no_guide(repository: Repository) -> None:
    backup(repository, MemorySource(PG, "shop.sql"), kind=SubjectKind.FILES, name="x")
    again = backup(repository, MemorySource(b"\0" + PG, "shop.sql"), kind=SubjectKind.FILES, name="x")
    (item,) = again.stored.snapshot.items
    assert read_item(repository, item) == b"\0" + PG


def test_a_parent_whose_data_is_damaged_is_healed_by_the_next_backup(repository: Repository) -> None:
    """Packs are gone, the source is not: what can be stored again is, and old snapshots are whole again."""
    first = backup(repository, MemorySource(IMAGE, "a.raw")).stored
    for entry in list(repository.store.listing(FileKind.PACK)):
        repository.store.delete(FileKind.PACK, entry.name)
    second = backup(repository, MemorySource(IMAGE, "a.raw"), time=NOW + timedelta(days=1)).stored
    assert second.snapshot.parent == first.id
    for stored in (first, second):
        assert read_item(repository, stored.snapshot.items[0]) == IMAGE


# ---- dumps and consistency ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_whole_dump_is_application_consistent(repository: Repository, is_stream: bool) -> None:
    snapshot = backup(repository, MemorySource(PG + PG_END, "stdin", is_stream=is_stream)).stored.snapshot
    (item,) = snapshot.items
    assert (snapshot.subject.kind, snapshot.subject.engine) == (SubjectKind.DATABASE, "postgresql")
    assert (item.path, item.kind, item.chunker) == ("dump.sql", ItemKind.DUMP, DUMP)
    assert (snapshot.consistency, snapshot.evidence) == (
        Consistency.APPLICATION,
        "the dump's end mark was seen",
    )
    assert read_item(repository, item) == PG + PG_END


EARLY = [PG, PG + PG_END + bytes(5000), PG[:100], PG[:-20]]


@pytest.mark.parametrize("content", EARLY)
def test_a_dump_that_ended_early_is_kept_and_never_called_whole(
    repository: Repository, content: bytes
) -> None:
    outcome = backup(repository, MemorySource(content, "stdin", is_stream=True))
    snapshot = outcome.stored.snapshot
    (item,) = snapshot.items
    assert snapshot.partial
    assert (snapshot.consistency, snapshot.evidence) == (Consistency.UNKNOWN, "the dump is not whole")
    (bad,) = item.bad
    assert (bad.start, bad.length) == (len(content), 0)
    assert outcome.warnings == (f"stdin: {bad.reason}",)
    assert "PostgreSQL database dump complete" in bad.reason
    assert read_item(repository, item) == content
    assert repository.snapshots().good == (outcome.stored,), "what is wrong with it is stored with it"


@pytest.mark.parametrize("content", EARLY)
def test_a_dump_that_ended_early_is_not_committed_where_a_whole_one_is_required(
    repository: Repository, content: bytes
) -> None:
    with pytest.raises(
        LessConsistent, match=r"the dump is not whole; .*dump complete.*nothing was committed"
    ):
        backup(repository, MemorySource(content, "stdin"), required=Consistency.APPLICATION)
    assert nothing_was_committed(repository)


def test_a_dump_command_that_succeeds_is_application_consistent(
    repository: Repository, tmp_path: Path, closing: ExitStack
) -> None:
    dump = tmp_path / "dump"
    dump.write_bytes(PG + PG_END)
    source = command(closing, prints(dump, "sys.stderr.write('one warning')"))
    outcome = backup(repository, source)
    assert outcome.warnings == ("one warning",)
    assert outcome.stored.snapshot.consistency is Consistency.APPLICATION
    assert outcome.stored.snapshot.evidence == "the dump command exited with 0 and its end mark was seen"


@pytest.mark.parametrize(
    "case",
    [
        (PG + PG_END, "sys.exit(3)", "exited with 3"),
        (PG, "sys.exit('server closed the connection')", "server closed the connection"),
        (PG + PG_END, "sys.stdout.flush(); import os; os.kill(os.getpid(), 15)", "killed by signal 15"),
        (PG, "import os; sys.stdout.flush(); os.kill(os.getpid(), 9)", "killed by signal 9"),
        (b"", "sys.exit(1)", "exited with 1"),
    ],
)
def test_a_dump_command_that_fails_is_not_committed(
    repository: Repository, tmp_path: Path, closing: ExitStack, case: tuple[bytes, str, str]
) -> None:
    content, then, says = case
    dump = tmp_path / "dump"
    dump.write_bytes(content)
    with pytest.raises(StreamFailed, match=says):
        backup(repository, command(closing, prints(dump, then)))
    assert nothing_was_committed(repository)


def test_a_dump_command_that_exits_with_0_is_not_believed_without_the_trailer(
    repository: Repository, tmp_path: Path, closing: ExitStack
) -> None:
    dump = tmp_path / "dump"
    dump.write_bytes(PG)
    snapshot = backup(repository, command(closing, prints(dump))).stored.snapshot
    assert (snapshot.partial, snapshot.consistency) == (True, Consistency.UNKNOWN)
    assert read_item(repository, snapshot.items[0]) == PG


def test_any_command_that_exits_with_0_is_believed(repository: Repository, closing: ExitStack) -> None:
    outcome = backup(repository, command(closing, "print('tar or so')", "etc.tar"))
    assert outcome.stored.snapshot.consistency is Consistency.APPLICATION
    assert outcome.stored.snapshot.items[0].path == "etc.tar"


def worn(content: bytes, name: str) -> MemorySource:
    return MemorySource(content, name, bad=[BadRange(4096, 4096, "Input/output error")])


GRADES: list[tuple[list[Source], Consistency]] = [
    ([MemorySource(PG + PG_END, "a.sql")], Consistency.APPLICATION),
    ([MemorySource(IMAGE, "a.raw")], Consistency.CRASH),
    ([MemorySource(IMAGE, "a.raw", note="written to")], Consistency.UNKNOWN),
    ([MemorySource(b"x", "a")], Consistency.UNKNOWN),
    ([MemorySource(PG + PG_END, "a.sql"), MemorySource(IMAGE, "a.raw")], Consistency.CRASH),
    ([MemorySource(IMAGE, "a.raw"), worn(IMAGE, "b.raw")], Consistency.UNKNOWN),
    ([worn(PG + PG_END, "a.sql")], Consistency.UNKNOWN),
    ([MemorySource(PG, "a.sql")], Consistency.UNKNOWN),
    ([MemorySource(PG + PG_END, "a.sql"), MemorySource(PG, "b.sql")], Consistency.UNKNOWN),
]


@pytest.mark.parametrize(("sources", "grade"), GRADES)
def test_a_snapshot_is_as_consistent_as_its_worst_item_and_no_less_than_required(
    repository: Repository, sources: list[Source], grade: Consistency
) -> None:
    for required in Consistency:
        if grade.satisfies(required):
            snapshot = backup(repository, *sources, required=required).stored.snapshot
            assert snapshot.consistency is grade
    before = repository.snapshots().good
    words = "of unknown consistency" if grade is Consistency.UNKNOWN else f"{grade.value}-consistent"
    for required in Consistency:
        if not grade.satisfies(required):
            with pytest.raises(LessConsistent, match=words):
                backup(repository, *sources, required=required)
    assert repository.snapshots().good == before
    assert not list(repository.store.listing(FileKind.PENDING))


# ---- what cannot be read ------------------------------------------------------------------------------


def test_bad_ranges_make_a_partial_snapshot_that_lists_them(repository: Repository) -> None:
    outcome = backup(repository, worn(IMAGE, "a.raw"))
    snapshot = outcome.stored.snapshot
    assert snapshot.partial
    assert snapshot.items[0].bad == (BadRange(4096, 4096, "Input/output error"),)
    assert outcome.warnings == ("a.raw: 4096 bytes at offset 4096: Input/output error",)
    assert snapshot.evidence == "not all of it could be read"
    assert repository.snapshots().good == (outcome.stored,)


def test_a_file_that_shrinks_while_it_is_read_is_stored_at_its_announced_size(
    repository: Repository, tmp_path: Path
) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(IMAGE)
    with FileSource(path) as source:
        with path.open("r+b") as file:
            file.truncate(2 << 20)
        outcome = backup(repository, source)
    (item,) = outcome.stored.snapshot.items
    assert item.size == len(IMAGE)
    assert [(b.start, b.length) for b in item.bad] == [(2 << 20, len(IMAGE) - (2 << 20))]
    assert read_item(repository, item) == IMAGE[: 2 << 20] + bytes(len(IMAGE) - (2 << 20))


def test_a_file_that_is_written_to_meanwhile_is_told_of(repository: Repository) -> None:
    outcome = backup(repository, MemorySource(IMAGE, "a.raw", note="a.raw was written to while it was read"))
    assert outcome.warnings == ("a.raw was written to while it was read",)
    assert not outcome.stored.snapshot.partial


def test_a_source_that_is_given_up_leaves_nothing(repository: Repository) -> None:
    def before(offset: int) -> None:
        if offset:
            raise SourceError("a.raw: more than 10000 separate ranges cannot be read")

    with pytest.raises(SourceError, match="10000"):
        backup(repository, MemorySource(b"fine", "first"), MemorySource(IMAGE, "a.raw", before=before))
    assert nothing_was_committed(repository)


def test_progress_counts_every_byte_of_every_source(repository: Repository) -> None:
    from holdfast.ingest.backup.backup import BackupRequest, back_up  # noqa: PLC0415  the helper ignores progress
    from holdfast.ingest.backup.plan import plan_items  # noqa: PLC0415  as above

    seen: list[int] = []
    sources = [MemorySource(IMAGE, "a.raw"), MemorySource(b"xyz", "b")]
    request = BackupRequest(plan_items(sources, None), "n", "h", "p")
    back_up(repository, request, progress=seen.append)
    assert sum(seen) == len(IMAGE) + 3


def test_a_reader_of_the_parent_shares_nothing_with_later_readers(repository: Repository) -> None:
    items: list[Item] = []
    for day in range(3):
        outcome = backup(repository, MemorySource(IMAGE, "a.raw"), time=NOW + timedelta(days=day))
        items += outcome.stored.snapshot.items
    reader = Reader(repository)
    assert {reader.read(reader.recipe(item), 0, item.size) for item in items} == {IMAGE}


# ---- what was lost comes back -------------------------------------------------------------------------


def test_the_next_backup_of_a_dump_heals_what_was_lost(local_store: LocalStore, tmp_path: Path) -> None:
    """The parent is relied on without look-ups only while nothing was lost."""
    content = random_bytes(3 << 20, 4)
    with new_repository(local_store, tmp_path / "cache") as repository:
        first = backup(repository, MemorySource(content, "a.sql")).stored.snapshot
        assert backup(repository, MemorySource(content, "a.sql")).stored.snapshot.stats.chunks < 30
        for entry in list(local_store.listing(FileKind.PACK)):
            if entry.size > 1 << 20:
                local_store.delete(FileKind.PACK, entry.name)
        with pytest.raises(MissingChunk):
            read_item(repository, first.items[0])
        assert backup(repository, MemorySource(content, "a.sql")).stored.snapshot.stats.new > 2 << 20
        assert read_item(repository, first.items[0]) == content
        assert check(repository, Depth.READ_DATA).findings == []
