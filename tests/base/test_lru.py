"""The one bounded cache, against a list that does the same slowly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.lru import Lru


def test_the_least_recently_used_goes_first() -> None:
    cache: Lru[str, int] = Lru(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert list(cache) == ["a", "c"]
    assert cache.get("b") is None


def test_what_costs_too_much_pushes_out_what_is_older() -> None:
    cache: Lru[int, str] = Lru(100)
    for number in range(5):
        cache.put(number, str(number), 30)
    assert list(cache) == [2, 3, 4]
    cache.put(3, "again", 60)
    assert (list(cache), cache.cost) == ([4, 3], 90)


def test_the_last_one_stays_whatever_it_costs() -> None:
    cache: Lru[int, str] = Lru(100)
    cache.put(1, "small", 1)
    cache.put(2, "huge", 1000)
    assert (list(cache), cache.cost) == ([2], 1000)
    cache.put(3, "small", 1)
    assert (list(cache), cache.cost) == ([3], 1)


def test_each_value_that_goes_is_told_once() -> None:
    gone: list[str] = []
    cache: Lru[int, str] = Lru(2, gone.append)
    for number, value in enumerate("abc"):
        cache.put(number, value)
    assert gone == ["a"]
    assert cache.pop(1) == "b"
    assert cache.pop(1) is None
    cache.put(2, "d")  # replaces: the caller has the old one
    assert gone == ["a"]
    cache.clear()
    assert (gone, len(cache), cache.cost) == (["a", "d"], 0, 0)


def test_none_is_a_value_too() -> None:
    cache: Lru[int, None] = Lru(2)
    cache.put(1, None)
    assert 1 in cache
    assert 2 not in cache


_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("get"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("put"), st.integers(0, 5), st.integers(0, 12)),
        st.tuples(st.just("pop"), st.integers(0, 5), st.just(0)),
    )
)


@given(st.integers(0, 20), _ACTIONS)
def test_it_does_what_a_list_in_order_of_use_would(limit: int, actions: list[tuple[str, int, int]]) -> None:
    cache: Lru[int, int] = Lru(limit)
    model: list[tuple[int, int, int]] = []  # key, value, cost
    for at, (action, key, cost) in enumerate(actions):
        held = next((entry for entry in model if entry[0] == key), None)
        if held is not None:
            model.remove(held)
        if action == "get":
            assert cache.get(key) == (held[1] if held else None)
            model += [held] if held else []
        elif action == "put":
            cache.put(key, at, cost)
            model.append((key, at, cost))
            while len(model) > 1 and sum(entry[2] for entry in model) > limit:
                model.pop(0)
        else:
            assert cache.pop(key) == (held[1] if held else None)
        assert list(cache) == [entry[0] for entry in model]
        assert cache.cost == sum(entry[2] for entry in model)
