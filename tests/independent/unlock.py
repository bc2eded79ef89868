"""From a password or a recovery key to the keys of all epochs, as `docs/format.md` says and by nothing else.

Imports nothing of the product: what this reads is what a stranger's program in another language would read.
"""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

PACK, CONFIG, SNAPSHOT, PROOF, KEYRING, FORGOTTEN = range(1, 7)
HEADER_DOMAIN, PAYLOAD_DOMAIN, DIRECTORY_DOMAIN, FOOT_DOMAIN, BODY_DOMAIN = range(1, 6)
HEAD = 64
TAG = 16
KEYRING_NAME = re.compile(r"([1-9][0-9]{0,4})\.([1-9][0-9]*)\.[0-9a-f]{64}")


class Refused(Exception):
    """What was read is not what the format allows, is damaged, or does not open under the keys at hand."""


def derive(key: bytes, context: str) -> bytes:
    return blake3(key, derive_key_context=f"holdfast 2 {context}").digest()


def keyed(key: bytes, data: bytes) -> bytes:
    return blake3(data, key=key).digest()


def commitment(key: bytes) -> bytes:
    return derive(key, "key commitment")[:16]


def need(condition: object, message: str) -> None:
    if not condition:
        raise Refused(message)


def unwrap(key: bytes, wrapped: bytes, associated: bytes) -> bytes:
    """What was wrapped under a key that wraps one thing only."""
    need(wrapped[:16] == commitment(key), "wrapped under another key")
    return _decrypt(AESGCM(key), bytes(12), wrapped[16:], associated)


def _decrypt(cipher: AESGCM | ChaCha20Poly1305, nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
    try:
        return cipher.decrypt(nonce, sealed, associated)
    except InvalidTag as error:
        raise Refused("a seal is broken") from error


@dataclass(frozen=True, slots=True)
class Seal:
    """Opens the sealed parts of one file."""

    cipher: AESGCM | ChaCha20Poly1305
    associated: bytes

    def open(self, domain: int, offset: int, sealed: bytes) -> bytes:
        return _decrypt(self.cipher, bytes([domain]) + offset.to_bytes(11, "little"), sealed, self.associated)


@dataclass(frozen=True, slots=True)
class Keys:
    """All that reads a repository: its ID, its suite, the identity secret, the root keys by epoch."""

    repository: bytes
    suite: int
    identity: bytes
    roots: Mapping[int, bytes]

    def seal(self, head: bytes, kind: int) -> Seal:
        """Of the file that starts with these 64 bytes, which must be of this object type."""
        need(len(head) == HEAD and head[:8] == b"HOLDFAST", "no head")
        need(head[8] == 2 and head[9] in {1, 2}, "an unknown format version or suite")
        need(head[10] == kind and head[11] == 0 and head[14:16] == bytes(2), "a head of another type")
        epoch = int.from_bytes(head[12:14], "little")
        if kind == CONFIG:
            need(epoch == 0, "a config of an epoch")
            subkey = derive(self.identity, "config")
        else:
            need(epoch in self.roots, f"epoch {epoch} is not in the keyring")
            subkey = derive(self.roots[epoch], "packs" if kind == PACK else "metadata")
        key = keyed(subkey, head[16:48])
        need(commitment(key) == head[48:64], "sealed under another key")
        cipher = AESGCM(key) if head[9] == 1 else ChaCha20Poly1305(key)
        return Seal(cipher, self.repository + bytes([kind, 2]) + head[12:14] + head[14:16])

    def open_object(self, content: bytes, kind: int) -> bytes:
        """The body of a sealed object."""
        return self.seal(content[:HEAD], kind).open(BODY_DOMAIN, 0, content[HEAD:])


def copies(path: Path, limit: int | None = None) -> list[bytes]:
    """The contents of a file and of its second copy, those that are there."""
    found = [each.read_bytes() for each in (path, path.with_name(path.name + ".2")) if each.is_file()]
    need(found, f"{path} is not there")
    return [content for content in found if limit is None or len(content) <= limit]


def named(path: Path, digest: str, limit: int | None = None) -> bytes:
    """The content that has this hash, in either copy."""
    for content in copies(path, limit):
        if blake3(content).hexdigest() == digest:
            return content
    raise Refused(f"{path}: no copy is what its name says")


def names(folder: Path) -> list[str]:
    """Of the files of a folder, each once."""
    if not folder.is_dir():
        return []
    return sorted(
        {path.name.removesuffix(".2") for path in folder.iterdir() if not path.name.startswith(".tmp-")}
    )


def clear_line(content: bytes, form: str) -> tuple[bytes, dict[str, Any], bytes]:
    """The line of JSON, what it says, and what is behind its line feed."""
    line, feed, rest = content.partition(b"\n")
    try:
        value = json.loads(line.decode("ascii"))
    except ValueError as error:
        raise Refused("no line of JSON") from error
    need(feed and isinstance(value, dict) and value.get("format") == form, f"no {form}")
    need(value["version"] == 2, f"a {form} of another version")
    return line, value, rest


@dataclass(frozen=True, slots=True)
class Secret:
    """A password, or a recovery key as it is written down."""

    kdf: str
    value: bytes

    @staticmethod
    def password(text: str) -> Secret:
        return Secret("argon2id", unicodedata.normalize("NFC", text).encode())

    @staticmethod
    def recovery_key(text: str) -> Secret:
        letters = text.upper().replace("-", "").replace(" ", "").removeprefix("HOLDFAST")
        try:
            raw = base64.b32decode(letters)
        except ValueError as error:
            raise Refused("not base32") from error
        need(len(raw) == 35, "a recovery key of another length")
        need(derive(raw[:32], "recovery key checksum")[:3] == raw[32:], "a mistyped recovery key")
        return Secret("recovery", raw[:32])

    def key(self, slot: Mapping[str, Any]) -> bytes:
        """The key encryption key of a slot of this kind."""
        salt = bytes.fromhex(slot["salt"])
        if self.kdf == "recovery":
            return derive(self.value + salt, "recovery key slot")
        need(slot["memory_kib"] <= 256 << 10 and slot["passes"] <= 10, "a slot that costs too much to try")
        need(slot["lanes"] <= 64, "a slot of too many lanes")
        return Argon2id(
            salt=salt,
            length=32,
            iterations=slot["passes"],
            lanes=slot["lanes"],
            memory_cost=slot["memory_kib"],
        ).derive(self.value)


@dataclass(frozen=True, slots=True)
class Slot:
    """An opened key slot."""

    id: bytes
    private: X25519PrivateKey
    public: bytes
    identity: bytes
    epoch: int
    fingerprint: bytes

    @staticmethod
    def open(name: str, content: bytes, secret: Secret) -> Slot:
        line, slot, wrapped = clear_line(content, "holdfast key slot")
        need(slot["kdf"] == secret.kdf, "a slot of another kind")
        opened = unwrap(secret.key(slot), wrapped, line)
        need(len(opened) == 98, "a slot of another length")
        private = X25519PrivateKey.from_private_bytes(opened[:32])
        public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        need(public.hex() == slot["public"], "a slot's keys do not belong together")
        epoch = int.from_bytes(opened[64:66], "little")
        return Slot(bytes.fromhex(name), private, public, opened[32:64], epoch, opened[66:98])

    def open_box(self, box: bytes, repository: bytes, epoch: int) -> bytes:
        """The root key of the epoch."""
        need(len(box) == 96, "a box of another length")
        ephemeral = box[:32]
        try:
            shared = self.private.exchange(X25519PublicKey.from_public_bytes(ephemeral))
        except ValueError as error:  # a shared secret of zeros
            raise Refused("a box of a weak key") from error
        key = derive(shared + ephemeral + self.public + self.identity, "slot box")
        return unwrap(key, box[32:], repository + epoch.to_bytes(2, "little") + self.id)


def unlock(root: Path, secret: Secret) -> Keys:
    """The keys of the repository in this folder.

    Raises:
        Refused: the secret opens no slot, the slot has no box in the newest keyring, or a file is damaged.
    """
    try:
        return _unlock(root, secret)
    except (KeyError, TypeError, ValueError) as error:  # a clear line that is not what it ought to be
        raise Refused("a member is missing or not what it ought to be") from error


def _unlock(root: Path, secret: Secret) -> Keys:
    epoch, generation, keyring = _newest_keyring(root / "keyring")
    _, ring, _ = clear_line(keyring, "holdfast keyring")
    need((ring["epoch"], ring["generation"]) == (epoch, generation), "a keyring that its name does not fit")
    slot = _slot(root / "keys", ring["boxes"], secret)
    need(slot.id.hex() in ring["boxes"], "this slot was removed")
    last: Exception | None = None
    for config in copies(root / "config", 64 << 10):  # which of the two is whole shows when it opens
        try:
            keys = _keys(config, slot, epoch, keyring)
            _check_config(config, keys)
            return keys
        except (Refused, KeyError, TypeError, ValueError) as error:
            last = error
    raise Refused("the config and the keyring do not open") from last


def _keys(config: bytes, slot: Slot, epoch: int, keyring: bytes) -> Keys:
    """The root keys in the keyring, of a repository and a suite that are not yet authentic."""
    line, ring, sealed = clear_line(keyring, "holdfast keyring")
    _, clear, _ = clear_line(config, "holdfast repository")
    need(not clear["features"], "features that this reader does not know")
    need(clear["suite"] in {1, 2}, "a suite that this reader does not know")
    repository = bytes.fromhex(clear["id"])
    newest = slot.open_box(bytes.fromhex(ring["boxes"][slot.id.hex()]), repository, epoch)
    half = Keys(repository, clear["suite"], slot.identity, {epoch: newest})
    body = json.loads(half.open_object(sealed, KEYRING))
    need(body["public"] == blake3(line).hexdigest(), "a keyring with another line")
    need(sorted(body["slots"]) == sorted(ring["boxes"]), "a keyring with other boxes")
    need(set(body["epochs"]) == {str(n) for n in range(1, epoch + 1)}, "a keyring that lacks epochs")
    roots = {int(n): bytes.fromhex(each["root"]) for n, each in body["epochs"].items()}
    need(roots[epoch] == newest, "a keyring with another root key than its box")
    need(slot.epoch in roots, "a keyring older than its slot")
    need(derive(roots[slot.epoch], "epoch fingerprint") == slot.fingerprint, "a keyring with another past")
    return Keys(repository, clear["suite"], slot.identity, roots)


def _check_config(content: bytes, keys: Keys) -> None:
    line, _, sealed = clear_line(content, "holdfast repository")
    body = json.loads(keys.open_object(sealed, CONFIG))
    need(body["public"] == blake3(line).hexdigest(), "a config with another line")


def _newest_keyring(folder: Path) -> tuple[int, int, bytes]:
    found = [match for name in names(folder) if (match := KEYRING_NAME.fullmatch(name))]
    need(found, "no keyring")
    newest = max(found, key=lambda match: (int(match[1]), int(match[2]), match[0]))
    return int(newest[1]), int(newest[2]), named(folder / newest[0], newest[0].split(".")[2], 1 << 20)


def _slot(folder: Path, boxes: Mapping[str, Any], secret: Secret) -> Slot:
    """The first slot that the secret opens; those with a box are tried first."""
    last: Exception | None = None
    tried = 0
    for name in sorted(names(folder), key=lambda name: name not in boxes):
        try:
            content = named(folder / name, name, 64 << 10)
            if clear_line(content, "holdfast key slot")[1]["kdf"] != secret.kdf:
                continue
            tried += 1
            need(tried <= 16, "more slots than need to be tried")
            return Slot.open(name, content, secret)
        except (Refused, KeyError, TypeError, ValueError) as error:
            last = error
    raise Refused("no key slot opens with that") from last
