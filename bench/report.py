"""The figures as Markdown tables: the goals first, then every step of every tool."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bench.goals import GOALS, MEMORY_LIMIT_MB, Better, Goal, Results, peak_memory
from bench.measure import Figures, number

OURS = "holdfast"
TITLES = {"vm": "virtual machine's disk", "db": "database dump", "mix": "compressed files"}


def shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def goal_row(goal: Goal, results: Results, peers: Sequence[str], full: Collection[str]) -> list[str]:
    ours = goal.value(results, OURS)
    theirs = {peer: goal.value(results, peer) for peer in peers}
    cells = [goal.title, shown(ours)]
    times = []
    for value in theirs.values():
        cells.append(shown(value))
        if ours is not None and value is not None:
            times.append(goal.times_better(ours, value))
            cells[-1] += f" ({shown(times[-1])}x)"
    limit_counts = goal.limit is not None and (goal.anywhere or goal.corpus in full)
    wanted, reached = [], []
    if limit_counts:
        sign = "at most" if goal.better is Better.LOWER else "at least"
        wanted.append(f"{sign} {goal.limit:g} {goal.unit}")
        reached.append(ours is not None and goal.within_limit(ours))
    if goal.factor is not None:
        wanted.append(against_peers(goal.factor))
        if times:
            reached.append(min(times) >= goal.factor)
    verdict = "" if ours is None or not reached else ("yes" if all(reached) else "**no**")
    return [*cells, goal.unit, ", ".join(wanted) or "-", verdict]


def against_peers(factor: float) -> str:
    if factor > 1:
        return f"{factor:g} times every peer"
    return "no peer better" if factor == 1 else f"within {1 / factor - 1:.0%} of every peer"


def goals_table(results: Results, peers: Sequence[str], full: Collection[str]) -> str:
    """`full` names the corpora for which goals in seconds and megabytes count."""
    lines = []
    head = ["step", OURS, *(f"{peer} (times)" for peer in peers), "unit", "goal", "reached"]
    for corpus, title in TITLES.items():
        rows = [goal_row(goal, results, peers, full) for goal in GOALS if goal.corpus == corpus]
        if any(cell != "-" for cells in rows for cell in cells[1 : len(peers) + 2]):
            lines += ["", f"**{title}**", "", row(head), row(["---"] * len(head)), *map(row, rows)]
    memory = peak_memory(results, OURS)
    lines += ["", f"Peak resident memory in any step, goal under {MEMORY_LIMIT_MB} MB: {shown(memory)} MB"]
    if memory is not None:
        lines[-1] += ", reached" if memory < MEMORY_LIMIT_MB else ", **not reached**"
    others = [f"{peer} {shown(peak_memory(results, peer))}" for peer in peers]
    if others:
        lines[-1] += f" ({', '.join(others)})"
    return "\n".join(lines)


FIELDS = ("wall", "cpu", "rss_mb", "repo_mb", "new_mb", "iops", "p50_ms", "p99_ms", "mb_s", "foreign", "load")


def details_table(results: Results) -> str:
    """Every figure, with how much CPU others took meanwhile (cores) and the load average before."""
    head = ["corpus", "step", "tool", *FIELDS, "all runs"]
    lines = [row(head), row(["---"] * len(head))]
    for tool, corpora in results.items():
        for corpus, steps in corpora.items():
            for step, figures in steps.items():
                lines.append(row([corpus, step, tool, *details(figures)]))
    return "\n".join(lines)


def details(figures: Figures) -> list[str]:
    if "error" in figures:
        return [f"error: {figures['error']}".replace("\n", " ").replace("|", "/")] + [""] * len(FIELDS)
    values = [number(figures, field, -1) for field in FIELDS]
    runs = figures.get("runs")
    every = " ".join(shown(value) for value in runs) if isinstance(runs, list) else ""
    return [*(shown(value) if value >= 0 else "" for value in values), every]
