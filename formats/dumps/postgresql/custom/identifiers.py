"""Names as pg_restore writes them: quoted where they must be."""

from __future__ import annotations

import re
from typing import Final

from holdfast.formats.dumps.postgresql.plain.quoting import quoted_identifier

_PLAIN: Final = re.compile(rb"[a-z_][a-z0-9_]*")
_KEYWORDS: Final = frozenset(
    b"all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean "
    b"both case cast char character check coalesce collate collation column concurrently constraint create "
    b"cross current_catalog current_date current_role current_schema current_time current_timestamp "
    b"current_user dec decimal default deferrable desc distinct do else end except exists extract false "
    b"fetch float for foreign freeze from full grant greatest group grouping having ilike in initially "
    b"inner inout int integer intersect interval into is isnull join lateral leading least left like limit "
    b"localtime localtimestamp national natural nchar none normalize not notnull null nullif numeric "
    b"offset on only or order out outer overlaps overlay placing position precision primary real "
    b"references returning right row select session_user setof similar smallint some substring symmetric "
    b"table tablesample then time timestamp to trailing treat trim true union unique user using values "
    b"varchar variadic verbose when where window with xmlattributes xmlconcat xmlelement xmlexists "
    b"xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable".split()
)
"""All but the unreserved ones of PostgreSQL 15 (pg_get_keywords)."""


def identifier(name: bytes) -> bytes:
    if _PLAIN.fullmatch(name) and name not in _KEYWORDS:
        return name
    return quoted_identifier(name)


def one_line(text: bytes) -> bytes:
    """Replace line ends, which would end an SQL comment, by spaces."""
    return text.replace(b"\n", b" ").replace(b"\r", b" ")
