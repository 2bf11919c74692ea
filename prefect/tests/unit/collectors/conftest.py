from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, tags_of


@pytest.fixture
def new_bench(fake: FakePrefect, prefect_url: str) -> Callable[..., Bench]:
    """Make a bench with these options, in front of the fake server."""
    return lambda **changes: Bench(fake, prefect_url, **changes)


@pytest.fixture
def bench(new_bench: Callable[..., Bench]) -> Bench:
    return new_bench()


@pytest.fixture
def flow(fake: FakePrefect) -> Row:
    return fake.add_flow('etl')


@pytest.fixture
def deployment(fake: FakePrefect, flow: Row) -> Row:
    queue = fake.add_work_queue(fake.add_work_pool('prod'), 'high')
    return fake.add_deployment(name='hourly', flow=flow, work_queue=queue)


@pytest.fixture
def tags(fake: FakePrefect, flow: Row, deployment: Row) -> tuple[str, ...]:
    """What every run of the deployment carries."""
    queue = fake.tables['work_queues'].get(deployment['work_queue_id'])
    return tags_of(flow=flow, deployment=deployment, work_queue=queue)
