from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from datadog_checks.prefect.api.models import (
    Deployment,
    Flow,
    FlowRun,
    FlowRunState,
    ServiceSettings,
    TaskRun,
    Worker,
    WorkPool,
    WorkQueue,
    task_name,
)
from datadog_checks.prefect.api.rows import MalformedRow
from tests.fake_prefect import recorded
from tests.unit.harness import Row, read_row

FIXTURES = Path(__file__).parents[2] / 'fixtures' / '3.8.8'
MODELS: dict[str, type] = {
    'work_pools_filter': WorkPool,
    'workers_filter': Worker,
    'work_queues_filter': WorkQueue,
    'deployments_filter': Deployment,
    'flows_filter': Flow,
    'flow_runs_filter': FlowRun,
    'flow_run_states': FlowRunState,
    'task_runs_filter': TaskRun,
}
RECORDED = [
    pytest.param(endpoint, file, id=f'{endpoint}/{file.stem}')
    for endpoint in MODELS
    for file in sorted((FIXTURES / endpoint).glob('*.json'))
]


def rows(endpoint: str, case: str) -> list[Row]:
    """The objects of a recorded answer."""
    found: list[Row] = json.loads((FIXTURES / endpoint / f'{case}.json').read_text())['body']
    return found


def row(endpoint: str, case: str, **changes: Any) -> Row:
    return rows(endpoint, case)[0] | changes


@pytest.mark.parametrize(('endpoint', 'file'), RECORDED)
def test_every_recorded_object_is_understood(endpoint: str, file: Path) -> None:
    recorded = rows(endpoint, file.stem)
    assert recorded
    for item in recorded:
        model = read_row(MODELS[endpoint], item)
        assert model.id == item['id']
        for key in ('name', 'status', 'state_type', 'flow_id', 'deployment_id', 'run_count', 'task_key', 'type'):
            if hasattr(model, key):
                assert getattr(model, key) == item[key]
        for key in ('start_time', 'end_time', 'expected_start_time', 'last_polled', 'timestamp'):
            if hasattr(model, key):
                text = item[key]
                assert getattr(model, key) == (text and datetime.fromisoformat(text))


@pytest.mark.parametrize(('endpoint', 'file'), RECORDED)
def test_object_with_one_wrong_field_is_malformed_or_understood(endpoint: str, file: Path) -> None:
    """No exception leaves a model, with any value in a field, and each problem is one that has a name."""
    wrong = (None, '', 'x', 7, -1.5, 10**400, float('nan'), True, [], [{}], {}, {'a': [1]})
    recorded = rows(endpoint, file.stem)[0]
    model = MODELS[endpoint]
    for key, value in itertools.product(recorded, wrong):
        found = read_row(model, recorded | {key: value})
        assert isinstance(found, model) or re.match(rf'{key}\S* is (?!not valid)', found.problem(model))


@pytest.mark.parametrize(('endpoint', 'file'), RECORDED)
def test_fields_that_are_not_used_may_be_missing(endpoint: str, file: Path) -> None:
    """Older servers do not send all of them."""
    required = {'id', 'name', 'flow_id', 'type', 'timestamp'}
    row = {key: value for key, value in rows(endpoint, file.stem)[0].items() if key in required}
    assert isinstance(read_row(MODELS[endpoint], row), MODELS[endpoint])


@pytest.mark.parametrize(
    ('endpoint', 'case', 'changes', 'message'),
    [
        pytest.param('work_pools_filter', 'ready', {'id': None}, 'id is null, expected a string', id='id null'),
        pytest.param('work_pools_filter', 'ready', {'name': ''}, 'name is an empty string', id='empty'),
        pytest.param('work_pools_filter', 'ready', {'type': 7}, 'type is a number, expected a string', id='number'),
        pytest.param(
            'work_queues_filter',
            'limited',
            {'priority': True},
            'priority is a boolean, expected an integer',
            id='boolean',
        ),
        pytest.param(
            'work_queues_filter',
            'limited',
            {'priority': 2.0},
            'priority is a number, expected an integer',
            id='fraction',
        ),
        pytest.param('work_queues_filter', 'limited', {'last_polled': 'x'}, 'last_polled is not a time', id='time'),
        pytest.param('flow_runs_filter', 'running', {'start_time': '2026-01-01'}, 'start_time is not', id='no zone'),
        pytest.param('flow_runs_filter', 'running', {'start_time': '0001-01-01T00:00:00+14:00'}, 'start', id='early'),
        pytest.param('flow_runs_filter', 'running', {'total_run_time': '1'}, 'total_run_time is', id='duration'),
        pytest.param('flow_runs_filter', 'running', {'total_run_time': 1e999}, 'total_run_time is', id='infinite'),
        pytest.param('flow_runs_filter', 'running', {'id': 'run-1'}, 'id is not a UUID', id='identifier'),
        pytest.param('task_runs_filter', 'running', {'flow_run_id': {}}, 'flow_run_id is an object', id='object'),
    ],
)
def test_message_names_the_field_and_not_the_value(endpoint: str, case: str, changes: Row, message: str) -> None:
    found = read_row(MODELS[endpoint], row(endpoint, case, **changes))
    assert isinstance(found, MalformedRow)
    assert found.problem(MODELS[endpoint]).startswith(message)


def test_times_are_aware_and_in_utc() -> None:
    run = read_row(FlowRun, row('flow_runs_filter', 'running', start_time='2026-11-23T09:00:00.123456+01:00'))
    assert run.start_time == datetime(2026, 11, 23, 8, 0, 0, 123456, tzinfo=UTC)
    assert run.start_time.tzinfo is UTC


def test_state_time_is_that_of_the_present_state() -> None:
    recorded = row('flow_runs_filter', 'running')
    assert read_row(FlowRun, recorded).state_time == datetime.fromisoformat(recorded['state']['timestamp'])
    assert read_row(FlowRun, recorded | {'state': None}).state_time is None


@pytest.mark.parametrize(
    ('task_key', 'expected'),
    [
        pytest.param('extract-94e1cc4d', 'extract', id='function'),
        pytest.param('load_5-a-000000ff', 'load_5-a', id='only the last part is the hash'),
        pytest.param('extract-unknown', 'extract', id='function that cannot be hashed'),
        pytest.param('<lambda>-94e1cc4d', '<lambda>', id='lambda'),
        pytest.param('shop.tasks.Extract', 'Extract', id='object'),
        pytest.param('extract', 'extract', id='chosen by whoever made the task run'),
        pytest.param(None, None, id='none'),
    ],
)
def test_task_is_named_as_its_function(task_key: str | None, expected: str | None) -> None:
    assert task_name(task_key) == expected


@pytest.mark.parametrize(
    ('row', 'late_after'),
    [
        pytest.param({'server': {'services': {'late_runs': {'after_seconds': 'PT1M'}}}}, 60, id='text'),
        pytest.param({'server': {'services': {'late_runs': {'after_seconds': 2.5}}}}, 2.5, id='number'),
        pytest.param({'server': {'services': {'late_runs': {'after_seconds': 'soon'}}}}, 15, id='not understood'),
        pytest.param({'server': {'services': []}}, 15, id='another shape'),
        pytest.param({'server': {'services': {'late_runs': {'after_seconds': 8e13}}}}, 15, id='absurd'),
        pytest.param({}, 15, id='absent'),
    ],
)
def test_settings_of_services_are_the_defaults_where_they_are_not_told(row: Row, late_after: float) -> None:
    assert ServiceSettings.of(row).late_after.total_seconds() == late_after


@pytest.mark.parametrize(('tags', 'known'), [(['a', 'b'], ('a', 'b')), ([], ()), (None, ())])
def test_deployment_has_tags(tags: list[str] | None, known: tuple[str, ...]) -> None:
    assert read_row(Deployment, recorded.row('deployments_filter', 'ready') | {'tags': tags}).tags == known


@pytest.mark.parametrize(('value', 'seconds'), [(None, 0), (-3.5, 0), (0, 0), (2, 2), (0.25, 0.25)])
def test_duration_is_never_negative(value: object, seconds: float) -> None:
    assert read_row(FlowRun, row('flow_runs_filter', 'running', total_run_time=value)).total_run_time == seconds
    assert read_row(TaskRun, row('task_runs_filter', 'running', total_run_time=value)).total_run_time == seconds


@pytest.mark.parametrize(('value', 'is_paused'), [(True, True), (False, False), (None, False)])
def test_deployment_is_paused_by_its_flag(value: object, is_paused: bool) -> None:
    assert read_row(Deployment, row('deployments_filter', 'ready', paused=value)).is_paused is is_paused


@pytest.mark.parametrize(
    ('task_inputs', 'upstream_ids'),
    [
        pytest.param({'x': [{'input_type': 'task_run', 'id': 'a'}]}, ('a',), id='a result'),
        pytest.param({'wait_for': [{'input_type': 'task_run', 'id': 'a'}]}, ('a',), id='waited for'),
        pytest.param(
            {key: [{'input_type': 'task_run', 'id': item} for item in ids] for key, ids in (('x', 'cab'), ('y', 'a'))},
            ('a', 'b', 'c'),
            id='each once',
        ),
        pytest.param({'__parents__': [{'input_type': 'task_run', 'id': 'a'}]}, (), id='the calling task'),
        pytest.param({'x': [{'input_type': 'flow_run', 'id': 'a'}]}, (), id='a subflow'),
        pytest.param({'x': [{'input_type': 'parameter', 'name': 'p'}], 'y': []}, (), id='parameters'),
        pytest.param({'x': None, 'y': 'a', 'z': [None, 7, {'input_type': 'task_run'}]}, (), id='other shapes'),
        pytest.param({'x': [{'input_type': 'task_run', 'id': ['a']}]}, (), id='no id'),
        pytest.param(None, (), id='null'),
        pytest.param([], (), id='a list'),
    ],
)
def test_upstreams_are_the_task_runs_among_the_inputs(task_inputs: object, upstream_ids: tuple[str, ...]) -> None:
    task_run = read_row(TaskRun, row('task_runs_filter', 'running', task_inputs=task_inputs))
    assert task_run.upstream_ids == upstream_ids


def test_state_that_the_server_does_not_know_yet_has_no_time() -> None:
    assert read_row(TaskRun, row('task_runs_filter', 'running', state=None)).state_time is None


@pytest.mark.parametrize(
    ('state_name', 'retry_type', 'waits'),
    [
        ('AwaitingRetry', 'in_process', True),
        ('AwaitingRetry', 'reschedule', False),
        ('AwaitingRetry', None, False),
        ('Resuming', 'in_process', False),
    ],
)
def test_only_a_run_that_retries_in_its_process_waits_there(
    state_name: str, retry_type: str | None, waits: bool
) -> None:
    columns = {'state_name': state_name, 'empirical_policy': {'retry_type': retry_type}}
    assert read_row(FlowRun, row('flow_runs_filter', 'awaiting_retry', **columns)).waits_in_process is waits


def test_limit_of_a_deployment_is_its_global_one() -> None:
    assert read_row(Deployment, row('deployments_filter', 'limited')).concurrency_limit is not None
    assert read_row(Deployment, row('deployments_filter', 'ready')).concurrency_limit is None
