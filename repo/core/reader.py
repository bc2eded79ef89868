"""Reads chunks by their ID, and bytes of stored files by their offset."""

from __future__ import annotations

from holdfast.base.errors import Damaged, MissingChunk, StoreError
from holdfast.base.types import ChunkID, PackID, RecordType
from holdfast.repo.chunks.recipe import Extent, Recipe, RecipeNode, decode_node
from holdfast.repo.core.cache import ByteCache
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.trashed import learn_trash, size_of
from holdfast.repo.index.locations import Location
from holdfast.repo.packs.reader import open_record, read_directory
from holdfast.repo.snapshots.snapshot import Item, StoredStream
from holdfast.repo.store.interface import FileKind

_NODE_CACHE = 16 << 20
_DIRECTORIES = 8
"""Directories of damaged packs that are kept."""
_NODE_ENTRY = 96
"""Estimated bytes of memory of one decoded entry: an ID object and its length."""


class Reader:
    """Reads chunks and recipes of one repository. Thread-safe.

    Caches nodes, and up to `chunk_cache` bytes of chunks. Authenticates every record and compares its ID:
    damage raises an error and never yields zeros or a short read.
    """

    def __init__(self, repository: Repository, *, chunk_cache: int = 0) -> None:
        self._repository = repository
        self._nodes: ByteCache[ChunkID, RecipeNode] = ByteCache(
            _NODE_CACHE, lambda n: 256 + _NODE_ENTRY * len(n.ids)
        )
        self._directories: dict[PackID, dict[ChunkID, list[Location]]] = {}  # of damaged packs
        self.chunks: ByteCache[ChunkID, bytes] = ByteCache(chunk_cache, len)

    def secret_for(self, what: bytes) -> str:
        """As `Keys.secret_for`."""
        return self._repository.keys.secret_for(what)

    def recipe(self, stored: Item | StoredStream) -> Recipe:
        """The recipe of a stored file or stream."""
        return Recipe(stored.recipe, stored.size, self.node)

    def node(self, id_: ChunkID) -> RecipeNode:
        """A decoded recipe node. Raises Damaged or MissingChunk."""
        cached = self._nodes.get(id_)
        return cached or self._nodes.load(id_, lambda: self._load_node(id_))

    def node_if_ready(self, id_: ChunkID) -> RecipeNode | None:
        """A decoded recipe node if no disk read is needed, else None; as `chunk_if_ready`."""
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
        """A data chunk if no disk read is needed: it is cached here, or its bytes are in the page cache.

        Else None, also when those bytes are damaged: `chunk` then tries other packs, or raises.
        """
        cached = self.chunks.get(id_)
        if cached is not None:
            return cached
        plain = self._record_if_ready(id_, RecordType.DATA)
        if plain is not None:
            self.chunks.put(id_, plain)
        return plain

    def _record_if_ready(self, id_: ChunkID, kind: RecordType) -> bytes | None:
        location = self._repository.ask_index(lambda index: index.lookup([id_])[0])
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
        """Plaintext of a record, from any of the packs that hold it. As `find_record`."""
        return self.find_record(id_, kind)[1]

    def find_record(self, id_: ChunkID, kind: RecordType) -> tuple[Location, bytes]:
        """A location of the record, and its plaintext.

        Raises MissingChunk when no pack has it, not even in the trash, Damaged or StoreError when no copy can
        be read. Notes each damaged copy; tries copies that were already noted last.
        """
        if (found := self._try_places(id_, kind)) is not None:
            return found
        self._repository.refresh()  # packs may have been added or moved since the last listing
        if (found := self._try_places(id_, kind)) is not None:
            return found
        if learn_trash(self._repository) and (found := self._try_places(id_, kind)) is not None:
            return found
        return self._read_damaged(id_, kind)

    def _try_places(self, id_: ChunkID, kind: RecordType) -> tuple[Location, bytes] | None:
        """None when the index knows no place. Raises Damaged or StoreError when no copy can be read."""
        failure: Damaged | StoreError | None = None
        for location in self._repository.ask_index(
            lambda index: index.locations(id_) or index.trashed_locations(id_)
        ):
            try:
                return location, self._read_at(location, id_, kind)
            except FileNotFoundError:
                continue
            except StoreError as error:
                failure = failure or error
            except Damaged as error:
                failure = failure or error
                if self._is_misled(location, id_):
                    self._repository.replace_index(f"it is wrong about {error.where}")
                    return None
        if failure is not None:
            raise failure
        return None

    def _read_at(self, location: Location, id_: ChunkID, kind: RecordType) -> bytes:
        data = self._repository.store.read(FileKind.PACK, location.pack, location.offset, location.length)
        return self.open(location, data, id_, kind)

    def _is_misled(self, location: Location, id_: ChunkID) -> bool:
        """Whether the index named a place where the pack's own directory has something else.

        If not, the chunk is damaged there, which is noted.
        """
        try:
            places = self._places_in(location.pack, id_)
        except (FileNotFoundError, Damaged, StoreError):
            return False  # the directory is damaged, too: each new index finds that out by itself
        if location not in places:
            return True
        self._repository.note_damage(location.pack, [id_])
        return False

    def _read_damaged(self, id_: ChunkID, kind: RecordType) -> tuple[Location, bytes]:
        """A record that was found damaged once: perhaps it was the disk, or the file was replaced since.

        Raises MissingChunk when no pack is known that ever had it, else Damaged or StoreError.
        """
        failure: Damaged | StoreError = MissingChunk(f"chunk {id_.hex()}", "is in no pack")
        for pack in self._repository.damage.by_chunk().get(id_, ()):
            try:
                for location in self._places_in(pack, id_):
                    return location, self._read_at(location, id_, kind)
            except (Damaged, StoreError) as error:
                failure = error
            except FileNotFoundError:
                continue
        raise failure

    def _places_in(self, pack: PackID, id_: ChunkID) -> list[Location]:
        """Where a pack has a chunk, by its own directory. Raises FileNotFoundError, Damaged, StoreError."""
        if pack not in self._directories:
            if len(self._directories) >= _DIRECTORIES:
                self._directories.clear()
            found: dict[ChunkID, list[Location]] = {}
            size = size_of(self._repository, pack)
            for offset, header in read_directory(
                self._repository.store, self._repository.ciphers, pack, size
            ):
                found.setdefault(header.id, []).append(Location(pack, offset, header.size))
            self._directories[pack] = found
        return self._directories[pack].get(id_, [])

    def open(self, location: Location, data: bytes | memoryview, id_: ChunkID, kind: RecordType) -> bytes:
        """Plaintext of a record whose bytes were read from `location`."""
        where = f"chunk {id_.hex()} in pack {location.pack}"
        cipher = self._repository.ciphers.get(location.pack)
        header, plain = open_record(cipher, location.offset, data, where)
        if header.id != id_ or header.type is not kind:
            raise Damaged(where, f"another chunk is there ({header.id.hex()})", offset=location.offset)
        keys = self._repository.keys
        # Who was removed knows the keys of earlier epochs, and can seal any bytes under any ID with them.
        if cipher.head.epoch != keys.epoch and keys.chunk_id(kind, plain) != id_:
            raise Damaged(where, "its content is not that of its ID", offset=location.offset)
        return plain

    def read(self, recipe: Recipe, start: int, length: int) -> bytes:
        """Up to `length` bytes of a stored file from `start`; fewer only at the end of the file."""
        end = min(start + length, recipe.size)
        return b"".join(self.slice(extent, start, end) for extent in recipe.extents(start, end))

    def slice(self, extent: Extent, start: int, end: int) -> bytes | memoryview:
        """The bytes of [start, end) that are in the extent."""
        first, last = max(start, extent.start), min(end, extent.start + extent.length)
        if extent.id is None:
            return bytes(last - first)
        return slice_extent(extent, self.chunk(extent.id), first, last)


def slice_extent(extent: Extent, plain: bytes, first: int, last: int) -> memoryview:
    """Bytes [first, last) of the file from the extent's chunk. Raises Damaged if its length is wrong."""
    if len(plain) != extent.length:
        raise Damaged(
            f"chunk {extent.id.hex() if extent.id else ''}",
            f"is {len(plain)} bytes long, its recipe says {extent.length}",
        )
    return memoryview(plain)[first - extent.start : last - extent.start]
