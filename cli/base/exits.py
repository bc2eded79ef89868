"""The exit code of each error, and advice on what to do next. It imports the classes of all errors."""

from __future__ import annotations

import shlex
from typing import Final

import click

from holdfast.base.confinement.plan import NotConfined
from holdfast.base.errors import (
    Ambiguous,
    CostlyKey,
    Damaged,
    KeyringRolledBack,
    Locked,
    NeedsUnknown,
    NoRepository,
    NoSnapshots,
    NoSpace,
    NoSuchKeySlot,
    NoSuchLogArchive,
    NoSuchSnapshot,
    NotFound,
    NotInTrash,
    NotSeekable,
    OnlyLogs,
    RepositoryExists,
    SlotRemoved,
    StoreError,
    TooManySlots,
    Unsupported,
    WrongPassword,
)
from holdfast.base.named_paths import ForeignLink, NotOurFolder
from holdfast.base.passwords import NoPassword
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.formats.disks.base.errors import UnclearFormat, UnnamedFile
from holdfast.formats.dumps.core.log_errors import LogMissing, LogsEndBefore, NoLogArchive
from holdfast.formats.guests.values.values import GuestError, GuestMissing
from holdfast.fusefs.errors import MountDead, MountTaken, NoBinding, NotMounted
from holdfast.ingest.backup.backup import LessConsistent
from holdfast.ingest.backup.errors import CutOffDisk, UnknownSourceType
from holdfast.ingest.freeze.commands import ShellSyntax
from holdfast.repo.records.high_water import OtherRepository, SnapshotsVanished
from holdfast.repo.snapshots.histories import NameTaken, OtherContent
from holdfast.repo.store.owned_tree import Foreign
from holdfast.servers.base.errors import (
    BadScratch,
    ClientCommandsFound,
    NoDatabase,
    NoPhysicalBackup,
    PasswordInUrl,
    SeveralDatabases,
)
from holdfast.tasks.forget_errors import ArchiveOrphaned, LastOfSubject, SeveralSnapshots
from holdfast.tasks.group_paths import MixedKinds
from holdfast.tasks.restore_errors import (
    DeviceNotConfirmed,
    NeedsDirectory,
    NoImageOnDevice,
    NotPhysical,
    SeveralArchives,
    TargetExists,
)
from holdfast.tasks.source_errors import LogInUse, NoCluster, UnknownDirectory
from holdfast.tree.errors import IsDirectory, SeveralFiles

VANISHED_ADVICE: Final = (
    "somebody removed them, or the repository is an older copy of itself: find out before anything else. "
    "`holdfast undelete` brings back those in the trash; `holdfast check --accept-missing` takes the present "
    "state as right"
)
"""What helps when snapshots vanished."""

_CODES: Final[tuple[tuple[type[BaseException], ExitCode], ...]] = (
    (click.UsageError, ExitCode.USAGE),
    (NoPassword, ExitCode.USAGE),
    (NameTaken, ExitCode.USAGE),
    (ShellSyntax, ExitCode.USAGE),
    (MixedKinds, ExitCode.USAGE),
    (OtherContent, ExitCode.USAGE),
    (SeveralSnapshots, ExitCode.USAGE),
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
    (click.Abort, ExitCode.INTERRUPTED),
    (NoRepository, ExitCode.NO_REPOSITORY),
    (Locked, ExitCode.LOCKED),
    (WrongPassword, ExitCode.WRONG_PASSWORD),
    (LessConsistent, ExitCode.LESS_CONSISTENT),
    (Damaged, ExitCode.DAMAGE),
    (SnapshotsVanished, ExitCode.VANISHED),
    (OtherRepository, ExitCode.VANISHED),
    (KeyringRolledBack, ExitCode.VANISHED),
    (TooManySlots, ExitCode.WRONG_PASSWORD),
    (CostlyKey, ExitCode.WRONG_PASSWORD),
)

_ADVICE: Final[tuple[tuple[type[BaseException], str], ...]] = (  # {error.path} and the like are filled in
    (SnapshotsVanished, VANISHED_ADVICE),
    (
        OtherRepository,
        "if it belongs there, `holdfast check --accept-missing` takes note; else find out who put it there",
    ),
    (
        KeyringRolledBack,
        "somebody put an older keyring in place, or made one: back up nothing before you know who. "
        "`holdfast check --accept-missing` takes what is there as right",
    ),
    (
        TooManySlots,
        "nothing was changed; `holdfast key list` shows all: delete the files of those that nobody made",
    ),
    (CostlyKey, "--allow-costly-key tries it all the same; `holdfast key list` shows whose it is"),
    (SlotRemoved, "somebody with another password can let you in again: `holdfast key add`"),
    (RepositoryExists, "`holdfast -r DIR info` shows what is in a repository"),
    (NoRepository, "-r DIR or HOLDFAST_REPOSITORY says where it is; `holdfast init` makes a new one"),
    (NoPassword, "nothing was changed"),
    (Locked, "nothing was changed; `holdfast snapshots` and `holdfast mount` work meanwhile"),
    (
        WrongPassword,
        "`holdfast key list` shows the slots; a recovery key opens the repository too",
    ),
    (Unsupported, "nothing was changed; a newer Holdfast may know it"),
    (CutOffDisk, "--kind files keeps it as it is"),
    (Foreign, "if somebody else copied it there, it must be given to the owner of the repository"),
    (Damaged, "`holdfast check` tells which snapshots are affected; the others can be used"),
    (
        NoSpace,
        "snapshots made before are safe; make room (`holdfast forget`, `holdfast prune`), run it again",
    ),
    (StoreError, "snapshots made before are safe; when that is mended, run it again"),
    (LessConsistent, "snapshots made before are safe; a lower --require accepts this one"),
    (NeedsUnknown, "`holdfast check` tells what is damaged, and what helps"),
    (NotSeekable, "a pipe can be read with --stdin"),
    (UnknownSourceType, "--kind files keeps it as it is"),
    (UnclearFormat, "say which it is: --disk-format {error.format} or --disk-format raw"),
    (UnnamedFile, "name that file too if it may be read; --follow-backing allows files beside the image"),
    (Ambiguous, "`holdfast snapshots` shows the IDs"),
    (GuestMissing, "`holdfast snapshots` and `holdfast ls` list what there is"),
    (
        GuestError,
        "other volumes and disks can be used, and `holdfast restore SNAPSHOT:disks/NAME.raw` gets the disk "
        "itself for other tools to look into",
    ),
    (
        NoBinding,
        "nothing was changed; all other commands work without it; `pip install 'holdfast[mount]'` brings it, "
        "and needs a C compiler, pkg-config and the headers of Python and libfuse 3",
    ),
    (MountDead, "`holdfast umount {error.path}` removes it; then mount again"),
    (MountTaken, "`holdfast umount {error.path}` unmounts it"),
    (LogInUse, "`FLUSH BINARY LOGS` makes the server close it; --current takes it when the server is gone"),
    (NoCluster, "run this in the cluster's data directory, as the server does, or give --system-id"),
    (
        UnknownDirectory,
        "--kind database takes the folder of a database's tool, when nothing else is named; any other is "
        "kept by `tar -C {error.path} -c . | holdfast backup --stdin --stdin-filename files.tar --name NAME`",
    ),
    (
        NameTaken,
        "--same continues that history, --new-history begins another one; or give another --name",
    ),
    (
        OtherContent,
        "what was read is stored already: the same command with --same continues that history all the same, "
        "with --new-history it begins another",
    ),
    (
        SeveralSnapshots,
        "{error.name}@TIME, {error.name}@latest or an ID takes one, --name {error.name} with --keep rules "
        "some, `holdfast subject drop {error.name}` all",
    ),
    (LastOfSubject, "--keep-last 1 keeps one of each, --allow-empty forgets them all the same"),
    (ArchiveOrphaned, "--with-logs drops the {error.files} files of it, too"),
    (IsDirectory, "`holdfast restore SNAPSHOT:{error.path} --target DIR` gets what is in it"),
    (SeveralFiles, "put :PATH behind the snapshot; `holdfast ls` lists what there is"),
    (TargetExists, "--overwrite replaces it"),
    (NotOurFolder, "--cache-dir or HOLDFAST_CACHE_DIR names another folder"),
    (ForeignLink, "if that is meant, name the place that it leads to"),
    (NeedsDirectory, "`holdfast restore SNAPSHOT:PATH` with the path of one file restores that one"),
    (DeviceNotConfirmed, "--force writes over all that is on it"),
    (NoImageOnDevice, "--format raw writes the disk itself"),
    (NoSnapshots, "`holdfast backup` makes one"),
    (OnlyLogs, "`holdfast logs` lists them"),
    (NoSuchKeySlot, "`holdfast key list` shows them"),
    (
        NoSuchLogArchive,
        "`holdfast wal-push` and `holdfast binlog-push` make them, `holdfast logs` lists them",
    ),
    (NotMounted, "nothing was changed"),
    (NotInTrash, "`holdfast undelete` lists what is"),
    (NoSuchSnapshot, "`holdfast snapshots` lists them"),
    (
        PasswordInUrl,
        "give it by --db-password-file or --db-password-fd, or keep it in {error.file}",
    ),
    (NoDatabase, "--all-databases takes all of them"),
    (SeveralDatabases, "--database says in which one"),
    (ClientCommandsFound, "--allow-meta-commands loads it all the same, and they run"),
    (BadScratch, "give another directory with --scratch"),
    (
        NotConfined,
        "--unconfined does without, and lets the dump's SQL reach this machine; nothing was loaded",
    ),
    (SeveralArchives, "give --system-id"),
    (
        NoLogArchive,
        "archive_command = 'holdfast wal-push %p' makes one; without --until the cluster is restored as at "
        "the end of the backup",
    ),
    (LogMissing, "`--until LSN` recovers to a place before that"),
    (
        LogsEndBefore,
        "`--until latest` recovers all that there is; the server's last log may still be in its pg_wal",
    ),
    (NoPhysicalBackup, "dumps take it all the same: leave out --physical"),
    (NotPhysical, "--until is for physical backups, which `holdfast backup --physical` makes"),
    (NotFound, "`holdfast snapshots` and `holdfast ls` list what there is"),
)


def code_for(error: BaseException) -> ExitCode:
    """The exit code that an error leads to; FAILED when the table does not know it."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)


def advice_for(error: BaseException) -> str:
    """What is safe and what to type next; "" when there is nothing general to say, or the error says it."""
    if isinstance(error, MixedKinds):
        return "; ".join(f"`holdfast backup {shlex.join(words)}`" for words in error.apart)
    if isinstance(error, ShellSyntax):
        return f"`sh -c {shlex.quote(error.command)}` runs it in a shell; in quotes it is an argument"
    advice = next((text for kind, text in _ADVICE if isinstance(error, kind)), "").format(error=error)
    return "" if "`holdfast" in str(error) and isinstance(error, NotFound | NoRepository) else advice
