"""What a dump of mysqldump or mariadb-dump says of itself in its comments, and whether its end is there."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from holdfast.formats.dumps.core.end_mark import EndMark
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.formats.dumps.core.scan_marks import Marks
from holdfast.formats.dumps.mysql.client_lines import SANDBOX
from holdfast.formats.dumps.mysql.product import MARIADB, product_in

_COMPLETED: Final = b"-- Dump completed"
MARKS: Final = Marks(heads=(b"\n--\n-- Host: ",), ends=(b"\n" + _COMPLETED,))
END: Final = EndMark(re.compile(b"^" + _COMPLETED, re.M))
_TOOL: Final = re.compile(rb"^-- (MySQL|MariaDB) dump [^\n]{0,40}?Distrib ([^\s,]{1,80})", re.M)
_SERVER: Final = re.compile(rb"^-- Server version[ \t]+([^\s]{1,120})", re.M)
_DATABASE: Final = re.compile(rb"^-- Host: [^\n]*?    Database: (.{0,600}?)\r?\n-- -{20}", re.M | re.S)
_TRAILER: Final = re.compile(
    rb"(?:\A|\n)"
    + _COMPLETED
    + rb"( on [0-9]{4}-[0-9]{2}-[0-9]{2} {1,2}[0-9]{1,2}:[0-9]{2}:[0-9]{2})?\r?\n?\Z"
)
_POSITION: Final = re.compile(
    rb"CHANGE (?:MASTER|REPLICATION SOURCE) [^\n;]{0,400}?(?:MASTER|SOURCE)_LOG_FILE\s*=\s*'([^'\n]{1,512})',"
    rb"\s*(?:MASTER|SOURCE)_LOG_POS\s*=\s*([0-9]{1,20})"
)
_GTID: Final = re.compile(
    rb"(?:GTID_PURGED\s*=\s*(?:/\*!\d+\s*'\+'\s*\*/\s*)?|gtid_slave_pos\s*=\s*)'(\+?[-0-9A-Za-z:,_\s]{0,65536})'"
)
_OF_ITS_SOURCE: Final = (
    b"taken from SHOW SLAVE STATUS",
    b"the master of this slave",
    b"the source of this replica",
)
_OF_ITSELF: Final = (
    b"from SHOW MASTER STATUS",
    b"-- Position to start replication or point-in-time recovery from\n",
)
_LEFT_OUT: Final = {
    b"-- insufficient privileges to ": "routines were left out for want of privileges",
    b"-- failed on view ": "a view could not be dumped",
    b"-- WARNING: old server version.": "the tool says that it may be incomplete (old server version)",
}
"""What the tools write when told to go on after an error (`--force`)."""


class Head(NamedTuple):
    """The first lines of a dump: where in the comment they begin, and the database they name, "" for none."""

    offset: int
    database: str


class DumpComments:
    """Collects facts. Call `comment` and `position` in stream order, `other` for all that is no comment."""

    def __init__(self) -> None:
        self._tool = ""
        self._server = ""
        self._binlog = ""
        self._source_binlog = ""
        self._gtid = ""
        self._of_source = False
        self._sandbox = False
        self._comments = False
        self._problem = ""
        self._closed = True
        self._end = -1

    def comment(self, end: int, text: bytes) -> Head | None:
        """None for a comment that is no head of a dump."""
        self._end = -1
        if text.startswith(SANDBOX):
            self._sandbox = True
            return None
        self._comments = True
        begins = any(mark in text for mark in MARKS.heads)
        if text.startswith(b"--\n-- ") and b"`" in text and not begins:
            return None  # the heading of an object
        head = _TOOL.search(text)
        # The first line of a head is none when what was before it ended within a comment.
        if (head or begins) and not (self._closed or (head and _TRAILER.search(text[: head.start()]))):
            self.begins_again()
        if trailer := _TRAILER.search(text):
            # Without a date, only a byte behind it shows that there should be none.
            self._end = end if trailer[1] else end + 1
        self._closed = bool(trailer)
        self._read(text)
        if not head:
            return None
        name = "mariadb-dump" if head[1] == b"MariaDB" or b"MariaDB" in head[2] else "mysqldump"
        self._tool = self._tool or f"{name} {_decoded(head[2])}"
        database = _DATABASE.search(text, head.start())
        return Head(head.start(), _decoded(database[1].replace(b"\n-- ", b"\n")) if database else "")

    def _read(self, text: bytes) -> None:
        if not self._server and (server := _SERVER.search(text)):
            self._server = _decoded(server[1])
        for mark, problem in _LEFT_OUT.items():
            if text.startswith(mark):
                self._problem = self._problem or problem
        if any(mark in text for mark in _OF_ITS_SOURCE):
            self._of_source = True
        elif any(mark in text for mark in _OF_ITSELF):
            self._of_source = False
        self.position(text)

    def position(self, text: bytes) -> None:
        """Parse a statement or comment that sets up replication: the dump's position in the binary log."""
        if found := _POSITION.search(text):
            position = f"{_decoded(found[1])}:{int(found[2])}"
            if self._of_source:
                self._source_binlog = self._source_binlog or position
            else:
                self._binlog = self._binlog or position
        if found := _GTID.search(text):
            self._gtid = self._gtid or "".join(_decoded(found[1]).lstrip("+").split())

    def begins_again(self) -> None:
        """There is another dump behind one without its end."""
        self._problem = self._problem or "it consists of several dumps, one of which has no end"

    def other(self) -> None:
        self._end = -1
        self._closed = False

    @property
    def engine(self) -> str:
        """The server's, if it is known, else that of the tool."""
        known = self._server or self._tool
        return MARIADB if not known and self._sandbox else product_in(known)

    def facts(self) -> DumpFacts:
        """What the dump says. Its place in the binary log of the server's own source (`--dump-slave`) says
        nothing about the server's own binary log."""
        return DumpFacts(
            server=self._server,
            tool=self._tool,
            binlog=self._binlog,
            source_binlog=self._source_binlog,
            gtid=self._gtid,
        )

    def fault(self, size: int, unfinished: str) -> str:
        """Why a dump of `size` bytes is not whole, "" if it is."""
        if unfinished:
            return f"it ends within {'rows' if unfinished == 'rows' else f'a {unfinished}'}"
        if self._problem:
            return self._problem
        if 0 <= self._end <= size:
            return ""
        if not self._comments:
            return "it holds no comments (--skip-comments), so that nothing shows where it should end"
        return f"its end is missing: the last line must be `{_COMPLETED.decode()}`"


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")
