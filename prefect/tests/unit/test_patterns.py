"""The search of any pattern takes a bounded time and finds what `re` finds."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datadog_checks.prefect import patterns
from datadog_checks.prefect.patterns import Pattern, TooSlow
from tests.unit.harness import options

NAMES = ('a' * 254 + '!', 'a' * 255, 'ab' * 127, 'prodetl' * 36, ' ' * 255)


@pytest.mark.parametrize(
    'text',
    [
        r'(a+)+$',
        r'(a|a)*b',
        r'(a|aa)+$',
        r'(.*)*x',
        r'.*.*.*.*.*x',
        r'(\w+\s?)*$',
        r'(a?){30}a{30}b',
        r'prod.*etl.*v2',
        r'(?i)(A+)+\Z',
        r'(?i:A+)+x',
        r'^(([a-z])+.)+[A-Z]([a-z])+$',
        r'((a*)*)*b',
        r'(a+)+(?=b)',
        r'(a++)+b',
        r'\s*\s*\s*\s*x',
    ],
)
def test_a_search_takes_a_bounded_time(text: str) -> None:
    try:
        pattern = Pattern(text)
    except TooSlow:
        assert '++' in text
        return
    for name in NAMES:
        started = time.thread_time()
        pattern.finds(name)
        assert time.thread_time() - started < 0.2, name


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        (r'(a+)+\1', 'a reference'),
        (r'((a+)+(?!(b+)+c))+', 'a group that is taken as a whole'),
        (r'(a{1,100}){1,100}b', 'it repeats too much'),
    ],
)
def test_what_has_no_bound_is_refused(text: str, reason: str) -> None:
    with pytest.raises(TooSlow, match=reason):
        Pattern(text)


@pytest.mark.parametrize('text', [r'^(team-[a-z]+-)+x$', r'(foo|bar)*baz', r'^[a-z]{1,63}(-[a-z]{1,63})*$', r'(x)\1'])
def test_what_people_write_is_taken(text: str) -> None:
    pattern = Pattern(text)
    for name in ('team-a-x', 'foobarbaz', 'one-two-three', 'xx', ''):
        assert pattern.finds(name) is (re.search(text, name) is not None), name


ATOMS = ['a', 'b', '.', '[ab]', '[^a]', r'\w', r'\b', '^', '$', '(?i:A)', r'\d', '(?=a)', '(?<!b)', r'\Z', '(?s:.)']
REPEATS = ['*', '+', '?', '{0,2}', '{2}', '{1,3}', '*?', '+?', '??', '{2,}']
TEXTS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(''.join),
        st.tuples(inner, inner).map(lambda pair: f'(?:{pair[0]}|{pair[1]})'),
        st.tuples(inner, st.sampled_from(REPEATS)).map(lambda pair: f'({pair[0]}){pair[1]}'),
    ),
    max_leaves=6,
)


@given(text=TEXTS, names=st.lists(st.text('abA1 !\n', max_size=7), min_size=1, max_size=6))
def test_both_ways_to_search_find_the_same(text: str, names: list[str]) -> None:
    program = patterns._Program(patterns._parser.parse(text))
    for name in names:
        assert program.finds(name) is (re.search(text, name) is not None), name


def test_a_pattern_without_a_bound_is_named_by_its_option() -> None:
    with pytest.raises(ValueError, match=r'`flow_names.include\[0\]` could take forever on some names, for it repeats'):
        options(flow_names={'include': [r'(a+)+\1']})
