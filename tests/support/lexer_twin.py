"""The lexer's rules once more, slowly and in plain Python: what the compiled one is held against.

Written from the rules in `_lexer.pyi`, not from the automaton: it sees the whole stream at once, cuts it
into tokens with regular expressions, and looks at all tokens of a statement wherever a rule asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from holdfast.formats.dumps.lexer._lexer import (
    COMMAND,
    COMMENT,
    META,
    MYSQL,
    POSTGRESQL,
    ROWS_BEGIN,
    ROWS_END,
    SQLITE,
    STATEMENT,
)

Event = tuple[int, int, int, bytes]

DEFAULT_LIMIT = 1 << 20
LEAD_LIMIT = 65536
DELIMITER_LIMIT = 16
TAG_LIMIT = 1024
SETTING_LIMIT = 64
COMMAND_LIMIT = 64

DOUBLED = rb"%(q)b(?:[^%(q)b]|%(q)b%(q)b)*+(?:(?P<closed>%(q)b)|\Z)"
ESCAPED = rb"%(q)b(?:[^%(q)b\\]|\\.|%(q)b%(q)b)*+(?:(?P<closed>%(q)b)|\\?\Z)"


class Token(NamedTuple):
    kind: str  # "space" (and comments), "word", "end" (the delimiter), "other", and what may be open
    text: bytes
    start: int
    end: int
    open: bool = False


def _regex(pattern: bytes, quote: bytes = b"") -> re.Pattern[bytes]:
    return re.compile(pattern % {b"q": quote} if quote else pattern, re.DOTALL)


WORDS = {
    POSTGRESQL: _regex(rb"[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+"),
    MYSQL: _regex(rb"[A-Za-z0-9_$\x80-\xff]++"),
    SQLITE: _regex(rb"[A-Za-z0-9_$\x80-\xff]++"),
}
WORD_BYTE = _regex(rb"[A-Za-z0-9_$\x80-\xff]")
LINE_COMMENTS = {
    POSTGRESQL: _regex(rb"--[^\n]*"),
    MYSQL: _regex(rb"(?:#|--(?=[\0-\x20]|\Z))[^\n]*"),
    SQLITE: _regex(rb"--[^\n]*"),
}
PLAIN_QUOTED = {q: _regex(DOUBLED, q) for q in (b"'", b'"', b"`")}
ESCAPED_QUOTED = {q: _regex(ESCAPED, q) for q in (b"'", b'"')}
BRACKETED = _regex(rb"\[[^\]]*+(?:(?P<closed>\])|\Z)")
PREFIXED = _regex(rb"[eE]'")
DOLLAR_TAG = _regex(rb"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*+)?\$")
SPACES = _regex(rb"[ \t\n\v\f\r]++")
WHITE = b" \t\n\v\f\r"
DIGITS = _regex(rb"[0-9]++")
EXECUTABLE = _regex(rb"/\*M?!")
NEVER = _regex(rb"/\*M?!999999")
DELIMITER_LINE = _regex(rb"(?i:DELIMITER)[ \t][^\n]*")
SETTING = _regex(rb"set (?:session |local )?standard_conforming_strings (?:to )?(on|off|true|false)")


class Twin:
    def __init__(self, dialect: int, stream: bytes, text_limit: int) -> None:
        self.dialect = dialect
        self.stream = stream
        self.text_limit = text_limit
        self.delimiter = b";"
        self.backslashes = dialect == MYSQL
        self.events: list[Event] = []
        self.told = False
        self.state = ""

    # ---- tokens

    def block_comment(self, at: int) -> tuple[int, bool]:
        """Where the comment that begins at `at` ends, and whether it is closed."""
        depth = 0
        for mark in re.compile(rb"/\*|\*/" if self.dialect == POSTGRESQL else rb"\*/").finditer(
            self.stream, at if self.dialect == POSTGRESQL else at + 2
        ):
            depth += 1 if mark[0] == b"/*" else -1
            if depth == (0 if self.dialect == POSTGRESQL else -1):
                return mark.end(), True
        return len(self.stream), False

    def quoted(self, at: int) -> re.Match[bytes] | None:
        q, s = self.stream[at : at + 1], self.stream
        if q == b"'":
            return (ESCAPED_QUOTED if self.backslashes else PLAIN_QUOTED)[q].match(s, at)
        if q == b'"':
            return (ESCAPED_QUOTED if self.dialect == MYSQL else PLAIN_QUOTED)[q].match(s, at)
        if q == b"`" and self.dialect != POSTGRESQL:
            return PLAIN_QUOTED[q].match(s, at)
        if q == b"[" and self.dialect == SQLITE:
            return BRACKETED.match(s, at)
        return None

    def tokens(self, at: int) -> Iterator[Token]:
        executable = False
        while at < len(self.stream):
            token, executable = self.token(at, executable)
            yield token
            at = token.end

    def token(self, at: int, executable: bool) -> tuple[Token, bool]:  # noqa: PLR0911  one for each kind
        s, size = self.stream, len(self.stream)

        def make(kind: str, end: int, unfinished: bool = False) -> tuple[Token, bool]:
            return Token(kind, s[at:end], at, end, unfinished), executable

        if s.startswith(self.delimiter, at):
            return make("end", at + len(self.delimiter))
        if m := SPACES.match(s, at) or LINE_COMMENTS[self.dialect].match(s, at):
            return make("space", m.end())
        if self.dialect == MYSQL and (m := EXECUTABLE.match(s, at)):
            executable = True
            return make("space", m.end())
        if executable and s.startswith(b"*/", at):
            executable = False
            return make("space", at + 2)
        if s.startswith(b"/*", at):
            end, closed = self.block_comment(at)
            return make("space" if closed else "comment", end, not closed)
        if self.dialect == POSTGRESQL and PREFIXED.match(s, at):
            m = ESCAPED_QUOTED[b"'"].match(s, at + 1)
            assert m
            return make("string", m.end(), not m["closed"])
        if m := self.quoted(at):
            string = s[at : at + 1] == b"'" or (self.dialect == MYSQL and s[at : at + 1] == b'"')
            return make("string" if string else "quoted name", m.end(), not m["closed"])
        if m := WORDS[self.dialect].match(s, at):
            cut = s.find(self.delimiter, at, m.end() + len(self.delimiter))
            return make("word", cut if at < cut < m.end() else m.end())
        if self.dialect == POSTGRESQL and (m := DOLLAR_TAG.match(s, at)) and m.end() - at <= TAG_LIMIT:
            end = s.find(m[0], m.end())
            return make("dollar quote", size if end < 0 else end + len(m[0]), end < 0)
        if self.dialect == POSTGRESQL and (m := DIGITS.match(s, at)):
            return make("other", m.end())
        return make("other", at + 1)

    # ---- pieces

    def command(self, at: int) -> None:
        """One of each piece."""
        if not self.told:
            end = at + len(self.stream[at : at + COMMAND_LIMIT].partition(b"\n")[0])
            self.events.append((COMMAND, at, end, self.stream[at:end]))
        self.told = True

    def look_for_command(self, token: Token) -> None:
        s, at = self.stream, token.start
        if token.kind != "other":
            return
        if self.dialect == SQLITE:
            found = token.text in (b".", b"#") and s[max(0, at - 1) : at] in (b"", b"\n")
        else:
            found = token.text == b"\\" and not (self.dialect == MYSQL and s.startswith(b"\\N", at))
        if found:
            self.command(at)

    def emit(self, kind: int, start: int, end: int) -> None:
        self.events.append((kind, start, end, self.stream[start : min(end, start + self.text_limit)]))

    def run(self) -> None:
        at = 0
        while at < len(self.stream):
            at = m.end() if (m := SPACES.match(self.stream, at)) else self.piece(at)

    def piece(self, at: int) -> int:
        s = self.stream
        self.told = False
        if s.startswith(self.delimiter, at):
            return self.statement(at)
        if LINE_COMMENTS[self.dialect].match(s, at):
            return self.comment_lines(at)
        if s.startswith(b"/*", at) and not (
            self.dialect == MYSQL and EXECUTABLE.match(s, at) and not NEVER.match(s, at)
        ):
            end, closed = self.block_comment(at)
            self.emit(COMMENT, at, end)
            self.state = "" if closed else "comment"
            return end
        if self.dialect == POSTGRESQL and s[at : at + 1] == b"\\":
            return self.line(META, at)
        if self.dialect == MYSQL and DELIMITER_LINE.match(s, at):
            end = self.line(META, at)
            words = s[at:end].split()
            if end - at <= self.text_limit and len(words) > 1 and b"\\" not in words[1]:
                self.delimiter = words[1] if len(words[1]) <= DELIMITER_LIMIT else self.delimiter
            return end
        return self.insert(at) or self.statement(at)

    def line_end(self, at: int) -> int:
        """The end of the line's text: before its newline, and before a carriage return in front of that."""
        newline = self.stream.find(b"\n", at)
        if newline < 0:
            return len(self.stream)
        return newline - (self.stream[newline - 1 : newline] == b"\r")

    def line(self, kind: int, at: int) -> int:
        end = self.line_end(at)
        self.emit(kind, at, end)
        return end

    def comment_lines(self, at: int) -> int:
        last = at
        while True:
            newline = self.stream.find(b"\n", last)
            following = newline + 1
            if (
                newline < 0
                or self.stream.startswith(self.delimiter, following)
                or not LINE_COMMENTS[self.dialect].match(self.stream, following)
            ):
                break
            last = following
        end = self.line_end(last)
        self.emit(COMMENT, at, end)
        return end

    def statement(self, at: int) -> int:
        so_far: list[Token] = []
        for token in self.tokens(at):
            if token.kind == "end" and self.complete(so_far):
                self.emit(STATEMENT, at, token.end)
                self.setting(self.stream[at : token.end])
                return self.copy_data(token.end) if self.copies(so_far) else token.end
            self.look_for_command(token)
            so_far.append(token)
        self.emit(STATEMENT, at, len(self.stream))
        self.state = so_far[-1].kind if so_far[-1].open else "statement"
        return len(self.stream)

    def complete(self, tokens: list[Token]) -> bool:
        """Whether a delimiter behind these tokens ends the statement."""
        shown = [t.text.upper() if t.kind in ("word", "end") else b"" for t in tokens if t.kind != "space"]
        if self.dialect == POSTGRESQL:
            return not any(depths(tokens))
        if self.dialect == SQLITE and re.match(
            rb"CREATE (?:TEMP |TEMPORARY )*TRIGGER ", b" ".join(shown) + b" "
        ):
            return shown[-2:] == [b";", b"END"]
        return True

    def copies(self, tokens: list[Token]) -> bool:
        if self.dialect != POSTGRESQL:
            return False
        shown = [t for t in tokens if t.kind != "space"]
        return [t.text.upper() for t in shown[:1]] == [b"COPY"] and any(
            [t.kind for t in shown[i : i + 2]] == ["word", "word"]
            and [t.text.upper() for t in shown[i : i + 2]] == [b"FROM", b"STDIN"]
            and depths(shown[:i])[0] == 0
            for i in range(len(shown))
        )

    def setting(self, text: bytes) -> None:
        if self.dialect != POSTGRESQL or len(text) > SETTING_LIMIT:
            return
        if m := SETTING.fullmatch(re.sub(rb"[\s=';]+", b" ", text).strip().lower()):
            self.backslashes = m[1] in (b"off", b"false")

    # ---- rows

    def copy_data(self, at: int) -> int:
        newline = self.stream.find(b"\n", at)
        start = newline + 1 if newline >= 0 else len(self.stream)
        if behind := self.stream[at:start].lstrip(WHITE):
            self.command(start - len(behind))
        last = re.compile(rb"^\\\.\r?\n", re.MULTILINE).search(self.stream[start:])
        end = start + last.end() if last else len(self.stream)
        self.events += [(ROWS_BEGIN, start, start, b""), (ROWS_END, start, end, b"")]
        self.state = "" if last else "rows"
        return end

    def lead(self, at: int) -> int:
        """Where the lead that begins at `at` ends, 0 if none does."""
        parens, previous = 0, b""
        for token in self.tokens(at):
            if token.kind == "space":
                if not SPACES.fullmatch(token.text):
                    return 0
                continue
            word = token.text.upper() if token.kind == "word" else b""
            if token.start == at:
                if word != b"INSERT" and (word != b"REPLACE" or self.dialect == POSTGRESQL):
                    return 0
            elif word == b"SELECT" or token.end - at > self.lead_limit():
                return 0
            elif parens == 0 and previous not in (b"INTO", b".") and self.values(word):
                return token.end
            elif token.text == b"(" and parens == 0:
                parens = 1
            elif token.text == b")" and parens == 1:
                parens = 0
            elif not self.named(token) and token.text != b"." and (token.text != b"," or not parens):
                return 0
            previous = word or token.text
        return 0

    def lead_limit(self) -> int:
        return min(self.text_limit, LEAD_LIMIT)

    def named(self, token: Token) -> bool:
        """A name; "..." is a string in MySQL, and a name in its ANSI mode."""
        return token.kind in ("word", "quoted name") or token.text.startswith(b'"')

    def values(self, word: bytes) -> bool:
        return word == b"VALUES" or (word == b"VALUE" and self.dialect == MYSQL)

    def insert(self, at: int) -> int:
        behind = self.lead(at)
        if not behind:
            return 0
        lead = self.stream[at:behind]
        for token in self.tokens(at):
            if token.start >= behind:
                break
            self.look_for_command(token)
        self.events.append((ROWS_BEGIN, at, at, lead))
        following, end = at, at
        while following < len(self.stream) and self.stream[following : self.lead(following)] == lead:
            for token in self.tokens(following + len(lead)):
                self.look_for_command(token)
                if token.kind == "end":
                    end = token.end
                    break
            else:
                self.state, end = "rows", len(self.stream)
                break
            spaces = SPACES.match(self.stream, end)
            following = spaces.end() if spaces else end
        self.events.append((ROWS_END, at, end, lead))
        return end


def depths(tokens: list[Token]) -> tuple[int, int]:
    """PostgreSQL: of parentheses, and of BEGIN ... END in what creates a function or procedure."""
    parens = begins = 0
    words: list[str] = []
    for token in tokens:
        if token.kind == "word":
            word = token.text.upper()
            known = word in (b"CREATE", b"OR", b"REPLACE", b"FUNCTION", b"PROCEDURE")
            words.append(chr(word[0]) if known else ".")
            if re.match("C(OR)?[FP]", "".join(words[:4])) and not parens:
                begins += word == b"BEGIN" or (word == b"CASE" and begins > 0)
                begins -= word == b"END" and begins > 0
        elif token.text == b"(":
            parens += 1
        elif token.text == b")" and parens:
            parens -= 1
    return parens, begins


def lex(dialect: int, stream: bytes, text_limit: int = DEFAULT_LIMIT) -> tuple[list[Event], str]:
    """All events of a whole `stream`, and what its end leaves unfinished."""
    twin = Twin(dialect, stream, text_limit)
    twin.run()
    return twin.events, twin.state


def find_all(data: bytes, needles: tuple[bytes, ...], common: bytes) -> list[tuple[int, int]]:
    """Where byte strings stand: (end, index in `needles`)."""
    found = [
        (at + len(needle), index)
        for index, needle in enumerate(needles)
        for at in range(len(data))
        if data.startswith(needle, at)
    ]
    return sorted(found) if common in data else []
