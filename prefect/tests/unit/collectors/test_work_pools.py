from __future__ import annotations

from collections.abc import Callable

import pytest

from datadog_checks.prefect.collectors.work_pools import WorkPools
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, nonzero, sent, tags_of


@pytest.mark.parametrize(
    ('status', 'expected'),
    [
        pytest.param('READY', (1, 0, 0), id='ready'),
        pytest.param('NOT_READY', (0, 1, 0), id='not ready'),
        pytest.param('PAUSED', (0, 0, 1), id='paused'),
    ],
)
def test_exactly_one_state_is_1(fake: FakePrefect, bench: Bench, status: str, expected: tuple[int, int, int]) -> None:
    pool = fake.add_work_pool('kubernetes', type='kubernetes', status=status)
    tags = tags_of(work_pool=pool, work_pool_type='kubernetes')
    is_ready, is_not_ready, is_paused = expected
    assert bench.read(WorkPools()) == {
        ('work_pool.is_ready', tags): is_ready,
        ('work_pool.is_not_ready', tags): is_not_ready,
        ('work_pool.is_paused', tags): is_paused,
    }


@pytest.mark.parametrize(
    ('is_paused', 'queues', 'expected'),
    [
        pytest.param(False, ['READY', 'NOT_READY'], 'is_ready', id='an agent polls one of its queues'),
        pytest.param(False, ['NOT_READY', 'PAUSED'], 'is_not_ready', id='no agent polls'),
        pytest.param(False, [], 'is_not_ready', id='without queues'),
        pytest.param(True, ['READY'], 'is_paused', id='paused'),
    ],
)
def test_state_of_a_pool_of_agents_is_that_of_its_queues(
    fake: FakePrefect, bench: Bench, is_paused: bool, queues: list[str], expected: str
) -> None:
    fake.add_work_pool('another')
    pool = fake.add_work_pool('agents', type='prefect-agent', status=None, is_paused=is_paused)
    fake.remove(fake.default_queue(pool))
    for number, status in enumerate(queues):
        fake.add_work_queue(pool, str(number), status=status)
    tags = tags_of(work_pool=pool, work_pool_type='prefect-agent')
    found = {name: value for (name, own_tags), value in bench.read(WorkPools()).items() if own_tags == tags}
    assert nonzero(found) == {f'work_pool.{expected}': 1}
    assert len(found) == 3


def test_queues_are_asked_for_only_for_pools_of_agents(fake: FakePrefect, bench: Bench) -> None:
    fake.add_work_pool()
    bench.read(WorkPools())
    assert not sent(fake, '/work_queues/filter')


def test_filter_of_queues_does_not_change_the_state_of_their_pool(
    fake: FakePrefect, new_bench: Callable[..., Bench]
) -> None:
    fake.add_work_pool('agents', type='prefect-agent', status=None, is_paused=False)
    found = nonzero(new_bench(work_queue_names={'exclude': ['default']}).read(WorkPools()))
    assert [name for name, _ in found] == ['work_pool.is_ready']


def test_unknown_type_is_left_out(fake: FakePrefect, bench: Bench) -> None:
    pool = fake.add_work_pool(type=None)
    assert nonzero(bench.read(WorkPools())) == {('work_pool.is_ready', tags_of(work_pool=pool)): 1}


def test_server_without_work_pools_gives_nothing(bench: Bench) -> None:
    assert bench.read(WorkPools()) == {}


def test_filter_leaves_out_work_pools(fake: FakePrefect, new_bench: Callable[..., Bench]) -> None:
    kept = fake.add_work_pool('prod', type='process')
    fake.add_work_pool('test')
    bench = new_bench(work_pool_names={'include': ['prod', 'test'], 'exclude': ['^test$']})
    tags = tags_of(work_pool=kept, work_pool_type='process')
    assert {found for _, found in bench.read(WorkPools())} == {tags}
