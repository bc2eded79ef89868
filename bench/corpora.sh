#!/usr/bin/env bash
# The full corpora, from nothing: what the goals in seconds and megabytes were set for.
# usage: corpora.sh FOLDER [vm] [db] [mix]
#
#   vm   three days of a 6 GiB Debian disk, 2 GB allocated: debootstrap, packages, a day's use (churn.py)
#   db   three days of a 1.1 GB PostgreSQL dump: package lists, source text, events, pgbench accounts
#   mix  1 GiB of already compressed packages
#
# Needs root, loop devices, a Debian mirror through apt, and: debootstrap gdisk e2fsprogs dosfstools
# postgresql. Ids, seeds and hash seeds are fixed; package versions and file times are the mirror's.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,11p' "$0"; exit 2; }
[ "$(id -u)" = 0 ] || { echo "corpora.sh: needs root (loop devices, chroot); --size small does not" >&2; exit 1; }
mkdir -p "$1"
OUT=$(realpath "$1")
shift
KINDS=("$@")
[ ${#KINDS[@]} -gt 0 ] || KINDS=(vm db mix)
ROOT=$(realpath "$(dirname "$0")/..") # for python3 -m bench.churn
SUITE=${SUITE:-bookworm}
# shellcheck disable=SC2016  # apt's own placeholder
MIRROR=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -1)}
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive PYTHONPATH=$ROOT
WORK=$(mktemp -d "$OUT/.work.XXXXXX")
chmod 755 "$WORK"
MNT=$WORK/mnt LOOP='' SERVER=''
say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
quietly() { "$@" >"$WORK/log" 2>&1 || { tail -20 "$WORK/log" >&2; return 1; }; }

detach() {
  local place
  for place in debs dev/pts dev proc sys ''; do
    if mountpoint -q "$MNT/$place"; then umount "$MNT/$place"; fi
  done
  if [ -n "$LOOP" ]; then losetup -d "$LOOP"; LOOP=''; fi
}
cleanup() {
  set +e
  if [ -n "$SERVER" ]; then server -m immediate stop; fi
  detach 2>/dev/null
  mountpoint -q "$MNT" || rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# ---- vm -------------------------------------------------------------------------------------------

SECTOR=512 DISK=$((6 << 30)) ESP_START=2048 ESP_SECTORS=131072
ROOT_START=$((ESP_START + ESP_SECTORS)) ROOT_SECTORS=$(((6 << 30) / 512 - ESP_START - 131072 - 2048))
PACKAGES="linux-image-amd64 linux-headers-amd64 python3 python3-pip python3-doc gcc g++ make libc6-dev vim vim-doc git
  git-doc perl perl-doc openssh-server curl rsync ca-certificates man-db manpages-dev less locales systemd-sysv cron logrotate"
ADD=([2]="nginx-light sqlite3 tmux htop python3-requests python3-numpy" [3]="redis-server nodejs gdb strace")
PURGE=([2]="git-doc" [3]="htop vim-doc")

loop() { losetup -f --show -o $(($2 * SECTOR)) --sizelimit $(($3 * SECTOR)) "${@:4}" "$1"; }
attach() { # IMAGE [losetup options]: its root partition on $MNT
  mkdir -p "$MNT"
  LOOP=$(loop "$1" $ROOT_START $ROOT_SECTORS "${@:2}")
  mount -o noatime "$LOOP" "$MNT"
}
guest() { quietly chroot "$MNT" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
  DEBIAN_FRONTEND=noninteractive "$@"; }
guest_up() { # IMAGE: ready for apt-get, which must not start services
  attach "$1"
  mount --bind /dev "$MNT/dev" && mount --bind /dev/pts "$MNT/dev/pts"
  mount -t proc proc "$MNT/proc" && mount -t sysfs sys "$MNT/sys"
  printf '#!/bin/sh\nexit 101\n' >"$MNT/usr/sbin/policy-rc.d" && chmod 755 "$MNT/usr/sbin/policy-rc.d"
}
day_ends() { # IMAGE DAY
  (cd "$ROOT" && python3 -m bench.churn "$MNT" "$2")
  rm -f "$MNT/usr/sbin/policy-rc.d"
  sync
  if [ "$2" != 2 ]; then fstrim "$MNT"; fi # the weekly trim: before the first day and on the third
  detach
  cp --sparse=always "$1" "$OUT/vm-days/day$2.raw"
}

make_vm() {
  local image=$WORK/disk.raw day
  truncate -s $DISK "$image"
  quietly sgdisk --disk-guid=6F1D5A10-0000-4000-8000-000000000001 \
    -n 1:$ESP_START:+64M -t 1:ef00 -u 1:6F1D5A10-0000-4000-8000-000000000002 \
    -n 2:$ROOT_START:$((ROOT_START + ROOT_SECTORS - 1)) -t 2:8300 -u 2:6F1D5A10-0000-4000-8000-000000000003 "$image"
  LOOP=$(loop "$image" $ESP_START $ESP_SECTORS)
  quietly mkfs.fat -F 32 -i 5A10F00D -n ESP "$LOOP"
  detach
  LOOP=$(loop "$image" $ROOT_START $ROOT_SECTORS)
  mkfs.ext4 -q -U 6f1d5a10-0000-4000-8000-000000000004 -L root "$LOOP" \
    -E hash_seed=6f1d5a10-0000-4000-8000-000000000005,lazy_itable_init=0,lazy_journal_init=0
  detach
  attach "$image"
  say "vm: debootstrap $SUITE"
  quietly debootstrap --variant=minbase "$SUITE" "$MNT" "$MIRROR"
  detach
  guest_up "$image"
  cp /etc/resolv.conf "$MNT/etc/resolv.conf"
  echo vm >"$MNT/etc/hostname"
  say "vm: packages"
  guest apt-get update
  # shellcheck disable=SC2086  # lists of words
  guest apt-get -y --no-install-recommends install $PACKAGES
  # What the later days install is fetched now: no index changes between the days but their own.
  mkdir -p "$WORK/debs/partial" "$MNT/debs" && mount --bind "$WORK/debs" "$MNT/debs"
  # shellcheck disable=SC2086
  guest apt-get -y --no-install-recommends --download-only -o Dir::Cache::archives=/debs \
    -o APT::Sandbox::User=root install ${ADD[2]} ${ADD[3]}
  umount "$MNT/debs" && rmdir "$MNT/debs"
  day_ends "$image" 1
  for day in 2 3; do
    say "vm: day $day"
    guest_up "$image"
    cp "$WORK"/debs/*.deb "$MNT/var/cache/apt/archives/"
    # shellcheck disable=SC2086
    guest apt-get -y --no-install-recommends --no-download install ${ADD[day]}
    # shellcheck disable=SC2086
    guest apt-get -y purge ${PURGE[day]}
    if [ $day = 3 ]; then guest apt-get clean; fi
    day_ends "$image" $day
  done
  rm -rf "$image" "$WORK/debs"
}

# ---- db -------------------------------------------------------------------------------------------

tables() {
  cat <<'SQL'
create table packages(id int primary key, name text, version text, section text, maintainer text,
  installed_size bigint, size bigint, sha256 text, filename text, homepage text, tags text, description text);
create table dependencies(package_id int, kind text, target text, version_spec text);
create table source_lines(id int primary key, path text, line_no int, body text);
create table access_events(id int primary key, at double precision, host inet, path text, status int, bytes int, session text);
create unlogged table phrases(id int primary key, t text);
\copy packages from 'packages.csv' csv
\copy dependencies from 'dependencies.csv' csv
\copy source_lines from 'source_lines.csv' csv
\copy access_events from 'access_events.csv' csv
\copy phrases from 'phrases.csv' csv
create index on dependencies(package_id); create index on access_events(at);
SQL
}
one_day() { # a log that grows and expires, new versions of one section, scattered edits, one stretch of text
  cat <<'SQL'
select setseed(0.1 * :day);
insert into access_events
  select (select max(id) from access_events) + g, 1.7e9 + :day * 86400 + g / 10.0,
    ('10.' || g * 31 % 256 || '.' || g * 7 % 256 || '.' || g % 256)::inet,
    (select path from source_lines where id = 1 + g::bigint * 104729 % 1000000), 200, (random() * 200000)::int,
    substr(md5(random()::text), 1, 16)
  from generate_series(1, 40000) g;
delete from access_events where id < :day * 15000;
update packages set version = version || '+day' || :day, sha256 = encode(sha256((sha256 || :day)::bytea), 'hex')
  where section = (array['x', 'y', 'python', 'libs'])[:day + 1];
update packages set description = description || E'\nReviewed on day ' || :day where id % 997 = :day;
delete from dependencies where package_id % 500 = :day;
update source_lines set body = body || ' -- day ' || :day where id between :day * 50000 and :day * 50000 + 20000;
delete from source_lines where id % 5003 = :day;
SQL
}
server() { (cd / && runuser -u postgres -- "$SERVER/pg_ctl" -D "$WORK/pg" -w -s -l "$WORK/pg/log" "$@"); }
make_db() {
  local day bin
  [ -e "$OUT/vm-days/.done" ] || make vm # its files are the text in the tables
  bin=$(find /usr/lib/postgresql/*/bin -name initdb | sort -V | tail -1)
  SERVER=${bin%/initdb}
  export PGHOST=$WORK/pg PGUSER=postgres PATH=$SERVER:$PATH
  mkdir "$WORK/pg" && chown postgres "$WORK/pg"
  (cd / && quietly runuser -u postgres -- "$bin" -D "$WORK/pg" -E UTF8 --locale=C.UTF-8 -A trust)
  server -o "-c listen_addresses='' -k $WORK/pg -c fsync=off -c max_wal_size=4GB -c shared_buffers=512MB" start
  createdb bench
  attach "$OUT/vm-days/day1.raw" -r
  say "db: tables"
  apt-cache dumpavail | (cd "$ROOT" && python3 -m bench.tables "$MNT" "$WORK")
  detach
  (cd "$WORK" && tables | psql -qX -v ON_ERROR_STOP=1 bench && rm -f ./*.csv)
  quietly pgbench -i -q -s 30 bench
  # pgbench's filler is blanks; with real text the dump is not trivially small
  psql -qX bench -c "update pgbench_accounts a set filler = p.t from phrases p where p.id = a.aid::bigint * 7919 % 200000" \
    -c 'vacuum full pgbench_accounts' -c analyze
  for day in 1 2 3; do
    say "db: day $day"
    if [ $day != 1 ]; then
      quietly pgbench -n -c 2 -j 2 -t 5000 --random-seed=$((40 + day)) bench
      one_day | psql -qX -v ON_ERROR_STOP=1 -v day=$day -o /dev/null bench
    fi
    pg_dump --exclude-table=phrases bench >"$OUT/db-days/day$day.sql"
  done
  server -m fast stop
  SERVER=''
  rm -rf "$WORK/pg"
}

# ---- mix ------------------------------------------------------------------------------------------

make_mix() {
  local package
  mkdir "$WORK/mix"
  for package in libreoffice-core libreoffice-common chromium firefox-esr llvm-14-dev libllvm14 clang-14 gcc-12 g++-12 \
    texlive-latex-extra texlive-fonts-extra openjdk-17-jdk-headless openjdk-17-jre-headless golang-1.19-go rustc \
    mariadb-server-core postgresql-15 qemu-system-x86 thunderbird inkscape krita-data fonts-noto-cjk; do
    # one by one: a name that the mirror lacks must not stop the others
    (cd "$WORK/mix" && apt-get -o APT::Sandbox::User=root -qq download "$package" 2>/dev/null) || true
  done
  find "$WORK/mix" /var/cache/apt/archives -maxdepth 1 -name '*.deb' -size +100k -print0 | LC_ALL=C sort -z |
    { xargs -0 cat || true; } 2>/dev/null | head -c $((1 << 30)) >"$OUT/fresh-mix/mix.bin"
  rm -rf "$WORK/mix"
}

make() { # KIND: unless it is there
  local folder
  case $1 in vm) folder=vm-days ;; db) folder=db-days ;; mix) folder=fresh-mix ;; *) say "unknown: $1"; exit 2 ;; esac
  if [ -e "$OUT/$folder/.done" ]; then return; fi
  say "$1: into $OUT/$folder"
  rm -rf "${OUT:?}/$folder"
  mkdir -p "$OUT/$folder"
  "make_$1"
  touch "$OUT/$folder/.done"
}
for kind in "${KINDS[@]}"; do make "$kind"; done
