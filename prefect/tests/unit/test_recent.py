from __future__ import annotations

import pytest

from datadog_checks.prefect.recent import Recent


def test_oldest_value_is_forgotten() -> None:
    recent: Recent[str, int | None] = Recent(3)
    for value, key in enumerate('abc'):
        recent[key] = value
    assert recent['a'] == 0
    recent['b'] = None
    recent['d'] = 3
    assert [key for key in 'abcd' if key in recent] == ['a', 'b', 'd']
    assert recent['b'] is None


def test_looking_for_a_value_does_not_keep_it() -> None:
    recent: Recent[str, int] = Recent(2)
    recent['a'], recent['b'] = 1, 2
    assert 'a' in recent
    recent['c'] = 3
    assert 'a' not in recent


def test_unknown_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        Recent[str, int](1)['a']
