"""The entries of MySQL and MariaDB: dumps as SQL text, and binary logs. What reads them is the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.engine import DumpFormat, DumpKind, Engine, ReadRange
from holdfast.formats.dumps.core.scan import Scanner
from holdfast.formats.dumps.mysql import product
from holdfast.formats.dumps.mysql.client_lines import guarded
from holdfast.formats.dumps.mysql.facts import END
from holdfast.formats.dumps.mysql.files import files, table_rows
from holdfast.formats.dumps.mysql.required_binlogs import BinlogRules
from holdfast.formats.dumps.mysql.scan import MysqlVisitor
from holdfast.formats.dumps.rows import insert_to_csv


def _csv(catalogue: Catalogue, table: str, read: ReadRange) -> Iterator[bytes]:
    return insert_to_csv.csv(table_rows(catalogue)[table], read)


def _engine(name: str) -> Engine:
    title = product.TITLES[name]
    begins = re.compile(rb"\A(?:/\*.*\*/[;\s\\-]*)?-- %s dump" % title.encode(), re.M)
    text = DumpFormat(
        name="sql",
        kind=DumpKind.TEXT,
        file_name="dump.sql",
        begins=lambda head: begins.search(head) is not None,
        scan=lambda: Scanner(MysqlVisitor(), end=END),
        files=files,
        guard=guarded,
        csv=_csv,
        end=END,
    )
    return Engine(name=name, title=title, formats=(text,), logs=BinlogRules())


MARIADB: Final = _engine(product.MARIADB)
MYSQL: Final = _engine(product.MYSQL)
