"""The bodies of requests, and that the package makes them nowhere else."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import datadog_checks.prefect
from datadog_checks.prefect.api import queries
from datadog_checks.prefect.api.paging import FLOW_RUNS_BY_END
from datadog_checks.prefect.api.queries import NO_FILTER, ServerFilter
from datadog_checks.prefect.api.time_range import TimeRange
from tests.fake_prefect import FakePrefect
from tests.unit.harness import at, new_client, run_through

PACKAGE = Path(datadog_checks.prefect.__path__[0])
# What the API's filters are made of (prefect.server.schemas.filters, 3.8.8).
WORDS = {'after_', 'all_', 'any_', 'before_', 'eq_', 'exists_', 'ge_', 'is_null_', 'le_', 'like_', 'not_any_', 'type_'}
PUBLIC = {
    name: function
    for name, function in vars(queries).items()
    if inspect.isfunction(function) and function.__module__ == queries.__name__ and not name.startswith('_')
}
FILTER = ServerFilter(deployment_ids=['d'], work_pool_names=['w'], work_queue_ids=['q'], flow_ids=['f'])
DEPLOYMENTS = {'deployment_id': {'any_': ['d'], 'is_null_': True, 'operator': 'or_'}}
FLOWS = {'flows': {'id': {'any_': ['f']}}}
RANGE = TimeRange(at(1), at(2))
# Both bounds are inclusive for the server.
WITHIN = {'after_': '2026-11-23T08:00:01.000000Z', 'before_': '2026-11-23T08:00:01.999999Z'}
ENDED = {'end_time': WITHIN, 'subflow_runs': {'exists_': False}}


def words_of(source: str) -> Iterator[str]:
    """The words of the API's filters that some code holds as a text, docstrings left out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in WORDS:
            yield str(node.value)
        # As a key that is given by name: dict(any_=...).
        if isinstance(node, ast.keyword) and node.arg in WORDS:
            yield str(node.arg)


@pytest.mark.parametrize('path', sorted(PACKAGE.rglob('*.py')), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_words_of_the_filters_stand_in_queries_only(path: Path) -> None:
    assert bool(list(words_of(path.read_text()))) is (path.name == 'queries.py')


@pytest.mark.parametrize('source', ["{'id': {'any_': []}}", "limits['after_'] = 1", 'dict(is_null_=True)'])
def test_a_word_is_found_wherever_it_stands(source: str) -> None:
    assert list(words_of(source))


@pytest.mark.parametrize('name', PUBLIC)
def test_each_query_names_the_index_that_it_rests_on(name: str) -> None:
    assert re.search(r'^ *Index: ', PUBLIC[name].__doc__ or '', re.MULTILINE)


def test_no_filter_asks_for_everything() -> None:
    assert queries.ended_flow_runs(NO_FILTER, RANGE) == {'flow_runs': {'end_time': WITHIN}}
    assert queries.ended_task_runs(NO_FILTER, RANGE) == [{'task_runs': ENDED}]
    assert queries.deployments() == {}


def test_filters_are_added_to_the_criteria_on_flow_runs() -> None:
    assert queries.ended_flow_runs(FILTER, RANGE) == {
        'flow_runs': DEPLOYMENTS | {'end_time': WITHIN},
        'work_pools': {'name': {'any_': ['w']}},
        'work_pool_queues': {'id': {'any_': ['q']}},
        **FLOWS,
    }


def test_task_runs_are_filtered_by_their_flow_runs_and_never_by_work_pool() -> None:
    """The endpoints of task runs ignore `work_pools` without a word."""
    joined, background = queries.ended_task_runs(FILTER, RANGE)
    assert joined == {'task_runs': ENDED, 'flow_runs': DEPLOYMENTS, **FLOWS}
    assert background == {'task_runs': ENDED | {'flow_run_id': {'is_null_': True}}}


def test_what_passes_alone_is_all_that_is_asked_for() -> None:
    only = ServerFilter(deployment_ids=['d'], keep_undeployed=False, keep_parentless=False)
    deployments = {'deployment_id': {'any_': ['d']}}
    assert queries.ended_flow_runs(only, RANGE) == {'flow_runs': deployments | {'end_time': WITHIN}}
    assert queries.ended_task_runs(only, RANGE) == [{'task_runs': ENDED, 'flow_runs': deployments}]
    flows = ServerFilter(flow_ids=['f'], keep_parentless=False)
    assert queries.ended_task_runs(flows, RANGE) == [{'task_runs': ENDED, **FLOWS}]


def test_criterion_on_flow_runs_takes_a_request_of_its_own_for_background_task_runs() -> None:
    joined, background = queries.live_task_runs(NO_FILTER)
    assert joined['flow_runs'] == {'state': {'type': {'any_': ['RUNNING']}}}
    assert 'flow_runs' not in background
    assert background['task_runs'] == joined['task_runs'] | {'flow_run_id': {'is_null_': True}}


@pytest.mark.parametrize(
    ('narrow', 'limits'),
    [
        ({'since': at(1)}, {'after_': WITHIN['after_']}),
        ({'until': at(1)}, {'before_': WITHIN['after_']}),
        ({'since': at(1), 'until': at(1)}, {'after_': WITHIN['after_'], 'before_': WITHIN['after_']}),
    ],
)
def test_narrowed_body_keeps_its_other_criteria(narrow: dict[str, Any], limits: dict[str, str]) -> None:
    body = {'flow_runs': {'end_time': {'is_null_': False}, 'state': {}}, 'flows': {}}
    end_time = {'is_null_': False} | limits
    assert queries.narrowed(body, 'flow_runs', 'end_time', **narrow) == {
        'flow_runs': {'end_time': end_time, 'state': {}},
        'flows': {},
    }
    assert body['flow_runs']['end_time'] == {'is_null_': False}


def test_open_range_has_no_bound() -> None:
    assert queries.ended_flow_runs(NO_FILTER, TimeRange(at(1))) == {
        'flow_runs': {'end_time': {'after_': WITHIN['after_']}}
    }


def test_events_of_an_open_range_are_asked_for_beyond_now() -> None:
    """Without an end the server takes now, by its own clock."""
    occurred = queries.events({}, TimeRange(at(1)))['filter']['occurred']
    assert occurred == {'since': '2026-11-23T08:00:01.000000Z', 'until': '9999-01-01T00:00:00.000000Z'}


def test_time_ranges_side_by_side_hold_each_row_once(fake: FakePrefect, prefect_url: str) -> None:
    runs = [run_through(fake, start=at(index / 4), seconds=0)['id'] for index in range(40)]
    client = new_client(prefect_url)
    found = [
        run.id
        for time_range in (TimeRange(at(0), at(3)), TimeRange(at(3), at(3.5)), TimeRange(at(3.5)))
        for run in client.flow_runs(queries.ended_flow_runs(NO_FILTER, time_range), FLOW_RUNS_BY_END)
    ]
    assert sorted(found) == sorted(runs)
