"""The comparison that the demo, the full run and the soak end with tells what differs."""

from __future__ import annotations

import pytest

from lab.sums import Sums, compare, key_of

ENDS = 'flow_runs.failed.count'
DURATION = 'flow_runs.execution_duration'
RUN_SECONDS = (1.0, 2.0)
TAGS = {'flow_name': 'orders', 'deployment_name': 'nightly'}


def happened() -> Sums:
    sums = Sums()
    sums.counts[key_of(ENDS, TAGS)] = 2
    for seconds in RUN_SECONDS:
        sums.add_duration(key_of(f'{DURATION}.count', TAGS), seconds)
    return sums


def counted(*, ends: float = 2, average: float = 1.5, deployment: str = 'nightly') -> Sums:
    """In two checks, with tags that do not tell tag sets apart."""
    tags = ('flow_name:orders', f'deployment_name:{deployment}', 'work_pool_name:main')
    sums = Sums()
    sums.add_samples({(ENDS, tags): ends - 1})
    sums.add_samples({(ENDS, tags): 1, (f'{DURATION}.avg', tags): average, (f'{DURATION}.count', tags): 2})
    return sums


def test_sums_that_agree_differ_in_nothing() -> None:
    found = list(compare(counted(), happened()))
    assert [(one.series, one.counted, one.happened) for one in found] == [
        (f'{DURATION}.count', 2, 2),
        (ENDS, 2, 2),
        (f'{DURATION} seconds', 3.0, 3.0),
    ]
    assert not any(one.lines for one in found)


@pytest.mark.parametrize(
    ('wrong', 'line'),
    [
        (counted(ends=3), f'{ENDS} deployment_name:nightly flow_name:orders: counted 3, happened 2'),
        (counted(average=1.6), f'{DURATION} seconds deployment_name:nightly flow_name:orders: counted 3.2, happened 3'),
        (counted(deployment='hourly'), f'{ENDS} deployment_name:hourly flow_name:orders: counted 2, happened 0'),
        (Sums(), f'{ENDS} deployment_name:nightly flow_name:orders: counted 0, happened 2'),
    ],
)
def test_sum_that_differs_is_told_with_its_tags(wrong: Sums, line: str) -> None:
    assert line in [line for one in compare(wrong, happened()) for line in one.lines]


def test_only_flows_that_are_asked_for_are_compared() -> None:
    assert [one.series for one in compare(counted(), happened(), ['payout'])] == []
    assert len(list(compare(counted(), happened(), ['orders']))) == 3
