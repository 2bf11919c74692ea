from __future__ import annotations

import pytest

from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, bodies


@pytest.mark.parametrize(('number', 'is_sent'), [(3, True), (4, False)])
@pytest.mark.parametrize(
    ('option', 'table', 'criterion'),
    [
        ('flow_names', 'flows', 'id'),
        ('work_queue_names', 'work_pool_queues', 'id'),
        ('deployment_names', 'flow_runs', 'deployment_id'),
    ],
)
def test_so_many_ids_that_the_request_would_grow_too_large_are_not_sent(
    fake: FakePrefect,
    prefect_url: str,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    table: str,
    criterion: str,
    number: int,
    is_sent: bool,
) -> None:
    monkeypatch.setattr('datadog_checks.prefect.inventory.selection._IDS_CAP', 3)
    pool = fake.add_work_pool()
    for index in range(number):
        queue = fake.add_work_queue(pool, f'queue {index}')
        fake.add_deployment(name=f'deployment {index}', work_queue=queue)
    names = {'include': ['^(flow of deployment|queue|deployment) .$']}
    Bench(fake, prefect_url, **{option: names}).context().inventory.live_flow_runs()
    (body,) = bodies(fake, '/flow_runs/filter')
    assert (criterion in body.get(table, {})) is is_sent
