"""check, forget, undelete, prune, key: looking after a repository."""

from __future__ import annotations

import json
import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.base.render import size
from holdfast.repo.store.interface import LockMode
from holdfast.repo.store.local import LocalStore
from support.cli import PASSWORD, Place, files, flip_byte


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


def make_days(place: Place, days: int, *, name: str = "web01") -> list[str]:
    """One snapshot a day, each of another disk; returns their IDs."""
    ids = []
    for day in range(1, days + 1):
        disk = place.disk(f"{name}.raw", seed=day)
        when = f"2026-11-{day:02}T02:00:00"
        ids.append(place.json("backup", disk, "--time", when, "--tag", f"d{day}")["id"])
    return ids


def ids(place: Place) -> list[str]:
    return [snapshot["id"] for snapshot in place.json("snapshots")["snapshots"]]


def test_prune_frees_dead_packs_beside_a_damaged_one_and_says_what_finds_the_damage(place: Place) -> None:
    whole = place.write("a", random.Random(1).randbytes(3_000_000))
    half = place.write("half", whole.read_bytes()[:1_500_000])
    place.ok("backup", whole, "--kind", "files", "--name", "a")
    (pack,) = files(place.repository, "packs")
    place.ok("backup", half, "--kind", "files", "--name", "half")
    place.ok(
        "backup", place.write("c", random.Random(2).randbytes(3_000_000)), "--kind", "files", "--name", "c"
    )
    place.ok("forget", "a", "c", "--allow-empty")
    flip_byte(pack, 400_000)
    before = sum(path.stat().st_size for path in files(place.repository, "packs"))
    result = place.run("prune", "--quarantine", "none")
    assert result.exit_code == 21, result.stderr
    assert pack.name in result.stdout
    assert "`holdfast check --read-data`" in result.stdout
    assert pack.exists()
    assert before - sum(path.stat().st_size for path in files(place.repository, "packs")) > 2_900_000
    assert place.run("check", "--read-data").exit_code == 21


# ---- check


def test_a_good_repository_has_no_findings_at_any_depth(place: Place) -> None:
    make_days(place, 2)
    for options, depth in {
        (): "reachable",
        ("--structure",): "structure",
        ("--read-data",): "read_data",
        ("--read-data-subset", "1/2"): "read_data",
        ("--read-data-subset", "50%"): "read_data",
        ("--read-data-subset", "1M"): "read_data",
    }.items():
        assert "no damage (2 snapshots" in place.ok("check", *options)
        summary = place.json("verify", *options)
        assert summary["depth"] == depth
        assert summary["findings"] == 0
    assert summary["bytes_read"] > 0


def test_a_flipped_byte_is_found_and_what_it_affects_is_named(place: Place) -> None:
    place.ok("backup", place.disk(), "--time", "2026-11-22T02:00:00")
    (pack,) = files(place.repository, "packs")
    flip_byte(pack, 300)
    place.ok("check", "--structure")
    result = place.run("check", "--read-data")
    assert result.exit_code == 21
    assert str(pack) in result.stdout
    assert "web01@2026-11-22_02-00-00:disks/web01.raw" in result.stdout
    assert "damage: " in result.stdout
    lines = [json.loads(line) for line in place.run("check", "--read-data", "--json").stdout.splitlines()]
    findings = [line for line in lines if line["message_type"] == "error"]
    assert findings
    assert set(findings[0]) == {"message_type", "where", "problem", "affects", "advice", "weight"}
    assert lines[-1]["message_type"] == "summary"
    assert lines[-1]["findings"] == len(findings)


def test_a_missing_pack_is_found_without_reading_data(place: Place) -> None:
    place.ok("backup", place.disk())
    for pack in files(place.repository, "packs"):
        pack.unlink()
    result = place.run("check")
    assert result.exit_code == 21
    assert "in no pack" in result.stdout


def test_quiet_check_speaks_only_of_damage(place: Place) -> None:
    place.ok("backup", place.disk())
    assert place.ok("-q", "check") == ""
    flip_byte(files(place.repository, "snapshots")[0], 100)
    result = place.run("-q", "check")
    assert result.exit_code == 21
    assert "damage: 1 finding" in result.stdout


@pytest.mark.parametrize(
    "options", [["--structure", "--read-data"], ["--read-data-subset", "0/3"], ["--read-data-subset", "x"]]
)
def test_checks_that_make_no_sense_are_refused(options: list[str], place: Place) -> None:
    assert place.run("check", *options).exit_code == 2


def test_a_pack_that_cannot_be_read_costs_only_what_is_in_it(place: Place) -> None:
    place.ok("backup", place.disk())
    (bad,) = files(place.repository, "packs")
    place.ok("backup", place.dump())
    flip_byte(bad, 20)
    for path in files(place.root, "cache"):
        path.unlink()
    result = place.run("restore", "shop:dump.sql", "--target", place.root / "back")
    assert result.exit_code == 0
    assert result.stderr.count(bad.name) == 1
    assert "what else is in the repository can be used" in result.stderr
    assert (place.root / "back").read_bytes() == (place.root / "shop.sql").read_bytes()
    assert place.run("restore", "web01", "--target", place.root / "out").exit_code == 21
    checked = place.run("check")
    assert checked.exit_code == 21
    assert "index" not in checked.stderr


def test_what_was_found_damaged_stays_known_and_is_healed_by_the_next_backup(
    place: Place,
) -> None:
    """Also by another user, who has another cache."""
    source = place.write("big", random.Random(1).randbytes(3_000_000))
    place.ok("backup", source, "--kind", "files", "--name", "big")
    place.ok("backup", place.write("c", b"small"), "--kind", "files", "--name", "small")
    pack = max(files(place.repository, "packs"), key=lambda path: path.stat().st_size)
    flip_byte(pack, 1_500_000)
    assert place.run("check", "--read-data").exit_code == 21
    other = Place(place.root, {"HOLDFAST_CACHE_DIR": str(place.root / "other")})
    for each in (place, other):
        result = each.run("check")
        assert result.exit_code == 21
        assert "bytes cannot be read: they lie between byte" in result.stdout
        assert "not whole: big@" in result.stdout
        assert "the other 1 snapshot can be read whole" in result.stdout
    place.ok("check", "--accept-missing")
    other.ok("backup", source, "--kind", "files", "--name", "big")
    place.ok("restore", "big", "--target", place.root / "out")
    assert (place.root / "out" / "big").read_bytes() == source.read_bytes()
    assert place.run("check").exit_code == 3
    place.ok("prune", "--quarantine", "none")
    place.ok("check", "--read-data")
    assert not pack.exists()


# ---- forget and undelete


def test_a_policy_says_why_each_is_kept(place: Place) -> None:
    made = make_days(place, 4)
    shown = place.ok("forget", "--keep-last", "2", "--keep-tag", "d1", "--dry-run")
    assert "last 1 of 2" in shown
    assert "tag d1" in shown
    assert "1 snapshot would be forgotten, 3 kept" in shown
    assert ids(place) == made
    summary = place.json("forget", "-l", "2", "--keep-tag", "d1")
    assert [entry["id"] for entry in summary["forget"]] == [made[1]]
    assert {entry["id"]: entry["reasons"] for entry in summary["keep"]} == {
        made[3]: ["last 1 of 2"],
        made[2]: ["last 2 of 2"],
        made[0]: ["tag d1"],
    }
    assert ids(place) == [made[0], made[2], made[3]]


LETTERS = {"-H": "hourly", "-d": "daily", "-w": "weekly", "-m": "monthly", "-y": "yearly"}


def test_every_rule_has_its_letter(place: Place) -> None:
    make_days(place, 2)
    for letter, rule in LETTERS.items():
        assert f"{rule} 1 of 3" in place.ok("forget", letter, "3", "-n")
        assert place.ok("forget", letter, "3", "-n") == place.ok("forget", f"--keep-{rule}", "3", "-n")
    assert "2 kept" in place.ok("forget", "--keep-within", "1d", "-n")
    assert "1 kept" in place.ok("forget", "--keep-within", "23h59min", "-n")


def test_a_policy_counts_for_each_subject_and_filters_choose(place: Place) -> None:
    make_days(place, 2)
    make_days(place, 2, name="db01")
    place.ok("forget", "--keep-last", "1", "--name", "db01")
    assert len(ids(place)) == 3
    place.ok("forget", "--keep-last", "1")
    assert {s["name"] for s in place.json("snapshots")["snapshots"]} == {"db01", "web01"}
    assert len(ids(place)) == 2


def test_the_last_snapshot_of_a_subject_is_not_lost_to_a_policy(place: Place) -> None:
    made = make_days(place, 2)
    result = place.run("forget", "--keep-tag", "none-has-it")
    assert result.exit_code == 1
    assert "--allow-empty" in result.stderr
    assert ids(place) == made
    place.ok("forget", "--keep-tag", "none-has-it", "--allow-empty")
    assert ids(place) == []


def test_named_snapshots_are_forgotten_and_come_back(place: Place) -> None:
    first, second = make_days(place, 2)
    place.ok("forget", first[:8], "web01@2026-11-02")
    assert ids(place) == []
    assert "2026-11-01_02-00-00" in place.ok("undelete")
    assert [entry["id"] for entry in place.json("undelete")["trash"]] == [first, second]
    assert "is back" in place.ok("undelete", first[:8])
    assert ids(place) == [first]
    assert place.json("undelete", "web01")["undeleted"][0]["id"] == second
    assert place.ok("undelete") == "the trash is empty\n"
    place.ok("check", "--read-data")


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["forget"], 2, "either"),
        (["forget", "web01", "--keep-last", "1"], 2, "either"),
        (["forget", "--keep-last", "-1"], 2, "-1"),
        (["forget", "--keep-within", "30"], 2, "written like"),
        (["forget", "--keep-within", "99999999999y"], 2, "longer"),
        (["forget", "web01:disks"], 2, "whole"),
        (["forget", "nobody"], 1, "no snapshot"),
        (["undelete", "web01"], 1, "trash is empty"),
    ],
)
def test_what_cannot_be_forgotten_is_explained(args: list[str], code: int, says: str, place: Place) -> None:
    made = make_days(place, 1)
    result = place.run(*args)
    assert result.exit_code == code
    assert says in result.stderr
    assert ids(place) == made


# ---- prune


def stored(place: Place) -> int:
    return sum(path.stat().st_size for path in files(place.repository, "packs"))


def test_prune_moves_to_the_trash_and_deletes_after_the_quarantine(place: Place) -> None:
    make_days(place, 2)
    before = stored(place)
    place.ok("forget", "web01@2026-11-01")
    plan = place.json("prune", "--dry-run")
    assert plan["dry_run"] is True
    assert plan["freed"] > 0
    packs = plan["remove"]["packs"] + plan["repack"]["packs"]
    said = place.ok("prune", "--dry-run")
    assert f"{packs} pack" in said
    assert "go to the trash and are freed after 7 days" in said
    assert f"{size(plan['freed'])} would be freed" in place.ok("prune", "--dry-run", "--quarantine", "none")
    assert stored(place) == before
    shown = place.run("prune")
    assert "moved to the trash, freed after 7 days" in shown.stdout
    assert "--quarantine none" in shown.stderr
    assert stored(place) < before
    assert place.json("info")["trash"] > 0
    place.ok("check", "--read-data")
    summary = place.json("prune", "--quarantine", "none")
    assert summary["deleted"]["packs"] >= 1
    assert place.json("info")["trash"] == 0
    place.ok("check", "--read-data")


def test_what_a_prune_says_it_freed_is_what_the_packs_are_smaller_by(place: Place) -> None:
    make_days(place, 2)
    place.ok("backup", place.disk("web01.raw", seed=9), "--tag", "keep")
    before = stored(place)
    place.ok("forget", "web01@2026-11-01")
    said = place.ok("prune", "--max-unused", "0", "--quarantine", "none")
    assert f"{size(before - stored(place))} freed: " in said


def test_what_prune_put_in_the_trash_can_still_come_back(place: Place) -> None:
    first, _ = make_days(place, 2)
    place.ok("forget", first)
    place.ok("prune", "--max-unused", "0")
    place.ok("undelete", first[:8])
    place.ok("check", "--read-data")


def test_forget_can_prune_at_once(place: Place) -> None:
    make_days(place, 2)
    before = stored(place)
    place.ok("forget", "--keep-last", "1", "--prune", "--dry-run")
    assert stored(place) == before
    lines = place.ok("forget", "--keep-last", "1", "--prune", "--json").splitlines()
    actions = [json.loads(line).get("action") for line in lines if '"summary"' in line]
    assert actions == ["forget", "prune"]
    assert stored(place) < before


@pytest.mark.parametrize("rule", ["last", "hourly", "daily", "weekly", "monthly", "yearly", "within", "tag"])
@pytest.mark.parametrize("verb", ["prune", "gc", "compact"])
def test_prune_with_a_keep_rule_points_at_forget(verb: str, rule: str, place: Place) -> None:
    made = make_days(place, 1)
    result = place.run(verb, f"--keep-{rule}", "3")
    assert result.exit_code == 2
    assert f"holdfast forget --keep-{rule}" in result.stderr
    assert ids(place) == made


@pytest.mark.parametrize(
    "options", [["--max-unused", "x"], ["--max-unused", "101"], ["--quarantine", "soon"]]
)
def test_prune_options_are_checked(options: list[str], place: Place) -> None:
    assert place.run("prune", *options).exit_code == 2


def test_prune_refuses_when_data_is_missing(place: Place) -> None:
    make_days(place, 2)
    files(place.repository, "packs")[0].unlink()
    assert "are missing" in place.run("prune", "--dry-run").stderr
    result = place.run("prune")
    assert result.exit_code == 1
    assert "holdfast check" in result.stderr


def test_a_running_backup_makes_prune_end_with_code_11(place: Place) -> None:
    with closing(LocalStore.open(place.repository)) as store, store.lock(LockMode.SHARED, 0):
        result = place.run("prune", "--lock-timeout", "0")
        assert result.exit_code == 11
        assert "locked" in result.stderr
        assert place.run("snapshots").exit_code == 0
    place.ok("prune")


def test_a_sweeping_prune_makes_backup_end_with_code_11(place: Place) -> None:
    disk = place.disk()
    with closing(LocalStore.open(place.repository)) as store, store.lock(LockMode.EXCLUSIVE, 0):
        result = place.run("backup", disk, "--lock-timeout", "0")
        assert result.exit_code == 11
        assert "a prune is running" in result.stderr
    place.ok("backup", disk)


# ---- key


def keys(place: Place) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = place.json("key", "list")["keys"]
    return listed


def test_keys_are_listed_without_the_password(place: Place) -> None:
    result = place.run("key", "list", HOLDFAST_PASSWORD=None)
    assert result.exit_code == 0
    assert "passphrase" in result.stdout


def test_a_second_password_opens_and_can_be_removed(place: Place) -> None:
    file = place.write("new", "second\n")
    slot = place.json("key", "add", "--label", "office", "--new-password-file", file)
    assert [key["label"] for key in keys(place)] == ["", "office"]
    assert place.run("snapshots", HOLDFAST_PASSWORD="second").exit_code == 0
    assert "office" in place.ok("key", "remove", slot["id"][:8])
    assert place.run("snapshots", HOLDFAST_PASSWORD="second").exit_code == 12
    assert place.run("snapshots").exit_code == 0


def test_a_recovery_key_opens_but_is_not_changed(place: Place) -> None:
    key = place.json("key", "add", "--recovery")["recovery_key"]
    assert place.run("snapshots", HOLDFAST_PASSWORD=key.lower()).exit_code == 0
    misspelt = key[:-1] + ("A" if key[-1] != "A" else "B")
    assert place.run("snapshots", HOLDFAST_PASSWORD=misspelt).exit_code == 12
    file = str(place.write("new", "next\n"))
    result = place.run("key", "passwd", "--new-password-file", file, HOLDFAST_PASSWORD=key)
    assert result.exit_code == 1
    assert "holdfast key add" in result.stderr
    assert place.run("key", "add", "--new-password-file", file, HOLDFAST_PASSWORD=key).exit_code == 0
    assert place.run("key", "add", "--recovery", "--new-password-file", file).exit_code == 2
    assert "recovery" in place.ok("key", "list")
    assert key not in place.ok("key", "list")


def test_passwd_replaces_the_password_in_use(place: Place) -> None:
    file = place.write("new", "changed\n")
    assert "password changed" in place.ok("key", "passwd", "--new-password-file", file, "--label", "me")
    assert place.run("snapshots").exit_code == 12
    assert place.run("snapshots", HOLDFAST_PASSWORD="changed").exit_code == 0
    assert [key["label"] for key in keys(place)] == ["me"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["remove", "ffff"], 1, "no key slot"),
        (["remove", "{only}"], 1, "only key slot"),
        (["add", "--new-password-file", "/does/not/exist"], 2, "No such file"),
    ],
)
def test_keys_are_not_lost_by_accident(args: list[str], code: int, says: str, place: Place) -> None:
    words = [arg.format(only=keys(place)[0]["id"][:8]) for arg in args]
    result = place.run("key", *words)
    assert result.exit_code == code
    assert says in result.stderr
    assert place.run("snapshots", HOLDFAST_PASSWORD=PASSWORD).exit_code == 0


def test_a_damaged_key_slot_is_reported(place: Place) -> None:
    slot = place.json("key", "add", "--recovery")["id"]
    for path in files(place.repository, "keys"):
        if path.name.startswith(slot):
            flip_byte(path, 30)
    result = place.run("key", "list")
    assert result.exit_code == 21
    assert "holdfast check" in result.stderr
    assert "passphrase" in result.stdout
    place.ok("snapshots")


# ---- a repository that cannot be used


def test_a_repository_of_a_newer_version_is_not_touched(place: Place) -> None:
    for path in (place.repository / "config", place.repository / "config.2"):
        path.chmod(0o600)
        path.write_bytes(path.read_bytes().replace(b'"version": 2', b'"version": 3', 1))
    result = place.run("snapshots")
    assert result.exit_code == 1
    assert "version 3" in result.stderr


def test_a_config_whose_two_copies_are_damaged_is_code_21(place: Place) -> None:
    for name in ("config", "config.2"):
        flip_byte(place.repository / name, 5)
    result = place.run("snapshots")
    assert result.exit_code == 21
    assert "config" in result.stderr
