"""MySQL and MariaDB: mysqldump and mariadb-dump text, binary logs."""
