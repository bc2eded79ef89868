"""The settings of one run, from options and environment, and the repository that they name."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast.base.named_paths import make_own_folder
from holdfast.base.passwords import PasswordSources
from holdfast.base.private_process import SECRETS
from holdfast.cli.base.output import Output
from holdfast.cli.base.passwords import find_password
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import count

if TYPE_CHECKING:  # `holdfast version` and completion need none of these, and they take 100 ms
    from holdfast.repo.core.repository import Repository
    from holdfast.repo.index.results import SyncResult
    from holdfast.repo.records.high_water import Vanished
    from holdfast.repo.snapshots.listed import Snapshots
    from holdfast.repo.snapshots.snapshot import StoredSnapshot
    from holdfast.repo.store.local import LocalStore

_ELSEWHERE = re.compile(r"[a-z0-9+.-]+://|(?:s3|sftp|ssh|rest|b2|gs|azure|rclone|swift):", re.IGNORECASE)


@dataclass(slots=True)
class RunSettings:
    """The shared options of one run. `variables` are the HOLDFAST_* variables of the environment."""

    variables: dict[str, str]
    cache_home: str = ""
    output: Output = field(default_factory=Output)
    passwords: PasswordSources = field(default_factory=PasswordSources)
    repo: str | None = None
    cache_dir: str | None = None
    if_interrupted: str = ""
    """Advice to show if the command is interrupted now: what is safe, and the next command."""
    reports_index: bool = True
    """Whether to report problems found by refreshing the index; `check` reports them itself."""
    reported: set[str] = field(default_factory=set)
    allow_costly: bool = False
    """Whether key slots may cost more memory and time than usual."""
    checks_place: bool = True
    """Whether another repository than before at the same path ends the run."""
    vanished: bool = False
    """Whether snapshots are gone that nobody forgot: the run ends with an exit code of its own."""
    told_no_cache: bool = False
    """Whether it was said that the cache cannot be used."""

    @property
    def root(self) -> Path:
        """The repository's directory. Raises UsageError when neither option nor variable gives one."""
        text = self.repo or self.variables.get("HOLDFAST_REPOSITORY")
        if not text:
            raise click.UsageError("which repository? Give -r DIR or set HOLDFAST_REPOSITORY")
        if _ELSEWHERE.match(text):
            raise click.UsageError(
                f"{text}: only repositories in a directory can be used; mount it, or copy it"
            )
        return Path(text).absolute()

    @property
    def cache(self) -> Path:
        """This user's directory for indexes, running mounts and what else is kept for speed only.

        Made if need be. Raises NotOurFolder, ForeignLink when somebody else could put things into it.
        """
        place = self._cache_place()
        make_own_folder(place)
        return place

    def _cache_place(self) -> Path:
        text = self.cache_dir or self.variables.get("HOLDFAST_CACHE_DIR")
        if text:
            return Path(text).absolute()
        if Path(self.cache_home).is_absolute():  # the XDG specification: anything else is ignored
            return Path(self.cache_home) / "holdfast"
        try:
            home = Path("~").expanduser()
            if not os.geteuid() and home.exists() and home.stat().st_uid:  # sudo, which kept HOME
                home = Path(pwd.getpwuid(0).pw_dir)
            return home / ".cache/holdfast"
        except RuntimeError:
            raise click.UsageError("no home directory for a cache; set HOLDFAST_CACHE_DIR") from None

    def password(self) -> str:
        """The repository's password; asks for it on the terminal if nothing else gives it."""
        return find_password(self.passwords, self.variables)

    def forget_password(self) -> None:
        """Keep no reference to it, for a process that lives long. Freed memory cannot be emptied here."""
        self.variables.pop(SECRETS, None)

    def store(self) -> LocalStore:
        """Open the repository's store. Raises NoRepository."""
        from holdfast.repo.store.local import LocalStore  # noqa: PLC0415  see above

        return LocalStore.open(self.root)

    @contextmanager
    def opened(self, *, index: bool = False) -> Iterator[Repository]:
        """Open the repository for the block; with `index`, refresh its index first, with progress."""
        from holdfast.repo.core.repository import Repository  # noqa: PLC0415  see above
        from holdfast.repo.records.high_water import check_place  # noqa: PLC0415  see above

        with (
            closing(self.store()) as store,
            Repository.open(
                store,
                self.password,
                cache=self.cache,
                notify=self._report_index,
                allow_costly=self.allow_costly,
                accept_keyring=not self.checks_place,
            ) as repository,
        ):
            if self.checks_place:
                check_place(repository, self.root, self.cache)
            if index:
                self.refresh(repository)
            try:
                yield repository
            finally:
                self.report_shortcomings(store)

    def report_shortcomings(self, store: LocalStore) -> None:
        """Tell what the store's file system cannot do, once a run."""
        for text in store.shortcomings():
            self.output.note(text)

    def refresh(self, repository: Repository) -> None:
        """Synchronise the index with the packs in the store, with progress."""
        with progress(self.output, "index", unit="packs") as meter:
            repository.refresh(meter.reach)

    def _report_index(self, synced: SyncResult) -> None:
        if not self.reports_index:
            return
        if synced.rebuilt:
            why = synced.distrust or "it was not there"
            self.output.note(f"the index has been rebuilt from {count(synced.added, 'pack')}: {why}")
        if synced.no_cache and not self.told_no_cache:
            self.told_no_cache = True
            self.output.note(f"no index is kept ({synced.no_cache}): this command made one of its own")
        for text in sorted({str(error) for error in synced.damaged} - self.reported):
            self.reported.add(text)  # every refresh of the run finds it again
            self.output.warn(f"{text}; what else is in the repository can be used; run `holdfast check`")

    def snapshots(self, repository: Repository, *, trashed: bool = False) -> Snapshots:
        """All snapshots. Warns of each that cannot be read."""
        found = repository.snapshots(trashed=trashed)
        if not trashed:
            self.look_for_vanished(repository, found)
        for error in found.damaged:
            self.output.warn(f"a snapshot cannot be read: {error}; run `holdfast check`")
        for error in found.unread:
            self.output.warn(f"what was said of subjects cannot be read: {error}; run `holdfast check`")
        return found

    def look_for_vanished(self, repository: Repository, listed: Snapshots) -> None:
        """Compare a listing with the snapshots that this user saw before; once a run."""
        from holdfast.repo.records.high_water import find_vanished  # noqa: PLC0415  see above

        if not self.vanished:
            self.report_vanished(find_vanished(repository, listed))

    def report_vanished(self, vanished: Vanished) -> None:
        """Raise the alarm when snapshots vanished: a warning now, the exit code at the end of the run."""
        if vanished:
            from holdfast.cli.base.exits import VANISHED_ADVICE  # noqa: PLC0415  see above

            self.vanished = True
            self.output.warn(f"{vanished}; {VANISHED_ADVICE}")

    def pick(self, repository: Repository, selector: str) -> tuple[StoredSnapshot, str]:
        """(snapshot, path inside it) of a selector. Raises NotFound or Ambiguous."""
        from holdfast.repo.snapshots.select import select_one, split_selector  # noqa: PLC0415  see above

        name, path = split_selector(selector)
        return select_one(self.snapshots(repository).good, name), path
