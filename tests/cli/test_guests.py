"""ls, dump and restore inside guests, on ext4 file systems that mkfs made, read by the real worker."""

from __future__ import annotations

import json
import os
import random
import stat
from pathlib import Path

import pytest

from holdfast.base.errors import Damaged
from holdfast.formats.guests.client.guest import GuestDisk
from support.cli import Place, files, flip_byte
from support.guest_images import blank, mounted, run

PASSWD = "root:x:0:0:root:/root:/bin/sh\n"
BIG = random.Random(9).randbytes(5 << 20)
TIME = 1_600_000_000_987_654_321
ACL = bytes.fromhex(
    "02000000 0100 0600 ffffffff 0200 0400 4d000000 0400 0400 ffffffff 1000 0600 ffffffff 2000 0000 ffffffff"
)
"""u::rw- u:77:r-- g::r-- m::rw- o::---"""
STRANGE = b"\xff\x1b[31m"
LINES = b"a\nwarning: all is well"


def make_tree(root: Path) -> None:
    """What the guest holds."""
    for folder in ("etc", "var/log", "usr/bin"):
        (root / folder).mkdir(parents=True)
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/shadow").write_text("secret")
    (root / "etc/shadow").chmod(0o600)
    (root / "usr/bin/su").write_bytes(b"#!")
    (root / "usr/bin/su").chmod(0o4755)
    (root / "etc/hard").hardlink_to(root / "etc/passwd")
    (root / "etc/link").symlink_to("/etc/passwd")
    (root / "var/big").write_bytes(BIG)
    with (root / "var/sparse").open("wb") as file:
        file.truncate(20 << 20)
        file.seek(10 << 20)
        file.write(b"in the middle")
    for number in range(300):
        (root / f"var/log/{number}").write_text(f"line {number}\n")
    Path(os.fsdecode(os.fsencode(root) + b"/etc/" + STRANGE)).write_text("strange")
    Path(os.fsdecode(os.fsencode(root) + b"/etc/" + LINES)).write_text("lines")
    os.mkfifo(root / "var/fifo")
    os.utime(root / "etc/passwd", ns=(TIME, TIME))
    os.utime(root / "etc", ns=(TIME, TIME))
    os.chown(root / "etc/shadow", 0, 42)
    os.setxattr(root / "etc/passwd", "user.comment", b"\0\xff")
    os.setxattr(root / "etc", "system.posix_acl_default", ACL)
    os.setxattr(root / "etc/shadow", "system.posix_acl_access", ACL)


def make_ext4(image: Path, tree: Path, *, size: int = 64 << 20) -> Path:
    """A file system with a copy of the tree that the kernel made: with nanoseconds, attributes and ACLs."""
    run("mkfs.ext4", "-q", "-F", "-I", "256", blank(image, size))  # -I: inodes with room for nanoseconds
    with mounted(image, image.with_name("mnt")) as inner:
        run("cp", "-aT", tree, inner)
    return image


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A repository with one snapshot of one guest. Nobody changes it."""
    place = Place.make(tmp_path_factory.mktemp("guests"))
    make_tree(place.root / "tree")
    place.ok("backup", make_ext4(place.root / "sda.raw", place.root / "tree"), "--name", "web01")
    return place


def at(path: str = "") -> str:
    return f"web01:files/sda/p0{path}"


# ---- ls -------------------------------------------------------------------------------------------------


def test_ls_of_a_snapshot_says_where_the_inside_is(made: Place) -> None:
    result = made.run("ls", "web01")
    assert "disks/sda.raw" in result.stdout
    assert "holdfast ls web01:files/sda" in result.stderr


def test_ls_shows_volumes_folders_and_single_files(made: Place) -> None:
    assert "files/sda" in made.ok("ls", "web01:files")
    assert "ext4" in made.ok("ls", "web01:files/sda")
    lines = made.ok("ls", at("/etc")).splitlines()
    passwd = next(line for line in lines if line.endswith(" passwd"))
    assert passwd.split() == ["-rw-r--r--", "0:0", f"{len(PASSWD)}", "B", "2020-09-13_12-26-40", "passwd"]
    one = made.ok("ls", at("/etc/shadow")).splitlines()[-1]
    assert one.split() == ["-rw-rw----", "0:42", "6", "B", one.split()[4], "shadow"]
    assert any(line.endswith("link -> /etc/passwd") for line in lines)
    assert "su" in made.ok("ls", at("/usr/bin"))


def test_names_are_harmless_on_a_terminal_and_accepted_as_shown(made: Place) -> None:
    shown = made.ok("ls", at("/etc"))
    assert "\x1b" not in shown
    assert "\\udcff\\x1b[31m" in shown
    assert made.ok("dump", at("/etc/\\udcff\\x1b[31m")) == "strange"
    assert made.ok("dump", at("/etc/" + os.fsdecode(STRANGE))) == "strange"


def test_ls_recursive_shows_everything_once(made: Place) -> None:
    told = made.ok("ls", "-R", at()).splitlines()[1:]
    tree = made.root / "tree"
    assert len(told) == len(list(tree.rglob("*"))) + 1  # lost+found
    assert any(line.endswith(" var/log/299") for line in told)
    assert "var/log/299" in made.ok("ls", "-R", "web01:files")


def test_ls_in_json(made: Place) -> None:
    document = made.json("ls", at("/etc"))
    entries = {entry["path"].rpartition("/")[2]: entry for entry in document["entries"]}
    assert entries["passwd"]["mtime"] == "2020-09-13T12:26:40.987654321Z"
    assert (entries["shadow"]["mode"], entries["shadow"]["gid"]) == ("0660", 42)
    assert (entries["hard"]["links"], entries["link"]["target"]) == (2, "/etc/passwd")
    lines = [json.loads(line) for line in made.ok("ls", "-R", at("/var"), "--json").splitlines()]
    assert {line["message_type"] for line in lines} == {"entry"}
    assert made.json("ls", "web01:files/sda")["entries"][0]["file_system"] == "ext4"


# ---- dump -----------------------------------------------------------------------------------------------


def test_dump_gives_files_byte_for_byte(made: Place) -> None:
    assert made.ok("dump", at("/etc/passwd")) == PASSWD
    assert made.run("dump", at("/var/big")).stdout_bytes == BIG
    sparse = made.run("dump", at("/var/sparse")).stdout_bytes
    assert sparse == (made.root / "tree/var/sparse").read_bytes()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/etc", "is a folder\n  `holdfast restore SNAPSHOT:files/sda/p0/etc --target DIR`"),
        ("/etc/link", "is a symbolic link to '/etc/passwd'"),
        ("/etc/link/x", "links of a guest are not followed"),
        ("/var/fifo", "is a fifo: it has no content"),
        ("/etc/nope", "no 'nope' in files/sda/p0/etc"),
    ],
)
def test_what_has_no_content_is_explained(path: str, says: str, made: Place) -> None:
    result = made.run("dump", at(path))
    assert result.exit_code == 1
    assert says in result.stderr


# ---- restore --------------------------------------------------------------------------------------------


def test_a_folder_comes_back_as_it_was(made: Place, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = made.run("restore", at(), "--target", out)
    assert result.exit_code == 0, result.stderr
    assert "var/fifo: not restored: is a fifo" in result.stderr
    assert "1 file without setuid" in result.stderr
    tree = made.root / "tree"
    for path in tree.rglob("*"):
        if path.name == "fifo":
            continue
        was, now = path.lstat(), (out / path.relative_to(tree)).lstat()
        mode = was.st_mode & ~stat.S_ISUID
        assert (now.st_mode, now.st_uid, now.st_gid) == (mode, was.st_uid, was.st_gid), path
        assert now.st_mtime_ns == was.st_mtime_ns, path
        assert attributes(out / path.relative_to(tree)) == attributes(path)
        if path.is_file() and not path.is_symlink():
            assert (out / path.relative_to(tree)).read_bytes() == path.read_bytes()
    assert (out / "etc/hard").samefile(out / "etc/passwd")
    assert (out / "etc/link").readlink() == Path("/etc/passwd")
    assert (out / "var/sparse").stat().st_blocks * 512 < 1 << 20


def attributes(path: Path) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def test_owners_setuid_and_special_files_are_a_matter_of_options(made: Place, tmp_path: Path) -> None:
    made.ok("restore", at("/usr"), "--target", tmp_path / "usr", "--setuid")
    assert (tmp_path / "usr/bin/su").stat().st_mode & stat.S_ISUID
    made.ok("restore", at("/etc"), "--target", tmp_path / "etc", "--no-owner")
    assert (tmp_path / "etc/shadow").stat().st_gid == os.getegid()
    made.ok("restore", at("/var"), "--target", tmp_path / "var", "--special")
    assert (tmp_path / "var/fifo").is_fifo()


def test_one_file_goes_to_a_name_or_into_a_folder(made: Place, tmp_path: Path) -> None:
    made.ok("restore", at("/etc/passwd"), "--target", tmp_path / "name")
    made.ok("restore", at("/etc/passwd"), "--target", tmp_path)
    made.ok("restore", at("/etc/link"), "--target", tmp_path)
    assert (tmp_path / "name").read_text() == (tmp_path / "passwd").read_text() == PASSWD
    assert (tmp_path / "link").is_symlink()
    result = made.run("restore", at("/etc/passwd"), "--target", tmp_path)
    assert result.exit_code == 1
    assert "--overwrite" in result.stderr
    made.ok("restore", at("/etc/passwd"), "--target", tmp_path, "--overwrite")


def test_what_is_in_the_way_is_told_and_the_rest_restored(made: Place, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("precious")
    result = made.run("restore", at("/etc"), "--target", tmp_path)
    assert result.exit_code == 3
    assert "passwd: not restored: File exists" in result.stderr
    assert (tmp_path / "passwd").read_text() == "precious"
    assert (tmp_path / "shadow").read_text() == "secret"


def test_the_summary_of_a_restore_in_json(made: Place, tmp_path: Path) -> None:
    told = made.run("restore", at("/var"), "--target", tmp_path / "o", "--json").stdout.splitlines()
    summary = json.loads(told[-1])
    assert (summary["failed"], summary["skipped"], summary["restored"]) == (0, 1, 304)
    skipped = next(line for line in map(json.loads, told) if line["message_type"] == "skipped")
    assert skipped["path"] == "fifo"


@pytest.mark.parametrize(
    ("path", "target", "says"),
    [
        ("/etc", "{root}/file", "is no folder"),
        ("/etc/passwd", "{root}/missing/x", "is no folder"),
        ("/etc/passwd", "/dev/null", "neither a file nor a link"),
        ("/etc", "{repo}/x", "inside the repository"),
        ("/nope", "{root}/x", "no 'nope'"),
    ],
)
def test_targets_that_will_not_do(path: str, target: str, says: str, made: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    goal = target.format(root=tmp_path, repo=made.repository)
    result = made.run("restore", at(path), "--target", goal, "--overwrite")
    assert result.exit_code == 1
    assert says in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
    assert (tmp_path / "file").read_text() == "precious"


# ---- what cannot be read --------------------------------------------------------------------------------


def test_a_disk_with_nothing_known_on_it_is_a_text(tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    place.ok("backup", place.disk("noise.raw"), "--name", "noise")
    shown = place.ok("ls", "noise:files/noise")
    assert "files/noise/p0.txt" in shown
    text = place.ok("dump", "noise:files/noise/p0.txt")
    assert text.strip()
    place.ok("restore", "noise:files/noise", "--target", tmp_path / "out")
    assert (tmp_path / "out/p0.txt").read_text() == text
    result = place.run("ls", "noise:files/noise/p0.txt/x")
    assert (result.exit_code, "is a file" in result.stderr) == (1, True)


def test_a_passphrase_file_that_is_not_there_is_wrong_usage(made: Place) -> None:
    result = made.run("ls", at(), "--luks-passphrase-file", "/nonexistent")
    assert result.exit_code == 2
    assert "/nonexistent" in result.stderr


def test_a_name_cannot_add_lines_to_what_is_told(made: Place, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "etc").mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(out / "etc") + b"/" + LINES)).mkdir()
    result = made.run("restore", at(), "--target", out)
    assert result.exit_code == 3
    assert "etc/a\\x0awarning: all is well: not restored" in result.stderr
    assert not any(line.startswith("warning: all is well") for line in result.stderr.splitlines())


def test_a_chunk_that_is_damaged_does_not_end_a_listing(made: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def readlink(self: GuestDisk, volume: str, inode: int) -> bytes:
        raise Damaged("chunk 1234", "is damaged")

    monkeypatch.setattr(GuestDisk, "readlink", readlink)
    result = made.run("ls", "-R", at("/etc"))
    assert result.exit_code == 3
    assert "etc/link: chunk 1234" in result.stderr
    assert "passwd" in result.stdout


def test_damage_in_the_repository_costs_the_files_it_hits(tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "big").write_bytes(BIG)
    (tree / "small").write_text("small")
    image = make_ext4(tmp_path / "sda.raw", tree, size=24 << 20)
    place.ok("backup", image, "--name", "web01")
    packs = files(place.repository, "packs")
    flip_byte(packs[0], packs[0].stat().st_size // 2)
    result = place.run("restore", at(), "--target", tmp_path / "out")
    assert result.exit_code == 3, result.stderr
    assert "big: not restored: chunk" in result.stderr
    assert (tmp_path / "out/small").read_text() == "small"
    assert not (tmp_path / "out/big").exists()
    assert place.run("dump", at("/big")).exit_code == 21


def test_passphrases_reach_encrypted_volumes(tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    right, wrong = place.write("right", "secret\n"), place.write("wrong", "guess\n")
    image = blank(tmp_path / "sda.raw", 20 << 20)
    quick = ("--type", "luks1", "--pbkdf-force-iterations", "1000")
    run("cryptsetup", "luksFormat", "-q", *quick, image, data=b"secret")
    place.ok("backup", image, "--name", "web01")
    told = {
        files: place.json("ls", "web01:files/sda", *(f"--luks-passphrase-file={file}" for file in files))
        for files in ((), (wrong,), (wrong, right))
    }
    texts = [document["entries"][0]["text"] for document in told.values()]
    assert texts[0] == "LUKS1 encrypted; no passphrase was given for it"
    advice = "--luks-passphrase-file FILE opens encrypted volumes"
    shown = [
        place.run("ls", "web01:files/sda", *option) for option in ((), (f"--luks-passphrase-file={wrong}",))
    ]
    assert [advice in result.stderr for result in shown] == [True, False]
    assert "none of the passphrases" in texts[1]
    assert "LUKS" not in texts[2], "it is open, and holds nothing"
    result = place.run("find", "x")
    assert result.exit_code == 0
    assert "not searched, because no file system is seen there: files/sda/p0.txt" in result.stderr


def test_a_file_whose_inode_is_damaged_is_told_and_does_not_vanish(tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    for name in ("hosts", "lost"):
        (tree / "etc" / name).write_text(name)
    disk = make_ext4(tmp_path / "sda.raw", tree)
    place.ok("backup", disk, "--name", "web01", "--time", "2026-11-22T02:00:00")
    run("debugfs", "-w", "-R", "clri /etc/lost", disk)
    place.ok("backup", disk, "--name", "web01", "--time", "2026-11-23T02:00:00")
    etc = "web01:files/sda/p0/etc"
    listed = place.run("ls", etc)
    assert listed.exit_code == 3
    assert "hosts" in listed.stdout
    assert "etc/lost: its inode is damaged" in listed.stderr
    restored = place.run("restore", etc, "--target", tmp_path / "out")
    assert restored.exit_code == 3
    assert "lost" in restored.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["hosts"]
    differs = place.run("diff", "web01")
    assert differs.exit_code == 3
    assert "etc/lost: not compared: its inode is damaged" in differs.stderr
    assert "- files/sda/p0/etc/lost" not in differs.stdout
