"""Ciphers, key derivation, the secrets of key slots and sealed boxes. The only module that uses a cipher.

A repository has an identity secret, for ever, and a root key for each key epoch. Each file has its own key,
derived from a subkey of its epoch and the file's random salt; a nonce is a domain byte and an offset. So
there are no counters to coordinate, and any number of threads and hosts may seal. GCM and Poly1305 do not
commit to their key (partitioning oracles, USENIX Security 2021), so each head carries a commitment that is
compared before anything is decrypted.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from holdfast.base.errors import Damaged, OtherKey, Unsupported
from holdfast.base.types import Buffer, ChunkID, RecordType
from holdfast.repo.format.format import (
    HEAD_SIZE,
    TAG,
    FileHead,
    NonceDomain,
    ObjectType,
    nonce,
    parse_head,
)

KEY_SIZE: Final = 32
_COMMITMENT: Final = "holdfast 2 key commitment"
_IDENTITY: Final = 0
"""The epoch of files that are sealed under a key of the identity secret."""


class Suite(IntEnum):
    """The AEAD cipher of a file. ChaCha20 is for machines without AES instructions."""

    AES_256_GCM = 1
    CHACHA20_POLY1305 = 2


_SUITES: Final = frozenset(int(suite) for suite in Suite)


def derive(key: bytes, context: str) -> bytes:
    """Derive a 32-byte key for one purpose: BLAKE3 in key derivation mode."""
    return blake3(key, derive_key_context=context).digest()


def content_hash(data: Buffer) -> str:
    """BLAKE3 of a file's bytes as 64 hex digits: the name of packs, snapshots and key slots."""
    return blake3(data, max_threads=blake3.AUTO if len(data) > 1 << 20 else 1).hexdigest()


@dataclass(frozen=True, slots=True, repr=False)
class EpochKeys:
    """Subkeys of one key epoch."""

    pack: bytes
    meta: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """Subkeys of one repository; those of `epoch` seal what is new. `repr` does not show them."""

    repository: bytes
    suite: Suite
    data_id: bytes
    node_id: bytes
    cut: bytes
    config: bytes
    secret: bytes
    index: bytes
    """Of the index in a user's cache."""
    epoch: int
    epochs: Mapping[int, EpochKeys]

    @staticmethod
    def of(identity: bytes, roots: Mapping[int, bytes], repository: bytes, suite: Suite) -> Keys:
        """From the identity secret and the root keys by epoch."""
        return Keys(
            repository=repository,
            suite=suite,
            data_id=derive(identity, "holdfast 2 data chunk id"),
            node_id=derive(identity, "holdfast 2 recipe node id"),
            cut=derive(identity, "holdfast 2 cut points"),
            config=derive(identity, "holdfast 2 config"),
            secret=derive(identity, "holdfast 2 secrets"),
            index=derive(identity, "holdfast 2 index"),
            epoch=max(roots),
            epochs={
                epoch: EpochKeys(derive(root, "holdfast 2 packs"), derive(root, "holdfast 2 metadata"))
                for epoch, root in roots.items()
            },
        )

    def sealing_key(self, kind: ObjectType, epoch: int, where: str) -> bytes:
        """The key that file keys of that kind and epoch come from. Raises Damaged for an unknown epoch."""
        if (kind is ObjectType.CONFIG) != (epoch == _IDENTITY):
            raise Damaged(where, f"a {kind.name.lower()} of key epoch {epoch}", offset=12)
        if epoch == _IDENTITY:
            return self.config
        if epoch not in self.epochs:
            raise Damaged(
                where,
                f"was sealed in key epoch {epoch}, and the newest that this key slot knows is {self.epoch}",
                offset=12,
            )
        return self.epochs[epoch].pack if kind is ObjectType.PACK else self.epochs[epoch].meta

    def data_chunk_id(self, data: Buffer) -> ChunkID:
        return ChunkID(blake3(data, key=self.data_id).digest())

    def node_chunk_id(self, data: Buffer) -> ChunkID:
        return ChunkID(blake3(data, key=self.node_id).digest())

    def chunk_id(self, kind: RecordType, data: Buffer) -> ChunkID:
        """The ID of a chunk or node."""
        return self.data_chunk_id(data) if kind is RecordType.DATA else self.node_chunk_id(data)

    def secret_for(self, what: bytes) -> str:
        """64 hex digits: always the same for `what`, and nobody can tell them who never had a password."""
        return blake3(what, key=self.secret).hexdigest()


class FileCipher:
    """Encrypts (seals) and decrypts (opens) the parts of one file by their offset. Thread-safe.

    The caller must never seal two different plaintexts at the same (domain, offset): the nonce would repeat.
    """

    __slots__ = ("_aad", "_aead", "head")

    def __init__(self, head: FileHead, key: bytes, repository: bytes) -> None:
        self.head = head
        self._aead = _aead(head.suite, key)
        self._aad = head.binding(repository)

    def seal_into(self, domain: NonceDomain, offset: int, plain: Buffer, out: memoryview) -> None:
        """Seal into `out`, whose length must be exactly len(plain) + 16 bytes."""
        self._aead.encrypt_into(nonce(domain, offset), plain, self._aad, out)

    def seal(self, domain: NonceDomain, offset: int, plain: Buffer) -> bytes:
        return self._aead.encrypt(nonce(domain, offset), plain, self._aad)

    def open(self, domain: NonceDomain, offset: int, sealed: Buffer, where: str) -> bytes:
        """Decrypt. Raises Damaged when the bytes are not what was sealed for this domain and offset."""
        try:
            return self._aead.decrypt(nonce(domain, offset), sealed, self._aad)
        except InvalidTag:
            raise Damaged(where, _NOT_AUTHENTIC, offset=offset) from None

    def open_into(
        self, domain: NonceDomain, offset: int, sealed: Buffer, out: memoryview, where: str
    ) -> memoryview:
        """As `open`, into the start of `out`, without a new object for each plaintext; returns that part."""
        plain = out[: len(sealed) - TAG]
        try:
            self._aead.decrypt_into(nonce(domain, offset), sealed, self._aad, plain)
        except InvalidTag:
            raise Damaged(where, _NOT_AUTHENTIC, offset=offset) from None
        return plain


_NOT_AUTHENTIC: Final = "not authentic (flipped, truncated or misplaced bytes)"


def _aead(suite: int, key: bytes) -> AESGCM | ChaCha20Poly1305:
    return AESGCM(key) if suite == Suite.AES_256_GCM else ChaCha20Poly1305(key)


def new_cipher(keys: Keys, kind: ObjectType) -> FileCipher:
    """A cipher with a new random salt, for a new file."""
    salt = secrets.token_bytes(32)
    epoch = _IDENTITY if kind is ObjectType.CONFIG else keys.epoch
    key = blake3(salt, key=keys.sealing_key(kind, epoch, "a new file")).digest()
    head = FileHead(keys.suite, kind, epoch, salt, derive(key, _COMMITMENT)[:16])
    return FileCipher(head, key, keys.repository)


def open_cipher(keys: Keys, kind: ObjectType, head_bytes: Buffer, where: str) -> FileCipher:
    """The cipher of an existing file from its first 64 bytes, under the keys of the epoch that these name.

    Raises OtherKey, Damaged for a bad head, Unsupported for an unknown version or suite.
    """
    head = parse_head(head_bytes, where, kind)
    if head.suite not in _SUITES:
        raise Unsupported(f"{where}: cipher suite {head.suite} is unknown to this program")
    key = blake3(head.salt, key=keys.sealing_key(kind, head.epoch, where)).digest()
    if not hmac.compare_digest(derive(key, _COMMITMENT)[:16], head.commitment):
        raise OtherKey(where, "was sealed under another key, or its head is damaged", offset=0)
    return FileCipher(head, key, keys.repository)


def seal_object(keys: Keys, kind: ObjectType, body: bytes) -> bytes:
    """Encrypt `body` into a whole file: head and sealed body."""
    cipher = new_cipher(keys, kind)
    return cipher.head.pack() + cipher.seal(NonceDomain.OBJECT, 0, body)


def open_object(keys: Keys, kind: ObjectType, data: bytes, where: str) -> bytes:
    """Decrypt the body of a sealed file. Raises Damaged or Unsupported."""
    cipher = open_cipher(keys, kind, data[:HEAD_SIZE], where)
    return cipher.open(NonceDomain.OBJECT, 0, data[HEAD_SIZE:], where)


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """Cost parameters of Argon2id. Default: RFC 9106's second recommendation, 0.3 s on a core of 2020."""

    memory_kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 4

    @property
    def is_costly(self) -> bool:
        """More than anybody's word should cost: who can write to a store can ask for it in a slot."""
        return self.memory_kib > 256 * 1024 or self.passes > 10

    def check(self, where: str) -> None:
        """Raises Damaged for excessive costs: a slot's parameters are used before they are authenticated."""
        if not (
            8 * self.lanes <= self.memory_kib <= 2 << 20 and 1 <= self.passes <= 20 and 1 <= self.lanes <= 64
        ):
            raise Damaged(
                where,
                f"Argon2 cost out of bounds: {self.memory_kib} KiB, {self.passes} passes, {self.lanes} lanes",
            )

    def derive(self, password: bytes, salt: bytes) -> bytes:
        return Argon2id(
            salt=salt, length=KEY_SIZE, iterations=self.passes, lanes=self.lanes, memory_cost=self.memory_kib
        ).derive(password)


def wrap(kek: bytes, content: bytes, public: bytes) -> bytes:
    """A 16-byte commitment and the sealed content. Use `kek` for this one call only: the nonce is fixed."""
    return derive(kek, _COMMITMENT)[:16] + AESGCM(kek).encrypt(bytes(12), content, public)


def unwrap(kek: bytes, wrapped: bytes, public: bytes, where: str) -> bytes | None:
    """The content; None when `kek` is not the key that wrapped it (a wrong secret).

    Raises Damaged when the key is right but the wrapped bytes are damaged.
    """
    if len(wrapped) < _WRAPPING:
        raise Damaged(where, "what it wraps is cut short")
    if not hmac.compare_digest(derive(kek, _COMMITMENT)[:16], wrapped[:16]):
        return None
    try:
        return AESGCM(kek).decrypt(bytes(12), wrapped[16:], public)
    except InvalidTag:
        raise Damaged(where, "what it wraps is damaged") from None


_WRAPPING: Final = 16 + TAG
BOX_SIZE: Final = KEY_SIZE + _WRAPPING + KEY_SIZE
"""Bytes of a box that holds a key."""


def new_private_key() -> bytes:
    """A new X25519 private key."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_key(private: bytes) -> bytes:
    """The public half of an X25519 private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def seal_box(recipient: bytes, secret: bytes, content: bytes, bound: bytes) -> bytes:
    """Seal `content` to a public key: ephemeral public key, commitment, ciphertext.

    Only who knows `secret` can make a box that opens, and only who has the private key can open it.
    """
    private = X25519PrivateKey.generate()
    ephemeral = private.public_key().public_bytes_raw()
    shared = private.exchange(X25519PublicKey.from_public_bytes(recipient))
    return ephemeral + wrap(_box_key(shared, ephemeral, recipient, secret), content, bound)


def open_box(private: bytes, secret: bytes, box: bytes, bound: bytes, where: str) -> bytes:
    """The content of a box. Raises Damaged unless it was sealed to this key, with `secret` and `bound`."""
    mine = X25519PrivateKey.from_private_bytes(private)
    ephemeral = box[:KEY_SIZE]
    try:
        shared = mine.exchange(X25519PublicKey.from_public_bytes(ephemeral))
    except ValueError:  # too short, or a point of small order
        raise Damaged(where, "has a box without a proper public key") from None
    kek = _box_key(shared, ephemeral, mine.public_key().public_bytes_raw(), secret)
    content = unwrap(kek, box[KEY_SIZE:], bound, where)
    if content is None:
        raise Damaged(where, "has a box that nobody sealed who knows this repository")
    return content


def _box_key(shared: bytes, ephemeral: bytes, recipient: bytes, secret: bytes) -> bytes:
    return derive(shared + ephemeral + recipient + secret, "holdfast 2 slot box")


def fingerprint(root: bytes) -> bytes:
    """Tells an epoch's root key from others and nothing of it."""
    return derive(root, "holdfast 2 epoch fingerprint")
