from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from datadog_checks.prefect.collectors.background_tasks import BackgroundTasks
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, Values, at, failing, series

WAITING = 'task_runs.scheduled'
AGE = 'task_runs.scheduled.max_age'
ONLINE = 'task_workers.online'


def task(key: str) -> tuple[str, ...]:
    return (f'task_key:{key}', f'task_name:{key}')


def delay(fake: FakePrefect, key: str, seconds: float, flow_run: Row | None = None) -> Row:
    """What `.delay()` makes."""
    run = fake.add_task_run(task_key=key, flow_run=flow_run, state=('SCHEDULED', 'Scheduled'), at=at(seconds))
    run['state']['state_details']['deferred'] = True
    return run


def read(bench: Bench, seconds: float) -> Values:
    bench.fake.now = at(seconds)
    return bench.read(BackgroundTasks())


def test_waiting_task_runs_are_counted_by_task_with_the_age_of_the_oldest(fake: FakePrefect, bench: Bench) -> None:
    for seconds in (-90, -600, -30):
        delay(fake, 'resize', seconds)
    delay(fake, 'clean_up', -5)
    assert read(bench, 0) == {
        (WAITING, task('resize')): 3,
        (AGE, task('resize')): 600,
        (WAITING, task('clean_up')): 1,
        (AGE, task('clean_up')): 5,
    }


def test_task_run_that_a_flow_run_delayed_waits_too(fake: FakePrefect, bench: Bench) -> None:
    delay(fake, 'resize', -10, fake.add_flow_run(state=('RUNNING', 'Running')))
    assert read(bench, 0) == {(WAITING, task('resize')): 1, (AGE, task('resize')): 10}


@pytest.mark.parametrize(
    'state', [('SCHEDULED', 'AwaitingRetry'), ('PENDING', 'Pending'), ('RUNNING', 'Running'), ('COMPLETED', None)]
)
def test_task_run_that_was_taken_up_does_not_wait(fake: FakePrefect, bench: Bench, state: tuple[str, str]) -> None:
    run = delay(fake, 'resize', -10)
    fake.set_task_run_state(run, *state, at=at(-5))
    run['state']['state_details']['deferred'] = False
    assert read(bench, 0) == {}


def test_task_run_of_a_flow_run_that_waits_for_something_else_is_none(fake: FakePrefect, bench: Bench) -> None:
    flow_run = fake.add_flow_run(state=('RUNNING', 'Running'))
    fake.add_task_run(flow_run=flow_run, state=('SCHEDULED', 'Scheduled'))
    assert read(bench, 0) == {}


def test_waiting_ends_in_zeros_for_five_minutes(fake: FakePrefect, bench: Bench) -> None:
    run = delay(fake, 'resize', -10)
    read(bench, 0)
    fake.set_task_run_state(run, 'RUNNING', at=at(5))
    zeros = {(WAITING, task('resize')): 0, (AGE, task('resize')): 0}
    assert [read(bench, seconds) for seconds in (15, 299, 310)] == [zeros, zeros, zeros]
    assert read(bench, 325) == {}


def test_task_workers_are_counted_by_task(fake: FakePrefect, bench: Bench) -> None:
    fake.add_task_worker('resize', 'clean_up', identifier='host-1')
    fake.add_task_worker('resize', identifier='host-2')
    assert series(read(bench, 0), ONLINE) == {(ONLINE, ('task_key:resize',)): 2, (ONLINE, ('task_key:clean_up',)): 1}


def test_task_worker_that_another_replica_knows_counts_for_a_minute(fake: FakePrefect, bench: Bench) -> None:
    workers = [fake.add_task_worker('resize', identifier=f'host-{number}', seen=at(0)) for number in (1, 2)]
    key = (ONLINE, ('task_key:resize',))
    assert read(bench, 0)[key] == 2
    # Each replica tells of its own; the other one's was seen at the start.
    fake.remove(workers[1])
    workers[0]['timestamp'] = '2026-11-23T08:00:59Z'
    assert read(bench, 59)[key] == 2
    workers[0]['timestamp'] = '2026-11-23T08:01:00Z'
    assert read(bench, 60)[key] == 1
    fake.remove(workers[0])
    assert [read(bench, seconds).get(key) for seconds in (119, 120, 400, 425, 440)] == [1, 0, 0, 0, None]


def test_nobody_who_listens_is_0_while_task_runs_wait(fake: FakePrefect, bench: Bench) -> None:
    """Not in the first minute: there may be a replica that knows somebody."""
    delay(fake, 'resize', -10)
    key = (ONLINE, ('task_key:resize',))
    assert [read(bench, seconds).get(key) for seconds in (0, 45, 60, 900)] == [None, None, 0, 0]


def test_filter_that_includes_leaves_out_what_has_no_parents(
    fake: FakePrefect, new_bench: Callable[..., Bench]
) -> None:
    fake.add_task_worker('resize')
    delay(fake, 'resize', -10)
    for name in ('hourly', 'nightly'):
        deployment = fake.add_deployment(name=name)
        delay(fake, name, -10, fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running')))
    included = new_bench(deployment_names={'include': ['hourly']})
    assert read(included, 0) == {(WAITING, task('hourly')): 1, (AGE, task('hourly')): 10}
    excluded = new_bench(deployment_names={'exclude': ['hourly']})
    assert {tags for name, tags in read(excluded, 0) if name == WAITING} == {task('resize'), task('nightly')}


def test_server_without_task_workers_says_so_at_debug(
    fake: FakePrefect, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    fake.fault = failing('/task_workers/filter', 404)
    delay(fake, 'resize', -10)
    with caplog.at_level(logging.DEBUG):
        found = [read(bench, seconds) for seconds in (0, 120)]
    assert not any(series(one, ONLINE) for one in found)
    assert found[1][WAITING, task('resize')] == 1
    messages = [record for record in caplog.records if 'No task workers' in record.message]
    assert {record.levelname for record in messages} == {'DEBUG'}
