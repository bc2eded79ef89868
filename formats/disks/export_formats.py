"""The formats in which the tree of a snapshot and `restore` can show a stored disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from holdfast.formats.disks.base.view import Allocation, View, ViewImpossible
from holdfast.formats.disks.qcow2.view import Qcow2View
from holdfast.formats.disks.vdi.view import VdiView
from holdfast.formats.disks.vhdx.view import VhdxView
from holdfast.formats.disks.vmdk.view import VmdkView

VIEWS: Final[dict[str, Callable[[int, Allocation, bytes], View]]] = {
    "qcow2": Qcow2View,
    "vmdk": VmdkView,
    "vhdx": VhdxView,
    "vdi": VdiView,
}
"""By file suffix. A constructor takes the disk's size in bytes, its allocation, and 16 bytes of identity for
formats that want unique IDs in their heads (the same disk gives the same file); it raises ViewImpossible for
a disk that the format cannot hold."""


def view_size(disk_size: int, format_: str) -> int | None:
    """Bytes of the image file that shows a disk in a format; None when the format cannot hold such a disk."""
    try:
        return VIEWS[format_](disk_size, lambda start, end: iter(()), bytes(16)).size
    except ViewImpossible:
        return None
