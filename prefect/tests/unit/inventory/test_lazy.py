from __future__ import annotations

from collections.abc import Iterator

import pytest

from datadog_checks.prefect.inventory.lazy import Lazy, LazyPages


def test_value_is_fetched_on_the_first_use_only() -> None:
    calls: list[int] = []

    def fetch() -> list[int]:
        calls.append(1)
        return calls

    once = Lazy(fetch)
    assert calls == []
    assert once() is once() is calls
    assert calls == [1]


@pytest.mark.parametrize('value', [None, 0, [], False])
def test_value_may_be_empty(value: object) -> None:
    calls: list[int] = []
    once = Lazy(lambda: (calls.append(1), value)[1])
    assert once() == once() == value
    assert len(calls) == 1


def test_error_is_met_once_and_raised_at_each_use() -> None:
    calls: list[int] = []

    def fetch() -> None:
        calls.append(1)
        raise ValueError('wrong')

    once = Lazy(fetch)
    for _ in range(3):
        with pytest.raises(ValueError, match='wrong'):
            once()
    assert len(calls) == 1


def test_pages_are_fetched_once_when_first_needed_and_an_error_is_met_by_each_who_gets_there() -> None:
    fetched: list[int] = []

    def fetch() -> Iterator[int]:
        for number in range(2):
            fetched.append(number)
            yield number
        raise ValueError('wrong')

    pages = LazyPages(fetch())
    assert next(iter(pages)) == 0
    assert fetched == [0]
    for _ in range(2):
        reader = iter(pages)
        assert [next(reader), next(reader)] == [0, 1]
        with pytest.raises(ValueError, match='wrong'):
            next(reader)
    assert fetched == [0, 1]
    assert list(LazyPages(iter(()))) == []
