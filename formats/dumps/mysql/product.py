"""MySQL and MariaDB: one folder knows both; their names in snapshots, and for people."""

from __future__ import annotations

from typing import Final

MYSQL: Final = "mysql"
MARIADB: Final = "mariadb"
PRODUCTS: Final = (MARIADB, MYSQL)
SYSTEM_DATABASES: Final = ("information_schema", "performance_schema", MYSQL, "sys")
"""The servers' own."""
TITLES: Final = {MARIADB: "MariaDB", MYSQL: "MySQL"}


def product_in(text: str) -> str:
    """Which of the two a server's or tool's version is of: MariaDB says its name, MySQL may not."""
    return MARIADB if MARIADB in text.lower() else MYSQL
