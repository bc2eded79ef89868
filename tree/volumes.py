"""The volumes of a disk as nodes: what `files/DISK` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from holdfast.formats.guests.client.open_disk import Guest
from holdfast.formats.guests.values.naming import Place, layout, noted, text_document
from holdfast.formats.guests.values.values import Entry, GuestDamaged, GuestError, Volume, WorkerFailed
from holdfast.tree.nodes import DirectoryNode, DiskNode, GuestNode, Node, TextNode

_FAILURES: Final = 3
"""Volumes on which the parser may fail before it is given up: each can take as long as its time limit."""


@dataclass(frozen=True, slots=True)
class Volumes:
    """The volumes of a disk by where they stand, each with the root directory of its file system if it has
    one. `settled`: looking again would find the same; else a parser failed that may work the next time."""

    places: Mapping[Place, tuple[Volume, Entry | None]]
    settled: bool


def look_into(guest: Guest) -> Volumes:
    """Ask a guest for all its volumes. May wait for its parser: call it on a thread.

    A volume that cannot be read becomes a text that says so, and hides no other. Raises GuestError or
    RepositoryError when there is no telling what the volumes are, or the parser keeps failing.
    """
    found: dict[Volume, Entry | None] = {}
    failures = 0
    for volume in noted(guest.volumes()):
        if not volume.file_system:
            found[volume] = None
            continue
        try:
            found[volume] = guest.root(volume.path)
        except (GuestDamaged, WorkerFailed) as error:
            failures += isinstance(error, WorkerFailed)
            if failures >= _FAILURES:
                raise
            found[_unreadable(volume, error)] = None
    places = {place: (volume, found[volume]) for place, volume in layout(found).items()}
    return Volumes(places, settled=not failures)


def _unreadable(volume: Volume, error: GuestError) -> Volume:
    return replace(volume, file_system="", text=f"damaged {volume.file_system} file system: {error}")


def volume_nodes(disk: DiskNode, volumes: Volumes) -> dict[str, Node]:
    """The children of `files/DISK`: a directory for each file system, a text for each other volume."""
    directories: dict[Place, dict[str, Node]] = {(): {}}
    for place, (volume, root) in volumes.places.items():
        for depth in range(1, len(place)):
            if place[:depth] not in directories:
                children: dict[str, Node] = {}
                directories[place[:depth]] = children
                above = directories[place[: depth - 1]]
                above[place[depth - 1]] = _directory(disk, place[:depth], children)
        path = "/".join((disk.path, *place))
        directories[place[:-1]][place[-1]] = (
            TextNode(path, _key(disk, place), text_document(volume), disk.mtime, volume)
            if root is None
            else GuestNode(path, disk, volume, b"", root)
        )
    return directories[()]


def _directory(disk: DiskNode, place: Place, children: dict[str, Node]) -> DirectoryNode:
    path = "/".join((disk.path, *place))
    return DirectoryNode(path, f"{_key(disk, place)}/", disk.mtime, lambda: children, in_guest=True)


def _key(disk: DiskNode, place: Place) -> str:
    return f"{disk.key}/{'/'.join(place)}"
