"""The compiled cutting loops; only `holdfast.repo.chunks.chunker` and tests call them."""

from holdfast.base.types import Buffer

def cut_aligned(
    data: Buffer,
    key: Buffer,
    minimum: int,
    average: int,
    maximum: int,
    strict: int,
    loose: int,
    final: bool,
    /,
) -> list[int]: ...
def cut_gear(
    data: Buffer,
    key: Buffer,
    minimum: int,
    average: int,
    maximum: int,
    strict: int,
    loose: int,
    final: bool,
    /,
) -> list[int]: ...
def block_hash(block: Buffer, key: Buffer, /) -> int: ...
def block_hash_portable(block: Buffer, key: Buffer, /) -> int: ...
def is_zero(data: Buffer, /) -> bool: ...
