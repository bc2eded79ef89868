"""Whether an archive holds the log that a recovery needs, as far as that can be told without replaying it."""

from __future__ import annotations

from typing import Final

from holdfast.base.errors import Refused
from holdfast.base.moments import moment
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.formats.dumps.core.log_errors import LogMissing, LogsEndBefore, NoLogArchive
from holdfast.formats.dumps.postgresql.physical.recovery import Recovery
from holdfast.formats.dumps.postgresql.physical.required_wal import segment_size
from holdfast.formats.dumps.postgresql.physical.wal import (
    Base,
    Histories,
    Reach,
    WalKind,
    base_of,
    behind,
    coverage,
    parse_name,
    reach,
    segment_name,
)
from holdfast.repo.records.log_archive import LogArchive

_NOTHING: Final = "nothing was written"


def check_logs(archive: LogArchive | None, histories: Histories, facts: DumpFacts, recovery: Recovery) -> str:
    """Raises NoLogArchive, LogMissing or LogsEndBefore when the log from the backup with these facts to the
    target is surely not all there; Refused when the backup does not say where in the log it stands.

    Else a sentence for the user, or "": whether a time is reached is known to the server alone, which says
    so and stops when it is not.
    """
    base = base_of(facts, "the backup")
    if base is None:
        raise Refused(f"this snapshot does not say where in the log it stands; {_NOTHING}")
    if archive is None:
        raise NoLogArchive(f"the repository has no WAL archive of this cluster; {_NOTHING}")
    segment = segment_size(archive)
    wanted = recovery.timeline
    if wanted and int(wanted) != base.timeline:
        if int(wanted) not in histories:
            raise Refused(
                f"{int(wanted):08X}.history is not in the archive {archive.subject.name}; {_NOTHING}"
            )
        histories = {number: lines for number, lines in histories.items() if number == int(wanted)}
    elif wanted:
        histories = {}
    got = reach(behind(base, segment), coverage(archive.files, segment, histories), histories, segment)
    return _judge(archive, got, base, recovery, segment)


def _judge(archive: LogArchive, got: Reach, base: Base, recovery: Recovery, segment: int) -> str:
    later = got.missing and any(_is_later(name, got.missing, segment) for name in archive.files)
    name = segment_name(*got.end, segment) if got.end else ""
    ends = f"it is in one piece up to {name}" if name else "nothing that follows this backup is in it"
    where = f"the archive {archive.subject.name}"
    if recovery.lsn is not None:
        last = max(recovery.lsn - 1, 0) // segment
        reached = got.end[1] if got.end else (base.stop - 1) // segment
        if reached < last:
            lost = f"{got.missing} is missing in {where}" if later else f"{where} does not reach that far"
            error = LogMissing if later else LogsEndBefore
            raise error(f"{recovery.target} cannot be reached: {lost}, {ends}; {_NOTHING}")
        return ""
    until = moment(archive.files[name].mtime) if name else None
    short = recovery.time is not None and (until is None or until < recovery.time)
    if later and (recovery.time is None or short):
        lost = f"{got.missing} is missing in {where}"
        raise LogMissing(f"{recovery.target} cannot be reached: {lost}, {ends}; {_NOTHING}")
    if short:
        when = f", written at {until.isoformat(sep=' ', timespec='seconds')}" if until else ""
        raise LogsEndBefore(
            f"{recovery.target} cannot be reached: {where} ends before, {ends}{when}; {_NOTHING}"
        )
    if not name:
        return f"{where} holds no log that follows this backup: it is restored as it was at its end"
    return ""


def _is_later(name: str, missing: str, segment: int) -> bool:
    mine, other = parse_name(name), parse_name(missing)
    if mine is None or other is None or mine.kind is not WalKind.SEGMENT:
        return False
    return (mine.number(segment), mine.timeline) > (other.number(segment), other.timeline)
