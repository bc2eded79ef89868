"""What the mount tells of a snapshot in JSON."""

from __future__ import annotations

import json
from dataclasses import replace

from holdfast.repo.snapshots.snapshot import BadRange, Subject
from holdfast.tree.nodes import ItemNode, Node, TextNode
from support.basics import make_snapshot
from support.trees import FILES, VM, item, paths_of, stored


def about(nodes: dict[str, Node], path: str) -> dict[str, object]:
    node = nodes[path]
    assert isinstance(node, TextNode)
    found = json.loads(node.data)
    assert isinstance(found, dict)
    return found


def test_document_of_a_machine_tells_what_is_known() -> None:
    disk = replace(item(), bad=(BadRange(4096, 512, "I/O error"),))
    subject = Subject(VM, "web01", uuid="u1")
    document = about(
        paths_of(stored(1, subject, snapshot=make_snapshot(disk))), "vms/web01/2026-11-22_02-00-00/vm.json"
    )
    assert document["subject"] == {"kind": "vm", "name": "web01", "uuid": "u1"}
    assert document["time"] == "2026-11-22T02:00:00+00:00"
    assert document["consistency"] == "unknown"
    assert document["partial"] is True
    assert document["disks"] == [
        {
            "path": "disks/sda.raw",
            "kind": "file",
            "size": 1000,
            "allocated": 0,
            "mtime_ns": 0,
            "unreadable": [{"offset": 4096, "length": 512, "reason": "I/O error"}],
        }
    ]


def test_documents_make_way_for_items_of_their_name() -> None:
    nodes = paths_of(
        stored(1, Subject(FILES, "a"), "snapshot.json"),
        stored(2, Subject(VM, "b"), "vm.json"),
        stored(3, Subject(FILES, "c"), "x"),
    )
    time = "2026-11-22_02-00-00"
    assert isinstance(nodes[f"files/a/{time}/snapshot.json"], ItemNode)
    assert isinstance(nodes[f"vms/b/{time}/vm.json"], ItemNode)
    assert about(nodes, f"vms/b/{time}/snapshot.json")["subject"] == {"kind": "vm", "name": "b"}
    assert "items" in about(nodes, f"files/c/{time}/snapshot.json")
