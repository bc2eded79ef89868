"""Checks the small files that have two copies: configs, key slots, keyrings, snapshots, proofs, records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from holdfast.base.errors import Damaged, Locked, OtherKey, StoreError, Unsupported
from holdfast.repo.core.keyring import parse_keyring
from holdfast.repo.core.keyslots import parse_slot
from holdfast.repo.core.mirrored import copies, mirrored_names, read_small
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.subject_records import open_subject_change
from holdfast.repo.records.forgotten import open_forgotten
from holdfast.repo.records.proofs import open_proof, unfinished_proofs
from holdfast.repo.store.interface import FileKind, LockMode
from holdfast.repo.upkeep.findings import Finding, Weight

_MEND = "the other copy is good, nothing is lost; the next prune writes this one again"
_OTHER_COPY = "if the other copy is good, nothing is lost; copy it over this one"


def confirmed(repository: Repository, findings: Sequence[Finding]) -> list[Finding]:
    """Leave out findings of missing second copies that somebody was just writing, moving or deleting.

    A copy that is still missing under the exclusive lock was left so. When the lock is taken somebody is at
    work, and the next check looks again; where there is no lock, a second look has to do.
    """
    if not any(finding.weight is Weight.MEND for finding in findings):
        return list(findings)
    try:
        with repository.store.lock(LockMode.EXCLUSIVE, 0.0):
            still = _half(repository)
    except Locked:
        still = set()
    except StoreError:
        still = _half(repository)
    return [each for each in findings if each.weight is not Weight.MEND or each.where in still]


def _half(repository: Repository) -> set[str]:
    return {finding.where for finding in check_pairs(repository) if finding.weight is Weight.MEND}


def check_pairs(repository: Repository) -> Iterator[Finding]:
    """Problems of both copies of every such file, as they are at this moment: see `confirmed`."""
    store = repository.store
    yield from _check_kind(
        repository, FileKind.CONFIG, lambda d, where, _: repository.verify_config(d, where)
    )
    yield from _check_kind(repository, FileKind.KEY, parse_slot)
    yield from _check_kind(repository, FileKind.KEYRING, parse_keyring)
    # A pending snapshot may have one copy, and its committed one too: a backup is writing it or was killed.
    pending = mirrored_names(store, FileKind.PENDING).keys()
    for kind in (FileKind.SNAPSHOT, FileKind.PENDING):
        yield from _check_kind(repository, kind, repository.parse_snapshot, unfinished=pending)
    yield from _check_kind(
        repository,
        FileKind.PROOF,
        lambda data, where, name: open_proof(repository, data, where, name),
        unfinished=unfinished_proofs(repository),
    )
    yield from _check_kind(
        repository,
        FileKind.FORGOTTEN,
        lambda data, where, name: open_forgotten(repository, data, where, name),
        unfinished={name for name, n in mirrored_names(store, FileKind.FORGOTTEN).items() if n < 2},
    )
    yield from _check_kind(
        repository,
        FileKind.SUBJECTS,
        lambda data, where, name: open_subject_change(repository.keys, data, where, name),
    )


def _check_kind(
    repository: Repository,
    kind: FileKind,
    parse: Callable[[bytes, str, str], object],
    *,
    unfinished: Collection[str] = (),
) -> Iterator[Finding]:
    """`parse(data, where, name)` raises for a bad copy. Of files in `unfinished` one copy may be missing.

    Of a pair with a bad copy that is what counts, not that the other one is missing.
    """
    store = repository.store
    for name in sorted(mirrored_names(store, kind)):
        missing: list[str] = []
        bad: list[Finding] = []
        foreign = False
        for copy in copies(name):
            where = store.describe(kind, copy)
            try:
                parse(read_small(store, kind, copy), where, name)
            except FileNotFoundError:
                missing.append(where)
            except (Damaged, Unsupported) as error:
                if isinstance(error, OtherKey) and kind is not FileKind.CONFIG:
                    foreign = True  # its content is that of its name, which says nothing of a config
                    continue
                bad.append(Finding(where, str(error), advice=_OTHER_COPY))
        yield from bad
        if foreign and not bad:
            problem = "is whole, and another repository's; nothing reads it"
            yield Finding(store.describe(kind, name), problem, weight=Weight.NOTE)
            continue
        if len(missing) == 1 and not bad and name not in unfinished:  # two: removed since it was listed
            problem = "is missing; its other copy is there"
            yield Finding(missing[0], problem, advice=_MEND, weight=Weight.MEND)
