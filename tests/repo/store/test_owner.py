"""A repository in a folder of somebody else, who plants in it what he likes, and root who works there."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from holdfast.base.errors import Damaged, HoldfastError, Locked, NoRepository, StoreError
from holdfast.base.other_user import OtherUser
from holdfast.repo.store.interface import FileKind, LockMode
from holdfast.repo.store.local import LocalStore
from holdfast.repo.store.owned_tree import Foreign
from support.basics import need
from support.store_conformance import NAME, OTHER, names
from support.stranger import STRANGER, as_stranger, give, state, stranger_loops

PLACES = ("config", "lock", f"keys/{NAME}", f"snapshots/{NAME}", f"packs/{NAME[:2]}/{NAME}")
FOLDERS = ("keys", "packs", f"packs/{NAME[:2]}", "pending", "snapshots", "trash", "trash/packs")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Files of ours that nobody else may read or write, and folders like those of a repository."""
    folder = tmp_path / "victim"
    for name in ("packs/" + NAME[:2], NAME[:2]):
        (folder / name).mkdir(parents=True, mode=0o700)
    (folder / "secret").write_text("precious")
    for path in (NAME, f"packs/{NAME}", f"{NAME[:2]}/{NAME}", "secret"):
        (folder / path).write_text("precious")
        (folder / path).chmod(0o600)
    folder.chmod(0o700)
    return folder


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[LocalStore]:
    """A store in a folder of the stranger's, used by root."""
    need(os.geteuid() == 0, "root")
    with closing(LocalStore.create(tmp_path / "repository")) as store:
        store.put(FileKind.CONFIG, "config", b"config")
        store.put(FileKind.CONFIG, "config.2", b"config")
        store.put(FileKind.KEY, NAME, b"key")
        store.put(FileKind.PACK, NAME, b"pack")
        store.put(FileKind.SNAPSHOT, NAME, b"snapshot")
        give(store.root)
        yield store


def use_all(root: Path) -> list[HoldfastError]:
    """Everything that a store does, whatever of it fails; what is no error of ours is raised."""
    failed: list[HoldfastError] = []

    def attempt(act: Callable[[], object]) -> None:
        try:
            act()
        except HoldfastError as error:
            failed.append(error)
        except FileNotFoundError:
            pass

    try:
        store = LocalStore.open(root)
    except HoldfastError as error:
        return [error]
    with closing(store):
        for kind in FileKind:
            name = "config" if kind is FileKind.CONFIG else NAME
            attempt(lambda kind=kind: list(store.listing(kind)))  # type: ignore[misc]
            attempt(lambda kind=kind: list(store.listing(kind, trashed=True)))  # type: ignore[misc]
            attempt(lambda kind=kind, name=name: store.read(kind, name))  # type: ignore[misc]
            attempt(lambda kind=kind: store.put(kind, OTHER, b"new"))  # type: ignore[misc]
            attempt(lambda kind=kind, name=name: store.put(kind, name, b"again"))  # type: ignore[misc]
        for kind in (FileKind.PACK, FileKind.SNAPSHOT):
            attempt(lambda kind=kind: store.trash(kind, NAME))  # type: ignore[misc]
            attempt(lambda kind=kind: store.untrash(kind, NAME))  # type: ignore[misc]
            attempt(lambda kind=kind: store.delete(kind, OTHER))  # type: ignore[misc]
        attempt(lambda: hold(store))
        attempt(store.clean)
        attempt(store.sync)
    return failed


def hold(store: LocalStore) -> None:
    with store.lock(LockMode.EXCLUSIVE, 0.1):
        pass


def plant(place: str, what: str, victim: Path) -> None:
    """In the present folder, in the place of a file."""
    path = Path(place)
    path.unlink()
    if what == "link":
        path.symlink_to(victim / "secret")
    elif what == "dangling":
        path.symlink_to(victim / "new")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()


@pytest.mark.parametrize("what", ["link", "dangling", "pipe", "folder"])
@pytest.mark.parametrize("place", PLACES)
def test_root_follows_nothing_in_the_place_of_a_file(
    place: str, what: str, theirs: LocalStore, victim: Path
) -> None:
    before = state(victim)
    as_stranger(theirs.root, lambda: plant(place, what, victim))
    failed = use_all(theirs.root)
    assert state(victim) == before
    assert place == "config" or any("no file" in str(error) for error in failed), failed
    assert {path.lstat().st_uid for path in theirs.root.rglob("*")} == {STRANGER}


@pytest.mark.parametrize("place", FOLDERS)
def test_root_follows_no_link_in_the_place_of_a_folder(place: str, theirs: LocalStore, victim: Path) -> None:
    before = state(victim)

    def plant_folder() -> None:
        Path(place).rename("aside")
        Path(place).symlink_to(victim)

    as_stranger(theirs.root, plant_folder)
    failed = use_all(theirs.root)
    assert any("is a link and no folder" in str(error) for error in failed)
    assert state(victim) == before


@pytest.mark.parametrize("place", PLACES)
def test_a_file_of_ours_by_a_second_name_is_neither_read_nor_locked(
    place: str, theirs: LocalStore, victim: Path
) -> None:
    """A kernel with fs.protected_hardlinks=0 lets the stranger make one."""
    path = theirs.root / place
    path.unlink()
    path.hardlink_to(victim / "secret")
    (victim / "secret").chmod(0o644)  # readable: its owner alone speaks against it
    before = state(victim)
    failed = use_all(theirs.root)
    assert state(victim) == before
    assert any(isinstance(error, Foreign) for error in failed)
    assert any("belongs to user 0, and the repository to user 65534" in str(error) for error in failed)


def test_what_root_may_not_do_as_the_owner_is_not_done(theirs: LocalStore) -> None:
    key = theirs.root / "keys" / NAME
    key.chmod(0)
    with pytest.raises(StoreError, match="Permission denied"):
        theirs.read(FileKind.KEY, NAME)
    key.chmod(0o600)
    os.chown(key, 0, 0)
    with pytest.raises(Foreign, match="belongs to user 0"):
        theirs.read(FileKind.KEY, NAME)


def test_what_root_adds_is_the_owners_from_the_first_moment(theirs: LocalStore) -> None:
    """Folders that were left out, files that are being written, the lock."""
    for folder in (f"packs/{OTHER[:2]}", "pending", "trash/packs", "trash/snapshots", "trash"):
        (theirs.root / folder).rmdir()
    (theirs.root / "lock").unlink()
    old = os.umask(0)
    try:
        with theirs.lock(LockMode.SHARED, 1):
            theirs.put(FileKind.PACK, OTHER, bytes(9 << 20))
            theirs.put(FileKind.PENDING, OTHER, b"pending")
            theirs.trash(FileKind.SNAPSHOT, NAME)
            theirs.sync()
    finally:
        os.umask(old)
    for path in theirs.root.rglob("*"):
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (STRANGER, STRANGER), path
        assert stat.S_IMODE(status.st_mode) == (0o700 if path.is_dir() else 0o600), path
    as_stranger(theirs.root, lambda: Path(f"snapshots/{OTHER}").write_text("the owner works there too"))


def test_a_stranger_who_swaps_things_meanwhile_gains_nothing(theirs: LocalStore, victim: Path) -> None:
    before = state(victim)

    def swap() -> None:
        for place in ("lock", "snapshots", "packs", "keys", f"keys/{NAME}"):
            aside = f"trash/{os.urandom(6).hex()}"
            with suppress(OSError):
                os.rename(place, aside)  # noqa: PTH104  as terse as the loop has to be
            with suppress(OSError):
                os.symlink(victim / ("secret" if place in PLACES else ""), place)  # noqa: PTH211
            with suppress(OSError):
                os.unlink(place)  # noqa: PTH108
            with suppress(OSError):
                os.rename(aside, place)  # noqa: PTH104

    with stranger_loops(theirs.root, swap):
        for _ in range(30):
            use_all(theirs.root)
    assert state(victim) == before


def test_links_are_not_followed_in_a_repository_of_our_own_either(
    local_store: LocalStore, victim: Path
) -> None:
    local_store.put(FileKind.CONFIG, "config", b"config")
    (local_store.root / "lock").unlink()
    (local_store.root / "lock").symlink_to(victim / "secret")
    with pytest.raises(Damaged, match="is a link and no file"):
        hold(local_store)
    (local_store.root / "snapshots").rmdir()
    (local_store.root / "snapshots").symlink_to(victim)
    with pytest.raises(Damaged, match="is a link and no folder"):
        names(local_store, FileKind.SNAPSHOT)


def test_a_pipe_does_not_make_us_wait(local_store: LocalStore) -> None:
    local_store.put(FileKind.CONFIG, "config", b"config")
    for name in (f"keys/{NAME}", "lock"):
        (local_store.root / name).unlink(missing_ok=True)
        os.mkfifo(local_store.root / name)
    assert names(local_store, FileKind.KEY) == []
    with pytest.raises(Damaged, match="is a pipe and no file"):
        local_store.read(FileKind.KEY, NAME)
    with pytest.raises(Damaged, match="is a pipe and no file"):
        hold(local_store)


@pytest.mark.parametrize(("kind", "name"), [(FileKind.KEY, NAME), (FileKind.CONFIG, "config.2")])
def test_what_is_read_before_it_is_known_has_a_limit(
    kind: FileKind, name: str, local_store: LocalStore
) -> None:
    local_store.put(kind, name, bytes((1 << 20) + 1))
    with pytest.raises(Damaged, match="1048577 bytes long, and 1048576 are the most"):
        local_store.read(kind, name)


def test_a_repository_may_be_opened_through_a_link_and_made_through_no_strangers(tmp_path: Path) -> None:
    real = LocalStore.create(tmp_path / "real")
    real.put(FileKind.CONFIG, "config", b"config")
    real.close()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    LocalStore.open(tmp_path / "link").close()
    (tmp_path / "planted").symlink_to(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    give(tmp_path / "planted")
    with pytest.raises(HoldfastError, match="is a link to"):
        LocalStore.create(tmp_path / "planted")
    assert list((tmp_path / "empty").iterdir()) == []


def test_acting_as_somebody_else_concerns_one_thread_for_a_moment(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "root")
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    user = OtherUser(STRANGER, STRANGER, (STRANGER, 12345))
    ours = os.getgroups()
    read: list[str] = []
    go, done = threading.Event(), threading.Event()

    def other_thread() -> None:
        go.wait()
        read.append(secret.read_text())
        done.set()

    thread = threading.Thread(target=other_thread)
    thread.start()
    with user.acting():
        go.set()
        done.wait()
        with pytest.raises(PermissionError):
            secret.read_text()
        assert os.getgroups() == [12345, STRANGER]
        assert os.geteuid() == 0  # nobody can send us signals
    thread.join()
    assert read == ["x"]
    assert os.getgroups() == ours
    assert secret.read_text() == "x"


def test_whom_root_is_in_a_folder(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "root")
    assert OtherUser.owning(tmp_path.stat()) is None
    os.chown(tmp_path, STRANGER, 0)
    assert OtherUser.owning(tmp_path.stat()) == OtherUser(STRANGER, STRANGER, (STRANGER,))
    os.chown(tmp_path, 123_456_789, 77)  # nobody whom this machine knows
    assert OtherUser.owning(tmp_path.stat()) == OtherUser(123_456_789, 77, (77,))
    os.chown(tmp_path, 123_456_789, 0)
    assert OtherUser.owning(tmp_path.stat()) == OtherUser(123_456_789, 65534, (65534,))


def test_a_strangers_repository_can_be_locked_and_is_waited_for(theirs: LocalStore) -> None:
    with (
        closing(LocalStore.open(theirs.root)) as second,
        theirs.lock(LockMode.EXCLUSIVE, 0),
        pytest.raises(Locked),
    ):
        hold(second)
    with pytest.raises(NoRepository):
        LocalStore.open(theirs.root / "keys")
