"""Reads the JSON that the repository stores into typed values, and refuses whatever does not fit its type."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from holdfast.base.errors import Damaged, Unsupported

T = TypeVar("T")


class VersionedJson(msgspec.Struct):
    """A stored document, one member of JSON for each field. Members that no field names are ignored."""

    version: int


D = TypeVar("D", bound=VersionedJson)


class _AnyVersion(msgspec.Struct):
    version: Any


def read_versioned(data: bytes, shape: type[D], *, kind: str, version: int, where: str) -> D:
    """The document in `data`, which must be of the version that this program reads.

    Raises Unsupported for another version, whatever else the document says, and Damaged for anything else
    that is no document of this shape. `kind` is the noun for messages: "snapshot".
    """
    try:
        document = read_json(data, shape)
        found: object = document.version
    except ValueError as error:
        found = _version_of(data, version)
        if found == version:
            raise Damaged(where, f"not a {kind}: {error}") from None
    if found != version:
        raise Unsupported(f"{where}: {kind} version {found}; this program reads {version}")
    return document


def _version_of(data: bytes, default: int) -> object:
    """The version that a document of any shape says it has; `default` when it says none."""
    try:
        return read_json(data, _AnyVersion).version
    except ValueError:
        return default


def read_json(data: bytes, shape: type[T]) -> T:
    """The value of type `shape` that `data` describes. `shape` is anything that msgspec can decode.

    Raises ValueError, which names the member and what was expected there.
    """
    if not data.isascii():  # msgspec does not look at the bytes of members that it ignores
        raise ValueError("a byte that is not ASCII")
    try:
        return _decode(data, shape)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _decode(data: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.DecodeError as error:
        # Text that is not UTF-8 is stored with lone surrogates, which msgspec takes for malformed JSON.
        if isinstance(error, msgspec.ValidationError) or rb"\ud" not in data:
            raise
    return msgspec.convert(json.loads(data), shape)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Makes many values at once without garbage collections in between, which find nothing and took most of
    the time. For trees of values only: no cycle is freed meanwhile, in any thread."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
