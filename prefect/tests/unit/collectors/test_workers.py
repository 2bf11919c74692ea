from __future__ import annotations

from collections.abc import Callable

import pytest

from datadog_checks.prefect.collectors.workers import Workers
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, at, failing, sent, tags_of


@pytest.mark.parametrize(
    ('status', 'is_online'), [pytest.param('ONLINE', 1, id='online'), pytest.param('OFFLINE', 0, id='offline')]
)
def test_worker_is_online_by_its_status(fake: FakePrefect, bench: Bench, status: str, is_online: int) -> None:
    pool = fake.add_work_pool()
    worker = fake.add_worker(pool, 'worker 1', status=status, last_heartbeat_time=at(-30.5))
    tags = tags_of(work_pool=pool, worker_id=worker['id'], worker_name='worker 1')
    assert bench.read(Workers()) == {
        ('work_pool.worker.is_online', tags): is_online,
        ('work_pool.worker.heartbeat_age_seconds', tags): 30.5,
    }


def test_heartbeat_of_the_future_has_no_negative_age(fake: FakePrefect, bench: Bench) -> None:
    fake.add_worker(fake.add_work_pool(), last_heartbeat_time=at(3))
    found = bench.read(Workers())
    assert [value for (name, _), value in found.items() if name.endswith('age_seconds')] == [0]


def test_worker_that_never_sent_a_heartbeat_has_no_age(fake: FakePrefect, bench: Bench) -> None:
    fake.add_worker(fake.add_work_pool(), last_heartbeat_time=None)
    assert {name for name, _ in bench.read(Workers())} == {'work_pool.worker.is_online'}


def test_workers_of_the_same_name_in_two_pools_stay_apart(fake: FakePrefect, bench: Bench) -> None:
    pools = [fake.add_work_pool('a'), fake.add_work_pool('b')]
    for pool in pools:
        fake.add_worker(pool, 'worker')
    assert len(bench.read(Workers())) == 4


@pytest.mark.parametrize('name', ['with a blank', 'a/b', 'ä', '100%', 'q?a=1#x'])
def test_any_pool_name_fits_into_the_path(fake: FakePrefect, bench: Bench, name: str) -> None:
    fake.add_work_pool(name)
    requested: list[str] = []
    fake.fault = lambda request: requested.append(request.path)
    try:
        bench.read(Workers())
    finally:
        fake.unknown_requests.clear()
    (path,) = [path for path in requested if path.endswith('/workers/filter')]
    assert path.count('/') == len(['', 'api', 'work_pools', 'NAME', 'workers', 'filter']) - 1


def test_pool_that_is_deleted_meanwhile_has_no_workers(fake: FakePrefect, bench: Bench) -> None:
    fake.add_worker(fake.add_work_pool('gone'))
    fake.add_worker(fake.add_work_pool('here'), 'left')
    fake.fault = failing('/work_pools/gone/workers/filter', 404)
    assert {tag for _, tags in bench.read(Workers()) for tag in tags if tag.startswith('worker_name')} == {
        'worker_name:left'
    }


def test_workers_of_an_excluded_pool_are_not_asked_for(fake: FakePrefect, new_bench: Callable[..., Bench]) -> None:
    fake.add_worker(fake.add_work_pool('prod'))
    fake.add_worker(fake.add_work_pool('test'))
    assert len(new_bench(work_pool_names={'exclude': ['test']}).read(Workers())) == 2
    assert not sent(fake, '/work_pools/test/workers/filter')
