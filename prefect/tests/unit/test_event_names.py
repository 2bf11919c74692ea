from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datadog_checks.prefect.event_names import HEARTBEAT, KNOWN_NAMES, EventNames, beginnings
from datadog_checks.prefect.filters import NameFilter
from tests.fake_prefect import FakePrefect
from tests.unit.harness import options

DEFAULT: Any = options().event_names


def event_names(include: list[str] | None = None, exclude: list[str] | None = None) -> EventNames:
    return EventNames(NameFilter.compile(include, exclude))


def let_through(names: EventNames, name: str) -> bool:
    """Whether a server that is asked with the criterion of `names` gives events of this name."""
    fake = FakePrefect()
    fake.add_event(name)
    body = json.dumps({'filter': {'event': names.criterion}, 'limit': 0}).encode()
    answer = fake.handle('POST', '/api/events/filter', {}, {}, body)
    assert answer.status == 200, answer.body
    return bool(json.loads(answer.body)['total'])


@pytest.mark.parametrize(
    ('pattern', 'texts', 'is_whole'),
    [
        (r'^prefect\.flow-run\.Late$', ['prefect.flow-run.Late'], True),
        (r'^prefect\.flow-run\.', ['prefect.flow-run.'], False),
        (r'^prefect\.flow-run\..*$', ['prefect.flow-run.'], False),
        (r'^prefect\.flow-run\.(Failed|Crashed)$', ['prefect.flow-run.Failed', 'prefect.flow-run.Crashed'], True),
        (r'^prefect\.(?:work-pool|work-queue)\.', ['prefect.work-pool.', 'prefect.work-queue.'], False),
        (r'^prefect\.[a-z-]+\.(ready|not-ready)$', ['prefect.'], False),
        (r'^prefect.flow-run', ['prefect'], False),
        (r'^abc?$', ['ab'], False),
        (r'^abc*$', ['ab'], False),
        (r'^abc+$', ['ab'], False),
        (r'^abc{2}$', ['ab'], False),
        (r'^ab(c|d)?e$', ['ab'], False),
        (r'^ab((c|d)e)$', ['ab'], False),
        (r'^ab(?i:c)$', ['ab'], False),
        (r'^ab(?=c)', ['ab'], False),
        (r'^ab\d$', ['ab'], False),
        (r'^ab$c', ['ab'], False),
        (r'^a[b|c]$', ['a'], False),
        (r'^a\|b$', ['a|b'], True),
        (r'^a|b', [''], False),
        (r'^a[b]|c', [''], False),
        (r'(^a)', [''], False),
        (r'(?i)^a', [''], False),
        ('late', [''], False),
        ('^', [''], False),
        ('', [''], False),
    ],
)
def test_beginnings_of_what_a_pattern_finds(pattern: str, texts: list[str], is_whole: bool) -> None:
    found = beginnings(pattern)

    assert [item.text for item in found] == texts
    assert {item.is_whole for item in found} == {is_whole}


def test_pattern_with_very_many_alternatives_is_not_spelt_out() -> None:
    assert [item.text for item in beginnings('^x(a|b|c)(a|b|c)(a|b|c)(a|b|c)(a|b|c)$')] == [
        'x' + a + b + c for a in 'abc' for b in 'abc' for c in 'abc'
    ]


@pytest.mark.parametrize(
    ('include', 'exclude', 'criterion'),
    [
        ([r'^a\.b$', r'^c$'], [], {'name': ['a.b', 'c']}),
        ([r'^a\.b$', r'^a\.'], [], {'prefix': ['a.']}),
        ([r'^a\.b$', 'prefect'], [], {'exclude_name': [HEARTBEAT]}),
        ([], [], {'exclude_name': [HEARTBEAT]}),
        ([r'^prefect\.flow\.'], ['created'], {'prefix': ['prefect.flow.'], 'exclude_name': ['prefect.flow.created']}),
        ([r'^prefect\.flow-run\.heartbeat$'], [], {'name': [HEARTBEAT], 'exclude_name': [HEARTBEAT]}),
        ([r'^a\\b'], [], {'prefix': ['a']}),
    ],
)
def test_criterion_of_patterns(include: list[str], exclude: list[str], criterion: dict[str, list[str]]) -> None:
    assert event_names(include, exclude).criterion == criterion


class TestDefault:
    names = event_names(DEFAULT.include, DEFAULT.exclude)

    def test_it_leaves_out_all_known_names_that_do_not_pass(self) -> None:
        criterion = self.names.criterion
        assert criterion['prefix'] == ['prefect.']
        passing = {name for name in KNOWN_NAMES if self.names.allows(name)}
        assert set(criterion['exclude_name']) == set(KNOWN_NAMES) - passing
        assert {name.split('.')[1] for name in passing} == {
            'flow-run',
            'task-run',
            'work-pool',
            'work-queue',
            'deployment',
            'automation',
        }

    def test_heartbeats_are_left_out_whatever_the_patterns_say(self) -> None:
        names = event_names(['heartbeat'], [])
        assert not names.allows(HEARTBEAT)
        assert not let_through(names, HEARTBEAT)


def test_task_runs_that_are_excluded_are_not_downloaded() -> None:
    names = event_names(DEFAULT.include, [r'^prefect\.task-run\.'])
    assert not let_through(names, 'prefect.task-run.Completed')
    assert let_through(names, 'prefect.flow-run.Completed')


_SOME = [
    'prefect.',
    'flow-run.',
    'task-run.',
    'work-pool.',
    'Late',
    'ready',
    'heartbeat',
    'x',
    '-',
    '|',
    '\\',
    '_',
    'é',
]
_names = st.sampled_from(KNOWN_NAMES) | st.lists(st.sampled_from(_SOME), min_size=1, max_size=4).map(''.join)
_pieces = st.one_of(
    _names.map(re.escape),
    st.sampled_from(
        ['.', '.*', r'\d', '[a-z-]+', '(ready|not-ready)', '(?:a|b)', '(x|(y|z))', '|', 'a?', 'b+', '$', '^']
    ),
)
_patterns = st.tuples(st.sampled_from(['^', '']), st.lists(_pieces, max_size=4), st.sampled_from(['$', '']))
_pattern_texts = _patterns.map(lambda parts: parts[0] + ''.join(parts[1]) + parts[2])


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


_valid = st.lists(_pattern_texts.filter(_compiles), max_size=3)


@given(include=_valid, exclude=_valid, name=_names)
def test_server_gives_every_event_that_passes(include: list[str], exclude: list[str], name: str) -> None:
    names = event_names(include, exclude)

    if names.allows(name):
        assert let_through(names, name)
