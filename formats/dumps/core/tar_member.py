"""What the tar archives of databases may hold: files, folders and symbolic links, with plain paths."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from holdfast.base.tar_header import FILE, FOLDER, LINK, Extension, TarError, TarHeader, parse_header

_PATH_LIMIT: Final = 4096
_NAME_LIMIT: Final = 255


def parse_member(header: bytes, extension: Extension) -> TarHeader:
    """The member of a header whose sum is right. Its path is relative and plain, without a slash at the end;
    "" for the top folder itself. Raises TarError for what such an archive never holds."""
    found = parse_header(header, extension)
    if found.kind not in (FILE, LINK, FOLDER):
        raise TarError(f"{found.path!r} is {found.kind_name}")
    if found.kind != FILE and found.size:
        raise TarError(f"{found.path!r} is no file and has {found.size} bytes")
    path = _plain(found.path, is_folder=found.kind == FOLDER)
    return replace(found, path=path, target=found.target if found.kind == LINK else "")


def _plain(path: str, *, is_folder: bool) -> str:
    path = path.removeprefix("./")
    if is_folder:
        path = path.removesuffix("/") or "."
        if path == ".":
            return ""
    parts = path.split("/")
    encoded = path.encode(errors="surrogateescape")
    if len(encoded) > _PATH_LIMIT or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise TarError(f"{path[:100]!r} is no plain path")
    if any(len(part.encode(errors="surrogateescape")) > _NAME_LIMIT for part in parts):
        raise TarError(f"{path[:100]!r} has a name that is too long")
    return path
