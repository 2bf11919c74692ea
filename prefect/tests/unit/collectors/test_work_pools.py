from __future__ import annotations

from collections.abc import Callable

import pytest

from datadog_checks.prefect.collectors.work_pools import WorkPools
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, nonzero, tags_of


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
