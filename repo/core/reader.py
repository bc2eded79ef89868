"""Reading stored files: chunk ID to plaintext, offset to chunk."""

from __future__ import annotations

from holdfast.base.errors import Damaged, MissingChunk, StoreError
from holdfast.base.types import ChunkID, RecordType
from holdfast.repo.chunks.recipe import Extent, Recipe, RecipeNode, decode_node
from holdfast.repo.core.cache import ByteCache
from holdfast.repo.core.repository import Repository
from holdfast.repo.index.locations import Location
from holdfast.repo.packs.reader import open_record
from holdfast.repo.snapshots.snapshot import Item, StoredStream
from holdfast.repo.store.interface import FileKind

_NODE_CACHE = 16 << 20
_NODE_ENTRY = 96
"""Bytes a decoded entry takes, about: an ID object and its length."""


class Reader:
    """Opens chunks and recipes of one repository. Thread-safe; caches nodes, and chunks when told to.

    Every record is authenticated when it is opened, and its ID compared: damage is an error, never
    zeros or a short read.
    """

    def __init__(self, repository: Repository, *, chunk_cache: int = 0) -> None:
        self._repository = repository
        self._nodes: ByteCache[ChunkID, RecipeNode] = ByteCache(
            _NODE_CACHE, lambda n: 256 + _NODE_ENTRY * len(n.ids)
        )
        self.chunks: ByteCache[ChunkID, bytes] = ByteCache(chunk_cache, len)

    def recipe(self, stored: Item | StoredStream) -> Recipe:
        """The recipe of a stored file or stream."""
        return Recipe(stored.recipe, stored.size, self.node)

    def node(self, id_: ChunkID) -> RecipeNode:
        """A decoded recipe node. Raises Damaged or MissingChunk."""
        cached = self._nodes.get(id_)
        return cached or self._nodes.load(id_, lambda: self._load_node(id_))

    def node_if_ready(self, id_: ChunkID) -> RecipeNode | None:
        """A decoded recipe node if that takes no waiting for a disk, as with `chunk_if_ready`."""
        cached = self._nodes.get(id_)
        if cached is not None:
            return cached
        plain = self._record_if_ready(id_, RecordType.NODE)
        if plain is None:
            return None
        node = decode_node(plain, f"recipe node {id_.hex()}")
        self._nodes.put(id_, node)
        return node

    def _load_node(self, id_: ChunkID) -> RecipeNode:
        return decode_node(self.read_record(id_, RecordType.NODE), f"recipe node {id_.hex()}")

    def chunk(self, id_: ChunkID) -> bytes:
        """A data chunk, through the chunk cache."""
        cached = self.chunks.get(id_)
        if cached is not None:
            return cached
        return self.chunks.load(id_, lambda: self.read_record(id_, RecordType.DATA))

    def chunk_if_ready(self, id_: ChunkID) -> bytes | None:
        """A data chunk if that takes no waiting for a disk: cached, or its bytes are in the page cache.

        None also when they are bad there: `chunk` knows where else to look, and what to raise.
        """
        cached = self.chunks.get(id_)
        if cached is not None:
            return cached
        plain = self._record_if_ready(id_, RecordType.DATA)
        if plain is not None:
            self.chunks.put(id_, plain)
        return plain

    def _record_if_ready(self, id_: ChunkID, kind: RecordType) -> bytes | None:
        location = self._repository.index.lookup([id_])[0]
        if location is None:
            return None
        try:
            data = self._repository.store.read_cached(
                FileKind.PACK, location.pack, location.offset, location.length
            )
            return None if data is None else self.open(location, data, id_, kind)
        except (FileNotFoundError, Damaged):
            return None

    def read_record(self, id_: ChunkID, kind: RecordType) -> bytes:
        """Plaintext of a record, from any of the packs that hold it.

        Raises MissingChunk when no listed pack has it, Damaged or StoreError when no copy can be read.
        """
        failure: Damaged | StoreError | None = None
        for attempt in (1, 2):
            index = self._repository.index
            for location in index.locations(id_) or index.trashed_locations(id_):
                try:
                    data = self._repository.store.read(
                        FileKind.PACK, location.pack, location.offset, location.length
                    )
                    return self.open(location, data, id_, kind)
                except FileNotFoundError:
                    continue
                except (Damaged, StoreError) as error:
                    failure = failure or error
            if failure is not None:
                raise failure
            if attempt == 1:
                self._repository.refresh()  # packs may have come or moved since the last listing
        raise MissingChunk(f"chunk {id_.hex()}", "is in no pack")

    def open(self, location: Location, data: bytes | memoryview, id_: ChunkID, kind: RecordType) -> bytes:
        """Plaintext of a record whose bytes were read from `location`."""
        where = f"chunk {id_.hex()} in pack {location.pack}"
        cipher = self._repository.ciphers.get(location.pack)
        header, plain = open_record(cipher, location.offset, data, where)
        if header.id != id_ or header.type is not kind:
            raise Damaged(where, f"another chunk is there ({header.id.hex()})", offset=location.offset)
        return plain

    def read(self, recipe: Recipe, start: int, length: int) -> bytes:
        """Bytes of a stored file; fewer only at its end."""
        end = min(start + length, recipe.size)
        return b"".join(self.slice(extent, start, end) for extent in recipe.extents(start, end))

    def slice(self, extent: Extent, start: int, end: int) -> bytes | memoryview:
        """The part of [start, end) that lies in the extent."""
        first, last = max(start, extent.start), min(end, extent.start + extent.length)
        if extent.id is None:
            return bytes(last - first)
        return slice_extent(extent, self.chunk(extent.id), first, last)


def slice_extent(extent: Extent, plain: bytes, first: int, last: int) -> memoryview:
    """Bytes [first, last) of the file out of the extent's chunk, checked for its length."""
    if len(plain) != extent.length:
        raise Damaged(
            f"chunk {extent.id.hex() if extent.id else ''}",
            f"is {len(plain)} bytes long, its recipe says {extent.length}",
        )
    return memoryview(plain)[first - extent.start : last - extent.start]
