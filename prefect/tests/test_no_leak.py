"""What the check remembers and persists follows what happens, not what has happened since it was started."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from pympler.asizeof import asizeof

from datadog_checks.base import AgentCheck
from datadog_checks.base.stubs.aggregator import AggregatorStub
from datadog_checks.prefect import PrefectCheck
from tests.fake_prefect import FakePrefect
from tests.unit.harness import run_task_through, run_through

Row = dict[str, Any]

# All that ends between two checks, a half of each kind, and how long it takes until the next check.
RUNS_PER_CHECK = 60
SECONDS = 300
# A run is remembered for ten minutes at most.
CHECKS_UNTIL_STEADY = 6
CHECKS = 24


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


def kept(check: PrefectCheck) -> int:
    """The bytes of all that the check keeps between two runs, beyond what every check does."""
    base = vars(AgentCheck('base', {}, [{}]))
    return int(asizeof(*(value for name, value in vars(check).items() if name not in base)))


def test_what_is_kept_does_not_grow_with_what_has_happened(
    fake: FakePrefect, new_check: Callable[..., PrefectCheck], run_check: Callable[[PrefectCheck], AggregatorStub]
) -> None:
    deployment = fake.add_deployment(name='hourly', work_queue=fake.default_queue(fake.add_work_pool()))
    check = new_check()
    run_check(check)
    ended: list[Row] = []

    def go_on(checks: int) -> tuple[int, int]:
        """Run so many checks, each after other runs; the bytes that are kept and persisted then."""
        nonlocal ended
        counted = 0
        for _ in range(checks):
            fake.now += timedelta(seconds=SECONDS)
            old, ended = ended, end_runs(fake, deployment)
            aggregator = run_check(check)
            for family in ('flow_runs', 'task_runs'):
                series = aggregator.metrics(f'prefect.server.{family}.completed.count')
                counted += sum(int(metric.value) for metric in series)
            fake.requests.clear()
            for flow_run in old:
                fake.remove(flow_run)
        assert counted == checks * RUNS_PER_CHECK
        return kept(check), len(check._state.dumps())

    memory_at_first, state_at_first = go_on(CHECKS_UNTIL_STEADY)
    memory, state = go_on(CHECKS)

    # Less than a byte per run, and less than one per check.
    assert memory - memory_at_first < CHECKS * RUNS_PER_CHECK
    assert state - state_at_first < CHECKS
