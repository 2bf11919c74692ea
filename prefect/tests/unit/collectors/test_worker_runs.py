from __future__ import annotations

from collections.abc import Callable

import pytest

from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.collectors.automations import Automations
from datadog_checks.prefect.collectors.worker_runs import WorkerRuns
from datadog_checks.prefect.event_names import WORKER_EXECUTED, WORKER_SUBMITTED
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, Values, at, failing, nonzero, sent

SUBMITTED = 'work_pool.flow_runs.submitted.count'
EXITED = 'work_pool.flow_runs.exited.count'


@pytest.fixture
def pool(fake: FakePrefect) -> Row:
    return fake.add_work_pool('prod')


def tags(pool: Row, **more: str) -> tuple[str, ...]:
    values = {'work_pool_id': pool['id'], 'work_pool_name': pool['name'], 'work_pool_type': pool['type'], **more}
    return tuple(sorted(f'{key}:{value}' for key, value in values.items()))


def tell(fake: FakePrefect, pool: Row, seconds: float, code: str | None = None, flow_run: Row | None = None) -> Row:
    """An event of a worker of the pool: with a code that of an end, else that of a start."""
    event = fake.add_event(WORKER_SUBMITTED if code is None else WORKER_EXECUTED, occurred=at(seconds))
    for related in event['related']:
        if related['prefect.resource.role'] == 'work-pool':
            related |= {'prefect.resource.id': f'prefect.work-pool.{pool["id"]}', 'prefect.resource.name': pool['name']}
        if related['prefect.resource.role'] == 'flow-run':
            if code is not None:
                related['prefect.infrastructure.status-code'] = code
            if flow_run is not None:
                related['prefect.resource.id'] = f'prefect.flow-run.{flow_run["id"]}'
    return event


def follow(bench: Bench, seconds: float) -> Values:
    bench.fake.now = at(seconds)
    return bench.follow(WorkerRuns())


def test_starts_and_ends_are_counted_by_work_pool_and_exit_code(fake: FakePrefect, bench: Bench, pool: Row) -> None:
    other = fake.add_work_pool('test')
    follow(bench, 0)
    for seconds in (3, 4, 5):
        tell(fake, pool, seconds)
    tell(fake, other, 6)
    for seconds, code in ((7, '0'), (8, '137'), (9, '137'), (9, '-9')):
        tell(fake, pool, seconds, code)
    fake.add_event('prefect.worker.started', occurred=at(5))
    assert nonzero(follow(bench, 15)) == {
        (SUBMITTED, tags(pool)): 3,
        (SUBMITTED, tags(other)): 1,
        (EXITED, tags(pool, exit_code='0')): 1,
        (EXITED, tags(pool, exit_code='137')): 2,
        (EXITED, tags(pool, exit_code='-9')): 1,
    }


def test_each_event_counts_once_and_then_as_0_for_five_minutes(fake: FakePrefect, bench: Bench, pool: Row) -> None:
    follow(bench, 0)
    tell(fake, pool, 3, '3')
    key = (EXITED, tags(pool, exit_code='3'))
    found = [follow(bench, seconds).get(key) for seconds in (15, 30, 120, 300, 330, 345)]
    assert found == [1, 0, 0, 0, 0, None]


@pytest.mark.parametrize(('code', 'tag'), [('4123456789', 'other'), ('None', None), ('alice', None), ('\u0663', None)])
def test_exit_code_is_one_of_a_process(fake: FakePrefect, bench: Bench, pool: Row, code: str, tag: str | None) -> None:
    follow(bench, 0)
    tell(fake, pool, 3, code)
    assert follow(bench, 15) == {(EXITED, tags(pool, **({'exit_code': tag} if tag else {}))): 1}


def test_work_pool_that_is_gone_keeps_its_name(fake: FakePrefect, bench: Bench, pool: Row) -> None:
    follow(bench, 0)
    tell(fake, pool, 3)
    fake.remove(pool)
    gone = tuple(tag for tag in tags(pool) if not tag.startswith('work_pool_type'))
    assert follow(bench, 15) == {(SUBMITTED, gone): 1}


@pytest.mark.parametrize(
    'filters',
    [
        {'deployment_names': {'include': ['hourly']}},
        {'deployment_names': {'exclude': ['nightly']}},
        {'work_queue_names': {'include': ['high']}},
        {'work_pool_names': {'exclude': ['test']}},
    ],
    ids=str,
)
def test_what_the_filters_exclude_is_not_counted(
    fake: FakePrefect, new_bench: Callable[..., Bench], filters: Row
) -> None:
    bench = new_bench(**filters)
    follow(bench, 0)
    pools = [fake.add_work_pool(name) for name in ('prod', 'test')]
    for pool, queue_name, name in zip(pools, ('high', 'low'), ('hourly', 'nightly'), strict=True):
        deployment = fake.add_deployment(name=name, work_queue=fake.add_work_queue(pool, queue_name))
        tell(fake, pool, 3, flow_run=fake.add_flow_run(deployment=deployment))
    assert follow(bench, 15) == {(SUBMITTED, tags(pools[0])): 1}


def test_failed_read_leaves_all_to_the_next_one(fake: FakePrefect, bench: Bench, pool: Row) -> None:
    follow(bench, 0)
    tell(fake, pool, 3)
    fake.fault = failing('/events/filter')
    with pytest.raises(PrefectApiError):
        follow(bench, 15)
    fake.fault = None
    assert follow(bench, 30) == {(SUBMITTED, tags(pool)): 1}


def test_events_of_workers_and_automations_take_one_request(fake: FakePrefect, bench: Bench, pool: Row) -> None:
    for seconds in (0, 15, 30):
        fake.now = at(seconds)
        tell(fake, pool, seconds)
        fake.requests.clear()
        run = bench.context()
        bench.follow(Automations(), run)
        bench.follow(WorkerRuns(), run)
    assert len(sent(fake, '/events/filter')) == 1
