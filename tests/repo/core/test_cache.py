"""The byte cache: one load for many, and never more than its limit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.repo.core.cache import ByteCache


def cache(limit: int) -> ByteCache[int, bytes]:
    return ByteCache(limit, len)


def test_threads_that_want_the_same_wait_for_one_load() -> None:
    values, loads = cache(100), []
    begun, go = threading.Event(), threading.Event()

    def loader() -> bytes:
        loads.append(1)
        begun.set()
        go.wait(120)
        return b"value"

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(values.load, 1, loader)
        begun.wait(120)
        others = [pool.submit(values.load, 1, loader) for _ in range(7)]
        assert values.get(1) is None
        go.set()
        assert [f.result(10) for f in (first, *others)] == [b"value"] * 8
    assert len(loads) == 1
    assert values.get(1) == b"value"


def test_a_failed_load_fails_for_all_who_wait_and_is_not_remembered() -> None:
    values = cache(100)
    begun, go = threading.Event(), threading.Event()

    def fails() -> bytes:
        begun.set()
        go.wait(120)
        raise OSError("no luck")

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(values.load, 1, fails)
        begun.wait(120)
        others = [pool.submit(values.load, 1, fails) for _ in range(3)]
        go.set()
        for future in (first, *others):
            with pytest.raises(OSError, match="no luck"):
                future.result(10)
    assert values.load(1, lambda: b"luck") == b"luck"


def test_loads_of_different_keys_do_not_wait_for_each_other() -> None:
    values, go = cache(100), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(values.load, 1, lambda: b"slow" if go.wait(120) else b"")
        assert values.load(2, lambda: b"fast") == b"fast"
        go.set()
        assert slow.result(10) == b"slow"


operations = st.lists(
    st.tuples(st.sampled_from(["put", "get", "load"]), st.integers(0, 9), st.integers(0, 60)), max_size=60
)


@given(operations)
def test_it_keeps_what_was_used_last_within_its_limit(steps: list[tuple[str, int, int]]) -> None:
    limit, values = 100, cache(100)
    model: dict[int, bytes] = {}  # least recently used first
    for action, key, length in steps:
        if action == "get" or (action == "load" and key in model):
            found = (
                values.get(key) if action == "get" else values.load(key, lambda: pytest.fail("it is there"))
            )
            assert found == model.get(key)
            if key in model:
                model[key] = model.pop(key)
            continue
        model.pop(key, None)
        model[key] = bytes(length)
        if action == "put":
            values.put(key, bytes(length))
        else:
            assert values.load(key, partial(bytes, length)) == bytes(length)
        while sum(map(len, model.values())) > limit:
            del model[next(iter(model))]
        assert values.size == sum(map(len, model.values())) <= limit


def test_a_value_larger_than_the_limit_is_the_only_one() -> None:
    values = cache(10)
    values.put(1, bytes(5))
    values.put(2, bytes(50))
    assert (values.get(1), values.get(2), values.size) == (None, bytes(50), 50)
    values.put(3, bytes(1))
    assert (values.get(2), values.size) == (None, 1)
