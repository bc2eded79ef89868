r"""What the mysql and mariadb clients take for themselves at the beginning of a statement, and in comments.

Source: MariaDB, client/mysql.cc (commands, find_command, add_line). A command's name begins a line or a
statement; `\x` may stand anywhere outside of quotes, in comments that servers execute too. `\-`, the sandbox,
is MariaDB's (CVE-2024-21096): behind it the client takes none that reaches files or programs.
"""

from __future__ import annotations

import re
from typing import Final

from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.engine import KeyOf
from holdfast.formats.dumps.core.virtual_file import VirtualFile, text

SANDBOX: Final = (b"/*M!999999", b"/*!999999")
"""What newer mariadb-dump begins with: the client is to run no commands of the system."""
_SANDBOX: Final = tuple(start + rb"\- enable the sandbox mode */" for start in SANDBOX)

# Without `use` and `delimiter`, which dumps have. None of them is a word that begins a statement of SQL.
_NAMES: Final = (
    rb"charset|clear|connect|costs|edit|ego|exit|go|help|nopager|notee|nowarning|pager|print|prompt"
    rb"|query_attributes|quit|rehash|resetconnection|sandbox|source|ssl_session_data_print|status|system|tee|warnings"
)
_NAMED: Final = re.compile(
    rb"(?:\s|/\*M?!\d*|/\*(?!M?!).*?\*/|\*/)*+(?:(?:" + _NAMES + rb")(?![\w$\x80-\xff(.=@])|\?)",
    re.I | re.S,
)
_CODE: Final = re.compile(rb"/\*(?:M?!|\+)")
"""Comments that a client reads like code, whoever executes them; those with + in MySQL only."""
_TAKEN: Final = re.compile(rb"[\\'\"`;]")


def is_command(statement: bytes) -> bool:
    """Whether a statement begins with a name that the client takes for a command of its own."""
    return _NAMED.match(statement) is not None


def misleads(comment: bytes) -> bool:
    r"""Whether a comment is one for the client in part: it reads the quotes, ends and commands in one that
    begins with `/*!999999`, for all others a comment and nothing else."""
    return comment not in _SANDBOX and _CODE.match(comment) is not None and _TAKEN.search(comment) is not None


def guarded(catalogue: Catalogue, files: dict[str, VirtualFile], key: KeyOf) -> dict[str, VirtualFile]:
    """Files of a dump that puts the client into its sandbox, with that line. There is no way out, so no
    key."""
    at = catalogue.extra.get("sandbox")
    if at is None:
        return files
    line = text(_SANDBOX[0] + b" \n")
    return {
        path: file if _begins_at(file, at) else VirtualFile((line, *file.pieces))
        for path, file in files.items()
    }


def _begins_at(file: VirtualFile, start: int) -> bool:
    return any(piece.data is None and piece.start == start for piece in file.pieces[:1])
