"""Command line of the benchmark: `python -m bench`, or `./dev bench`."""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from bench import databases, report, steps, vms
from bench.corpus import FOLDERS, Corpus, find_corpora, staged
from bench.measure import Figures, allocated
from bench.tools import PEERS, Tool, make_tool, version_text

HERE = Path(__file__).resolve().parent
HINTS = {"restic": "apt-get install restic", "borg": "pip install borgbackup pyfuse3"}


def some_of(allowed: Iterable[str]) -> Callable[[str], list[str]]:
    """An option's type: words with commas between, each one of `allowed`."""
    known = list(allowed)

    def words(text: str) -> list[str]:
        chosen = [word for word in text.split(",") if word]
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {','.join(known)}")
        return chosen

    return words


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="./dev bench",
        description="Measures Holdfast beside restic and borg over the same data, in one run.",
        epilog="DIR holds vm-days/day1.raw ..., db-days/day1.sql ..., fresh-mix/mix.bin; what is not there "
        "is left out. Over the full corpora with all peers this takes half an hour. "
        "`./dev bench vms` measures formats, views and guests, "
        "`./dev bench databases` dumps, clusters and logs.",
    )
    made.add_argument("--corpora", type=Path, metavar="DIR", help="data to back up; made when not given")
    made.add_argument(
        "--size", choices=["small", "full"], default="small", help="of what is made; full needs root"
    )
    made.add_argument("--kinds", default=list(FOLDERS), type=some_of(FOLDERS), help="of vm,db,mix")
    made.add_argument(
        "--peers", default=list(PEERS), type=some_of(PEERS), help=f"of {','.join(PEERS)}; '' for none"
    )
    made.add_argument("--without-holdfast", action="store_true", help="only the peers")
    made.add_argument(
        "--against", type=Path, metavar="FILE", help="take what is not measured now from this result"
    )
    made.add_argument(
        "--steps", default=list(steps.STEPS), type=some_of(steps.STEPS), help=f"of {','.join(steps.STEPS)}"
    )
    made.add_argument("--repeat", type=int, default=3, help="runs of the short steps; the median counts")
    made.add_argument(
        "--bin", action="append", default=[], metavar="TOOL=PATH", help="another build of a tool"
    )
    made.add_argument("--work", type=Path, metavar="DIR", help="scratch; default: holdfast-bench in TMPDIR")
    made.add_argument("--out", type=Path, metavar="FILE", help="results as JSON; default: WORK/results.json")
    made.add_argument("--table", type=Path, metavar="FILE", help="only print the tables of an earlier result")
    return made


class Log:
    """Writes every figure to the result file as soon as it is known: a killed run keeps what it measured."""

    def __init__(self, path: Path, results: dict[str, dict[str, dict[str, Figures]]]) -> None:
        self.path = path
        self.results = results
        self.about: dict[str, object] = {}

    def keep(self, tool: str, corpus: str, step: str, figures: Figures) -> None:
        self.results.setdefault(tool, {}).setdefault(corpus, {})[step] = figures
        say(f"{tool} {corpus} {step}: " + " ".join(f"{key}={value}" for key, value in figures.items()))
        self.save()

    def save(self) -> None:
        text = json.dumps({**self.about, "results": self.results}, indent=1)
        new = self.path.with_suffix(".new")
        new.write_text(text + "\n")
        new.replace(self.path)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def chosen_tools(options: argparse.Namespace) -> list[Tool]:
    """The chosen tools that are installed; prints which are missing."""
    binaries = dict(pair.split("=", 1) for pair in options.bin)
    names = [*([] if options.without_holdfast else [report.OURS]), *options.peers]
    found = []
    for name in names:
        tool = make_tool(name, binaries)
        if shutil.which(tool.binary):
            say(f"{name}: {version_text(tool)}")
            found.append(tool)
        else:
            hint = HINTS.get(name.split("-")[0], "./dev setup")
            say(f"{name}: {tool.binary} is not installed, left out ({hint}, or --bin {name}=PATH)")
    return found


def make_corpora(options: argparse.Namespace, work: Path) -> Path:
    folder = work / f"corpora-{options.size}"
    if options.size == "full":
        command = ["bash", str(HERE / "corpora.sh"), str(folder), *options.kinds]
    else:
        command = [sys.executable, "-m", "bench.smallcorpora", str(folder), *options.kinds]
    say(f"corpora: {' '.join(command)}")
    subprocess.run(command, cwd=HERE.parent, check=True)
    return folder


def machine() -> dict[str, object]:
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": model[0].split(": ", 1)[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1_000_000,
        "kernel": platform.release(),
        "root": os.geteuid() == 0,
    }


def print_tables(document: dict[str, object]) -> None:
    results = document["results"]
    assert isinstance(results, dict)
    peers = [tool for tool in results if tool != report.OURS]
    full = document.get("full", [])
    assert isinstance(full, list)
    for name, value in document.items():
        if name != "results":
            print(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")
    print(report.goals_table(results, peers, full))
    print("\n" + report.details_table(results))


def main() -> int:
    if sys.argv[1:2] == ["vms"]:
        return vms.main(sys.argv[2:])
    if sys.argv[1:2] == ["databases"]:
        return databases.main(sys.argv[2:])
    options = parser().parse_args()
    if options.table:
        print_tables(json.loads(options.table.read_text()))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that mounts are taken down
    work = (options.work or Path(tempfile.gettempdir()) / "holdfast-bench").resolve()
    work.mkdir(parents=True, exist_ok=True)
    tools = chosen_tools(options)
    if not tools:
        say("nothing to measure")
        return 1
    folder = options.corpora.resolve() if options.corpora else make_corpora(options, work)
    corpora = find_corpora(folder, options.kinds)
    if not corpora:
        say(f"{folder} holds none of {', '.join(FOLDERS.values())}")
        return 1
    earlier = json.loads(options.against.read_text()) if options.against else {"results": {}}
    log = Log(options.out or work / "results.json", earlier["results"])
    log.about = {
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": machine(),
        "tools": earlier.get("tools", {}) | {tool.name: version_text(tool) for tool in tools},
        "corpora": {corpus.kind: describe(corpus) for corpus in corpora},
        "full": [corpus.kind for corpus in corpora if corpus.is_full],
        "repeat": options.repeat,
    }
    if options.against:
        log.about["earlier"] = f"{', '.join(earlier['results'])}: measured {earlier.get('when')}"
    settings = steps.Settings(work, frozenset(options.steps), options.repeat)
    for corpus in corpora:
        with staged(corpus, work / "source") as sources:
            for tool in tools:
                steps.measure(tool, sources, settings, functools.partial(log.keep, tool.name, corpus.kind))
    log.save()
    print_tables({**log.about, "results": log.results})
    say(f"figures: {log.path}")
    return 0


def describe(corpus: Corpus) -> list[str]:
    return [
        f"{day.name}: {day.stat().st_size / 1e6:,.0f} MB, {allocated(day) / 1e6:,.0f} MB allocated"
        for day in corpus.days
    ]


if __name__ == "__main__":
    sys.exit(main())
