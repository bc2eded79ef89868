"""Which history a new backup continues, and what subjects of one name are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.types import SnapshotID
from holdfast.repo.snapshots.histories import Claim, History, HistoryChoice, NameTaken, find_history
from holdfast.repo.snapshots.snapshot import Origin, StoredSnapshot, Subject, SubjectKind
from holdfast.repo.snapshots.subject_changes import SubjectChange, SubjectChanges
from holdfast.repo.snapshots.subjects import Subjects, digits
from support.basics import NOW, make_snapshot

VM, DATABASE = SubjectKind.VM, SubjectKind.DATABASE


def stored(*subjects: Subject) -> list[StoredSnapshot]:
    """A snapshot of each, an hour apart."""
    return [
        StoredSnapshot(
            SnapshotID(f"{number:08x}".ljust(64, "0")), replace(make_snapshot(hours=number), subject=subject)
        )
        for number, subject in enumerate(subjects, 1)
    ]


def at(host: str, path: str, name: str = "disk") -> Subject:
    return Subject(VM, name, origin=Origin(host, place=path))


def shop(server: str, host: str = "db1", name: str = "shop") -> Subject:
    return Subject(DATABASE, name, engine="postgresql", origin=Origin(host, server, "database shop"))


def continued(there: Sequence[StoredSnapshot], claim: Claim, *changes: SubjectChange) -> History:
    known = SubjectChanges(changes)
    return find_history([known.apply(each) for each in there], known, claim)


def parent_of(there: Sequence[StoredSnapshot], claim: Claim) -> StoredSnapshot | None:
    return continued(there, claim).parent


def test_a_path_and_a_host_tell_disks_of_one_name_apart() -> None:
    a, b, other = at("hv1", "/a/disk.raw"), at("hv1", "/b/disk.raw"), at("hv2", "/a/disk.raw")
    there = stored(a, b, other)
    assert [parent_of(there, Claim(each)) for each in (a, b, other)] == there
    new = continued(there, Claim(at("hv1", "/c/disk.raw")))
    assert new.parent is None
    assert "this one is 'c/disk'" in new.note


def test_a_server_is_known_wherever_it_is_and_two_servers_are_two() -> None:
    there = stored(shop("11"), shop("22", "db2"))
    assert parent_of(there, Claim(shop("11", "db9"))) == there[0]
    assert "same identifier" in continued(there, Claim(shop("11", "db9"))).note
    assert parent_of(there, Claim(shop("22", "db2", name="renamed"))) == there[1]
    assert parent_of(there, Claim(shop("33"))) is None


def test_a_clone_with_a_history_of_its_own_keeps_it() -> None:
    clone = replace(shop("11", "test1"), history="c10e")
    there = stored(shop("11"), clone, shop("11"))
    assert parent_of(there, Claim(shop("11", "test1"))) == there[1]
    assert parent_of(there, Claim(shop("11"))) == there[2]


def test_a_given_name_tells_files_apart_and_not_their_path() -> None:
    first = Claim(at("hv1", "/2026-11-22/web01.qcow2", "web01"), named=True, movable=True)
    there = stored(first.by_name)
    second = replace(first, subject=at("hv1", "/2026-11-23/web01.qcow2", "web01"))
    assert parent_of(there, second) == there[0]
    elsewhere = replace(first, subject=at("hv2", "/2026-11-22/web01.qcow2", "web01"))
    with pytest.raises(NameTaken):
        parent_of(there, elsewhere)


def test_a_disk_that_gets_a_name_later_keeps_its_history() -> None:
    there = stored(at("hv1", "/x/disk.raw"))
    found = continued(there, Claim(at("hv1", "/x/disk.raw", "web01"), named=True, movable=True))
    assert found.parent == there[0]
    assert found.join == ("vm", Subject(VM, "web01", origin=Origin("hv1")).own_identity[1])
    assert found.subject.identity == there[0].snapshot.subject.identity


def test_a_name_that_is_taken_is_asked_about() -> None:
    there = stored(Subject(VM, "web01", uuid="u1"))
    claim = Claim(at("hv1", "/x/web01.qcow2", "web01"), named=True, movable=True)
    with pytest.raises(NameTaken, match="'web01' is the name of a vm"):
        continued(there, claim)
    same = continued(there, replace(claim, choice=HistoryChoice.SAME))
    assert same.parent == there[0]
    assert same.subject.identity == there[0].snapshot.subject.identity
    new = continued(there, replace(claim, choice=HistoryChoice.NEW))
    assert new.parent is None
    again = stored(*(each.snapshot.subject for each in there), new.subject)
    assert parent_of(again, claim) == again[1]


def test_new_histories_of_one_source_are_never_the_same() -> None:
    claim = Claim(at("hv1", "/x/a.raw"), choice=HistoryChoice.NEW)
    assert continued([], claim).subject.identity != continued([], claim).subject.identity


def test_same_is_refused_where_several_have_the_name() -> None:
    there = stored(at("a", "/1/disk.raw"), at("a", "/2/disk.raw"))
    with pytest.raises(NameTaken, match="2 subjects"):
        continued(there, Claim(at("a", "/3/disk.raw"), choice=HistoryChoice.SAME))


def test_what_was_joined_goes_on_as_one_and_can_be_split_again() -> None:
    one, two = at("hv1", "/a/disk.raw"), at("hv1", "/b/disk.raw")
    there = stored(one, two)
    joined = SubjectChange(NOW, joined={two.own_identity: one.own_identity[1]})
    found = continued(there, Claim(two), joined)
    assert found.parent is not None
    assert found.parent.id == there[1].id
    known = SubjectChanges([joined])
    assert {known.apply(each).snapshot.subject.identity for each in there} == {one.identity}
    assert known.sources_of(known.resolve(one)) == [two.own_identity]
    undone = SubjectChange(NOW + timedelta(1), joined={two.own_identity: two.own_identity[1]})
    known = SubjectChanges([undone, joined])
    assert [known.apply(each) for each in there] == there
    assert known.sources_of(one) == []


def test_a_rename_stays_whatever_later_backups_are_called() -> None:
    one = at("hv1", "/a/disk.raw")
    known = SubjectChanges([SubjectChange(NOW, names={one.identity: "web01"})])
    names = [known.apply(each).snapshot.subject.name for each in stored(one, replace(one, name="other"))]
    assert names == ["web01", "web01"]


def test_snapshots_that_were_split_off_have_a_history_of_their_own() -> None:
    one = at("hv1", "/a/disk.raw")
    there = stored(one, one, one)
    known = SubjectChanges([SubjectChange(NOW, histories={there[1].id: "ab", there[2].id: "ab"})])
    identities = [known.apply(each).snapshot.subject.identity for each in there]
    assert identities[0] != identities[1] == identities[2]


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 2), max_size=12))
def test_joins_in_a_circle_end_and_all_who_are_joined_agree(pairs: list[tuple[int, int]]) -> None:
    subjects = [at("h", f"/{n}/disk.raw") for n in range(6)]
    changes = [
        SubjectChange(NOW + timedelta(n), joined={subjects[a].own_identity: subjects[b].own_identity[1]})
        for n, (a, b) in enumerate(pairs)
    ]
    known = SubjectChanges(changes)
    for subject in subjects:
        assert known.resolve(subject).identity in {each.identity for each in subjects}
        assert known.resolve(known.resolve(subject)) == known.resolve(subject)


def test_what_tells_subjects_apart_is_the_shortest_that_does() -> None:
    alone = Subject(VM, "web01", uuid="u1", origin=Origin("hv1"))
    a, b = at("hv1", "/a/disk.raw"), at("hv1", "/b/disk.raw")
    postgres, maria = shop("11"), Subject(DATABASE, "shop", engine="mariadb", origin=Origin("db1"))
    twins = [Subject(VM, "twin", uuid=uuid, origin=Origin("hv1")) for uuid in ("x", "y")]
    there = Subjects(stored(alone, a, b, postgres, maria, *twins))
    assert [there.label(each) for each in (alone, a, b, postgres, maria)] == [
        "web01",
        "a/disk",
        "b/disk",
        "postgresql/shop",
        "mariadb/shop",
    ]
    assert [there.label(each) for each in twins] == [f"{digits(each)}/twin" for each in twins]
    for each in (alone, a, b, postgres, maria, *twins):
        assert there.named(there.label(each)) == [each]
    assert there.named("vm/web01") == there.named("hv1/vm/web01") == [alone]
    assert there.named("database/web01") == there.named("db1/nobody") == []
