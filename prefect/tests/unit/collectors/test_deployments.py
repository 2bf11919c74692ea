from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from datadog_checks.prefect.collectors.deployments import Deployments
from tests.fake_prefect import FakePrefect
from tests.fake_prefect.times import to_text
from tests.unit.harness import Bench, Row, Values, at, bodies, failing, sent, tags_of


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


def ready(found: Values) -> dict[str, float]:
    """Whether each deployment is ready, by its name."""
    return {
        tag.partition(':')[2]: value
        for (_, tags), value in found.items()
        for tag in tags
        if tag.startswith('deployment_name:')
    }


class TestServed:
    """Without a work pool, whose queues would tell."""

    def serve(self, fake: FakePrefect, number: int) -> list[Row]:
        flow = fake.add_flow()
        return [
            fake.add_deployment(name=str(index), flow=flow, updated=at(-9000 - index), status='READY')
            for index in range(number)
        ]

    def test_fifty_of_them_have_the_status_of_now_at_every_check(self, fake: FakePrefect, bench: Bench) -> None:
        deployments = self.serve(fake, 50)
        collector = Deployments()
        bench.read(collector)
        for status in ('NOT_READY', 'READY'):
            for deployment in deployments:
                deployment['status'] = status
            assert set(ready(bench.read(collector)).values()) == {float(status == 'READY')}
        assert not sent(fake, '/events/filter')

    def test_of_more_those_that_events_tell_of_are_read_first(self, fake: FakePrefect, bench: Bench) -> None:
        deployments = self.serve(fake, 400)
        collector = Deployments()
        bench.read(collector)
        for _ in range(3):
            fake.now += timedelta(seconds=15)
            bench.read(collector)
        for deployment in (deployments[3], deployments[399]):
            deployment['status'] = 'NOT_READY'
            resource = {'prefect.resource.id': f'prefect.deployment.{deployment["id"]}'}
            fake.add_event('prefect.deployment.not-ready', occurred=fake.now, resource=resource, related=[])
        fake.now += timedelta(seconds=15)
        found = ready(bench.read(collector))
        assert {name for name, value in found.items() if not value} == {'3', '399'}

    def test_of_more_fifty_are_read_in_turn(self, fake: FakePrefect, bench: Bench) -> None:
        deployments = self.serve(fake, 200)
        collector = Deployments()
        bench.read(collector)
        for deployment in deployments:
            deployment['status'] = 'NOT_READY'
        left = [sum(ready(bench.read(collector)).values()) for _ in range(4)]
        assert [-(-number // 50) for number in left] == [3, 2, 1, 0]

    def test_server_without_events_has_them_in_turn(self, fake: FakePrefect, bench: Bench) -> None:
        fake.fault = failing('/events/filter', 404)
        self.serve(fake, 60)
        collector = Deployments()
        bench.read(collector)
        assert len(ready(bench.read(collector))) == 60


class TestRestoredDatabase:
    """The server has other deployments, or older ones, than a moment ago."""

    @pytest.mark.parametrize('changes', [{}, {'work_pool_names': {'include': ['pool']}}], ids=['all', 'filter'])
    @pytest.mark.parametrize('number', [60, 1200])
    def test_other_deployments_of_the_same_number_are_listed(
        self, fake: FakePrefect, new_bench: Callable[..., Bench], changes: Row, number: int
    ) -> None:
        queue = fake.default_queue(fake.add_work_pool())
        flow = fake.add_flow()
        known = [
            fake.add_deployment(name=str(index), flow=flow, work_queue=queue, updated=at(-9000 - index))
            for index in range(number)
        ]
        bench, collector = new_bench(**changes), Deployments()
        bench.read(collector)
        # The last of which it is the turn to be listed again.
        gone = known[-2]
        fake.remove(gone)
        fake.add_deployment(name='restored', flow=flow, work_queue=queue, updated=at(-99_999))
        # Of many it takes two to make sure of each, and one more to be sure that this is no replica that is behind.
        for _ in range(2 if number == 60 else 3):
            found = ready(bench.read(collector)).keys()
        assert gone['name'] not in found
        assert 'restored' in found
        assert len(found) == number

    def test_deployment_as_it_was_before_an_edit_is_listed(self, fake: FakePrefect, bench: Bench) -> None:
        queue = fake.default_queue(fake.add_work_pool())
        deployments = [
            fake.add_deployment(name=str(index), work_queue=queue, updated=at(-9000 - index)) for index in range(100)
        ]
        collector = Deployments()
        bench.read(collector)
        deployments[7] |= {'paused': True, 'updated': to_text(at(5))}
        is_paused = [tags for (_, tags) in bench.read(collector) if 'is_paused:True' in tags]
        assert len(is_paused) == 1
        deployments[7] |= {'paused': False, 'updated': to_text(at(-9007))}
        assert not [tags for (_, tags) in bench.read(collector) if 'is_paused:True' in tags]

    def test_deployment_that_is_deleted_costs_no_listing(self, fake: FakePrefect, bench: Bench) -> None:
        deployments = [fake.add_deployment(name=str(index), updated=at(-9000 - index)) for index in range(300)]
        collector = Deployments()
        bench.read(collector)
        fake.remove(deployments[0])
        fake.requests.clear()
        assert len(bench.read(collector)) == 299
        assert not [
            body for body in bodies(fake, '/deployments/filter') if body.get('limit') == 200 and 'offset' in body
        ]


def test_renamed_work_queue_has_its_new_name_at_the_next_check(
    fake: FakePrefect, new_bench: Callable[..., Bench]
) -> None:
    """Deployments and runs keep the old one, and nobody edits them."""
    queue = fake.add_work_queue(fake.add_work_pool('prod'), 'low')
    flow = fake.add_flow()
    for index in range(30):
        fake.add_deployment(name=str(index), flow=flow, work_queue=queue)
    all_of_them, high = new_bench(), new_bench(work_queue_names={'include': ['^high$']})
    collectors = Deployments(), Deployments()
    assert len(all_of_them.read(collectors[0])) == 30
    assert not high.read(collectors[1])
    queue['name'] = 'high'
    for bench, collector in zip((all_of_them, high), collectors, strict=True):
        found = bench.read(collector)
        assert len(found) == 30
        assert all('work_queue_name:high' in tags for _, tags in found)
