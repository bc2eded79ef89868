"""Manifests of OVF packages: a digest for each file, lines like `SHA256(web-disk1.vmdk)= 9f86...`.

They detect damage, not forgery: whoever can change a file can change the manifest too.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from typing import Final

from holdfast.base.errors import SourceError
from holdfast.base.types import ProgressFunction
from holdfast.formats.disks.base.errors import ImageDamaged
from holdfast.formats.disks.base.image import ImageFile

MANIFEST_LIMIT: Final = 4 << 20
_READ: Final = 1 << 20


def parse_manifest(data: bytes, where: str) -> dict[str, tuple[str, str]]:
    """(algorithm, digest in lower-case hex) by file name. Raises SourceError."""
    found: dict[str, tuple[str, str]] = {}
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SourceError(f"{where} is no manifest: {error.reason}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        algorithm, name, digest = _parse_line(line.strip()) or ("", "", "")
        if not algorithm or len(digest) != 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size:
            raise SourceError(f"{where}: line {number} is no line of a manifest: {line[:80]!r}")
        if found.setdefault(name, (algorithm, digest)) != (algorithm, digest):
            raise SourceError(f"{where} has two different digests of {name!r}")
    return found


def _parse_line(line: str) -> tuple[str, str, str] | None:
    """(algorithm, name, digest). Splits from both ends, because names may contain parentheses and `)=`."""
    head, parenthesis, rest = line.partition("(")
    name, end, digest = rest.rpartition(")")
    digest = digest.strip().removeprefix("=").strip().lower()
    algorithm = head.strip().lower().replace("-", "")
    if not parenthesis or not end or algorithm not in ("sha1", "sha256", "sha384", "sha512"):
        return None
    return (algorithm, name, digest) if re.fullmatch(r"[0-9a-f]+", digest) else None


def verify(file: ImageFile, algorithm: str, digest: str, progress: ProgressFunction) -> None:
    """Compare the digest of a file. Raises SourceError if it differs, ImageDamaged if the file shrank."""
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    with mmap.mmap(-1, _READ) as memory, memoryview(memory) as buffer:
        for start in range(0, file.size, _READ):
            with buffer[: min(_READ, file.size - start)] as part:
                try:
                    count = file.read_into(part, start)
                except OSError as error:
                    raise SourceError(f"cannot read {file.name}: {error.strerror}") from error
                if count != len(part):
                    raise ImageDamaged(file.name, "the file ended early: it shrank", offset=start + count)
                hasher.update(part)
            progress(count)
    if hasher.hexdigest() != digest:
        raise SourceError(
            f"{file.name} does not match its manifest ({algorithm.upper()}): the export is damaged"
        )
