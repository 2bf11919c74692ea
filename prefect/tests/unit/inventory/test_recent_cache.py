from __future__ import annotations

from datetime import timedelta

import pytest

from datadog_checks.prefect.inventory.recent_cache import RecentCache
from tests.unit.harness import at

FOR_EVER = timedelta.max


def test_oldest_value_is_forgotten() -> None:
    recent: RecentCache[str, int | None] = RecentCache(3, FOR_EVER)
    for value, key in enumerate('abc'):
        recent[key] = value
    assert recent['a'] == 0
    recent['b'] = None
    recent['d'] = 3
    assert [key for key in 'abcd' if key in recent] == ['a', 'b', 'd']
    assert recent['b'] is None


def test_looking_for_a_value_does_not_keep_it() -> None:
    recent: RecentCache[str, int] = RecentCache(2, FOR_EVER)
    recent['a'], recent['b'] = 1, 2
    assert 'a' in recent
    recent['c'] = 3
    assert 'a' not in recent


def test_value_that_is_not_used_is_forgotten_after_its_lifetime() -> None:
    recent: RecentCache[str, int] = RecentCache(9, timedelta(seconds=10))
    recent.go_on(at(0))
    recent['a'], recent['b'] = 1, 2
    recent.go_on(at(10))
    assert recent['b'] == 2
    recent.go_on(at(11))
    assert [key for key in 'ab' if key in recent] == ['b']
    recent.go_on(at(21))
    assert 'b' not in recent


def test_unknown_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        RecentCache[str, int](1, FOR_EVER)['a']
