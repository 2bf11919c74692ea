from __future__ import annotations

from collections.abc import Callable

import pytest

from datadog_checks.prefect.collectors.deployments import Deployments
from tests.fake_prefect import FakePrefect
from tests.fake_prefect.times import to_text
from tests.unit.harness import Bench, Row, bodies, tags_of


@pytest.mark.parametrize(
    ('status', 'is_ready'),
    [
        pytest.param('READY', 1, id='ready'),
        pytest.param('NOT_READY', 0, id='not ready'),
        pytest.param(None, 0, id='unknown'),
    ],
)
@pytest.mark.parametrize('is_paused', [True, False])
def test_deployment_is_ready_by_its_status(
    fake: FakePrefect, bench: Bench, status: str | None, is_ready: int, is_paused: bool
) -> None:
    flow = fake.add_flow('etl')
    queue = fake.add_work_queue(fake.add_work_pool('prod'), 'high')
    deployment = fake.add_deployment(name='hourly', flow=flow, work_queue=queue, status=status, paused=is_paused)
    tags = tags_of(deployment=deployment, flow=flow, work_queue=queue, is_paused=is_paused)
    assert bench.read(Deployments()) == {('deployment.is_ready', tags): is_ready}


def test_deployment_without_work_pool_has_no_tags_of_one(fake: FakePrefect, bench: Bench) -> None:
    flow = fake.add_flow('etl')
    deployment = fake.add_deployment(flow=flow)
    tags = tags_of(deployment=deployment, flow=flow, is_paused=False)
    assert bench.read(Deployments()) == {('deployment.is_ready', tags): 1}


def test_work_queue_that_is_only_named_is_found_by_its_names(fake: FakePrefect, bench: Bench) -> None:
    """Up to 3.6.1, where every work pool has a queue `default`."""
    fake.version = '3.4.25'
    flow = fake.add_flow('etl')
    queues = [fake.default_queue(fake.add_work_pool(name)) for name in ('prod', 'test')]
    deployments = [fake.add_deployment(name='hourly', flow=flow, work_queue=queue) for queue in queues]
    assert set(bench.read(Deployments())) == {
        ('deployment.is_ready', tags_of(deployment=deployment, flow=flow, work_queue=queue, is_paused=False))
        for deployment, queue in zip(deployments, queues, strict=True)
    }


def test_deployments_are_not_listed_again_while_the_work_queue_that_they_name_has_their_status(
    fake: FakePrefect, bench: Bench
) -> None:
    fake.version = '3.4.25'
    queue = fake.add_work_queue(fake.add_work_pool('prod'), 'high', last_polled=to_text(fake.now))
    for index in range(50):
        fake.add_deployment(name=str(index), work_queue=queue, status='READY')
    collector = Deployments()
    bench.read(collector)
    bench.read(collector)
    ids = bodies(fake, '/deployments/filter')[-1]['deployments']['id']['any_']
    assert len(ids) == 10


def test_deployments_of_the_same_name_stay_apart(fake: FakePrefect, bench: Bench) -> None:
    for _ in range(3):
        fake.add_deployment(name='main')
    assert len(bench.read(Deployments())) == 3


@pytest.mark.parametrize(
    ('changes', 'kept'),
    [
        pytest.param({}, {'a', 'b', 'c'}, id='no filter'),
        pytest.param({'deployment_names': {'include': ['a', 'b'], 'exclude': ['a']}}, {'b'}, id='exclude wins'),
        pytest.param({'work_pool_names': {'exclude': ['^prod$']}}, {'b', 'c'}, id='pool excluded'),
        pytest.param({'work_pool_names': {'include': ['^prod$']}}, {'a'}, id='pool included'),
        pytest.param({'work_queue_names': {'exclude': ['^high$']}}, {'b', 'c'}, id='queue excluded'),
        pytest.param({'work_queue_names': {'include': ['^high$']}}, {'a'}, id='queue included'),
    ],
)
def test_filters_leave_out_deployments(
    fake: FakePrefect, new_bench: Callable[..., Bench], changes: Row, kept: set[str]
) -> None:
    fake.add_deployment(name='a', work_queue=fake.add_work_queue(fake.add_work_pool('prod'), 'high'))
    fake.add_deployment(name='b', work_queue=fake.default_queue(fake.add_work_pool('test')))
    fake.add_deployment(name='c')
    found = new_bench(**changes).read(Deployments())
    names = {tag.partition(':')[2] for _, tags in found for tag in tags if tag.startswith('deployment_name:')}
    assert names == kept


def test_deployments_of_other_pools_are_not_downloaded(fake: FakePrefect, new_bench: Callable[..., Bench]) -> None:
    for name in ('prod', 'test'):
        fake.add_deployment(work_queue=fake.default_queue(fake.add_work_pool(name)))
    new_bench(work_pool_names={'include': ['prod']}).read(Deployments())
    assert [body.get('work_pools') for body in bodies(fake, '/deployments/filter')] == [{'name': {'any_': ['prod']}}]


def test_flow_names_are_asked_for_once(fake: FakePrefect, bench: Bench) -> None:
    """They never change."""
    for index in range(3):
        fake.add_deployment(name=str(index))
    bench.read(Deployments())
    bench.read(Deployments())
    assert len(bodies(fake, '/flows/filter')) == 1


def test_flow_that_is_gone_has_an_id_and_no_name(fake: FakePrefect, bench: Bench) -> None:
    flow = fake.add_flow()
    deployment = fake.add_deployment(flow=flow)
    fake.remove(flow)
    tags = tags_of(deployment=deployment, flow_id=flow['id'], is_paused=False)
    assert bench.read(Deployments()) == {('deployment.is_ready', tags): 1}
