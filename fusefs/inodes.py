"""Inode numbers that survive a remount, and the node behind each."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from holdfast.tree.build import Tree
from holdfast.tree.nodes import DirectoryNode, DiskNode, Node, growing_nodes

ROOT = 1
_FIRST = 1 << 32
"""Numbers below are left free, for the root and whatever else the kernel reserves."""
_END = 1 << 62
"""Numbers from here on are those of files inside guests (`guest_inodes`)."""


class Inodes:
    """Numbers are hashes of the nodes' keys. Nodes get theirs when they are first shown.

    Two keys of one hash (expected at some billions of nodes) are told apart in the order of showing.
    """

    def __init__(self, first_choice: Callable[[str], int] | None = None) -> None:
        self._first_choice = first_choice or number_of
        self._nodes: dict[int, Node] = {}
        self._numbers: dict[str, int] = {}

    def node(self, number: int) -> Node | None:
        return self._nodes.get(number)

    def number(self, node: Node) -> int:
        """The node's number; enters the node if none of its key is known."""
        number = self._numbers.get(node.key)
        if number is None:
            number = self._first_choice(node.key)
            while number in self._nodes:
                number = _FIRST + (number + 1 - _FIRST) % (_END - _FIRST)
            self._numbers[node.key] = number
            self._nodes[number] = node
        return number

    def replace(self, old: Tree | None, new: Tree) -> list[tuple[int, str]]:
        """Enter a new tree. Returns (directory's number, name) of each entry that is not what it was."""
        gone: list[tuple[int, str]] = []
        fresh = {(parent.key, name): node for parent, name, node in growing_nodes(new.root)}
        if old is not None:
            for parent, name, node in growing_nodes(old.root):
                successor = fresh.get((parent.key, name))
                if successor is None or successor.key != node.key:
                    gone.append((self._numbers[parent.key], name))
            keys = {node.key for node in fresh.values()}
            for _, _, node in growing_nodes(old.root):
                if node.key not in keys:
                    self._forget(node)
        self._nodes[ROOT] = new.root
        self._numbers[new.root.key] = ROOT
        for node in fresh.values():
            self._nodes[self.number(node)] = node
        return gone

    def _forget(self, node: Node) -> None:
        """Drop a node and all below it that was shown. Open files keep theirs."""
        number = self._numbers.pop(node.key, None)
        if number is None:
            return
        del self._nodes[number]
        if isinstance(node, DiskNode) or (isinstance(node, DirectoryNode) and not node.growing):
            for child in node.shown_children:
                self._forget(child)


def number_of(key: str) -> int:
    """The number that a key has unless another one has it already."""
    value = int.from_bytes(blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest(), "little")
    return _FIRST + value % (_END - _FIRST)
