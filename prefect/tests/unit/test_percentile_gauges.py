from __future__ import annotations

import pytest

from datadog_checks.prefect.aggregation import nearest_rank, summarize
from datadog_checks.prefect.metrics import FLOW_RUNS_EXECUTION_DURATION
from tests.unit.harness import values

NAME = 'flow_runs.execution_duration'

# What the Agent's own histogram gives for the values 1, 2, ... n: (n, median, 95percentile).
REFERENCE = [
    (1, 1, 1),
    (2, 1, 2),
    (3, 2, 3),
    (4, 2, 4),
    (5, 3, 5),
    (10, 5, 10),
    (19, 10, 19),
    (20, 10, 19),
    (21, 11, 20),
    (40, 20, 38),
    (41, 21, 39),
    (99, 50, 95),
    (100, 50, 95),
    (101, 51, 96),
    (1000, 500, 950),
]


@pytest.mark.parametrize(('size', 'median', 'percentile_95'), REFERENCE, ids=[str(size) for size, _, _ in REFERENCE])
def test_percentiles_are_those_of_the_nearest_rank(size: int, median: int, percentile_95: int) -> None:
    ordered = list(range(1, size + 1))
    assert nearest_rank(ordered, 50) == median
    assert nearest_rank(ordered, 95) == percentile_95
    assert nearest_rank(ordered, 100) == size


def test_summary_does_not_depend_on_the_order_of_the_values() -> None:
    assert values(summarize(FLOW_RUNS_EXECUTION_DURATION, [4, 1, 10, 3, 2], ('a:b',))) == {
        (f'{NAME}.avg', ('a:b',)): 4,
        (f'{NAME}.median', ('a:b',)): 3,
        (f'{NAME}.95percentile', ('a:b',)): 10,
        (f'{NAME}.max', ('a:b',)): 10,
        (f'{NAME}.count', ('a:b',)): 5,
    }


def test_no_values_give_no_samples() -> None:
    assert list(summarize(FLOW_RUNS_EXECUTION_DURATION, [], ())) == []
