"""The config: what is fixed when a repository is created, in clear and sealed under its identity secret."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from holdfast.base.errors import Damaged, Unsupported
from holdfast.repo.core.keyring import Keyring
from holdfast.repo.format.crypto import Suite, content_hash, open_object, seal_object
from holdfast.repo.format.format import VERSION, ObjectType

_FORMAT: Final = "holdfast repository"
_FEATURES: Final[frozenset[str]] = frozenset()
"""Features beyond format version 2 that this program supports; none yet."""


@dataclass(frozen=True, slots=True)
class Config:
    """Properties that are fixed when a repository is created. `compression` is the zstd level of records."""

    id: bytes
    suite: Suite
    created: datetime
    compression: int

    @property
    def hex_id(self) -> str:
        return self.id.hex()


def seal_config(config: Config, keyring: Keyring) -> bytes:
    """The whole file. No new key epoch changes it: it is sealed under the identity secret."""
    head = {"format": _FORMAT, "version": VERSION, "id": config.hex_id, "features": []}
    public = json.dumps(head | {"suite": int(config.suite)}, sort_keys=True).encode()
    body = {
        "public": content_hash(public),
        "created": config.created.isoformat(),
        "compression": config.compression,
    }
    keys = keyring.keys(config.id, config.suite)
    return public + b"\n" + seal_object(keys, ObjectType.CONFIG, json.dumps(body, sort_keys=True).encode())


def parse_public(data: bytes, where: str) -> dict[str, Any]:
    """The config's public head, which is not authenticated yet. Raises Damaged or Unsupported."""
    try:
        head = json.loads(data.partition(b"\n")[0])
        if head["format"] != _FORMAT:
            raise Damaged(where, "not a Holdfast repository's config")
        if head["version"] != VERSION:
            raise Unsupported(
                f"{where}: repository format version {head['version']}; this program reads version {VERSION}"
            )
        unknown = sorted(set(head["features"]) - _FEATURES)
        if unknown:
            raise Unsupported(f"{where}: needs features this program does not know: {', '.join(unknown)}")
        Suite(head["suite"])
        if len(bytes.fromhex(head["id"])) != 16:
            raise ValueError("bad id")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(where, f"not a config: {error}") from None
    return dict(head)


def open_config(data: bytes, where: str, keyring: Keyring) -> Config:
    """Raises Damaged unless it was sealed under this identity secret, with this line; or Unsupported."""
    head = parse_public(data, where)
    public, _, sealed = data.partition(b"\n")
    repository = bytes.fromhex(head["id"])
    suite = Suite(head["suite"])
    keys = keyring.keys(repository, suite)
    body = json.loads(open_object(keys, ObjectType.CONFIG, sealed, where))
    if body["public"] != content_hash(public):
        raise Damaged(where, "its public head was changed")
    created = datetime.fromisoformat(body["created"]).astimezone(UTC)
    return Config(repository, suite, created, int(body["compression"]))
