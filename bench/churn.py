"""Changes a server's disk as a day of use does: new and edited files, logs, pages of a database file.

`python -m bench.churn ROOT DAY` applies one day to a folder, which may be a mounted disk. Seeded:
the same tree and day give the same change.
"""

from __future__ import annotations

import argparse
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.realfiles import real_files

TEXTS = ("usr/share/doc", "usr/lib/python3*", "usr/share/perl*", "usr/include", "usr/share", "work")
PAGE = 8192
PAGES = 8192  # a 64 MiB application database, of which 2 % change every day
DATABASE = Path("var/lib/app/data.db")
HOSTS = 3000
DAY = 86400


@dataclass(slots=True)
class Changes:
    """Paths below the root."""

    written: list[Path] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)  # of DATABASE, changed in place


def texts(root: Path) -> list[Path]:
    """Real text of the tree itself: what the day's files are made of."""
    found: list[Path] = []
    for pattern in TEXTS:
        for folder in sorted(root.glob(pattern)):
            found += [path for path in real_files(folder) if 600 < path.stat().st_size < 200_000]
            if len(found) > 5000:
                return found
    return found or list(real_files(root))


def churn(root: Path, day: int) -> Changes:
    chance = random.Random(1000 + day)
    material = texts(root)
    changes = Changes()
    projects(root, day, chance, material, changes)
    documents = [path for path in material if path.is_relative_to(root / "usr/share/doc")]
    for path in chance.sample(documents, min(150, len(documents))):
        path.unlink()
        changes.removed.append(path.relative_to(root))
    paths = [str(path.relative_to(root)) for path in material]
    for name, count in (("access.log", 120_000), ("auth.log", 20_000)):
        log = root / "var/log" / name
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.writelines(log_lines(name, count, day, chance, paths))
        changes.written.append(log.relative_to(root))
    database(root / DATABASE, day, chance, paths, changes)
    return changes


def projects(root: Path, day: int, chance: random.Random, material: list[Path], changes: Changes) -> None:
    """Some hundred new small files a day, some of the earlier ones edited in place, some deleted."""
    home = root / "home/dev"
    earlier = sorted(path for path in home.rglob("*.txt")) if home.is_dir() else []
    for number in range(400):
        text = chance.choice(material).read_bytes()
        cut = chance.randrange(len(text) + 1)
        path = home / f"project{day}/mod{number // 20:02d}/file{number:03d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text[cut:] + b"\n# edited on day %d\n" % day + text[:cut])
        changes.written.append(path.relative_to(root))
    chance.shuffle(earlier)
    for path in earlier[:60]:
        with path.open("r+b") as file:
            file.seek(chance.randrange(path.stat().st_size))
            file.write(b"<<changed on day %d>>" % day)
        changes.written.append(path.relative_to(root))
    for path in earlier[60:120]:
        path.unlink()
        changes.removed.append(path.relative_to(root))


def log_lines(name: str, count: int, day: int, chance: random.Random, paths: list[str]) -> Iterator[str]:
    hosts = [
        f"10.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)}" for _ in range(HOSTS)
    ]
    now = 1_700_000_000.0 + day * DAY
    for _ in range(count):
        now += chance.expovariate(count / DAY)
        host = chance.choice(hosts)
        if name == "access.log":
            status, size = chance.choice((200, 200, 200, 304, 404)), chance.randrange(200, 90_000)
            yield f'{host} - - [{now:.0f}] "GET /{chance.choice(paths)}" {status} {size} "-" "Mozilla/5.0"\n'
        else:
            port, user = chance.randrange(1024, 65535), chance.randrange(9999)
            yield f"{now:.6f} vm sshd[{port // 2}]: Failed password for u{user} from {host} port {port}\n"


def database(path: Path, day: int, chance: random.Random, paths: list[str], changes: Changes) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(page(number, 0, paths) for number in range(PAGES)))
        changes.written.append(DATABASE)
        return
    changes.pages = sorted(chance.sample(range(PAGES), PAGES // 50))
    with path.open("r+b") as file:
        for number in changes.pages:
            file.seek(number * PAGE)
            file.write(page(number, day, paths))


def page(number: int, day: int, paths: list[str]) -> bytes:
    """A page as databases have them: random head, rows of real text and numbers, a checksum."""
    chance = random.Random(number * 1000 + day)
    rows = bytearray()
    while len(rows) < PAGE - 64:
        row = f"{chance.choice(paths)}\t{chance.randrange(10**9)}\t{chance.getrandbits(64):016x}\n"
        rows += row.encode(errors="surrogateescape")
    body = bytes(rows[: PAGE - 64])
    return b"%032x" % chance.getrandbits(128) + body + b"%032x" % zlib.crc32(body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("day", type=int)
    options = parser.parse_args()
    churn(options.root, options.day)


if __name__ == "__main__":
    main()
