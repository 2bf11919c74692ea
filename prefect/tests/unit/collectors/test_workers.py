from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from urllib.parse import unquote

import pytest

from datadog_checks.prefect.collectors.workers import Workers
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, Values, at, failing, sent, series, tags_of

POOLS = 100


@pytest.mark.parametrize(
    ('status', 'is_online'), [pytest.param('ONLINE', 1, id='online'), pytest.param('OFFLINE', 0, id='offline')]
)
def test_worker_is_online_by_its_status(fake: FakePrefect, bench: Bench, status: str, is_online: int) -> None:
    pool = fake.add_work_pool()
    worker = fake.add_worker(pool, 'worker 1', status=status, last_heartbeat_time=at(-30.5))
    tags = tags_of(work_pool=pool, worker_id=worker['id'], worker_name='worker 1')
    pool_tags = tags_of(work_pool=pool, work_pool_type='process')
    assert bench.read(Workers()) == {
        ('work_pool.worker.is_online', tags): is_online,
        ('work_pool.worker.heartbeat_age_seconds', tags): 30.5,
        ('work_pool.workers.online', pool_tags): is_online,
        ('work_pool.workers.offline', pool_tags): 1 - is_online,
    }


def test_heartbeat_of_the_future_has_no_negative_age(fake: FakePrefect, bench: Bench) -> None:
    fake.add_worker(fake.add_work_pool(), last_heartbeat_time=at(3))
    found = bench.read(Workers())
    assert [value for (name, _), value in found.items() if name.endswith('age_seconds')] == [0]


def test_worker_that_never_sent_a_heartbeat_has_no_age(fake: FakePrefect, bench: Bench) -> None:
    fake.add_worker(fake.add_work_pool(), last_heartbeat_time=None)
    names = {name for name, _ in bench.read(Workers())}
    assert 'work_pool.worker.is_online' in names
    assert 'work_pool.worker.heartbeat_age_seconds' not in names


def test_workers_of_the_same_name_in_two_pools_stay_apart(fake: FakePrefect, bench: Bench) -> None:
    pools = [fake.add_work_pool('a'), fake.add_work_pool('b')]
    for pool in pools:
        fake.add_worker(pool, 'worker')
    assert len(series(bench.read(Workers()), 'work_pool.worker.is_online')) == 2


@pytest.mark.parametrize('name', ['with a blank', 'a;b', 'ä', '100%', 'q?a=1#x', '...', '%2e%2e', '\\', 'x' * 2000])
def test_any_pool_name_fits_into_the_path(fake: FakePrefect, bench: Bench, name: str) -> None:
    fake.add_work_pool(name)
    requested: list[str] = []
    fake.fault = lambda request: requested.append(request.path)
    try:
        bench.read(Workers())
    finally:
        fake.unknown_requests.clear()
    (path,) = [path for path in requested if path.endswith('/workers/filter')]
    assert [unquote(part) for part in path.split('/')] == ['', 'api', 'work_pools', name, 'workers', 'filter']


@pytest.mark.parametrize('name', ['.', '..', 'a/b', '../flow_runs', 'x' * 70_000, 'ä' * 1000])
def test_pool_that_no_path_can_name_is_skipped_with_one_warning(
    fake: FakePrefect, bench: Bench, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    for pool in (name, name[:-1] + '/', 'good'):
        fake.add_worker(fake.add_work_pool(pool), 'worker')
    for _ in range(2):
        found = bench.read(Workers())
        online = series(found, 'work_pool.worker.is_online')
        assert [tag for _, tags in online for tag in tags if tag.startswith('work_pool_name')] == [
            'work_pool_name:good'
        ]
    (warning,) = caplog.messages
    assert warning.startswith('Skipped the workers of work pool ')
    assert len(warning) < 300


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
    found = new_bench(work_pool_names={'exclude': ['test']}).read(Workers())
    assert len(series(found, 'work_pool.worker.is_online')) == 1
    assert not sent(fake, '/work_pools/test/workers/filter')


class TestCounts:
    def test_workers_are_counted_by_pool_and_status(self, fake: FakePrefect, bench: Bench) -> None:
        pools = {name: fake.add_work_pool(name) for name in ('a', 'b', 'idle')}
        for pool_name, status in (('a', 'ONLINE'), ('a', 'ONLINE'), ('a', 'OFFLINE'), ('b', 'OFFLINE')):
            fake.add_worker(pools[pool_name], status=status)
        found = bench.read(Workers())
        expected = {'a': (2, 1), 'b': (0, 1), 'idle': (0, 0)}
        for name, (online, offline) in expected.items():
            tags = tags_of(work_pool=pools[name], work_pool_type='process')
            assert found['work_pool.workers.online', tags] == online
            assert found['work_pool.workers.offline', tags] == offline

    def test_group_that_is_off_sends_no_counts(self, fake: FakePrefect, new_bench: Callable[..., Bench]) -> None:
        fake.add_worker(fake.add_work_pool())
        names = {name for name, _ in new_bench(collect={'worker_counts': False}).read(Workers())}
        assert names == {'work_pool.worker.is_online', 'work_pool.worker.heartbeat_age_seconds'}


class TestRetention:
    @pytest.mark.parametrize(
        ('status', 'age', 'is_reported'),
        [
            pytest.param('OFFLINE', 3600, True, id='offline for as long as it is reported'),
            pytest.param('OFFLINE', 3601, False, id='offline for longer'),
            pytest.param('ONLINE', 86400, True, id='online with a heartbeat once a day'),
        ],
    )
    @pytest.mark.parametrize('collect', [{}, {'worker_counts': False}], ids=['counts', 'no counts'])
    def test_worker_is_reported_until_it_was_offline_for_long(
        self,
        fake: FakePrefect,
        new_bench: Callable[..., Bench],
        status: str,
        age: int,
        is_reported: bool,
        collect: dict[str, bool],
    ) -> None:
        fake.add_worker(fake.add_work_pool(), status=status, last_heartbeat_time=at(-age))
        found = new_bench(collect=collect).read(Workers())
        assert any(name.startswith('work_pool.worker.') for name, _ in found) is is_reported
        assert sum(value for (name, _), value in found.items() if name.startswith('work_pool.workers.')) == (
            is_reported if not collect else 0
        )

    def test_retention_is_an_option(self, fake: FakePrefect, new_bench: Callable[..., Bench]) -> None:
        fake.add_worker(fake.add_work_pool(), status='OFFLINE', last_heartbeat_time=at(-61))
        for retention, reported in ((60, 0), (62, 1)):
            found = new_bench(worker_retention=retention).read(Workers())
            assert sum(name == 'work_pool.worker.is_online' for name, _ in found) == reported

    def test_worker_that_never_sent_a_heartbeat_stays(self, fake: FakePrefect, bench: Bench) -> None:
        fake.add_worker(fake.add_work_pool(), status='OFFLINE', last_heartbeat_time=None)
        assert series(bench.read(Workers()), 'work_pool.worker.is_online')

    def test_workers_that_are_gone_for_long_are_not_downloaded(self, fake: FakePrefect, bench: Bench) -> None:
        fake.default_limit = 20
        pool = fake.add_work_pool()
        for number in range(25):
            fake.add_worker(pool, f'new {number}', last_heartbeat_time=at(-number))
        for number in range(300):
            fake.add_worker(pool, f'dead {number}', status='OFFLINE', last_heartbeat_time=at(-4000 - number))
        found = bench.read(Workers())
        assert len(series(found, 'work_pool.worker.is_online')) == 25
        assert len(sent(fake, f'/work_pools/{pool["name"]}/workers/filter')) == 2

    def test_no_more_is_asked_for_when_the_first_page_ends_with_one_that_is_gone(
        self, fake: FakePrefect, bench: Bench
    ) -> None:
        fake.default_limit = 20
        pool = fake.add_work_pool()
        for number in range(200):
            fake.add_worker(pool, str(number), status='OFFLINE', last_heartbeat_time=at(-3500 - 10 * number))
        assert len(series(bench.read(Workers()), 'work_pool.worker.is_online')) == 11
        assert len(sent(fake, f'/work_pools/{pool["name"]}/workers/filter')) == 1


class TestManyPools:
    """Beyond 50 pools each has its turn, and those that may have changed come first."""

    @pytest.fixture
    def pools(self, fake: FakePrefect, bench: Bench) -> list[Row]:
        """A hundred pools with a worker each, which were all read once."""
        pools = [fake.add_work_pool(f'pool-{number:03}') for number in range(POOLS)]
        for pool in pools:
            fake.add_worker(pool, last_heartbeat_time=at(0))
        assert len(series(bench.read(Workers()), 'work_pool.worker.heartbeat_age_seconds')) == POOLS
        return pools

    @staticmethod
    def next_check(fake: FakePrefect, bench: Bench) -> tuple[Values, list[str]]:
        """What a check 15 s later sends, and the pools that it asks about."""
        fake.now += timedelta(seconds=15)
        fake.requests.clear()
        found = bench.read(Workers())
        paths = [exchange.path.split('/') for exchange in fake.requests]
        return found, [path[3] for path in paths if path[-2:] == ['workers', 'filter']]

    def test_each_pool_has_its_turn(self, fake: FakePrefect, bench: Bench, pools: list[Row]) -> None:
        asked: list[str] = []
        for _ in range(4):
            found, names = self.next_check(fake, bench)
            assert len(names) == 30
            assert len(series(found, 'work_pool.worker.is_online')) == POOLS
            assert len(series(found, 'work_pool.workers.online')) == POOLS
            ages = series(found, 'work_pool.worker.heartbeat_age_seconds')
            read = {tag for _, tags in ages for tag in tags if tag.startswith('work_pool_name')}
            assert read == {f'work_pool_name:{name}' for name in names}
            asked += names
        assert set(asked) == {pool['name'] for pool in pools}

    def test_pool_whose_status_changes_is_read_at_once(self, fake: FakePrefect, bench: Bench, pools: list[Row]) -> None:
        fake.tables['workers'].newest()[0]['status'] = 'OFFLINE'
        pools[-1]['status'] = 'NOT_READY'
        found, names = self.next_check(fake, bench)
        assert pools[-1]['name'] == names[0]
        assert list(series(found, 'work_pool.worker.is_online').values()).count(0) == 1
        assert self.next_check(fake, bench)[1][0] != pools[-1]['name']

    @pytest.mark.parametrize('change', [{'status': 'NOT_READY'}, {'last_polled': '2026-11-23T07:59:45.000000Z'}])
    def test_pool_whose_queue_is_no_longer_polled_is_read_at_once(
        self, fake: FakePrefect, bench: Bench, pools: list[Row], change: Row
    ) -> None:
        fake.default_queue(pools[-1]).update(change)
        assert self.next_check(fake, bench)[1][0] == pools[-1]['name']

    def test_many_changes_leave_requests_for_the_turns(self, fake: FakePrefect, bench: Bench, pools: list[Row]) -> None:
        for pool in pools[40:]:
            pool['status'] = 'NOT_READY'
        names = self.next_check(fake, bench)[1]
        assert len(names) == 30
        assert sum(name < 'pool-040' for name in names) == 10

    def test_new_pool_is_read_at_once_and_a_deleted_one_is_forgotten(
        self, fake: FakePrefect, bench: Bench, pools: list[Row]
    ) -> None:
        fake.add_worker(fake.add_work_pool('new'))
        fake.tables['work_pools'].remove(pools[0])
        found, names = self.next_check(fake, bench)
        assert names[0] == 'new'
        assert len(series(found, 'work_pool.worker.is_online')) == POOLS

    def test_first_check_of_a_slow_server_leaves_pools_to_the_next(
        self, fake: FakePrefect, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(POOLS):
            fake.add_worker(fake.add_work_pool(f'pool-{number:03}'))
        # Seconds pass with each request.
        monkeypatch.setattr('datadog_checks.prefect.inventory.workers.time.monotonic', lambda: len(fake.requests) / 2)
        counts = [len(series(bench.read(Workers()), 'work_pool.workers.online')) for _ in range(4)]
        assert counts == [30, 60, 90, POOLS]
