"""Sealing: what was sealed opens at its place and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, Unsupported
from holdfast.repo.format.crypto import (
    BOX_SIZE,
    Argon2Cost,
    Keys,
    Suite,
    content_hash,
    derive,
    fingerprint,
    new_cipher,
    new_private_key,
    open_box,
    open_cipher,
    open_object,
    public_key,
    seal_box,
    seal_object,
    unwrap,
    wrap,
)
from holdfast.repo.format.format import HEAD_SIZE, TAG, NonceDomain, ObjectType

ROOT = bytes(range(32))
REPOSITORY = b"0123456789abcdef"
KEYS = {suite: Keys.of(ROOT, {1: ROOT}, REPOSITORY, suite) for suite in Suite}
suites = st.sampled_from(Suite)
kinds = st.sampled_from(ObjectType)
domains = st.sampled_from(NonceDomain)
offsets = st.integers(0, 1 << 40)
places = st.tuples(domains, offsets)
plains = st.binary(max_size=300)


@given(suites, kinds, domains, offsets, plains)
def test_sealed_parts_open_at_their_place(
    suite: Suite, kind: ObjectType, domain: NonceDomain, offset: int, plain: bytes
) -> None:
    cipher = new_cipher(KEYS[suite], kind)
    sealed = cipher.seal(domain, offset, plain)
    out = bytearray(len(plain) + TAG)
    cipher.seal_into(domain, offset, plain, memoryview(out))
    assert sealed == out
    assert len(sealed) == len(plain) + TAG
    again = open_cipher(KEYS[suite], kind, cipher.head.pack(), "here")
    assert again.open(domain, offset, sealed, "here") == plain


@given(suites, places, places, plains)
def test_sealed_parts_open_nowhere_else(
    suite: Suite, place: tuple[NonceDomain, int], other_place: tuple[NonceDomain, int], plain: bytes
) -> None:
    (domain, offset), (other, elsewhere) = place, other_place
    cipher = new_cipher(KEYS[suite], ObjectType.PACK)
    sealed = cipher.seal(domain, offset, plain)
    if (other, elsewhere) != (domain, offset):
        with pytest.raises(Damaged, match="not authentic") as caught:
            cipher.open(other, elsewhere, sealed, "here")
        assert caught.value.offset == elsewhere


@given(suites, plains, st.data())
def test_a_flipped_or_missing_byte_does_not_open(suite: Suite, plain: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal_object(KEYS[suite], ObjectType.SNAPSHOT, plain))
    at = data.draw(st.integers(0, len(sealed) - 1))
    short = bytes(sealed[:at])
    sealed[at] ^= data.draw(st.integers(1, 255))
    for bad in (bytes(sealed), short):
        with pytest.raises((Damaged, Unsupported)):
            open_object(KEYS[suite], ObjectType.SNAPSHOT, bad, "here")


@given(suites, kinds, kinds, plains)
def test_objects_survive_and_keep_their_type(
    suite: Suite, kind: ObjectType, other: ObjectType, plain: bytes
) -> None:
    sealed = seal_object(KEYS[suite], kind, plain)
    assert open_object(KEYS[suite], kind, sealed, "here") == plain
    if other is not kind:
        with pytest.raises(Damaged, match="not a"):
            open_object(KEYS[suite], other, sealed, "here")
        forged = bytearray(sealed)
        forged[10] = other
        with pytest.raises(Damaged):
            open_object(KEYS[suite], other, bytes(forged), "here")


@pytest.mark.parametrize("suite", Suite)
def test_files_of_another_repository_or_root_key_do_not_open(suite: Suite) -> None:
    sealed = seal_object(KEYS[suite], ObjectType.SNAPSHOT, b"content")
    copied = Keys.of(ROOT, {1: ROOT}, b"another repo 16b", suite)
    with pytest.raises(Damaged, match="not authentic"):
        open_object(copied, ObjectType.SNAPSHOT, sealed, "here")
    stranger = Keys.of(bytes(32), {1: bytes(32)}, REPOSITORY, suite)
    with pytest.raises(Damaged, match="another key"):
        open_object(stranger, ObjectType.SNAPSHOT, sealed, "here")


def test_a_file_says_by_which_suite_it_was_sealed_and_an_unknown_one_is_unsupported() -> None:
    for suite in Suite:
        sealed = seal_object(KEYS[suite], ObjectType.SNAPSHOT, b"content")
        for keys in KEYS.values():
            assert open_object(keys, ObjectType.SNAPSHOT, sealed, "here") == b"content"
        with pytest.raises(Unsupported, match="suite 77"):
            open_object(keys, ObjectType.SNAPSHOT, sealed[:9] + b"\x4d" + sealed[10:], "here")


def test_two_seals_of_the_same_bytes_have_nothing_in_common() -> None:
    one, two = (seal_object(KEYS[Suite.AES_256_GCM], ObjectType.SNAPSHOT, bytes(64)) for _ in range(2))
    assert one[16:HEAD_SIZE] != two[16:HEAD_SIZE]
    assert one[HEAD_SIZE:] != two[HEAD_SIZE:]


def test_every_purpose_has_a_key_of_its_own() -> None:
    keys = KEYS[Suite.AES_256_GCM]
    epoch = keys.epochs[1]
    every = {keys.data_id, keys.node_id, keys.cut, keys.config, keys.secret, epoch.pack, epoch.meta, ROOT}
    assert len(every | {fingerprint(ROOT)}) == 9
    assert keys.data_chunk_id(b"x") != keys.node_chunk_id(b"x")
    assert keys.data_chunk_id(b"x") != Keys.of(
        bytes(32), {1: bytes(32)}, REPOSITORY, keys.suite
    ).data_chunk_id(b"x")
    assert derive(ROOT, "one") != derive(ROOT, "two")


def test_keys_are_not_printed() -> None:
    keys = KEYS[Suite.AES_256_GCM]
    for secret in (keys.epochs[1].pack, keys.epochs[1].meta, keys.cut):
        assert secret.hex() not in repr(keys)
        assert repr(secret) not in repr(keys)


def test_content_hashes_do_not_depend_on_threads() -> None:
    data = bytes(3 << 20)
    assert content_hash(data) == content_hash(memoryview(bytearray(data)))
    assert len(content_hash(b"")) == 64


@given(plains)
def test_a_wrapped_root_key_opens_with_its_key_and_public_part_only(public: bytes) -> None:
    kek = b"k" * 32
    wrapped = wrap(kek, ROOT, public)
    assert unwrap(kek, wrapped, public, "here") == ROOT
    assert unwrap(bytes(32), wrapped, public, "here") is None
    for bad, part in ((wrapped, public + b"x"), (wrapped[:20] + b"?" + wrapped[21:], public)):
        if bad != wrapped or part != public:
            with pytest.raises(Damaged, match="what it wraps is damaged"):
                unwrap(kek, bad, part, "here")
    with pytest.raises(Damaged, match="cut short"):
        unwrap(kek, wrapped[:31], public, "here")


@given(st.integers(-1, 1 << 40), st.integers(-1, 1 << 40), st.integers(-1, 1 << 40))
def test_absurd_argon2_costs_are_refused_before_they_are_paid(memory: int, passes: int, lanes: int) -> None:
    cost = Argon2Cost(memory, passes, lanes)
    try:
        cost.check("here")
    except Damaged:
        return
    assert memory <= 2 << 20
    assert passes * lanes <= 20 * 64


@pytest.mark.parametrize("lanes", [1, 4, 64])
def test_every_accepted_argon2_cost_can_be_computed(lanes: int) -> None:
    cost = Argon2Cost(8 * lanes, 1, lanes)
    cost.check("here")
    assert len(cost.derive(b"password", bytes(32))) == 32
    with pytest.raises(Damaged, match="Argon2 cost out of bounds"):
        Argon2Cost(8 * lanes - 1, 1, lanes).check("here")


# ---- key epochs ---------------------------------------------------------------------------------------


def test_new_files_are_of_the_newest_epoch_and_old_ones_open_with_their_own() -> None:
    first = Keys.of(ROOT, {1: b"1" * 32}, REPOSITORY, Suite.AES_256_GCM)
    both = Keys.of(ROOT, {1: b"1" * 32, 2: b"2" * 32}, REPOSITORY, Suite.AES_256_GCM)
    old, new = (seal_object(keys, ObjectType.SNAPSHOT, b"content") for keys in (first, both))
    assert (old[12:14], new[12:14]) == (b"\1\0", b"\2\0")
    assert open_object(both, ObjectType.SNAPSHOT, old, "here") == b"content"
    assert open_object(both, ObjectType.SNAPSHOT, new, "here") == b"content"
    with pytest.raises(Damaged, match="key epoch 2, and the newest that this key slot knows is 1"):
        open_object(first, ObjectType.SNAPSHOT, new, "here")


def test_ids_and_the_config_are_the_same_in_every_epoch() -> None:
    first = Keys.of(ROOT, {1: b"1" * 32}, REPOSITORY, Suite.AES_256_GCM)
    later = Keys.of(ROOT, {1: b"x" * 32, 2: b"2" * 32}, REPOSITORY, Suite.AES_256_GCM)
    assert first.data_chunk_id(b"x") == later.data_chunk_id(b"x")
    assert first.cut == later.cut
    config = seal_object(first, ObjectType.CONFIG, b"content")
    assert config[12:14] == b"\0\0"
    assert open_object(later, ObjectType.CONFIG, config, "here") == b"content"


@pytest.mark.parametrize("kind", ObjectType)
def test_a_file_that_is_moved_into_another_epoch_does_not_open(kind: ObjectType) -> None:
    """Even when both epochs had the same key, which they never have."""
    keys = Keys.of(ROOT, {1: ROOT, 2: ROOT}, REPOSITORY, Suite.AES_256_GCM)
    sealed = bytearray(seal_object(keys, kind, b"content"))
    for epoch in {0, 1, 2, 3, 0xFFFF} - {int.from_bytes(sealed[12:14], "little")}:
        sealed[12:14] = epoch.to_bytes(2, "little")
        with pytest.raises(Damaged):
            open_object(keys, kind, bytes(sealed), "here")


# ---- boxes --------------------------------------------------------------------------------------------


@given(st.binary(max_size=64), st.binary(max_size=40), st.data())
def test_a_box_opens_with_its_private_key_its_secret_and_what_it_is_bound_to(
    content: bytes, bound: bytes, data: st.DataObject
) -> None:
    private, stranger = new_private_key(), new_private_key()
    box = seal_box(public_key(private), ROOT, content, bound)
    assert len(box) == BOX_SIZE - 32 + len(content)
    assert open_box(private, ROOT, box, bound, "here") == content
    at = data.draw(st.integers(0, len(box) - 1))
    flipped = bytearray(box)
    flipped[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Damaged, match="here"):
        open_box(private, ROOT, bytes(flipped), bound, "here")
    for key, secret, sealed, to in (
        (stranger, ROOT, box, bound),
        (private, bytes(32), box, bound),
        (private, ROOT, box[:at], bound),
        (private, ROOT, box, bound + b"x"),
    ):
        with pytest.raises(Damaged, match="here"):
            open_box(key, secret, sealed, to, "here")


def test_the_ignored_bit_of_a_public_key_counts_because_it_is_part_of_the_box_key() -> None:
    private = new_private_key()
    box = bytearray(seal_box(public_key(private), ROOT, b"content", b""))
    box[31] ^= 0x80
    with pytest.raises(Damaged, match="nobody sealed"):
        open_box(private, ROOT, bytes(box), b"", "here")


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)])
def test_points_of_small_order_are_no_public_keys(point: bytes) -> None:
    with pytest.raises(Damaged, match="without a proper public key"):
        open_box(new_private_key(), ROOT, point + bytes(64), b"", "here")


def test_two_boxes_for_one_slot_have_nothing_in_common() -> None:
    private = new_private_key()
    one, two = (seal_box(public_key(private), ROOT, bytes(32), b"") for _ in range(2))
    assert not {one[n : n + 16] for n in range(0, BOX_SIZE, 16)} & {
        two[n : n + 16] for n in range(0, BOX_SIZE, 16)
    }
