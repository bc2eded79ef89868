"""The plain dump that pg_restore makes of an archive: its statements, and where data stands between them.

Byte for byte what `pg_restore -f -` prints, but for the lines \\restrict and \\unrestrict (of random keys)
and the contents of large objects. Source: RestoreArchive() in src/bin/pg_dump/pg_backup_archiver.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, TypeAlias

from holdfast.dumps.pg_archive_toc import Entry, Toc

Part: TypeAlias = bytes | Entry
"""Statements, or the data of an entry."""

_SPECIAL: Final = frozenset((b"ENCODING", b"STDSTRINGS", b"SEARCHPATH"))
_CLUSTER: Final = frozenset((b"DATABASE", b"DATABASE PROPERTIES"))
_DEPENDENT: Final = frozenset((b"ACL", b"COMMENT", b"SECURITY LABEL"))
_ACL: Final = frozenset((b"ACL", b"ACL LANGUAGE", b"DEFAULT ACL"))
_LATE: Final = frozenset((b"EVENT TRIGGER", b"MATERIALIZED VIEW DATA"))
_OWNED: Final = frozenset(
    (b"COLLATION", b"CONVERSION", b"DOMAIN", b"FOREIGN TABLE", b"MATERIALIZED VIEW", b"SEQUENCE",
     b"STATISTICS", b"TABLE", b"TEXT SEARCH DICTIONARY", b"TEXT SEARCH CONFIGURATION", b"TYPE", b"VIEW",
     b"DATABASE", b"PROCEDURAL LANGUAGE", b"SCHEMA", b"EVENT TRIGGER", b"FOREIGN DATA WRAPPER", b"SERVER",
     b"PUBLICATION", b"SUBSCRIPTION")
)  # fmt: skip
_OWNED_BY_DROP: Final = frozenset(
    (b"AGGREGATE", b"FUNCTION", b"OPERATOR", b"OPERATOR CLASS", b"OPERATOR FAMILY", b"PROCEDURE")
)
"""What they are called with their arguments stands in their DROP statement only."""
_VIA_ROOT: Final = b"-- load via partition root "
_PARTITIONED: Final = "p"
_SAFE: Final = re.compile(rb"[a-z_][a-z0-9_]*")
_VERSION: Final = re.compile(rb"([0-9]{1,3})")
_TRANSACTION_TIMEOUT: Final = 17
_OID: Final = re.compile(rb"[0-9]{1,10}")
_KEYWORDS: Final = frozenset(
    b"""all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean
    both case cast char character check coalesce collate collation column concurrently constraint
    create cross current_catalog current_date current_role current_schema current_time
    current_timestamp current_user dec decimal default deferrable desc distinct do else end except
    exists extract false fetch float for foreign freeze from full grant greatest group grouping having
    ilike in initially inner inout int integer intersect interval into is isnull join json json_array
    json_arrayagg json_exists json_object json_objectagg json_query json_scalar json_serialize json_table
    json_value lateral leading least left like limit localtime localtimestamp merge_action national natural
    nchar none normalize not notnull null nullif numeric offset on only or order out outer overlaps overlay
    placing position precision primary real references returning right row select session_user setof similar
    smallint some substring symmetric system_user table tablesample then time timestamp to trailing treat trim
    true union unique user using values varchar variadic verbose when where window with xmlattributes xmlconcat
    xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable""".split()
)
"""Those that are not allowed as any name, of PostgreSQL 15 to 18."""


def script(toc: Toc) -> Iterator[Part]:
    """The dump from its first line to its last."""
    return _Script(toc).parts()


def large_object_note(count: int) -> bytes:
    return b"-- The contents of %d large objects are left out here; dump.pgdump has them.\n\n" % count


class _Script:
    def __init__(self, toc: Toc) -> None:
        self._toc: Final = toc
        self._search_path: Final = toc.search_path
        self._schema: bytes | None = None
        self._tablespace: bytes | None = None
        self._access_method: bytes | None = None
        self._blobs: Final = {
            entry.dump_id: entry for entry in toc.entries if entry.type == b"BLOB METADATA"
        }

    def parts(self) -> Iterator[Part]:
        yield self._head()
        for wanted in range(3):
            for entry in self._toc.entries:
                if _pass(entry) == wanted:
                    yield from self._entry(entry)
        yield b"--\n-- PostgreSQL database dump complete\n--\n\n"

    def _head(self) -> bytes:
        head, strings = self._toc.head, self._toc.standard_strings
        lines = [b"--\n-- PostgreSQL database dump\n--\n"]
        lines.append(b"-- Dumped from database version " + _line(head.server))
        lines.append(b"-- Dumped by pg_dump version " + _line(head.tool) + b"\n")
        lines.append(b"SET statement_timeout = 0;\nSET lock_timeout = 0;")
        lines.append(b"SET idle_in_transaction_session_timeout = 0;")
        version = _VERSION.match(head.tool)
        if version and int(version[1]) >= _TRANSACTION_TIMEOUT:
            lines.append(b"SET transaction_timeout = 0;")
        lines.append(b"SET client_encoding = '" + self._toc.encoding + b"';")
        lines.append(b"SET standard_conforming_strings = " + (b"on;" if strings else b"off;"))
        if self._search_path:
            lines.append(self._search_path.removesuffix(b"\n"))
        lines.append(b"SET check_function_bodies = false;\nSET xmloption = content;")
        lines.append(b"SET client_min_messages = warning;")
        if not strings:
            lines.append(b"SET escape_string_warning = off;")
        lines.append(b"SET row_security = off;\n\n")
        return b"\n".join(lines)

    def _entry(self, entry: Entry) -> Iterator[Part]:
        has_schema, has_data = _wanted(entry)
        if has_schema:
            yield self._object(entry, b"")
        if has_data and entry.has_data:
            yield self._object(entry, b"Data for ")
            if entry.type in (b"BLOBS", b"BLOB COMMENTS"):
                yield self._select_schema(b"pg_catalog")
            elif entry.copy:
                yield entry.copy
            yield entry
        elif has_data and not has_schema:
            yield self._object(entry, b"")
        elif entry.type == b"STATISTICS DATA":
            yield self._object(entry, b"Statistics for ")

    def _object(self, entry: Entry, prefix: bytes) -> bytes:
        text = self._select_schema(entry.schema)
        if entry.tablespace is not None and entry.tablespace != self._tablespace:
            self._tablespace = entry.tablespace
            text += b"SET default_tablespace = " + (_name(entry.tablespace) or b"''") + b";\n\n"
        method = entry.access_method
        if method is not None and entry.kind != _PARTITIONED and method != self._access_method:
            self._access_method = method
            text += b"SET default_table_access_method = " + _name(method) + b";\n\n"
        text += _comment(entry, prefix) + self._definition(entry) + self._owner(entry)
        if method is not None and entry.kind == _PARTITIONED:
            table = _qualified(entry.schema, entry.tag)
            text += b"ALTER TABLE " + table + b" SET ACCESS METHOD " + _name(method) + b";\n\n"
        return text

    def _select_schema(self, schema: bytes | None) -> bytes:
        """Archives made before March 2018 set no search_path for all."""
        if self._search_path or not schema or schema == self._schema:
            return b""
        self._schema = schema
        more = b"" if schema == b"pg_catalog" else b", pg_catalog"
        return b"SET search_path = " + _name(schema) + more + b";\n\n"

    def _definition(self, entry: Entry) -> bytes:
        if entry.type == b"BLOB METADATA":
            return _per_object(entry, b"SELECT pg_catalog.lo_create('", b"')")
        if entry.type == b"ACL" and entry.tag.startswith(b"LARGE OBJECTS"):
            return self._acl_per_object(entry)
        return entry.definition + b"\n\n" if entry.definition else b""

    def _owner(self, entry: Entry) -> bytes:
        if not entry.owner or not entry.drop:
            return b""
        to = b" OWNER TO " + _name(entry.owner)
        if entry.type == b"BLOB METADATA":
            return _per_object(entry, b"ALTER LARGE OBJECT ", to)
        if entry.type in _OWNED:
            what = entry.type + b" " + _qualified(entry.schema, entry.tag)
        elif entry.type == b"BLOB":
            what = b"LARGE OBJECT " + entry.tag
        elif entry.type in _OWNED_BY_DROP:
            what = entry.drop[len(b"DROP ") :].rstrip(b"\n;")
        else:
            return b""
        return b"ALTER " + what + to + b";\n\n"

    def _acl_per_object(self, entry: Entry) -> bytes:
        """Its statements are of the first of the objects on its list; the tag names that: "LARGE OBJECTS 1..9"."""
        first = _OID.search(entry.tag)
        if not first:
            return entry.definition + b"\n\n"
        pattern = re.compile(rb"( ON LARGE OBJECT )" + re.escape(first[0]) + rb"(?![0-9])")
        listed = [blob for blob in self._blobs.values() if first[0] in blob.definition.split()]
        oids = listed[0].definition.split() if listed else [first[0]]
        found = (pattern.sub(rb"\g<1>" + oid, entry.definition) for oid in oids if _OID.fullmatch(oid))
        return b"".join(found) + b"\n"


def _pass(entry: Entry) -> int:
    """pg_restore goes over the entries three times: most, then grants, then what may need those."""
    if entry.type in _ACL:
        return 1
    if entry.type in _LATE:
        return 2
    if entry.type in _DEPENDENT and entry.tag.startswith(b"EVENT TRIGGER "):
        return 2
    post_data = 4
    return 2 if entry.type == b"STATISTICS DATA" and entry.section == post_data else 0


def _wanted(entry: Entry) -> tuple[bool, bool]:
    """Whether pg_restore would write the entry's definition, and its data."""
    if entry.type in _SPECIAL or entry.type in _CLUSTER or entry.type == b"STATISTICS DATA":
        return False, False
    if entry.type in _DEPENDENT and entry.tag.startswith(b"DATABASE "):
        return False, False
    if entry.type == b"<Init>" and entry.tag == b"Max OID":
        return False, False
    has_schema = bool(entry.definition) and not entry.definition.startswith(_VIA_ROOT)
    if entry.has_data:
        return has_schema, True
    is_object = entry.type in _DEPENDENT and entry.tag.startswith(b"LARGE OBJECT")
    if is_object or entry.type in (b"SEQUENCE SET", b"BLOB", b"BLOB METADATA"):
        return False, True
    return has_schema, False


def _comment(entry: Entry, prefix: bytes) -> bytes:
    schema = b"-" if entry.schema is None else _line(entry.schema)
    owner = b"-" if entry.owner is None else _line(entry.owner)
    text = b"--\n-- %sName: %s; Type: %s" % (prefix, _line(entry.tag), _line(entry.type))
    text += b"; Schema: %s; Owner: %s" % (schema, owner)
    if entry.tablespace:
        text += b"; Tablespace: " + _line(entry.tablespace)
    return text + b"\n--\n\n"


def _per_object(entry: Entry, before: bytes, after: bytes) -> bytes:
    """A statement for each large object that the entry lists."""
    oids = [oid for oid in entry.definition.split() if _OID.fullmatch(oid)]
    return b"".join(before + oid + after + b";\n" for oid in oids) + b"\n"


def _line(text: bytes) -> bytes:
    """Within a comment."""
    return text.replace(b"\n", b" ").replace(b"\r", b" ")


def _name(name: bytes) -> bytes:
    """An identifier, quoted where it must be, as fmtId() does."""
    if not name or (_SAFE.fullmatch(name) and name not in _KEYWORDS):
        return name
    return b'"' + name.replace(b'"', b'""') + b'"'


def _qualified(schema: bytes | None, name: bytes) -> bytes:
    return (_name(schema) + b"." if schema else b"") + _name(name)
