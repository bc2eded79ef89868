"""Where comments, statements, client lines and bulk rows stand in a dump written as SQL text.

The rules are those of the programs that read such dumps: psql, the mysql client, sqlite3's shell.
"""

from typing import Final

from holdfast.base.types import Buffer

POSTGRESQL: Final[int]
MYSQL: Final[int]
SQLITE: Final[int]

COMMENT: Final[int]
STATEMENT: Final[int]
META: Final[int]
ROWS_BEGIN: Final[int]
ROWS_END: Final[int]
COMMAND: Final[int]

class Lexer:
    """One stream. Not for two threads at once (RuntimeError); lets go of the GIL.

    Events are (kind, start, end, text): offsets in the stream, `text` the first `text_limit` bytes of
    the piece. They come in stream order and do not overlap, but for COMMAND; whitespace between belongs to
    none. They depend on the bytes alone; a piece is told by the feed that decides its end.

    COMMENT: lines of `--` (MySQL: also `#`) without a gap, or one `/* */`, PostgreSQL's nested. MySQL's
    `/*! */` is code, but for that of version 999999, which no server runs and no delimiter follows.
    STATEMENT: up to and with its `;` or the DELIMITER in force. PostgreSQL: not within parentheses, nor
    within BEGIN ... END of a function or procedure; SQLite: a trigger's up to `; END;`.
    META: a line for the client, without its newline: a backslash between statements (PostgreSQL),
    DELIMITER (MySQL).
    ROWS_BEGIN (its end is its start), ROWS_END: the data of a COPY ... FROM stdin, text empty, from the
    line after the statement up to and with the line `\\.`; or INSERT and REPLACE statements with only
    whitespace between and the same lead, which is the text: all up to and with VALUES. A lead consists of
    names, one level of parentheses, nothing else, and has at most 64 KiB (and `text_limit`) bytes; an INSERT
    without one is a STATEMENT.
    COMMAND: what the client takes for itself where a statement stands, outside of quotes and comments: a
    backslash (PostgreSQL, MySQL but for `\\N`), a line that begins with a dot or `#` (SQLite), anything that
    follows COPY ... FROM stdin; in its line (PostgreSQL). Up to the end of the line, 64 bytes at most. One of
    each piece, told before the piece is (of rows: after ROWS_BEGIN, unless it stands in the lead).
    """

    def __init__(self, dialect: int, text_limit: int = 1 << 20) -> None:
        """`text_limit` is 64 bytes to 1 GiB. Raises ValueError."""

    def feed(self, data: Buffer, /) -> list[tuple[int, int, int, bytes]]: ...
    def finish(self) -> list[tuple[int, int, int, bytes]]:
        """The end of the stream: what is open ends here. Afterwards both methods raise ValueError."""

    @property
    def state(self) -> str:
        """What is open: "statement", "string", "quoted name", "dollar quote", "comment", "rows", or ""
        between pieces. After `finish`: what the end of the stream left unfinished."""

def find_all(data: Buffer, needles: tuple[bytes, ...], common: bytes, /) -> list[tuple[int, int]]:
    """Where byte strings stand in `data`: (end, index in `needles`) of each, in order of the ends.

    Overlapping ones too. `common`, unless it is empty, is part of all needles: where it is not in `data`,
    one search replaces one for each needle. Releases the GIL: `data` must not change meanwhile. Raises
    ValueError for an empty needle and for more than 16.
    """
