"""Groups the paths that were given to one backup by subject: a VM, a database, or some files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.base.errors import Refused
from holdfast.ingest.exports.recognise import exports_in, is_export, is_whole_export
from holdfast.ingest.nbd.uri import is_nbd_uri
from holdfast.repo.snapshots.snapshot import ItemKind, SubjectKind
from holdfast.tasks.inputs import ImageOptions, open_paths


class MixedKinds(Refused):
    """The paths are of several kinds; `apart` are the arguments of the backups to make instead."""

    def __init__(self, reason: str, apart: Sequence[Sequence[str]]) -> None:
        super().__init__(f"{reason}; nothing was stored")
        self.apart = apart


@dataclass(frozen=True, slots=True)
class PathGroups:
    """Paths by subject, and what lay in a directory of exports and is none."""

    groups: tuple[tuple[str, ...], ...]
    skipped: tuple[Path, ...] = ()


@dataclass(slots=True)
class _Kinds:
    disks: list[str] = field(default_factory=list)
    dumps: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def group_paths(
    paths: Sequence[str], kind: SubjectKind | None, options: ImageOptions, *, named: bool
) -> PathGroups:
    """`named`: one subject was named, by a name or a UUID, so all paths are of it. Raises MixedKinds, and
    what opening a path raises."""
    one = PathGroups((tuple(paths),))
    if kind in (SubjectKind.DATABASE, SubjectKind.FILES) or (kind and named):
        return one
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise Refused(f"{twice} is named twice; nothing was stored")
    if len(paths) == 1:
        return one if named or is_nbd_uri(paths[0]) else _walked(paths[0])
    if any(map(is_nbd_uri, paths)):
        return one
    if all(is_export(Path(path)) for path in paths):
        return PathGroups(tuple((path,) for path in paths))
    whole = [path for path in paths if is_whole_export(Path(path))]
    if whole:
        others = [path for path in paths if path not in whole]
        raise MixedKinds(
            f"{whole[0]} would be a VM by itself, and {others[0]} is no part of it",
            [[path] for path in whole] + [others],
        )
    return _grouped(paths, _by_kind(paths, kind, options), named=named)


def _walked(path: str) -> PathGroups:
    if not Path(path).is_dir():
        return PathGroups(((path,),))
    exports, others = exports_in(Path(path))
    if not exports:
        return PathGroups(((path,),))
    return PathGroups(tuple((str(each),) for each in exports), tuple(others))


def _by_kind(paths: Sequence[str], kind: SubjectKind | None, options: ImageOptions) -> _Kinds:
    kinds = _Kinds()
    for path in paths:
        with ExitStack() as stack:
            (item,) = open_paths(stack, [path], kind, options, lambda count: None).items[:1]
        of = {ItemKind.DISK: kinds.disks, ItemKind.DUMP: kinds.dumps}.get(item.source_type.item, kinds.files)
        of.append(path)
    return kinds


def _grouped(paths: Sequence[str], kinds: _Kinds, *, named: bool) -> PathGroups:
    if kinds.disks and kinds.dumps:
        commands = [*([path] for path in kinds.disks), *([path] for path in kinds.dumps)]
        raise MixedKinds(f"{kinds.disks[0]} is a disk and {kinds.dumps[0]} a database's dump", commands)
    several = len(kinds.disks) + len(kinds.dumps)
    if named or several < 2:
        if kinds.dumps and kinds.files and not named:
            raise MixedKinds(
                f"{kinds.dumps[0]} is a database's dump and {kinds.files[0]} is none",
                [kinds.dumps, kinds.files],
            )
        return PathGroups((tuple(paths),))
    if kinds.files:
        raise MixedKinds(
            f"{kinds.files[0]} could belong to any of {several} others, unless all are of one subject",
            [["--name", "NAME", *paths]],
        )
    return PathGroups(tuple((path,) for path in paths))
