"""What the check remembers and persists follows what happens, not what has happened since it was started."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from pympler.asizeof import asizeof

from datadog_checks.base.stubs.aggregator import AggregatorStub
from datadog_checks.prefect import PrefectCheck
from tests.fake_prefect import FakePrefect
from tests.unit.harness import run_task_through, run_through

Row = dict[str, Any]

# All that ends between two checks, a half of each kind, and how long it takes until the next check.
RUNS_PER_CHECK = 250
SECONDS = 300


def end_runs(fake: FakePrefect, deployment: Row) -> list[Row]:
    """Let as many runs as there are between two checks start and end now."""
    start = fake.now - timedelta(seconds=20)
    flow_runs = [
        run_through(fake, deployment=deployment, start=start + timedelta(milliseconds=number), seconds=5)
        for number in range(RUNS_PER_CHECK // 2)
    ]
    for flow_run in flow_runs:
        run_task_through(fake, flow_run=flow_run, start=start + timedelta(seconds=1), seconds=2)
    return flow_runs


def remembered(check: PrefectCheck) -> int:
    """The bytes of all that the check keeps between two runs."""
    return int(asizeof(check._memory, check._state, check._snapshot_collectors, check._stream_collectors))


def test_memory_and_state_after_100_000_runs_are_those_after_1_000(
    fake: FakePrefect, new_check: Callable[..., PrefectCheck], run_check: Callable[[PrefectCheck], AggregatorStub]
) -> None:
    deployment = fake.add_deployment(name='hourly', work_queue=fake.default_queue(fake.add_work_pool()))
    check = new_check()
    run_check(check)
    counted = 0
    sizes: dict[int, tuple[int, int]] = {}
    ended: list[Row] = []
    while counted < 100_000:
        fake.now += timedelta(seconds=SECONDS)
        old, ended = ended, end_runs(fake, deployment)
        aggregator = run_check(check)
        for family in ('flow_runs', 'task_runs'):
            series = aggregator.metrics(f'prefect.server.{family}.completed.count')
            counted += sum(int(metric.value) for metric in series)
        if counted in (1_000, 100_000):
            sizes[counted] = (remembered(check), len(check._state.dumps()))
        fake.requests.clear()
        for flow_run in old:
            fake.remove(flow_run)

    (memory_at_first, state_at_first), (memory, state) = sizes[1_000], sizes[100_000]
    assert memory < 1.1 * memory_at_first
    assert state < 1.1 * state_at_first
