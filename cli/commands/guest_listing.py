"""`holdfast ls` inside guests: volumes of a disk, folders, whole trees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from holdfast.base.errors import RepositoryError
from holdfast.cli.base.context import Settings
from holdfast.cli.base.documents import SHORT_ID
from holdfast.cli.base.entries import HEADER, entry_document, entry_line, volume_document
from holdfast.cli.base.exits import ExitCode
from holdfast.cli.base.render import Column, escape, size, table
from holdfast.formats.guests.values.naming import to_text
from holdfast.formats.guests.values.values import Entry, GuestError, NodeType
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.tasks.guest_files import Guests, explained
from holdfast.tree.paths import FolderNode, GuestNode, Inside, TextNode
from holdfast.tree.walk import Found, Unread, listed, told, walk

_COLUMNS = (
    Column("type"),
    Column("size", "right"),
    Column("label"),
    Column("path"),
    Column(""),
)


class GuestListing:
    """Lists what stands at a path below `files/`. Lines are printed as they are found."""

    def __init__(
        self, settings: Settings, repository: Repository, stored: StoredSnapshot, luks: Sequence[str]
    ) -> None:
        self._output = settings.output
        self._stored = stored
        self._guests = Guests.of(repository, luks)
        self._unread = 0

    def show(self, path: str, *, recursive: bool) -> ExitCode:
        """PARTIAL when something could not be read, and the rest was listed."""
        with explained(), self._guests.inside(self._stored.snapshot) as inside:
            node = inside.resolve(path)
            if isinstance(node, GuestNode) and node.entry.type is NodeType.FOLDER:
                self._folder(node, recursive=recursive)
            elif isinstance(node, GuestNode):
                self._print([Found(b"", node.entry)], node)
            elif isinstance(node, TextNode):
                text = to_text(node.content).strip()
                self._document([{"path": node.path, "type": "file", "size": len(node.content), "text": text}])
                self._output.result(f"{escape(node.path)}: {escape(text)}")
            elif isinstance(node, FolderNode):
                self._places(inside, node, recursive=recursive)
        return ExitCode.PARTIAL if self._unread else ExitCode.DONE

    def _folder(self, node: GuestNode, *, recursive: bool) -> None:
        guest = node.disk.guest
        if recursive:
            self._print(walk(guest, node.volume, node.entry), node, lines=True)
            return
        self._print(told(listed(guest, node.volume, node.entry.inode), b""), node)

    def _print(
        self, steps: Iterator[Found | Unread] | Sequence[Found], node: GuestNode, *, lines: bool = False
    ) -> None:
        """Each entry as a line; in JSON one document, or with `lines` one for each."""
        documents = []
        if not self._output.quiet:
            self._output.result(HEADER)
        for step in steps:
            path = f"{node.path}/{to_text(step.path)}" if step.path else node.path
            if isinstance(step, Unread):
                self._tell(path, step.error)
                continue
            target = self._target(node, step.entry, path)
            if self._output.json:
                document = entry_document(step.entry, path, target)
                if lines:
                    self._output.message("entry", **document)
                else:
                    documents.append(document)
                continue
            name = to_text(step.path) or node.path.rpartition("/")[2]
            self._output.result(entry_line(step.entry, name, target))
        if not lines:
            self._document(documents)

    def _target(self, node: GuestNode, entry: Entry, path: str) -> str:
        if entry.type is not NodeType.LINK:
            return ""
        try:
            return to_text(node.disk.guest.readlink(node.volume, entry.inode))
        except (GuestError, RepositoryError) as error:
            self._tell(path, error)
            return "?"

    def _places(self, inside: Inside, node: FolderNode, *, recursive: bool) -> None:
        """Disks, or volumes of one; with `recursive` all that is in them."""
        rows: list[list[str]] = []
        documents: list[dict[str, object]] = []
        for name in inside.names(node):
            path = f"{node.path}/{name}"
            try:
                volume = inside.volume_at(path)
                if recursive:
                    self._below(inside, path)
            except (GuestError, RepositoryError) as error:
                self._tell(path, error)
                continue
            if volume is None:
                documents.append({"path": path, "type": "folder"})
                rows.append(["folder", "", "", path, ""])
            else:
                documents.append(volume_document(volume, path))
                about = [volume.file_system or "text", size(volume.size), volume.label, path, volume.text]
                rows.append(about)
        if recursive:
            return
        self._document(documents)
        self._output.result(table(_COLUMNS, rows))

    def _below(self, inside: Inside, path: str) -> None:
        child = inside.resolve(path)
        if isinstance(child, FolderNode):
            self._places(inside, child, recursive=True)
        elif isinstance(child, GuestNode):
            self._output.result(f"\n{escape(path)}:")
            self._folder(child, recursive=True)

    def _document(self, entries: Sequence[dict[str, object]]) -> None:
        self._output.document(
            {"snapshot": self._stored.id, "short_id": self._stored.id[:SHORT_ID], "entries": entries}
        )

    def _tell(self, path: str, error: Exception) -> None:
        self._unread += 1
        self._output.warn(f"{escape(path)}: {error}")
