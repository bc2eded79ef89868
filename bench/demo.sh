#!/usr/bin/env bash
# The main job from end to end, with real commands: back up a disk and a database, change both, back
# up again, mount, copy things out, compare.  usage: demo.sh [IMAGE]   (./dev demo sets up and calls it)
#
# Everything happens in a temporary folder, as root or as an ordinary user, and is gone afterwards
# (HOLDFAST_DEMO_KEEP=1 keeps it). IMAGE, a raw disk image, is copied first and never written to.
set -Eeuo pipefail
IMAGE=${1:+$(realpath -- "$1")}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin # debugfs, mkfs.ext4, sfdisk
TOP=$(mktemp -d "${TMPDIR:-/tmp}/holdfast-demo.XXXXXX")
chmod 711 "$TOP" # the database server of root's demo runs as postgres and must get through
export HOLDFAST_REPOSITORY=$TOP/repo HOLDFAST_PASSWORD_FILE=$TOP/password HOLDFAST_CACHE_DIR=$TOP/cache
MNT=$TOP/mnt
stop_database() { :; }

bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
title() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
note() { printf '   %s\n' "$*"; }
run() { # COMMAND LINE: shown as it would be typed, then run
  printf '%s$ %s%s\n' "$bold" "$1" "$plain"
  eval "$1" || fail "that failed: $1"
}
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

cleanup() {
  set +e
  trap '' INT TERM
  cd /
  if mountpoint -q "$MNT"; then holdfast umount "$MNT" || fusermount3 -uz "$MNT" || umount -l "$MNT"; fi
  stop_database
  if [ -n "${HOLDFAST_DEMO_KEEP:-}" ] || mountpoint -q "$MNT"; then
    echo "kept: $TOP"
  else
    rm -rf --one-file-system "$TOP"
  fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM
trap 'printf "demo: failed at line %s: %s\n" "$LINENO" "$BASH_COMMAND" >&2' ERR

# ---- the disk -------------------------------------------------------------------------------------

make_disk() { # a GPT disk with an EFI system partition and ext4: no root, no loop device
  PYTHONPATH=$HERE/.. python3 -m bench.realfiles tree 200
  mkdir -p tree/srv tree/var/log
  printf 'Contract 2026-118\nThe parties agree that backups are tested.\n' >tree/srv/contract.txt
  seq -f 'request %.0f answered' 200000 >tree/var/log/app.log
  truncate -s 1G web01.raw
  printf 'label: gpt\nsize=64MiB, type=uefi, name=EFI\ntype=linux, name=root\n' | sfdisk -q web01.raw
  local start size
  read -r start size < <(sfdisk -d web01.raw | sed -n 's/^web01.raw2 *: start= *\([0-9]*\), size= *\([0-9]*\),.*/\1 \2/p')
  mkfs.ext4 -q -b 4096 -L root -d tree -E "offset=$((start * 512))" web01.raw "$((size / 2))k"
  rm -rf tree
}

copy_image() { # the user's image: works on a copy
  local magic allocated free
  if [ ! -f "$IMAGE" ] || [ ! -r "$IMAGE" ]; then fail "$IMAGE is not a file that can be read"; fi
  magic=$(head -c 4 "$IMAGE" | od -An -c | tr -d ' \n')
  case $magic in 'QFI373' | KDMV | 'vhdx' | 'cone')
    fail "$IMAGE is not a raw image; first: qemu-img convert -O raw $IMAGE disk.raw" ;;
  esac
  allocated=$(du -k -- "$IMAGE" | cut -f1)
  free=$(df -k --output=avail "$TOP" | tail -1)
  # the copy, the repository (at worst as large) and the image that is copied out of the mount
  [ "$free" -gt $((3 * allocated + 500000)) ] ||
    fail "$((3 * allocated / 1024 + 500)) MiB needed in ${TMPDIR:-/tmp}, $((free / 1024)) MiB free; set TMPDIR"
  note "$IMAGE is only read: everything below happens to a copy of it"
  run "cp --reflink=auto --sparse=always '$IMAGE' web01.raw"
  chmod u+w web01.raw
}

find_ext() { # sets EXT to the name of the first ext2/3/4 file system in web01.raw as debugfs takes it
  local start
  EXT=''
  for start in $({ sfdisk -d web01.raw 2>/dev/null || true; } | sed -n 's/.*start= *\([0-9]*\),.*/\1/p') 0; do
    if dumpe2fs -h "web01.raw?offset=$((start * 512))" >/dev/null 2>&1; then
      EXT="web01.raw?offset=$((start * 512))"
      return
    fi
  done
}

change_disk() {
  if [ -n "$EXT" ]; then
    seq -f 'request %.0f answered late' 150000 >app.log.new
    date -u >written.txt
    {
      [ -n "$IMAGE" ] || printf 'rm /srv/contract.txt\ncd /var/log\nrm app.log\nwrite app.log.new app.log\n'
      printf 'cd /\nwrite written.txt holdfast-demo.txt\n'
    } >changes
    run 'cat changes'
    run "debugfs -w -f changes '$EXT' >debugfs.log 2>&1"
    debugfs -R 'dump /holdfast-demo.txt probe.txt' "$EXT" 2>/dev/null
    if cmp -s probe.txt written.txt; then return; fi
    [ -n "$IMAGE" ] || fail "debugfs could not change the disk: $(cat debugfs.log)"
    EXT='' # it was in use when it was copied, or has features that this debugfs does not know
  fi
  note "no ext file system that debugfs can write to: 4 MiB of noise in the middle stand for a change"
  run "dd if=/dev/urandom of=web01.raw bs=1M count=4 seek=$(($(stat -c %s web01.raw) >> 21)) conv=notrunc status=none"
}

# ---- the database ---------------------------------------------------------------------------------

make_sql() {
  cat <<'SQL'
create table customer (id int primary key, name text not null, mail text not null);
create table orders (id int primary key, customer int not null, item text, amount int, price int, state text);
insert into customer select n, 'Customer ' || n, 'c' || n || '@example.org' from numbers where n <= 20000;
insert into orders select n, 1 + n * 7919 % 20000, 'item ' || (n * 9973 % 5003), 1 + n % 9, n * 7951 % 100000, 'open' from numbers;
SQL
}
CHANGE="update orders set state = 'shipped' where id between 150000 and 152000; delete from orders where id % 9973 = 5;"
TOTALS='select count(*), sum(amount * price), count(distinct state) from orders'

start_postgresql() { # a server of our own in the temporary folder; fails where there is none
  local bin as=()
  bin=$(find /usr/lib/postgresql/*/bin -name initdb 2>/dev/null | sort -V | tail -1) && bin=${bin%/initdb}
  [ -n "$bin" ] || return 1
  mkdir pg
  if [ "$(id -u)" = 0 ]; then
    id postgres >/dev/null 2>&1 || return 1
    chown postgres pg
    as=(runuser -u postgres --)
  fi
  export PGHOST=$TOP/pg PGUSER=postgres PATH=$bin:$PATH
  (cd / && "${as[@]}" "$bin/initdb" -D "$TOP/pg/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >/dev/null &&
    "${as[@]}" "$bin/pg_ctl" -D "$TOP/pg/data" -w -s -l "$TOP/pg/log" -o "-c listen_addresses='' -k $TOP/pg -c fsync=off" start) \
    >pg.log 2>&1 || return 1
  PG_STOP=("${as[@]}" "$bin/pg_ctl" -D "$TOP/pg/data" -m immediate -s stop)
  stop_database() { "${PG_STOP[@]}" >/dev/null 2>&1; }
  DUMP='pg_dump shop' DATABASE=PostgreSQL TABLE=public.orders
  sql() { psql -qX -v ON_ERROR_STOP=1 -d "$1" -At -c "$2"; }
  load() { run "createdb $2 && psql -qX -v ON_ERROR_STOP=1 $2 <$1 >/dev/null"; }
  NUMBERS='create temporary view numbers as select n from generate_series(1, 200000) n;'
  createdb shop
}

start_sqlite() { # Python's own: every machine has it
  cat >sqlite-dump <<'PY'
#!/usr/bin/env python3
import sqlite3, sys
for statement in sqlite3.connect(sys.argv[1]).iterdump():
    print(statement)
PY
  chmod +x sqlite-dump
  DUMP='./sqlite-dump shop.db' DATABASE=SQLite TABLE=main.orders
  sql() {
    python3 -c 'import sqlite3, sys
c = sqlite3.connect(sys.argv[1] + ".db")
*rest, last = [s for s in sys.argv[2].split(";") if s.strip()]
for s in rest: c.execute(s)
for row in c.execute(last): print(*row, sep="|")
c.commit()' "$1" "$2"
  }
  load() { run "python3 -c 'import sqlite3, sys; sqlite3.connect(\"$2.db\").executescript(sys.stdin.read())' <$1"; }
  NUMBERS='create temporary table numbers (n integer);
    insert into numbers with recursive c(n) as (select 1 union all select n + 1 from c where n < 200000) select n from c;'
}

# ---- the demonstration ----------------------------------------------------------------------------

cd "$TOP"
title "A disk and a database"
if [ -n "$IMAGE" ]; then copy_image; else make_disk; fi
find_ext
run 'ls -lsh web01.raw'
run 'sfdisk -l web01.raw 2>/dev/null || true'
start_postgresql || start_sqlite
sql shop "$NUMBERS$(make_sql)"
totals_before=$(sql shop "$TOTALS")
note "and a $DATABASE database 'shop': $totals_before (orders, turnover, states)"

title "A repository"
(umask 077 && head -c 18 /dev/urandom | base64 >password)
run "export HOLDFAST_REPOSITORY=$HOLDFAST_REPOSITORY HOLDFAST_PASSWORD_FILE=$HOLDFAST_PASSWORD_FILE"
run 'holdfast init'

title "The first backup"
run 'holdfast backup web01.raw --name web01'
run "holdfast backup --name shop --stdin-from-command -- $DUMP"
if [ -n "$IMAGE" ]; then before=$IMAGE; else before=before.raw; cp --reflink=auto --sparse=always web01.raw before.raw; fi

title "Something changes: on the disk and in the database"
change_disk
sql shop "$CHANGE"
note "now $(sql shop "$TOTALS")"

title "The second backup stores what is new"
run 'holdfast backup web01.raw --name web01'
run "holdfast backup --name shop --stdin-from-command -- $DUMP"
run 'holdfast snapshots'

title "Mount: every backup is a folder"
mkdir mnt
run 'holdfast mount mnt'
run "find mnt -mindepth 1 -path '*/files/*/*' -prune -o -print | sort"

title "Copy the disk out, as it is now and as it was"
run 'cp --sparse=always mnt/vms/web01/latest/disks/web01.raw restored.raw'
run 'cmp restored.raw web01.raw && ls -lsh restored.raw'
first=$(find mnt/vms/web01 -mindepth 1 -maxdepth 1 -type d | sort | head -1)
run "cmp $first/disks/web01.raw '$before'"
note "byte for byte, both of them: what is on the disk now, and what was on it before the change"

title "Files inside the guest, and what changed in it"
run 'ls -l mnt/vms/web01/latest/files/web01/'
if [ -n "$EXT" ]; then
  run 'holdfast diff web01'
  if [ -z "$IMAGE" ]; then
    note "/srv/contract.txt was deleted; the first backup has it"
    run "cp $first/files/web01/*/srv/contract.txt contract.txt"
    run 'cat contract.txt'
    grep -q 'backups are tested' contract.txt || fail "the file that was copied out is not the one that was backed up"
  fi
  run 'cmp mnt/vms/web01/latest/files/web01/*/holdfast-demo.txt written.txt && cat written.txt'
fi

if command -v qemu-img >/dev/null; then
  title "The same disk as qcow2: out of the mount, and in again"
  run 'qemu-img check mnt/vms/web01/latest/disks/web01.qcow2'
  run 'qemu-img convert -O qcow2 mnt/vms/web01/latest/disks/web01.qcow2 web01.qcow2'
  run 'holdfast backup web01.qcow2 --name web01'
fi

title "Load the dump into another database"
dump=$(echo mnt/databases/*/shop/latest/dump.sql)
run "ls -lh $dump"
load "$dump" shop_copy
note "shop:      $(sql shop "$TOTALS")"
note "shop_copy: $(sql shop_copy "$TOTALS")"
[ "$(sql shop "$TOTALS")" = "$(sql shop_copy "$TOTALS")" ] || fail "the loaded dump differs from the database"

title "One table: out of the mount or without it, as it is now and as it was"
run 'holdfast ls shop:tables'
run "holdfast dump shop --table $TABLE >orders.sql"
run "cmp orders.sql ${dump%/*}/tables/$TABLE.sql && ls -lh orders.sql"
run "holdfast dump shop --table $TABLE --format csv >orders.csv && head -3 orders.csv"
rows=$(sql shop 'select count(*) from orders')
[ "$(tail -n +2 orders.csv | wc -l)" = "$rows" ] || fail "orders.csv does not have the $rows rows of the table"
first_dump=$(find mnt/databases/*/shop -mindepth 1 -maxdepth 1 -type d | sort | head -1)
load "$first_dump/tables/$TABLE.sql" orders_copy
[ "$(sql orders_copy "$TOTALS")" = "$totals_before" ] || fail "the table is not as it was before the change"
note "orders_copy: $totals_before, as before the change"

title "What deduplication and compression saved"
run 'holdfast stats'
run 'du -sh repo'

title "Unmount, then read and check every byte"
run 'holdfast umount mnt'
run 'holdfast check --read-data'
title "Done: both backups came out as they went in"
