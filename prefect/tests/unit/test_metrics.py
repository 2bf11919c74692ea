from __future__ import annotations

import re

import pytest

from datadog_checks.prefect import metrics, tags
from datadog_checks.prefect.metrics import BACKGROUND_TASKS, METRICS, NAMESPACE, MetricSpec

KNOWN_TAGS = {value for key, value in vars(tags).items() if key.isupper() and isinstance(value, str)}


def test_declaration_is_complete() -> None:
    incomplete = {
        name: spec
        for name, spec in METRICS.items()
        if spec.name != name
        or spec.full_name != f'{NAMESPACE}.{name}'
        or spec.type not in ('gauge', 'count')
        or not re.fullmatch(r'[a-z0-9_.]+', name)
        or not set(spec.tag_keys) <= KNOWN_TAGS
    }

    assert incomplete == {}


def test_every_declared_constant_is_a_series_of_its_own() -> None:
    constants = [value for value in vars(metrics).values() if isinstance(value, MetricSpec)]
    groups = [value for value in vars(metrics).values() if isinstance(value, metrics.PercentileGauges)]
    declared = [*constants, *(spec for group in groups for spec in vars(group).values())]
    assert sorted(spec.name for spec in declared) == sorted(METRICS)


def test_series_that_is_declared_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match='declared twice'):
        metrics._declare(metrics.HEALTH)


def test_percentiles_warn_of_averages() -> None:
    percentiles = [spec for spec in METRICS.values() if spec.name.endswith(('.median', '.95percentile'))]
    assert len(percentiles) == 10
    assert all('cannot be averaged' in spec.description for spec in percentiles)


def test_there_are_59_documented_series_beside_those_on_the_check_itself() -> None:
    own = ('api', 'check', 'collector', 'events', 'logs')
    assert sum(not spec.group and spec.family not in own for spec in METRICS.values()) == 59


@pytest.mark.parametrize(
    ('prefix', 'keys'),
    [
        ('health', ''),
        ('work_pool.is_', 'work_pool_id work_pool_name work_pool_type'),
        ('work_pool.worker.', 'work_pool_id work_pool_name worker_id worker_name'),
        ('work_queue.is_', 'work_queue_id work_queue_name work_pool_id work_pool_name work_queue_priority'),
        (
            'work_queue.backlog.',
            'work_queue_id work_queue_name work_pool_id work_pool_name work_queue_priority work_queue_status',
        ),
        (
            'deployment.',
            'deployment_id deployment_name flow_id flow_name work_pool_id work_pool_name work_queue_id '
            'work_queue_name prefect_tag is_paused',
        ),
        (
            'flow_runs.',
            'work_pool_id work_pool_name work_queue_id work_queue_name deployment_id deployment_name flow_id flow_name '
            'prefect_tag',
        ),
        (
            'task_runs.',
            'work_pool_id work_pool_name work_queue_id work_queue_name deployment_id deployment_name flow_id '
            'flow_name prefect_tag task_key task_name',
        ),
    ],
)
def test_family_carries_the_documented_tags(prefix: str, keys: str) -> None:
    family = [spec for spec in METRICS.values() if spec.name.startswith(prefix) and spec.group != BACKGROUND_TASKS]
    assert family
    for spec in family:
        more = {tags.LATE_REASON, tags.EXPECTATION_SOURCE, tags.STATE_NAME, tags.FAILURE_REASON}
        assert set(spec.tag_keys) - more == set(keys.split())


def test_background_tasks_belong_to_no_flow_run() -> None:
    keys = {spec.name: spec.tag_keys for spec in METRICS.values() if spec.group == BACKGROUND_TASKS}
    assert keys == {
        'task_runs.scheduled': ('task_key', 'task_name'),
        'task_runs.scheduled.max_age': ('task_key', 'task_name'),
        'task_workers.online': ('task_key',),
    }


def test_only_failures_carry_their_reason() -> None:
    keys = {tags.STATE_NAME, tags.FAILURE_REASON}
    with_reason = {spec.name for spec in METRICS.values() if keys & set(spec.tag_keys)}
    assert with_reason == {'flow_runs.failures.count', 'task_runs.failures.count'}


def test_only_late_runs_carry_a_reason() -> None:
    with_reason = {spec.name for spec in METRICS.values() if tags.LATE_REASON in spec.tag_keys}
    assert with_reason == {'flow_runs.late', 'flow_runs.late.max_age'}
