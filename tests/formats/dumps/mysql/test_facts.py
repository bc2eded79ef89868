"""What a dump says of itself, in the words of every tool; and no dump that ends early is called whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.formats.dumps.mysql.files import files, table_rows
from holdfast.formats.dumps.mysql.scan import MysqlVisitor
from support.mysql_examples import content, scan

MARIADB = b"""/*M!999999\\- enable the sandbox mode */\x20
-- MariaDB dump 10.19  Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)
--
-- Host: localhost    Database: shop
-- ------------------------------------------------------
-- Server version\t10.11.19-MariaDB-log

"""
MYSQL_8 = b"""-- MySQL dump 10.13  Distrib 8.0.36, for Linux (x86_64)
--
-- Host: localhost    Database: shop
-- ------------------------------------------------------
-- Server version\t8.0.36

"""
HEAD = b"""/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;
/*!50503 SET NAMES utf8mb4 */;
/*!40103 SET @OLD_TIME_ZONE=@@TIME_ZONE */;
/*!40103 SET TIME_ZONE='+00:00' */;
/*!40014 SET @OLD_UNIQUE_CHECKS=@@UNIQUE_CHECKS, UNIQUE_CHECKS=0 */;
/*!40014 SET @OLD_FOREIGN_KEY_CHECKS=@@FOREIGN_KEY_CHECKS, FOREIGN_KEY_CHECKS=0 */;
/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;
/*!40111 SET @OLD_SQL_NOTES=@@SQL_NOTES, SQL_NOTES=0 */;
"""
GTID = b"""SET @MYSQLDUMP_TEMP_LOG_BIN = @@SESSION.SQL_LOG_BIN;
SET @@SESSION.SQL_LOG_BIN= 0;

--
-- GTID state at the beginning of the backup\x20
--

SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ '3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,
4e11fa47-71ca-11e1-9e33-c80aa9429562:1-77';

--
-- Position to start replication or point-in-time recovery from
--

-- CHANGE MASTER TO MASTER_LOG_FILE='bin.000007', MASTER_LOG_POS=157;

"""
TABLE = b"""--
-- Table structure for table `t`
--

DROP TABLE IF EXISTS `t`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!50503 SET character_set_client = utf8mb4 */;
CREATE TABLE `t` (
  `id` int NOT NULL AUTO_INCREMENT,
  `b` varbinary(9) DEFAULT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB;
/*!40101 SET character_set_client = @saved_cs_client */;

--
-- Dumping data for table `t`
--

LOCK TABLES `t` WRITE;
/*!40000 ALTER TABLE `t` DISABLE KEYS */;
INSERT INTO `t` VALUES (1,_binary '\\0-- Dump completed'),(2,NULL);
/*!40000 ALTER TABLE `t` ENABLE KEYS */;
UNLOCK TABLES;
"""
VIEW_5_6 = b"""
--
-- Temporary table structure for view `v`
--

DROP TABLE IF EXISTS `v`;
/*!50001 DROP VIEW IF EXISTS `v`*/;
SET @saved_cs_client     = @@character_set_client;
SET character_set_client = utf8;
/*!50001 CREATE TABLE `v` (
  `id` tinyint NOT NULL
) ENGINE=MyISAM */;
SET character_set_client = @saved_cs_client;

--
-- Final view structure for view `v`
--

/*!50001 DROP TABLE IF EXISTS `v`*/;
/*!50001 DROP VIEW IF EXISTS `v`*/;
/*!50001 SET @saved_cs_client          = @@character_set_client */;
/*!50001 SET character_set_client      = utf8 */;
/*!50001 CREATE ALGORITHM=UNDEFINED */
/*!50013 DEFINER=`root`@`localhost` SQL SECURITY DEFINER */
/*!50001 VIEW `v` AS select `t`.`id` AS `id` from `t` */;
/*!50001 SET character_set_client      = @saved_cs_client */;
"""
TRIGGERS_5_0 = b"""
/*!50003 SET @OLD_SQL_MODE=@@SQL_MODE*/;
DELIMITER ;;
/*!50003 SET SESSION SQL_MODE="" */;;
/*!50003 CREATE TRIGGER `one` BEFORE INSERT ON `t` FOR EACH ROW SET @a = 1 */;;

/*!50003 SET SESSION SQL_MODE="" */;;
/*!50003 CREATE TRIGGER `two` AFTER INSERT ON `t` FOR EACH ROW SET @a = 2 */;;

DELIMITER ;
/*!50003 SET SESSION SQL_MODE=@OLD_SQL_MODE */;
"""
TAIL = b"""SET @@SESSION.SQL_LOG_BIN = @MYSQLDUMP_TEMP_LOG_BIN;
/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;

/*!40101 SET SQL_MODE=@OLD_SQL_MODE */;
/*!40014 SET FOREIGN_KEY_CHECKS=@OLD_FOREIGN_KEY_CHECKS */;
/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;

"""
DATED = b"-- Dump completed on 2026-11-25  7:55:09\n"
WHOLE = MYSQL_8 + HEAD + GTID + TABLE + VIEW_5_6 + TRIGGERS_5_0 + TAIL + DATED


def fault(dump: bytes) -> str:
    return scan(MysqlVisitor(), dump).fault


@pytest.mark.parametrize(
    ("head", "engine", "server", "tool"),
    [
        (MARIADB, "mariadb", "10.11.19-MariaDB-log", "mariadb-dump 10.11.19-MariaDB"),
        (MYSQL_8, "mysql", "8.0.36", "mysqldump 8.0.36"),
        (MYSQL_8.replace(b"8.0.36", b"5.7.44-log"), "mysql", "5.7.44-log", "mysqldump 5.7.44-log"),
        (
            MARIADB.replace(b"-- MariaDB dump", b"-- MySQL dump").replace(b"10.11.19", b"10.3.39"),
            "mariadb",
            "10.3.39-MariaDB-log",
            "mariadb-dump 10.3.39-MariaDB",
        ),
        (
            MARIADB.replace(b"version\t10.11.19-MariaDB-log", b"version\t8.0.36"),
            "mysql",
            "8.0.36",
            "mariadb-dump 10.11.19-MariaDB",
        ),
    ],
)
def test_the_head_tells_engine_server_and_tool(head: bytes, engine: str, server: str, tool: str) -> None:
    catalogue = scan(MysqlVisitor(), head + HEAD + TABLE + TAIL + DATED)
    assert not catalogue.fault
    assert catalogue.engine == engine
    assert catalogue.facts == {"server": server, "tool": tool}
    assert {section.schema for section in catalogue.sections} == {"", "shop"}


def test_positions_are_found_in_statements_and_comments() -> None:
    found = scan(MysqlVisitor(), WHOLE)
    assert not found.fault
    assert found.facts["binlog"] == "bin.000007:157"
    assert found.facts["gtid"] == (
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,4e11fa47-71ca-11e1-9e33-c80aa9429562:1-77"
    )
    newer = b"CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='bin.000008', SOURCE_LOG_POS=4;\n"
    facts = scan(MysqlVisitor(), MYSQL_8 + newer + HEAD + TABLE + TAIL + DATED).facts
    assert facts["binlog"] == "bin.000008:4"


def test_the_position_of_the_servers_own_source_is_not_taken_for_its_own() -> None:
    head = (
        b"--\n-- Position to start replication or point-in-time recovery from"
        b" (the master of this slave)\n--\n\n"
        b"CHANGE MASTER TO MASTER_LOG_FILE='up.000001', MASTER_LOG_POS=9;\n"
    )
    facts = scan(MysqlVisitor(), MYSQL_8 + head + HEAD + TABLE + TAIL + DATED).facts
    assert "binlog" not in facts
    assert facts["source_binlog"] == "up.000001:9"


def test_what_sets_up_replication_is_in_no_file() -> None:
    made = files(scan(MysqlVisitor(), WHOLE), len(WHOLE))
    assert set(made) == {"schema.sql", "tables/shop.t.sql"}
    for file in made.values():
        sql = content(file, WHOLE)
        assert b"GTID_PURGED" not in sql
        assert b"SQL_LOG_BIN" not in sql
        assert sql.startswith(b"-- MySQL dump")
        assert sql.endswith(DATED)
        assert b"TIME_ZONE='+00:00'" in sql


def test_tables_in_place_of_views_have_no_file_and_triggers_of_old_tools_have_their_delimiter() -> None:
    made = files(scan(MysqlVisitor(), WHOLE), len(WHOLE))
    sql = content(made["tables/shop.t.sql"], WHOLE)
    assert b"`v`" not in sql
    assert sql.count(b"TRIGGER") == 2
    assert re.findall(rb"^DELIMITER (\S+)", sql, re.M) == [b";;", b";"]
    assert b"`v`" in content(made["schema.sql"], WHOLE)


def test_rows_of_a_table_know_their_columns_of_bytes() -> None:
    rows = table_rows(scan(MysqlVisitor(), WHOLE))["tables/shop.t"]
    assert (rows.columns, rows.binary, rows.refused) == (("id", "b"), (1,), "")


def test_a_dump_that_ends_anywhere_early_has_a_fault() -> None:
    for end in range(len(WHOLE) - 1):
        assert fault(WHOLE[:end]), end
    # Only the last newline is missing.
    assert not fault(WHOLE[:-1])


def test_a_dump_without_a_date_in_its_end_is_whole_with_its_last_newline_only() -> None:
    dump = MYSQL_8 + HEAD + TABLE + TAIL + b"-- Dump completed\n"
    assert not fault(dump)
    assert not fault(dump.replace(b"\n-- Dump completed\n", b"\r\n-- Dump completed\r\n"))
    for end in range(len(dump) - 60, len(dump)):
        assert fault(dump[:end]), end


def test_an_end_that_is_data_or_has_something_behind_it_is_none() -> None:
    assert "end is missing" in fault(MYSQL_8 + HEAD + TABLE)
    assert "end is missing" in fault(WHOLE + b"SELECT 1;\n")
    assert "end is missing" in fault(WHOLE + b"-- a comment\n\n# another\n")
    assert fault(MYSQL_8 + HEAD + b"/*\n" + DATED + b"*/\n")
    assert "DELIMITER" in fault(MYSQL_8 + HEAD + TABLE + TAIL + b"DELIMITER ;;\n" + DATED)


def test_a_dump_without_comments_is_said_to_be_one() -> None:
    bare = re.sub(rb"^--.*\n", b"", HEAD + TABLE + TAIL, flags=re.M)
    assert "--skip-comments" in fault(bare)
    assert "--skip-comments" in fault(b"/*M!999999\\- enable the sandbox mode */ \n" + bare)


def test_a_tool_that_went_on_after_an_error_made_no_whole_dump() -> None:
    note = b"-- insufficient privileges to SHOW CREATE PROCEDURE `p`\n-- does u have permissions?\n\n"
    assert "privileges" in fault(WHOLE.replace(TAIL, note + TAIL))
    assert "view" in fault(WHOLE.replace(TAIL, b"-- failed on view `v`: CREATE\n\n" + TAIL))


def test_a_table_that_the_dump_ends_in_has_no_file_but_those_before_have() -> None:
    second = TABLE.replace(b"`t`", b"`u`")
    dump = MYSQL_8 + HEAD + TABLE + second
    for end in range(dump.rindex(b"CREATE TABLE"), len(dump)):
        made = files(scan(MysqlVisitor(), dump[:end]), end)
        assert set(made) <= {"schema.sql", "tables/shop.t.sql"}, end
    assert "tables/shop.t.sql" in made


def parts() -> Iterator[bytes]:
    for name in (b"one", b"two"):
        use = b"--\n-- Current Database: `" + name + b"`\n--\n\nUSE `" + name + b"`;\n\n"
        yield MYSQL_8.replace(b"shop", name) + HEAD + use + TABLE + TAIL + DATED


def test_dumps_behind_each_other_have_each_their_own_settings_and_end() -> None:
    first, second = parts()
    dump = first + second
    catalogue = scan(MysqlVisitor(), dump)
    assert not catalogue.fault
    made = files(catalogue, len(dump))
    assert set(made) == {"one.schema.sql", "two.schema.sql", "tables/one.t.sql", "tables/two.t.sql"}
    for name in ("one", "two"):
        sql = content(made[f"tables/{name}.t.sql"], dump)
        assert sql.count(b"SET @OLD_SQL_MODE") == sql.count(b"-- Dump completed on") == 1
        assert f"Database: {name}\n".encode() in sql
    assert "several dumps" in fault(first.removesuffix(DATED) + second)
    for at in range(0, len(second) - 1, 7):
        assert fault(first + second[:at]) or not at


def test_statements_that_name_their_database_do_not_go_to_a_file_that_loads_elsewhere() -> None:
    dump = WHOLE.replace(b"INSERT INTO `t`", b"INSERT INTO `shop`.`t`")
    catalogue = scan(MysqlVisitor(), dump)
    assert set(files(catalogue, len(dump))) == {"schema.sql"}
    assert catalogue.extra["left_out"] == [["shop", "t", "its rows name the database that they came from"]]
    dump = WHOLE.replace(b"CREATE TABLE `t`", b"CREATE TABLE `shop`.`t`")
    sql = content(files(scan(MysqlVisitor(), dump), len(dump))["tables/shop.t.sql"], dump)
    assert b"CREATE TABLE `t`" in sql


def test_no_table_file_drops_another_table() -> None:
    dump = WHOLE.replace(b"DROP TABLE IF EXISTS `t`;", b"DROP TABLE IF EXISTS `other`;")
    sql = content(files(scan(MysqlVisitor(), dump), len(dump))["tables/shop.t.sql"], dump)
    assert b"DROP" not in sql


def test_twenty_thousand_tables_take_seconds(tmp_path: Path) -> None:
    dump = (
        MYSQL_8 + HEAD + b"".join(TABLE.replace(b"`t`", b"`t%d`" % at) for at in range(20_000)) + TAIL + DATED
    )
    catalogue = scan(MysqlVisitor(), dump)
    assert len(files(catalogue, len(dump))) == 20_001


def test_a_comment_or_statement_of_megabytes_takes_no_more_than_its_share_of_time() -> None:
    hostile = b"CREATE TABLE t (`" + b"'\\'" * 400_000 + b"` int);\n"
    assert "end is missing" in fault(MYSQL_8 + hostile + b"-- " + b"CHANGE MASTER x" * 100_000 + b"\n")
    assert fault(MYSQL_8 + b"CREATE TRIGGER " + b"/*" * 500_000)
