"""What is declared in `metrics.py`, and the two files that are generated from it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from datadog_checks.prefect.config_models import defaults
from datadog_checks.prefect.metrics import METRICS, MetricSpec
from tools import metadata

# Of the units that Datadog knows, those that this integration uses.
UNITS = {'', 'byte', 'event', 'item', 'occurrence', 'percent', 'request', 'run', 'second', 'worker'}
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
    '': {'health', 'ready', 'collector.success', 'api.authorized', 'events.pending'},
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

every_spec = pytest.mark.parametrize('spec', METRICS.values(), ids=METRICS.keys())


@pytest.mark.parametrize('path', [metadata.METADATA, metadata.README], ids=lambda path: path.name)
def test_generated_files_are_as_declared(path: Path) -> None:
    assert path.read_text() == metadata.wanted()[path], 'run `make generate`'


def test_every_documented_series_is_declared() -> None:
    always_on = {name for name, spec in METRICS.items() if not spec.group}

    assert always_on == {prefix + name for prefix, names in DOCUMENTED.items() for name in names}


def test_groups_are_those_of_the_option() -> None:
    assert {spec.group for spec in METRICS.values() if spec.group} <= defaults.instance_collect().keys()


def test_only_what_happens_is_a_count() -> None:
    counts = {name for name, spec in METRICS.items() if spec.type == 'count'}

    of_runs = {f'{family}.{name}' for family in ('flow_runs', 'task_runs') for name in RUN_COUNTS}
    assert counts == {*of_runs, 'api.requests', 'api.response_bytes'}
    assert {spec.type for spec in METRICS.values()} == {'gauge', 'count'}


@every_spec
def test_units_are_known_to_datadog(spec: MetricSpec) -> None:
    assert spec.unit in UNITS


@every_spec
def test_units_say_what_the_name_says(spec: MetricSpec) -> None:
    last = spec.name.split('.')[-1]
    if (
        last.startswith('seconds_')
        or last.endswith(('_seconds', '_age'))
        or last == 'age'
        or ('duration' in spec.name and last != 'count')
    ):
        assert spec.unit == 'second'
    elif last in {'success', 'health', 'ready', 'authorized'} or last.startswith('is_'):
        assert spec.unit == ''
    else:
        assert spec.unit in UNITS - {'', 'second'}


@every_spec
def test_descriptions_fit_into_metadata(spec: MetricSpec) -> None:
    assert spec.description.isascii()
    assert len(spec.description) <= 400
    assert '|' not in spec.description
    assert spec.description.endswith('.')


def test_descriptions_differ() -> None:
    doubles = [text for text, times in Counter(spec.description for spec in METRICS.values()).items() if times > 1]
    # The three states of work pools and of work queues are said in the same words.
    assert not [text for text in doubles if 'status' not in text]


@every_spec
def test_tags_are_none_that_the_agent_or_datadog_reserves(spec: MetricSpec) -> None:
    reserved = {'cluster', 'cluster_name', 'env', 'host', 'host_name', 'hostname', 'service', 'version'}

    assert len(set(spec.tag_keys)) == len(spec.tag_keys)
    assert not reserved & set(spec.tag_keys)
    assert not [key for key in spec.tag_keys if 'run_id' in key], 'one tag value per run costs a series per run'


@every_spec
def test_orientation_is_one_that_datadog_knows(spec: MetricSpec) -> None:
    assert spec.orientation in {-1, 0, 1}
