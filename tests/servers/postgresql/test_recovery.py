"""How far a recovery shall go: targets, the settings for the server, and logs that are missing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Refused
from holdfast.base.types import ChunkID
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.formats.dumps.postgresql.physical.recovery import Recovery, parse_target
from holdfast.formats.dumps.postgresql.physical.recovery_logs import check_logs
from holdfast.formats.dumps.postgresql.physical.wal import Branch
from holdfast.repo.chunks.chunker import STREAM
from holdfast.repo.records.log_archive import LogArchive
from holdfast.repo.snapshots.snapshot import Item, ItemKind, Subject, SubjectKind
from support.basics import NOW

SEGMENT = 1 << 20
FACTS = DumpFacts(physical=True, timeline="1", lsn="0/500028", stop_lsn="0/500100")
"""A backup within segment 5, which is in the backup itself."""
COMMAND = ("holdfast", "wal-fetch")


def archive(*names: str) -> LogArchive:
    """Each file was written a minute after the one before, the first at NOW."""
    items = {
        name: Item(
            name,
            ItemKind.LOG,
            SEGMENT,
            SEGMENT,
            round((NOW + timedelta(minutes=n)).timestamp() * 1e9),
            STREAM,
            ChunkID(bytes(32)),
        )
        for n, name in enumerate(names)
    }
    return LogArchive(Subject(SubjectKind.LOGS, "shop"), (), items, {})


def segments(numbers: Sequence[int], timeline: int = 1) -> list[str]:
    return [f"{timeline:08X}00000000{number:08X}" for number in numbers]


def judged(
    until: str,
    names: Sequence[str],
    *,
    timeline: str = "",
    histories: Mapping[int, tuple[Branch, ...]] | None = None,
) -> str:
    try:
        return check_logs(archive(*names), histories or {}, FACTS, parse_target(until, COMMAND, timeline))
    except Refused as error:
        return f"refused: {error}"


def at(minutes: float) -> str:
    return (NOW + timedelta(minutes=minutes)).isoformat()


WHOLE = segments(range(4, 10))
TORN = segments([4, 5, 6, 7, 9])


@pytest.mark.parametrize(
    ("until", "names", "words"),
    [
        ("latest", WHOLE, ""),
        ("0/9FFFFF", WHOLE, ""),
        ("0/A00000", WHOLE, ""),
        ("0/A00001", WHOLE, "refused: 0/A00001 cannot be reached: the archive shop does not reach that far"),
        (at(4.5), WHOLE, ""),
        (at(5.5), WHOLE, "ends before"),
        (
            "latest",
            TORN,
            "refused: the end of the log cannot be reached: 000000010000000000000008 is missing",
        ),
        ("0/7FFFFF", TORN, ""),
        ("0/800001", TORN, "000000010000000000000008 is missing"),
        (at(2.5), TORN, ""),
        (at(3.5), TORN, "000000010000000000000008 is missing"),
        ("latest", segments([7, 8]), "000000010000000000000006 is missing"),
        ("0/500100", segments([7]), ""),
        ("latest", segments([4, 5]), "holds no log that follows this backup"),
        ("latest", segments([6]), ""),
    ],
)
def test_logs_that_are_missing_are_told_before_anything_is_written(
    until: str, names: list[str], words: str
) -> None:
    said = judged(until, names)
    assert words in said if words else not said, said


def test_timelines_are_followed_or_chosen() -> None:
    names = [*segments(range(5, 9)), *segments([7, 8, 9], 2)]
    histories = {2: (Branch(1, 7 * SEGMENT + 500),)}
    assert not judged("0/9FFFFF", names, histories=histories)
    assert not judged("0/8FFFFF", names, histories=histories, timeline="1")
    assert "does not reach" in judged("0/9FFFFF", names, histories=histories, timeline="1")
    assert not judged("0/9FFFFF", names, histories=histories, timeline="2")
    assert "00000003.history is not in" in judged("latest", names, histories=histories, timeline="3")


def test_without_an_archive_or_a_place_in_the_log_nothing_is_recovered() -> None:
    with pytest.raises(Refused, match="no WAL archive"):
        check_logs(None, {}, FACTS, Recovery(COMMAND))
    with pytest.raises(Refused, match="does not say where"):
        check_logs(archive(), {}, DumpFacts(physical=True), Recovery(COMMAND))


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-25 14:05", datetime(2026, 11, 25, 14, 5, tzinfo=UTC)),
        ("2026-11-25T14:05:01.5+01:00", datetime(2026, 11, 25, 13, 5, 1, 500_000, tzinfo=UTC)),
        ("2026-11-25_14-05-00", datetime(2026, 11, 25, 14, 5, tzinfo=UTC)),
        ("2026-11-25T14:05:00Z", datetime(2026, 11, 25, 14, 5, tzinfo=UTC)),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text: str, time: datetime) -> None:
    assert parse_target(text, COMMAND).time == time


@pytest.mark.parametrize("timeline", ["0", "-1", "x", "2'", "1e3"])
def test_a_timeline_is_a_number(timeline: str) -> None:
    with pytest.raises(Refused, match="no timeline"):
        parse_target("latest", COMMAND, timeline)


def test_a_backup_is_good_for_targets_behind_its_end() -> None:
    time = parse_target("2026-11-25 14:05", COMMAND)
    assert time.reaches("", "2026-11-25T14:05:00+00:00")
    assert not time.reaches("", "2026-11-25T14:05:01+00:00")
    assert not time.reaches("", "")
    place = parse_target("1/0", COMMAND)
    assert place.reaches("0/FFFFFFFF", "")
    assert not place.reaches("1/1", "")
    assert Recovery(COMMAND).reaches("", "")


def values(settings: bytes) -> dict[str, str]:
    """As the server reads them: the last one counts, '' is a quote, a backslash escapes."""
    found = {}
    for line in settings.decode(errors="surrogateescape").split("\n"):
        if match := re.fullmatch(r"(\w+) = '((?:[^'\\]|''|\\.)*)'", line):
            found[match[1]] = re.sub(r"''|\\(.)", lambda m: m[1] or "'", match[2])
        else:
            assert not line or line.startswith("#")
    return found


_WORDS = st.text(
    st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"]), min_size=1
)


@given(st.lists(_WORDS, min_size=1, max_size=4))
def test_the_shell_gets_the_words_of_the_command(command: list[str]) -> None:
    line = values(Recovery(tuple(command)).settings())["restore_command"]
    filled = re.sub("%(.)", lambda m: {"f": "FILE", "p": "PATH", "%": "%"}[m[1]], line)
    assert shlex.split(filled) == [*command, "FILE", "PATH"]


@pytest.mark.parametrize("word", ["", "a\nb", "a\0b", "\x7f"])
def test_words_that_stand_in_no_line_are_refused(word: str) -> None:
    with pytest.raises(Refused, match="cannot stand"):
        Recovery(("holdfast", "-r", word)).settings()


@pytest.mark.parametrize("until", ["2026-11-25 14:05", "16/B374D848", "latest"])
def test_one_target_is_set_and_it_comes_behind_all_that_are_reset(until: str) -> None:
    settings = parse_target(until, COMMAND).settings()
    targets = {
        name: value
        for name, value in values(settings).items()
        if name.startswith("recovery_target")
        and name.rpartition("_")[2] not in ("timeline", "inclusive", "action")
    }
    assert len(targets) == 5
    assert list(map(bool, targets.values())) == [False] * 4 + [until != "latest"]
