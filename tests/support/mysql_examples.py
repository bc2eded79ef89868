"""A MariaDB database with names and data that try to look like something else; reading dumps in tests."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from holdfast.formats.dumps.core.catalogue import Catalogue, decode, encode
from holdfast.formats.dumps.core.scan import Scanner, Visitor
from holdfast.formats.dumps.core.virtual_file import VirtualFile

ODD = "wei rd`'\"\n/;名-- x.y"
"""A table's name."""
OTHER = "we ird`/\"'x"
"""A database's name."""


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


ALL_BYTES = bytes(range(256))
LOOKS_LIKE = [
    "'; DROP TABLE customers; --",
    "\n-- Dump completed on 2026-11-25  7:55:09\n",
    "\n--\n-- Table structure for table `customers`\n--\n\nDROP TABLE IF EXISTS `customers`;\n",
    "),\n(1,2);\nINSERT INTO `customers` VALUES\n(",
    "\\",
    "\\'",
    "''",
    '"',
    "",
    "NULL",
    "DELIMITER ;;\n",
    "/*!50003 */ `x` 名 \U0001f600",
    "\t\r\n\b\x1a",
]

SCHEMA = f"""
CREATE DATABASE shop CHARACTER SET utf8mb4;
CREATE DATABASE {quoted(OTHER)} CHARACTER SET utf8mb4;
USE shop;
SET NAMES utf8mb4;
CREATE SEQUENCE numbers START WITH 100 INCREMENT BY 10;
CREATE TABLE customers (
  id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(1000) CHARACTER SET utf8mb4, email VARCHAR(100) UNIQUE,
  KEY (name(20))
);
CREATE TABLE orders (
  id INT PRIMARY KEY, customer INT, n BIGINT DEFAULT (NEXT VALUE FOR numbers), b VARBINARY(300),
  t TIMESTAMP DEFAULT '2026-11-25 07:55:09', g INT GENERATED ALWAYS AS (id * 2) STORED,
  v INT AS (id + 1) VIRTUAL, f DOUBLE, bits BIT(5), j JSON, p GEOMETRY,
  c TEXT COMMENT 'nextval(`shop`.`numbers`)',
  KEY (customer), FOREIGN KEY (customer) REFERENCES customers (id)
);
CREATE TABLE {quoted(ODD)} (
  `a;b` INT, `c``d` TEXT COMMENT 'it''s; -- Dump completed', `values` INT, `key` INT
);
CREATE TABLE empty_one (a INT INVISIBLE, `PRIMARY` INT, UNIQUE (a));
CREATE TABLE parts (a INT PRIMARY KEY, b TEXT) PARTITION BY HASH (a) PARTITIONS 2;
CREATE VIEW v1 AS SELECT c.name, o.id FROM customers c JOIN orders o ON o.customer = c.id;
CREATE VIEW v0 AS SELECT * FROM v1;
DELIMITER ;;
CREATE TRIGGER tr1 BEFORE INSERT ON orders FOR EACH ROW
BEGIN IF NEW.f IS NULL THEN SET NEW.f = 3; END IF; END;;
CREATE TRIGGER shop.tr2 /* on ` */ AFTER INSERT ON shop.orders FOR EACH ROW BEGIN SET @x = ';;'; END;;
CREATE TRIGGER `tr``3` BEFORE UPDATE ON {quoted(ODD)} FOR EACH ROW SET NEW.`a;b` = 1;;
CREATE PROCEDURE p1() BEGIN SELECT 1; SELECT 2; END;;
CREATE FUNCTION f1() RETURNS INT DETERMINISTIC RETURN 1;;
CREATE EVENT e1 ON SCHEDULE EVERY 1 DAY DO BEGIN DELETE FROM customers WHERE id < 0; END;;
DELIMITER ;
ALTER DATABASE shop CHARACTER SET latin1;
USE {quoted(OTHER)};
CREATE TABLE {quoted(ODD)} (a INT PRIMARY KEY, b BLOB);
INSERT INTO {quoted(ODD)} VALUES (1, X'{ALL_BYTES.hex()}');
CREATE USER u@'%' IDENTIFIED BY 'secret';
GRANT SELECT ON shop.* TO u@'%';
"""

TABLES = ("customers", "orders", ODD, "empty_one", "parts")


def rows() -> str:
    lines = ["USE shop; SET NAMES utf8mb4;"]
    for at, value in enumerate(LOOKS_LIKE, 1):
        text = f"CONVERT(X'{value.encode().hex()}' USING utf8mb4)"
        lines += [
            f"INSERT INTO customers VALUES ({at}, {text}, 'a{at}@b');",
            f"INSERT INTO orders (id, customer, b, f, bits, j, c) VALUES ({at}, {at},"
            f" X'{(ALL_BYTES * 2)[at : at + 256].hex()}', {at}.5e100, {at},"
            f' \'{{"a": "\\\\n{at}"}}\', {text});',
            f"INSERT INTO {quoted(ODD)} VALUES ({at}, {text}, NULL, {at});",
            f"INSERT INTO parts VALUES ({at}, {text});",
        ]
    lines += ["UPDATE orders SET p = POINT(1, 2) WHERE id = 3;"]
    return "\n".join(lines)


def scan(visitor: Visitor, data: bytes, step: int = 1 << 20) -> Catalogue:
    """The catalogue of a dump, through its stored form, its sections without gaps."""
    scanner = Scanner(visitor)
    for at in range(0, len(data), step):
        scanner.feed(data[at : at + step])
    catalogue = decode(encode(scanner.finish()), "catalogue", len(data))
    for before, after in zip(catalogue.sections, catalogue.sections[1:], strict=False):
        assert before.start + before.length == after.start
    if catalogue.sections:
        assert catalogue.sections[-1].start + catalogue.sections[-1].length == len(data)
    return catalogue


def content(file: VirtualFile, data: bytes) -> bytes:
    """The bytes of a file made of stretches of `data`."""
    made = b"".join(data[p.start : p.start + p.length] if p.data is None else p.data for p in file.pieces)
    assert len(made) == file.size
    return made


def parse_csv(made: Iterable[bytes]) -> list[Sequence[Any]]:
    """Fields as bytes; None for what is empty and not in quotes."""
    text = b"".join(made).decode("latin-1")
    csv.field_size_limit(1 << 30)
    return [
        [None if field == "\1NULL" else field.encode("latin-1") for field in row]
        for row in csv.reader(io.StringIO(_marked(text), newline=""))
    ]


def _marked(text: str) -> str:
    """With a mark for NULL, which the csv module cannot tell from the empty string."""
    out: list[str] = []
    inside = False
    previous = "\n"
    for at, character in enumerate(text):
        if not inside and previous in ",\n" and character in ",\n" and at:
            out.append("\1NULL")
        inside ^= character == '"'
        out.append(character)
        previous = character if not inside else ""
    return "".join(out)
