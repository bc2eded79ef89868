"""An archive's entries as SQL: what `pg_restore -f -` prints, of which most stands in what is stored.

Two things differ: there is no `\\restrict`, whose key nobody may know beforehand (files that are made of this
get theirs), and a comment stands for the contents of large objects. Source: PostgreSQL, pg_backup_archiver.c
(RestoreArchive, _tocEntryRequired, restore_toc_entry, _printTocEntry, _getObjectDescription).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from holdfast.base.errors import Refused
from holdfast.formats.dumps.postgresql.custom.blocks import Block
from holdfast.formats.dumps.postgresql.custom.format import Entry, Head
from holdfast.formats.dumps.postgresql.custom.identifiers import identifier, one_line
from holdfast.formats.dumps.postgresql.custom.script import Script

_ENCODING: Final = re.compile(rb"SET client_encoding = '([A-Za-z0-9_-]{1,63})';\s*")
_SETS_TRANSACTION_TIMEOUT: Final = 17
"""The release of pg_dump that first sets it."""
_ALTERS_VIEWS: Final = 17
"""The release from which on views and sequences get their owner by ALTER VIEW, ALTER SEQUENCE."""
_RELATIONS: Final = (b"VIEW", b"SEQUENCE", b"MATERIALIZED VIEW")
_SPECIAL: Final = (b"ENCODING", b"STDSTRINGS", b"SEARCHPATH")
_OF_DATABASE: Final = (b"DATABASE", b"DATABASE PROPERTIES")
_ACLS: Final = (b"ACL", b"ACL LANGUAGE", b"DEFAULT ACL")
_ATTACHED: Final = (b"ACL", b"COMMENT", b"SECURITY LABEL", b"STATISTICS DATA")
_OIDS_LIMIT: Final = 1 << 20
"""Bytes of OIDs in one entry; pg_dump puts 1000 into one. Each becomes a statement or two."""
_OWNED: Final = frozenset(
    (b"COLLATION", b"CONVERSION", b"DOMAIN", b"FOREIGN TABLE", b"MATERIALIZED VIEW", b"SEQUENCE",
     b"STATISTICS", b"TABLE", b"TEXT SEARCH DICTIONARY", b"TEXT SEARCH CONFIGURATION", b"TYPE", b"VIEW",
     b"DATABASE", b"PROCEDURAL LANGUAGE", b"SCHEMA", b"EVENT TRIGGER", b"FOREIGN DATA WRAPPER", b"SERVER",
     b"PUBLICATION", b"SUBSCRIPTION")
)  # fmt: skip
_OWNED_AS_DROPPED: Final = frozenset(
    (b"AGGREGATE", b"FUNCTION", b"OPERATOR", b"OPERATOR CLASS", b"OPERATOR FAMILY", b"PROCEDURE")
)


class Settings(NamedTuple):
    """What an archive's special entries say. `text` sets it, in SQL; without a search path (before PostgreSQL
    10.3) each entry's schema is set."""

    encoding: str
    text: bytes
    has_search_path: bool


def read_settings(head: Head, entries: Iterable[Entry]) -> Settings:
    """Raises Refused."""
    encoding, standard_strings, search_path = b"SQL_ASCII", False, b""
    for entry in entries:
        if entry.desc == b"ENCODING":
            match = _ENCODING.fullmatch(entry.defn)
            if not match:
                raise Refused("is damaged: its encoding cannot be told; nothing was stored")
            encoding = match[1]
        elif entry.desc == b"STDSTRINGS":
            standard_strings = b"'on'" in entry.defn
        elif entry.desc == b"SEARCHPATH":
            search_path = entry.defn
    has_timeout = head.major >= _SETS_TRANSACTION_TIMEOUT
    lines = [
        b"SET statement_timeout = 0;\n",
        b"SET lock_timeout = 0;\n",
        b"SET idle_in_transaction_session_timeout = 0;\n",
        b"SET transaction_timeout = 0;\n" if has_timeout else b"",
        b"SET client_encoding = '" + encoding + b"';\n",
        b"SET standard_conforming_strings = " + (b"on" if standard_strings else b"off") + b";\n",
        search_path,
        b"SET check_function_bodies = false;\n",
        b"SET xmloption = content;\n",
        b"SET client_min_messages = warning;\n",
        b"" if standard_strings else b"SET escape_string_warning = off;\n",
        b"SET row_security = off;\n",
    ]
    return Settings(encoding.decode(), b"".join(lines), bool(search_path))


class SqlWriter:
    """Writes one archive to a `script`."""

    def __init__(self, script: Script, head: Head, settings: Settings, blocks: Iterable[Block]) -> None:
        self._script: Final = script
        self._head: Final = head
        self._settings: Final = settings
        self._blocks: Final = {block.entry.id: block for block in blocks}
        self._schema = b""
        self._tablespace: bytes | None = None
        self._table_am: bytes | None = None

    def write(self, entries: Iterable[Entry], *, is_whole: bool) -> None:
        """All of it, in three passes: grants come behind what they are on, what needs them last. Only if it
        is whole it ends with the line that says so."""
        entries = [entry for entry in entries if _is_printed(entry)]
        self._script.text(b"--\n-- PostgreSQL database dump\n--\n\n")
        for what, version in ((b"from database", self._head.server), (b"by pg_dump", self._head.tool)):
            if version:
                self._script.text(b"-- Dumped " + what + b" version " + one_line(version) + b"\n")
        self._script.text(b"\n" + self._settings.text + b"\n")
        passes: dict[int, list[Entry]] = {0: [], 1: [], 2: []}
        for entry in entries:
            passes[_pass(entry)].append(entry)
        for chosen in passes.values():
            for entry in chosen:
                self._entry(entry)
        if is_whole:
            self._script.text(b"--\n-- PostgreSQL database dump complete\n--\n\n")

    def _entry(self, entry: Entry) -> None:
        defines = entry.defn and not entry.defn.startswith(b"-- load via partition root ")
        if not entry.has_data or defines:
            is_statistics = entry.desc == b"STATISTICS DATA"
            self._print(entry, b"Statistics for " if is_statistics else b"")
        if not entry.has_data:
            return
        self._print(entry, b"Data for ")
        block = self._blocks.get(entry.id)
        if block is None:
            self._script.text(b"-- Left out: the archive ended before this was whole.\n\n")
        elif entry.desc == b"BLOBS":
            size = b"%d" % block.length
            self._script.text(b"-- Left out: " + size + b" bytes of large objects; dump.pgdump has them.\n\n")
        else:
            if entry.copy:
                self._script.stored(entry.copy_at, entry.copy)
            self._script.block(block)

    def _print(self, entry: Entry, prefix: bytes) -> None:
        self._select(entry)
        text = [
            b"--\n-- " + prefix + b"Name: " + one_line(entry.tag) + b"; Type: " + one_line(entry.desc),
            b"; Schema: " + _or_dash(entry.namespace) + b"; Owner: " + _or_dash(entry.owner),
        ]
        if entry.tablespace:
            text.append(b"; Tablespace: " + one_line(entry.tablespace))
        self._script.text(b"".join(text) + b"\n--\n\n")
        if entry.desc == b"BLOB METADATA":
            self._script.text(_each_large(entry, b"SELECT pg_catalog.lo_create('", b"')"))
        elif entry.desc == b"ACL" and entry.tag.startswith(b"LARGE OBJECTS"):
            self._script.text(b"-- Left out: grants on large objects; dump.pgdump has them.\n\n")
        elif entry.defn:
            self._script.stored(entry.defn_at, entry.defn)
            self._script.text(b"\n\n")
        if entry.owner and entry.drop:
            self._script.text(_owner(entry, entry.owner, self._head.major))
        if entry.is_partitioned and entry.table_am:
            name = identifier(entry.namespace or b"") + b"." + identifier(entry.tag)
            self._script.text(
                b"ALTER TABLE " + name + b" SET ACCESS METHOD " + identifier(entry.table_am) + b";\n\n"
            )

    def _select(self, entry: Entry) -> None:
        """The settings that an entry is made with, where they are not in force already."""
        if not self._settings.has_search_path and entry.namespace and entry.namespace != self._schema:
            self._schema = entry.namespace
            more = b"" if entry.namespace == b"pg_catalog" else b", pg_catalog"
            self._script.text(b"SET search_path = " + identifier(entry.namespace) + more + b";\n\n")
        if entry.tablespace is not None and entry.tablespace != self._tablespace:
            self._tablespace = entry.tablespace
            name = identifier(entry.tablespace) if entry.tablespace else b"''"
            self._script.text(b"SET default_tablespace = " + name + b";\n\n")
        if entry.table_am is not None and entry.table_am != self._table_am and not entry.is_partitioned:
            self._table_am = entry.table_am
            name = identifier(entry.table_am)
            self._script.text(b"SET default_table_access_method = " + name + b";\n\n")


def _is_printed(entry: Entry) -> bool:
    if entry.desc in _SPECIAL or entry.desc in _OF_DATABASE:
        return False
    if entry.desc in _ATTACHED and entry.tag.startswith(b"DATABASE "):
        return False
    if entry.desc == b"<Init>" and entry.tag == b"Max OID":
        return False
    return bool(entry.has_data or entry.defn)


def _pass(entry: Entry) -> int:
    if entry.desc in _ACLS:
        return 1
    if entry.desc in (b"EVENT TRIGGER", b"MATERIALIZED VIEW DATA"):
        return 2
    if entry.desc in (b"COMMENT", b"SECURITY LABEL") and entry.tag.startswith(b"EVENT TRIGGER "):
        return 2
    return 2 if entry.desc == b"STATISTICS DATA" and entry.is_post_data else 0


def _or_dash(name: bytes | None) -> bytes:
    return b"-" if name is None else one_line(name)


def _owner(entry: Entry, owner: bytes, major: int) -> bytes:
    if entry.desc == b"BLOB METADATA":
        return _each_large(entry, b"ALTER LARGE OBJECT ", b" OWNER TO " + identifier(owner))
    if entry.desc in _OWNED:
        kind = b"TABLE" if major < _ALTERS_VIEWS and entry.desc in _RELATIONS else entry.desc
        schema = identifier(entry.namespace) + b"." if entry.namespace else b""
        what = kind + b" " + schema + identifier(entry.tag)
    elif entry.desc == b"BLOB":
        what = b"LARGE OBJECT " + entry.tag
    elif entry.desc in _OWNED_AS_DROPPED:
        what = entry.drop[len(b"DROP ") :].rstrip(b"\n;")
    else:
        return b""
    return b"ALTER " + what + b" OWNER TO " + identifier(owner) + b";\n\n"


def _each_large(entry: Entry, before: bytes, after: bytes) -> bytes:
    """The definition lists OIDs, one a line."""
    if len(entry.defn) > _OIDS_LIMIT:
        return b"-- Left out: too many large objects; dump.pgdump has them.\n\n"
    return b"".join(_lines(entry.defn, before, after)) + b"\n"


def _lines(oids: bytes, before: bytes, after: bytes) -> Iterator[bytes]:
    for oid in oids.split(b"\n")[:-1]:
        yield before + oid + after + b";\n"
