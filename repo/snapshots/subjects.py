"""Subjects of a repository: what they are called where several have one name. No I/O.

A name is a label: two servers may have a database `shop`. A subject whose name others have too is called
`db1/shop`, by what sets it apart: its host, the folder it was in, its engine or kind, else digits of its
identity. Any of these may stand before a name, also where they are not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import combinations
from typing import Final

from holdfast.repo.snapshots.snapshot import Identity, StoredSnapshot, Subject, SubjectKind

_DIGITS: Final = 6
"""Of an identity's digest, where nothing else tells two subjects apart."""


class Subjects:
    """The subjects of some snapshots, each as its newest snapshot describes it. Log archives are not among
    them: their files are had by their own names."""

    def __init__(self, snapshots: Iterable[StoredSnapshot]) -> None:
        """`snapshots` are oldest first."""
        self._newest: dict[Identity, StoredSnapshot] = {
            stored.snapshot.subject.identity: stored
            for stored in snapshots
            if stored.snapshot.subject.kind is not SubjectKind.LOGS
        }
        self._by_name: dict[str, list[Subject]] = {}
        for stored in self._newest.values():
            self._by_name.setdefault(stored.snapshot.subject.name, []).append(stored.snapshot.subject)

    @property
    def newest(self) -> Mapping[Identity, StoredSnapshot]:
        """The newest snapshot of each subject."""
        return self._newest

    def named(self, text: str) -> list[Subject]:
        """The subjects that `NAME` or `QUALIFIER/NAME` may mean."""
        *wanted, name = text.split("/")
        return [
            subject for subject in self._by_name.get(name, ()) if all(_has(subject, word) for word in wanted)
        ]

    def label(self, subject: Subject) -> str:
        """The shortest text that selects this subject alone: its name where that is unique."""
        others = [
            other for other in self._by_name.get(subject.name, ()) if other.identity != subject.identity
        ]
        if not others:
            return subject.name
        words = qualifiers(subject)
        for count in (1, 2):
            for chosen in combinations(words, count):
                if not any(all(_has(other, word) for word in chosen) for other in others):
                    return "/".join((*chosen, subject.name))
        return f"{digits(subject)}/{subject.name}"


def qualifiers(subject: Subject) -> Sequence[str]:
    """Words that may precede a subject's name in its label, most telling first."""
    folder = subject.origin.place.rpartition("/")[0].rpartition("/")[2] if "/" in subject.origin.place else ""
    words = (subject.origin.host, folder, subject.engine, subject.kind.value)
    return [word for word in dict.fromkeys(words) if word and not set(word) & set("/:@")]


def digits(subject: Subject) -> str:
    """Hex digits of a subject's identity: as its directory in the mount has them behind a name of several."""
    return blake2b("/".join(subject.identity).encode(errors="surrogatepass"), digest_size=3).hexdigest()


def _has(subject: Subject, word: str) -> bool:
    return word in qualifiers(subject) or word == digits(subject)
