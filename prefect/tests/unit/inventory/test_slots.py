from __future__ import annotations

import pytest

from datadog_checks.prefect.api.models import FlowRun, WorkPool, WorkQueue
from datadog_checks.prefect.inventory.slots import TakenSlots, percent_in_use
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Row, new_client, read_row, sent


@pytest.fixture
def queue(fake: FakePrefect) -> Row:
    """A queue with a run in each state that there is on the way, and one that is scheduled; beside it another one."""
    pool = fake.add_work_pool('prod')
    queue, other = (fake.add_work_queue(pool, name, concurrency_limit=9) for name in ('high', 'low'))
    for state in ('SCHEDULED', 'PENDING', 'RUNNING', 'CANCELLING', 'PAUSED'):
        fake.add_flow_run(deployment=fake.add_deployment(name=state, work_queue=queue), state=(state, None))
    fake.add_flow_run(deployment=fake.add_deployment(name='other', work_queue=other), state=('RUNNING', None))
    return queue


def flow_runs(fake: FakePrefect) -> list[FlowRun]:
    return [read_row(FlowRun, row) for row in fake.tables['flow_runs'].newest()]


@pytest.mark.parametrize('are_narrowed', [False, True])
def test_pending_and_running_runs_hold_a_slot(
    fake: FakePrefect, prefect_url: str, queue: Row, *, are_narrowed: bool
) -> None:
    client = new_client(prefect_url)
    slots = TakenSlots(client, None if are_narrowed else lambda: flow_runs(fake))
    pool = read_row(WorkPool, fake.tables['work_pools'].get(queue['work_pool_id']))

    for _ in range(2):
        assert slots.of_work_queue(read_row(WorkQueue, queue)) == 2
        assert slots.of_work_pool(pool) == 3
    # Asked once for each, and for none where all live runs are known.
    assert len(sent(fake, '/flow_runs/count')) == (2 if are_narrowed else 0)


@pytest.mark.parametrize(('taken', 'limit', 'percent'), [(0, 4, 0), (1, 4, 25), (6, 4, 150), (0, 0, 100)])
def test_percent_in_use(taken: int, limit: int, percent: float) -> None:
    assert percent_in_use(taken, limit) == percent
