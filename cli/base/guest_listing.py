"""Lists the content of guests: volumes of a disk, directories, whole trees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from holdfast.base.errors import RepositoryError
from holdfast.base.escaping import escape
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.documents import SHORT_ID
from holdfast.cli.base.entries import EntryLines, entry_document, volume_document
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.render import size
from holdfast.cli.base.table import Column, table
from holdfast.formats.guests.values.naming import to_text
from holdfast.formats.guests.values.values import Entry, GuestError, NodeType
from holdfast.tree.nodes import DirectoryNode, DiskNode, GuestNode, Node, TextNode
from holdfast.tree.snapshot_tree import SnapshotTree
from holdfast.tree.walk import Found, Unread, listed, told, walk

_COLUMNS = (
    Column("type", leaves=1),
    Column("size", "right", leaves=2),
    Column("label", leaves=3, optional=True),
    Column("path"),
    Column("", folds=True, optional=True),
)


class GuestListing:
    """Lists a node that is inside a guest. Prints lines as it finds entries."""

    def __init__(self, settings: RunSettings, tree: SnapshotTree) -> None:
        self._output = settings.output
        self._tree = tree
        self._unread = 0

    def show(self, node: Node, *, recursive: bool) -> ExitCode:
        """List a node. Returns PARTIAL when something could not be read."""
        if isinstance(node, DirectoryNode | DiskNode):
            self._places(node, recursive=recursive)
        elif isinstance(node, TextNode):
            text = to_text(node.data).strip()
            self._document([{"path": node.path, "type": "file", "size": node.size, "text": text}])
            self._output.result(f"{escape(node.path)}: {escape(text)}")
        elif isinstance(node, GuestNode) and node.is_directory:
            self._directory(node, recursive=recursive)
        elif isinstance(node, GuestNode):
            self._print([Found(b"", node.entry)], node)
        return ExitCode.PARTIAL if self._unread else ExitCode.DONE

    def _directory(self, node: GuestNode, *, recursive: bool) -> None:
        guest, volume = self._tree.guest(node), node.volume.path
        if recursive:
            self._print(walk(guest, volume, node.entry), node, lines=True)
            return
        self._print(told(listed(guest, volume, node.entry.inode), b""), node)

    def _print(
        self, steps: Iterator[Found | Unread] | Sequence[Found], node: GuestNode, *, lines: bool = False
    ) -> None:
        """Each entry as a line; in JSON one document, or with `lines` one for each."""
        documents, shown = [], EntryLines()
        if not self._output.quiet:
            self._output.result(shown.header())
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
            self._output.result(shown.line(step.entry, name, target))
        if not lines:
            self._document(documents)

    def _target(self, node: GuestNode, entry: Entry, path: str) -> str:
        if entry.type is not NodeType.LINK:
            return ""
        try:
            return to_text(self._tree.guest(node).readlink(node.volume.path, entry.inode))
        except (GuestError, RepositoryError) as error:
            self._tell(path, error)
            return "?"

    def _places(self, directory: DirectoryNode | DiskNode, *, recursive: bool) -> None:
        """Disks, or volumes of one; with `recursive` all that is in them."""
        rows: list[list[str]] = []
        documents: list[dict[str, object]] = []
        locked = False
        for _, node in sorted(self._tree.children(directory).items()):
            path = node.path
            volume = node.volume if isinstance(node, GuestNode | TextNode) else None
            try:
                if recursive:
                    self._below(node)
            except (GuestError, RepositoryError) as error:
                self._tell(path, error)
                continue
            locked |= volume is not None and volume.lacks_passphrase
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
        if locked:
            self._output.note("--luks-passphrase-file FILE opens encrypted volumes, for `holdfast mount` too")

    def _below(self, node: Node) -> None:
        if isinstance(node, DirectoryNode | DiskNode):
            self._places(node, recursive=True)
        elif isinstance(node, GuestNode):
            self._output.result(f"\n{escape(node.path)}:")
            self._directory(node, recursive=True)

    def _document(self, entries: Sequence[dict[str, object]]) -> None:
        stored = self._tree.stored
        self._output.document({"snapshot": stored.id, "short_id": stored.id[:SHORT_ID], "entries": entries})

    def _tell(self, path: str, error: Exception) -> None:
        self._unread += 1
        self._output.warn(f"{escape(path)}: {error}")
