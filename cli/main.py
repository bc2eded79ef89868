"""The `holdfast` command: its verbs, loaded when they are used, and what becomes of errors."""

from __future__ import annotations

import difflib
import importlib
import io
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple, NoReturn

import click
from click.shell_completion import CompletionItem

from holdfast import __version__
from holdfast.base.private_process import become_private
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.options import SharedOptionsGroup
from holdfast.cli.base.passwords import take_environment


class Verb(NamedTuple):
    """Where a command is (`<verb>_command` in the module), its line in the help, its other names."""

    module: str
    help: str
    aliases: tuple[str, ...] = ()


VERBS: Final = {
    "init": Verb("init", "Make a repository."),
    "backup": Verb("backup", "Back up disks, dumps or files.", ("create",)),
    "snapshots": Verb("snapshots", "List snapshots.", ("list",)),
    "ls": Verb("ls", "List what is in a snapshot, or in a guest's disk in it."),
    "find": Verb("find", "Find files by name in all snapshots, inside guests too."),
    "diff": Verb("diff", "Show what changed between two snapshots."),
    "info": Verb("info", "Show all about a repository or a snapshot."),
    "stats": Verb("stats", "Show what deduplication and compression save."),
    "mount": Verb("mount", "Show all snapshots as files and folders."),
    "umount": Verb("mount", "End a mount."),
    "restore": Verb("restore", "Write stored files to files or devices.", ("extract",)),
    "dump": Verb("dump", "Write a stored file to standard output.", ("cat",)),
    "check": Verb("check", "Look for damage.", ("verify",)),
    "rehearse": Verb("rehearse", "Load a backup into a throw-away server and record the proof.", ("test",)),
    "forget": Verb("forget", "Take snapshots out of use, by name or by policy."),
    "undelete": Verb("forget", "Bring forgotten snapshots back."),
    "prune": Verb("prune", "Free the space of what no snapshot needs.", ("gc", "compact")),
    "subject": Verb("subject", "List, rename, join, split or drop what backups are of."),
    "wal-push": Verb("wal", "Archive a WAL file of PostgreSQL: archive_command."),
    "wal-fetch": Verb("wal", "Bring a WAL file back for PostgreSQL: restore_command."),
    "binlog-push": Verb("logs", "Archive binary logs of MySQL or MariaDB."),
    "logs": Verb("logs", "List log archives and their gaps; bring log files back."),
    "key": Verb("key", "Manage passwords and recovery keys."),
    "completion": Verb("completion", "Print a script that completes commands in a shell."),
    "version": Verb("version", "Show the version."),
}
_ALIASES: Final = {alias: name for name, verb in VERBS.items() for alias in verb.aliases}

_EPILOG: Final = """\b
Snapshots are named by their ID, NAME, NAME@latest, NAME@2026-11-22 or latest;
what is inside by NAME@TIME:PATH.

\b
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished but something could
not be read, 10 no repository, 11 locked, 12 wrong password, 20 less
consistent than required, 21 damage found, 22 snapshots vanished, 130
interrupted, 200 a recovery must stop.
"""


class Holdfast(SharedOptionsGroup):
    """The top of the command line. Modules of commands are imported when one of theirs is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = _ALIASES.get(cmd_name, cmd_name)
        if name not in VERBS:
            return None
        module = importlib.import_module(f"holdfast.cli.commands.{VERBS[name].module}")
        found: click.Command = getattr(module, f"{name.replace('-', '_')}_command")
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = _ALIASES.get(args[0], args[0])
        if name not in VERBS and not name.startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, [*VERBS, *_ALIASES], 1)
            ctx.fail(f"no such command: {name}" + (f"; did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, [name, *args[1:]])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.Abort from None  # before click prints an empty line, which is no JSON

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(", ".join((name, *verb.aliases)), verb.help) for name, verb in VERBS.items()]
            )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        verbs = [
            CompletionItem(name, help=verb.help)
            for name, verb in VERBS.items()
            if name.startswith(incomplete)
        ]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def main(  # type: ignore[override]  # one way to be called instead of click's two
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run and exit. The environment's passwords are taken out of it first."""
        arguments = list(sys.argv[1:] if args is None else args)
        settings = RunSettings(take_environment(os.environ), os.environ.get("XDG_CACHE_HOME", ""))
        try:
            code = super().main(arguments, prog_name="holdfast", standalone_mode=False, obj=settings, **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            _drop_output()
            sys.exit(1)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the last place that can tell
            settings.output.json |= "--json" in itertools.takewhile(lambda word: word != "--", arguments)
            code = _report(error, settings)
        if settings.vanished and not code:
            code = 22  # ExitCode.VANISHED, whose module takes 100 ms to import
        sys.exit(code if isinstance(code, int) else 0)


def _report(error: BaseException, settings: RunSettings) -> int:
    # Imported only now: with the classes of all errors it takes 150 ms.
    from holdfast.cli.base.failures import report  # noqa: PLC0415

    try:
        return report(error, settings)
    except BrokenPipeError:
        _drop_output()
        return 1


def _drop_output() -> None:
    """Nobody reads any more: what Python still wants to flush at its end goes nowhere, quietly."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(nowhere, stream.fileno())


@click.group(
    "holdfast", cls=Holdfast, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, "--version", prog_name="holdfast", message="%(prog)s %(version)s")
def cli() -> None:
    """Encrypted, deduplicating backups of virtual machines and databases that you can mount."""


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _mend_streams() -> None:
    """Give closed standard streams something: a file of ours must not get their number, and messages."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    nothing = Path(os.devnull)
    sys.stdin = sys.stdin or nothing.open()
    sys.stdout = sys.stdout or nothing.open("w")
    sys.stderr = sys.stderr or nothing.open("w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> NoReturn:
    """The console script."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP: so do we then
            signal.signal(number, _interrupt)
    _mend_streams()
    become_private()
    cli.main()
