from __future__ import annotations

import pytest

from tests.unit.lint import for_each


def judge(number: int) -> None:
    assert number < 3, 'too large'


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(AssertionError) as failure:
        for_each({'one': 1, 'three': 3, 'four': 4})(judge)()

    lines = str(failure.value).splitlines()
    assert lines[0] == '2 of 3:'
    assert [line for line in lines if line.startswith(('one', 'three', 'four'))] == [
        'three: AssertionError: too large',
        'four: AssertionError: too large',
    ]


def test_nothing_is_wrong_with_what_is_right() -> None:
    for_each({'one': 1, 'two': 2})(judge)()


def test_no_items_are_wrong() -> None:
    with pytest.raises(AssertionError, match='nothing to look at'):
        for_each({})(judge)()
