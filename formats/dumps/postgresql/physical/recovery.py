"""How far a restored PostgreSQL cluster shall recover, and the settings that make it do so. Pure.

See "Recovery Target" and "Continuous Archiving" in the PostgreSQL manual (12 and later).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from holdfast.base.errors import Refused
from holdfast.formats.dumps.postgresql.physical.wal import lsn_text, parse_lsn
from holdfast.formats.dumps.postgresql.plain.quoting import setting_value

AUTO_CONF: Final = "postgresql.auto.conf"
SIGNAL: Final = "recovery.signal"
STANDBY_SIGNAL: Final = "standby.signal"
LATEST: Final = "latest"
_SAFE: Final = re.compile(r"[A-Za-z0-9_@+=:,./-]+")


@dataclass(frozen=True, slots=True)
class Recovery:
    """Replay the archived log up to `time` or `lsn`, else all of it. `timeline` is "" for the newest that
    descends from the backup. `command` fetches a file of the log: its arguments, to which the server adds
    the file's name and where it shall go."""

    command: tuple[str, ...]
    time: datetime | None = None
    lsn: int | None = None
    timeline: str = ""

    def reaches(self, stop_lsn: str, stop_time: str) -> bool:
        """Whether a backup that is consistent from there on, by its facts, can be recovered to the target."""
        if self.lsn is not None:
            stop = parse_lsn(stop_lsn)
            return stop is not None and stop <= self.lsn
        if self.time is None:
            return True
        try:
            return datetime.fromisoformat(stop_time) <= self.time
        except (ValueError, TypeError):  # no time, or one without a zone
            return False

    @property
    def target(self) -> str:
        """The target in words for people."""
        if self.time is not None:
            return self.time.astimezone(UTC).isoformat(sep=" ")
        return lsn_text(self.lsn) if self.lsn is not None else "the end of the log"

    def settings(self) -> bytes:
        """Lines for the end of postgresql.auto.conf, where the last one counts.

        What an older recovery left there is reset, before the target is set: the server takes two for an
        error, and even an empty one behind another.
        """
        time = "" if self.time is None else self.time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
        command = " ".join([*map(_shell_word, self.command), "%f", "%p"])
        targets = {
            "recovery_target": "",
            "recovery_target_name": "",
            "recovery_target_xid": "",
            "recovery_target_time": time,
            "recovery_target_lsn": "" if self.lsn is None else lsn_text(self.lsn),
        }
        found = {
            **dict(sorted(targets.items(), key=lambda item: item[1] != "")),
            "restore_command": command,
            "recovery_target_timeline": self.timeline or LATEST,
            "recovery_target_inclusive": "on",
            "recovery_target_action": "promote",
        }
        lines = [f"{name} = {setting_value(value)}\n" for name, value in found.items()]
        return ("\n# Recovery, written by holdfast restore.\n" + "".join(lines)).encode(
            errors="surrogateescape"
        )


def parse_target(text: str, command: tuple[str, ...], timeline: str = "") -> Recovery:
    """What `--until` means: a time (UTC unless it says otherwise), an LSN or "latest". Raises Refused."""
    if timeline and timeline != LATEST and not (re.fullmatch("[0-9]{1,9}", timeline) and int(timeline)):
        raise Refused(f"{timeline!r} is no timeline; they are numbered from 1")
    timeline = "" if timeline == LATEST else timeline
    if text == LATEST:
        return Recovery(command, timeline=timeline)
    lsn = parse_lsn(text)
    if lsn is not None:
        return Recovery(command, lsn=lsn, timeline=timeline)
    return Recovery(command, time=parse_time(text), timeline=timeline)


def parse_time(text: str) -> datetime:
    """A date with a time. As in a snapshot's folder, or as ISO 8601 with or without a zone; UTC without."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)(?:-(\d\d))?", text.strip())
    if match:
        text = f"{match[1]} {match[2]}:{match[3]}:{match[4] or '00'}"
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        time = None
    if time is None or ":" not in text:
        raise Refused(
            f"{text!r} is neither a time (2026-11-25 14:05, UTC unless it ends in a zone such as +01:00) nor "
            "a place in the log (16/B374D848) nor `latest`; nothing was written"
        )
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def _shell_word(word: str) -> str:
    """Quote a word for the server's shell, with % doubled for the server itself.

    Raises Refused for what stands in no line of a file.
    """
    if not word or any(ord(char) < 32 or ord(char) == 127 for char in word):
        raise Refused(f"{word!r} cannot stand in a restore_command; nothing was written")
    word = word.replace("%", "%%")
    return word if _SAFE.fullmatch(word) else "'" + word.replace("'", "'\"'\"'") + "'"
