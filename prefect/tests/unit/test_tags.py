from __future__ import annotations

import pytest

from datadog_checks.prefect.tags import make_tags


@pytest.mark.parametrize('unknown', [None, ''])
def test_unknown_value_is_left_out(unknown: object) -> None:
    assert make_tags({'flow_id': 'a', 'flow_name': unknown}) == ('flow_id:a',)


@pytest.mark.parametrize(
    ('value', 'tag'), [(0, 'x:0'), (False, 'x:False'), (True, 'x:True'), ('a:b, c', 'x:a:b, c'), ('None', 'x:None')]
)
def test_known_value_is_a_tag_though_it_is_false(value: object, tag: str) -> None:
    assert make_tags({'x': value}) == (tag,)


def test_several_values_of_a_key_are_a_tag_each() -> None:
    assert make_tags({'y': 1, 'x': ('b', 'a', 'b', '')}) == ('x:a', 'x:b', 'y:1')
    assert make_tags({'x': ()}) == ()


def test_order_of_the_keys_makes_no_difference() -> None:
    assert make_tags({'b': 1, 'a': 2}) == make_tags({'a': 2, 'b': 1}) == ('a:2', 'b:1')


@pytest.mark.parametrize('control', ['\x00', '\n', '\t', '\x1b', '\x9b', '\u202e', '\u2066', '\u2029'])
def test_control_characters_become_blanks(control: str) -> None:
    """The Agent would cut the tag at NUL."""
    assert make_tags({'x': f'a{control}b'}) == ('x:a b',)


def test_other_characters_stay() -> None:
    assert make_tags({'x': 'ä\u00a0😀\u200d日本'}) == ('x:ä\u00a0😀\u200d日本',)
