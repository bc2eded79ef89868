"""The order of writes alone, without a lock: every interleaving of a backup with prunes, crashes included.

A model of `Writer.commit` and `prune.execute`, one step a store operation: a pack A that holds a chunk the
backup meets, and that no snapshot needs when it begins. `LOST` means a committed snapshot needs A and it is
in neither packs nor trash; `STRANDED`, that it is in the trash when all is over, where reading and the next
prune still find what is wrong. Not modelled: repacking, two backups, the two copies of a snapshot.

What it shows: order alone loses nothing, but for one step. `execute` ends by removing what is pending, as
what a crash left; without the exclusive lock that may be a running backup's claim. A store without locks
must keep it, or let it age.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

LOST, STRANDED = "lost", "stranded"


@dataclass(frozen=True)
class Rules:
    """The product's order, or a planted fault."""

    locks: bool = False
    removes_pending: bool = True
    writes_pending: bool = True
    looks_again_before_commit: bool = True
    looks_again_before_delete: bool = True
    has_trash: bool = True
    believes_old_listing: bool = False


@dataclass(frozen=True)
class State:
    """Where A is, what is written, and how far backup and prune are; None is dead or done."""

    a: str = "packs"
    pending: bool = False
    snapshot: bool = False
    relies: bool = False
    own: bool = False
    missing: bool = False
    writer: str | None = "list"
    prune: str | None = "plan"
    runs: int = 0


def needs_a(state: State) -> bool:
    """Whether a claim that anybody can see needs A."""
    return (state.snapshot or state.pending) and not state.own


def writer_steps(s: State, rules: Rules) -> Iterator[State]:
    if s.writer == "list":
        if rules.locks and s.prune in ("trash", "look", "delete", "pending"):
            return
        relies = s.a == "packs" or rules.believes_old_listing
        yield replace(s, relies=relies, own=not relies, writer="pending")
    elif s.writer == "pending":
        yield replace(s, pending=rules.writes_pending, writer="protect")
    elif s.writer == "protect":
        if not rules.looks_again_before_commit or s.own or s.a == "packs":
            yield replace(s, writer="commit")
        else:
            yield replace(s, writer="untrash")
    elif s.writer == "untrash":  # a step of its own: the trash may be emptied after the listing
        if s.a == "trash":
            yield replace(s, a="packs", writer="commit")
        elif s.a == "packs":
            yield replace(s, writer="commit")
        else:
            yield replace(s, writer=None)  # MissingChunk: nothing is committed
    elif s.writer == "commit":
        yield replace(s, snapshot=True, writer="finish")
    elif s.writer == "finish":
        yield replace(s, pending=False, writer=None)


def prune_steps(s: State, rules: Rules) -> Iterator[State]:
    if s.prune == "plan":  # a chunk that is only in the trash is missing: Refused
        nothing_to_do = needs_a(s) or s.a == "gone"
        yield replace(s, prune=None if nothing_to_do else "spare" if s.a == "packs" else "look")
    elif s.prune == "spare":
        if rules.locks and s.writer not in ("list", None):
            return
        yield replace(s, prune=None if needs_a(s) else "trash")
    elif s.prune == "trash":
        taken = "trash" if rules.has_trash else "gone"
        yield replace(s, a=taken if s.a == "packs" else s.a, prune="look")
    elif s.prune == "look":
        if rules.locks and s.writer not in ("list", None):
            return
        back = rules.looks_again_before_delete and needs_a(s) and s.a == "trash"
        yield replace(s, a="packs" if back else s.a, prune="pending" if back else "delete")
    elif s.prune == "delete":
        yield replace(s, a="gone" if s.a == "trash" else s.a, prune="pending")
    elif s.prune == "pending":
        again = "plan" if s.runs < 1 else None
        kept = s.pending and not rules.removes_pending
        yield replace(s, pending=kept, prune=again, runs=s.runs + 1)


def successors(s: State, rules: Rules) -> Iterator[State]:
    yield from writer_steps(s, rules)
    yield from prune_steps(s, rules)
    if s.writer is not None:
        yield replace(s, writer=None)
    if s.prune is not None:
        yield replace(s, prune="plan" if s.runs < 1 else None, runs=s.runs + 1)


def violations(rules: Rules) -> tuple[set[str], int]:
    """What can go wrong in any interleaving, and how many states there are."""
    found: set[str] = set()
    seen = {State()}
    border = [State()]
    while border:
        state = border.pop()
        after = [*successors(state, rules)]
        if state.snapshot and not state.own and state.a == "gone":
            found.add(LOST)
        if state.snapshot and not state.own and state.a == "trash" and not after:
            found.add(STRANDED)
        fresh = [s for s in after if s not in seen]
        seen.update(fresh)
        border += fresh
    return found, len(seen)


def test_with_the_lock_nothing_is_lost_or_stranded() -> None:
    found, states = violations(Rules(locks=True))
    assert found == set()
    assert states > 50


def test_without_the_lock_order_alone_loses_nothing_if_claims_are_left_alone() -> None:
    """A prune that dies between its move and its second look may leave A in the trash: to be brought back."""
    found, states = violations(Rules(removes_pending=False))
    assert found <= {STRANDED}
    assert states > 100


def test_removing_claims_is_the_one_step_that_needs_the_lock() -> None:
    assert LOST in violations(Rules())[0]


@pytest.mark.parametrize(
    "fault",
    [
        "writes_pending",
        "looks_again_before_commit",
        "looks_again_before_delete",
        "has_trash",
    ],
)
def test_without_the_lock_every_part_of_the_order_is_needed(fault: str) -> None:
    assert LOST in violations(replace(Rules(removes_pending=False), **{fault: False}))[0]


def test_without_a_listing_and_a_second_look_even_the_lock_does_not_help() -> None:
    rules = Rules(locks=True, believes_old_listing=True, looks_again_before_commit=False)
    assert LOST in violations(rules)[0]
