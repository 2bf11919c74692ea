"""What is declared in `metrics.py`, and the two files that are generated from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datadog_checks.prefect.config_models import defaults
from datadog_checks.prefect.metrics import METRICS, MetricSpec
from tools import metadata

# Of the units that Datadog knows, those that this integration uses.
UNITS = {'', 'byte', 'event', 'fraction', 'item', 'occurrence', 'percent', 'request', 'run', 'second', 'worker'}
RESERVED = {'cluster', 'cluster_name', 'env', 'host', 'host_name', 'hostname', 'service', 'version'}
STATISTICS = {'avg', 'median', '95percentile', 'max', 'count'}
FLOW_RUN_DURATIONS = ('execution_duration', 'queue_wait_duration', 'retry_gaps_duration')
TASK_RUN_DURATIONS = ('execution_duration', 'dependency_wait_duration')
RUN_COUNTS = {
    'completed.count',
    'failed.count',
    'crashed.count',
    'cancelled.count',
    'late_start.count',
    'throughput',
}

DOCUMENTED = {
    '': {'health', 'ready', 'collector.success', 'api.authorized', 'events.pending', 'logs.pending'},
    'work_pool.': {'is_ready', 'is_not_ready', 'is_paused', 'worker.is_online', 'worker.heartbeat_age_seconds'},
    'work_queue.': {
        'is_ready',
        'is_not_ready',
        'is_paused',
        'last_polled_age_seconds',
        'backlog.size',
        'backlog.age',
        'concurrency.in_use',
    },
    'deployment.': {'is_ready'},
    'flow_runs.': {
        *('scheduled', 'pending', 'running', 'paused'),
        *RUN_COUNTS,
        *(f'{duration}.{statistic}' for duration in FLOW_RUN_DURATIONS for statistic in STATISTICS),
    },
    'task_runs.': {
        *('pending', 'running', 'paused'),
        *RUN_COUNTS,
        *(f'{duration}.{statistic}' for duration in TASK_RUN_DURATIONS for statistic in STATISTICS),
    },
}


@pytest.mark.parametrize('path', [metadata.METADATA, metadata.README], ids=lambda path: path.name)
def test_generated_files_are_as_declared(path: Path) -> None:
    assert path.read_text() == metadata.wanted()[path], 'run `make generate`'


def test_every_question_of_the_readme_has_an_answer() -> None:
    found = list(metadata.answers_by_question(METRICS.values()))
    assert [question.text for question, answers in found if not answers] == []
    assert sum(len(answers) for _, answers in found) == len(METRICS)


def test_series_without_a_question_is_named() -> None:
    with pytest.raises(ValueError, match=r'no question for new\.series'):
        metadata.readme_tables([*METRICS.values(), replace(METRICS['health'], name='new.series')])


def test_every_documented_series_is_declared() -> None:
    always_on = {name for name, spec in METRICS.items() if not spec.group}

    assert always_on == {prefix + name for prefix, names in DOCUMENTED.items() for name in names}


def test_groups_are_those_of_the_option() -> None:
    assert {spec.group for spec in METRICS.values() if spec.group} <= defaults.instance_collect().keys()


def test_only_what_happens_is_a_count() -> None:
    counts = {name for name, spec in METRICS.items() if spec.type == 'count'}

    of_runs = {f'{family}.{name}' for family in ('flow_runs', 'task_runs') for name in RUN_COUNTS}
    of_automations = {f'automation.{name}.count' for name in ('triggered', 'action.executed', 'action.failed')}
    of_workers = {f'work_pool.flow_runs.{name}.count' for name in ('submitted', 'exited')}
    of_failures = {f'{family}.failures.count' for family in ('flow_runs', 'task_runs')}
    assert counts == {*of_runs, *of_automations, *of_workers, *of_failures, 'api.requests', 'api.response_bytes'}
    assert {spec.type for spec in METRICS.values()} == {'gauge', 'count'}


def test_each_series_is_declared_as_datadog_wants_it() -> None:
    assert [f'{spec.name}: {fault}' for spec in METRICS.values() for fault in faults(spec)] == []


def faults(spec: MetricSpec) -> Iterator[str]:
    """What is wrong with a declaration."""
    if spec.unit not in units(spec):
        yield f'unit {spec.unit!r}, not one of {sorted(units(spec))}'
    if not spec.description.isascii() or '|' in spec.description:
        yield 'a character that metadata.csv does not take in the description'
    if len(spec.description) > 400:
        yield 'more than 400 characters of description'
    if not spec.description.endswith('.'):
        yield 'no full stop at the end of the description'
    if len(set(spec.tag_keys)) != len(spec.tag_keys):
        yield 'a tag twice'
    if reserved := RESERVED & set(spec.tag_keys):
        yield f'tags that the Agent or Datadog reserves: {sorted(reserved)}'
    if per_run := [key for key in spec.tag_keys if 'run_id' in key]:
        yield f'one tag value per run, which costs a series per run: {per_run}'
    if spec.orientation not in {-1, 0, 1}:
        yield f'orientation {spec.orientation}'


def units(spec: MetricSpec) -> set[str]:
    """Those that the name of a series allows."""
    last = spec.name.split('.')[-1]
    if last.startswith('seconds_') or last.endswith(('_seconds', '_age')) or last == 'age':
        return {'second'}
    if spec.name == 'logs.pending':
        return {'second'}
    if 'duration' in spec.name and last != 'count':
        return {'second'}
    if last in {'success', 'health', 'ready', 'authorized'} or last.startswith('is_'):
        return {''}
    return UNITS - {'', 'second'}


@pytest.mark.parametrize(
    ('changes', 'fault'),
    [
        ({'unit': 'slot'}, "unit 'slot'"),
        ({'unit': 'run'}, "unit 'run'"),
        ({'description': 'a | b.'}, 'a character'),
        ({'description': 'x' * 400 + '.'}, 'more than 400'),
        ({'description': 'No end'}, 'no full stop'),
        ({'tag_keys': ('a', 'a')}, 'a tag twice'),
        ({'tag_keys': ('env',)}, 'tags that the Agent'),
        ({'tag_keys': ('flow_run_id',)}, 'one tag value per run'),
        ({'orientation': 2}, 'orientation 2'),
    ],
)
def test_a_fault_of_a_declaration_is_named(changes: dict[str, Any], fault: str) -> None:
    (found,) = faults(replace(METRICS['health'], **changes))

    assert found.startswith(fault)


def test_descriptions_differ() -> None:
    doubles = [text for text, times in Counter(spec.description for spec in METRICS.values()).items() if times > 1]
    # The three states of work pools and of work queues are said in the same words.
    assert not [text for text in doubles if 'status' not in text]
