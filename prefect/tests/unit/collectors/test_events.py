from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from datadog_checks.prefect.api import decoding
from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.collectors.events import Events
from datadog_checks.prefect.sample import AgentEvent
from datadog_checks.prefect.streams import event_reading
from datadog_checks.prefect.streams.event_reading import MOST_PER_RUN
from tests.fake_prefect import FakePrefect
from tests.fake_prefect.server import FakeRequest, FakeResponse
from tests.unit.harness import Bench, Row, at, bodies, failing, sent, tags_of

NewBench = Callable[..., Bench]
PENDING = 'events.pending'


def follow(bench: Bench, seconds: float) -> list[AgentEvent]:
    """The events that are sent so many seconds after the start."""
    bench.fake.now = at(seconds)
    return bench.follow_events(Events())[0]


def times(sent_events: list[AgentEvent]) -> list[int]:
    """When they occurred, in seconds from the start."""
    return [event.timestamp - int(at(0).timestamp()) for event in sent_events]


def asked(fake: FakePrefect) -> int:
    """The number of requests for events up to now."""
    return len(sent(fake, '/events/filter')) + len(sent(fake, '/events/filter/next'))


def related(role: str, row: Row) -> Row:
    return {
        'prefect.resource.id': f'prefect.{role}.{row["id"]}',
        'prefect.resource.role': role,
        'prefect.resource.name': row['name'],
    }


class TestOnce:
    def test_first_run_reads_nothing_back_and_asks_for_nothing(self, fake: FakePrefect, bench: Bench) -> None:
        fake.add_event(occurred=at(-1))
        assert bench.follow_events(Events()) == ([], {(PENDING, ()): 0})
        assert asked(fake) == 0

    def test_event_is_sent_once_in_the_order_of_time(self, fake: FakePrefect, bench: Bench) -> None:
        follow(bench, 0)
        for second in (12, 3, 7):
            fake.add_event(occurred=at(second))
        assert times(follow(bench, 15)) == [3, 7, 12]
        assert [follow(bench, seconds) for seconds in range(30, 300, 15)] == [[]] * 18

    @pytest.mark.parametrize('delay', [0.5, 5, 20, 60, 119])
    def test_late_event_is_neither_lost_nor_doubled(self, fake: FakePrefect, bench: Bench, delay: float) -> None:
        follow(bench, 0)
        for second in (10, 20, 30):
            fake.add_event(occurred=at(second))
            fake.add_event(occurred=at(second + 1), visible_from=at(second + 1 + delay))
        found = [time for seconds in range(15, 400, 15) for time in times(follow(bench, seconds))]
        assert sorted(found) == [10, 11, 20, 21, 30, 31]

    def test_event_of_a_clock_that_is_ahead_is_sent(self, fake: FakePrefect, bench: Bench) -> None:
        follow(bench, 0)
        fake.add_event(occurred=at(75))
        fake.add_event(occurred=at(500))
        assert times(follow(bench, 15)) == [75]
        assert [time for seconds in range(30, 600, 15) for time in times(follow(bench, seconds))] == [500]

    @pytest.mark.parametrize('large', [(0,), (59,), (20, 21), (3, 30, 57)], ids=str)
    @pytest.mark.parametrize('per_second', [1, 2])
    def test_event_that_is_too_large_even_alone_stops_no_other(
        self, fake: FakePrefect, bench: Bench, monkeypatch: pytest.MonkeyPatch, large: Sequence[int], per_second: int
    ) -> None:
        monkeypatch.setattr(decoding, 'MAX_PAGE_BYTES', 20_000)
        follow(bench, 0)
        for index in range(60):
            # What shares its very moment with one that is too large is passed over with it.
            moment = at(1 + index // per_second + 0.25 * (index in large))
            more = {'payload': {'text': 'x' * 20_000}} if index in large else {}
            fake.add_event(occurred=moment, **more)
        expected = [1 + index // per_second for index in range(60) if index not in large]
        assert times(follow(bench, 90)) == expected
        assert bench.client.take_malformed() == {'Event: too large to read': len(large)}
        assert [follow(bench, seconds) for seconds in range(105, 400, 15)] == [[]] * 20
        fake.add_event(occurred=at(405))
        assert times(follow(bench, 420)) == [405]

    def test_events_of_one_moment_with_one_that_is_too_large_are_told(
        self, fake: FakePrefect, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decoding, 'MAX_PAGE_BYTES', 20_000)
        follow(bench, 0)
        for index in range(9):
            fake.add_event(occurred=at(1 + index // 3), payload={'text': 'x' * (20_000 if index == 4 else 1)})
        found = times(follow(bench, 15))
        (passed_over,) = bench.client.take_malformed().values()
        assert [time for time in found if time != 2] == [1, 1, 1, 3, 3, 3]
        assert found.count(2) + passed_over == 3

    def test_failed_read_sends_nothing_and_the_next_one_all(self, fake: FakePrefect, bench: Bench) -> None:
        follow(bench, 0)
        for second in range(1, 61):
            fake.add_event(occurred=at(second))
        fake.fault = failing('/events/filter/next')
        with pytest.raises(PrefectApiError, match='GET /events/filter/next: HTTP 500'):
            follow(bench, 90)
        fake.fault = None
        assert times(follow(bench, 105)) == list(range(1, 61))

    def test_steady_state_takes_one_request_more_than_pages(self, fake: FakePrefect, bench: Bench) -> None:
        for seconds in range(0, 300, 15):
            fake.add_event(occurred=at(seconds - 12))
            follow(bench, seconds)
        before = asked(fake)
        follow(bench, 300)
        # The number of those before, what the overlap leaves behind, and what came since.
        assert asked(fake) - before == 3
        assert [body['limit'] for body in bodies(fake, '/events/filter')[-3:]] == [0, 50, 50]

    def test_events_of_one_moment_are_all_sent(self, fake: FakePrefect, bench: Bench) -> None:
        """A service of the server marks a hundred deployments at once; ties have no order."""
        follow(bench, 0)
        for _ in range(170):
            fake.add_event(occurred=at(5))
        found = [event for seconds in range(15, 150, 15) for event in follow(bench, seconds)]
        assert len(found) == 170


class TestNames:
    def test_default_sends_changes_of_runs_and_what_becomes_ready_or_not(self, fake: FakePrefect, bench: Bench) -> None:
        follow(bench, 0)
        passing = [
            'prefect.flow-run.Failed',
            'prefect.flow-run.a name of my own',
            'prefect.task-run.Cached',
            'prefect.work-pool.not-ready',
            'prefect.work-queue.ready',
            'prefect.deployment.ready',
        ]
        for name in (*passing, 'prefect.flow-run.heartbeat', 'prefect.work-pool.paused', 'prefect.block.x', 'mine'):
            fake.add_event(name, occurred=at(5))
        assert sorted(event.event_type for event in follow(bench, 15)) == sorted(passing)

    def test_names_that_the_server_cannot_filter_are_dropped_here(self, fake: FakePrefect, new_bench: NewBench) -> None:
        bench = new_bench(event_names={'include': ['run.*(Failed|Crashed)$'], 'exclude': ['task']})
        follow(bench, 0)
        for name in ('prefect.flow-run.Failed', 'prefect.flow-run.Running', 'prefect.task-run.Failed'):
            fake.add_event(name, occurred=at(5))
        assert [event.event_type for event in follow(bench, 15)] == ['prefect.flow-run.Failed']

    def test_names_that_it_can_filter_are_not_sent_by_the_server(self, fake: FakePrefect, new_bench: NewBench) -> None:
        bench = new_bench(event_names={'include': [r'^prefect\.flow-run\.(Failed|Crashed)$']})
        follow(bench, 0)
        follow(bench, 15)
        names = {'name': ['prefect.flow-run.Crashed', 'prefect.flow-run.Failed']}
        assert bodies(fake, '/events/filter')[0]['filter']['event'] == names


class TestFlood:
    def flood(self, fake: FakePrefect, number: int) -> None:
        for index in range(number):
            fake.add_event(occurred=at(1) + timedelta(milliseconds=index))

    def test_it_is_cut_and_goes_on_in_the_next_run(self, fake: FakePrefect, bench: Bench) -> None:
        follow(bench, 0)
        self.flood(fake, 2500)
        numbers, pending = [], []
        for seconds in (15, 30, 45, 60):
            fake.now = at(seconds)
            found, samples = bench.follow_events(Events())
            numbers.append(len(found))
            pending.append(samples[PENDING, ()])
        assert numbers == [1000, 1049, 451, 0]
        assert pending == [1500, 451, 0, 0]

    def test_it_is_not_read_twice(self, fake: FakePrefect, bench: Bench) -> None:
        follow(bench, 0)
        self.flood(fake, 2500)
        pages = []
        for seconds in (15, 30, 45):
            before = asked(fake)
            follow(bench, seconds)
            pages.append(asked(fake) - before)
        # 52 pages; a count of what was passed at each cut, and one of what is known.
        assert pages == [21, 23, 11]

    @pytest.mark.parametrize('interval', [15, 60, 119, 121, 500])
    def test_each_event_is_sent_once_however_far_the_reader_is_behind(
        self, fake: FakePrefect, new_bench: NewBench, monkeypatch: pytest.MonkeyPatch, interval: float
    ) -> None:
        """By more than the overlap, than the time for which identities are kept, and than is caught up after a gap."""
        monkeypatch.setattr(event_reading, 'MOST_PER_RUN', 100)
        bench = new_bench(max_catchup=600)
        follow(bench, 0)
        for index in range(1, 701):
            fake.add_event(occurred=at(index / 50), visible_from=at(index / 50 + index % 7 * 15))
        found = [time for number in range(1, 10) for time in times(follow(bench, number * interval))]
        assert sorted(found) == [int(index / 50) for index in range(1, 701)]

    def test_restart_in_the_middle_goes_on_where_it_was_cut(self, fake: FakePrefect, bench: Bench) -> None:
        follow(bench, 0)
        self.flood(fake, 1200)
        first = follow(bench, 15)
        bench.restart()
        assert len(first) == MOST_PER_RUN
        assert len(follow(bench, 30)) == 200


class TestPages:
    def test_hostile_next_page_goes_nowhere(self, fake: FakePrefect, bench: Bench) -> None:
        def hostile(request: FakeRequest) -> FakeResponse | None:
            if '/events/filter' not in request.path:
                return None
            fake.fault = None
            answer = fake.handle(request.method, request.path, request.query, {'host': 'evil.test'}, request.content)
            fake.fault = hostile
            return answer

        follow(bench, 0)
        for second in range(1, 121):
            fake.add_event(occurred=at(second / 10))
        fake.fault = hostile
        assert len(follow(bench, 15)) == 120
        assert {exchange.path for exchange in sent(fake, '/events/filter/next')} == {'/api/events/filter/next'}

    @pytest.mark.parametrize(
        'next_page', ['', 7, {}, 'http://[', 'http://evil.test/', 'x?page-token=', 'x?page-token=a&page-token=b']
    )
    def test_next_page_without_a_token_is_an_error(self, fake: FakePrefect, bench: Bench, next_page: Any) -> None:
        follow(bench, 0)
        page = {'events': [], 'total': 60, 'next_page': next_page}
        fake.fault = failing('/events/filter', FakeResponse.of(page))
        with pytest.raises(PrefectApiError, match='POST /events/filter: the answer is not a page of events'):
            follow(bench, 15)

    @pytest.mark.parametrize(
        'page',
        [
            [],
            {},
            {'events': None, 'total': 0, 'next_page': None},
            {'events': [1], 'total': 1, 'next_page': None},
            {'events': [], 'total': '0', 'next_page': None},
            {'events': [], 'total': -1, 'next_page': None},
        ],
        ids=str,
    )
    def test_what_is_no_page_is_an_error(self, fake: FakePrefect, bench: Bench, page: Any) -> None:
        follow(bench, 0)
        fake.fault = failing('/events/filter', FakeResponse.of(page))
        with pytest.raises(PrefectApiError, match='POST /events/filter: the answer is not'):
            follow(bench, 15)

    def test_malformed_event_is_skipped_and_told(self, fake: FakePrefect, bench: Bench) -> None:
        follow(bench, 0)
        fake.add_event(occurred=at(5), resource={})
        fake.add_event(occurred=at(6))
        assert times(follow(bench, 15)) == [6]
        assert bench.client.take_malformed() == {'Event: resource.prefect.resource.id is missing': 1}


class TestTags:
    def test_flow_run_carries_those_of_its_parents(self, fake: FakePrefect, bench: Bench) -> None:
        queue = fake.add_work_queue(fake.add_work_pool('prod'), 'high')
        pool = fake.tables['work_pools'].get(queue['work_pool_id'])
        flow = fake.add_flow('etl')
        deployment = fake.add_deployment(name='hourly', flow=flow, work_queue=queue)
        parents = [
            related(*item)
            for item in (('work-pool', pool), ('work-queue', queue), ('flow', flow), ('deployment', deployment))
        ]
        follow(bench, 0)
        fake.add_event('prefect.flow-run.Running', occurred=at(5), related=parents)
        (event,) = follow(bench, 15)
        expected = (*tags_of(work_queue=queue, deployment=deployment, flow=flow), 'state_type:RUNNING')
        assert event.tags == tuple(sorted(expected))

    def test_task_run_carries_those_of_its_flow_run_and_its_key(self, fake: FakePrefect, bench: Bench) -> None:
        queue = fake.default_queue(fake.add_work_pool('prod'))
        flow = fake.add_flow('etl')
        deployment = fake.add_deployment(name='hourly', flow=flow, work_queue=queue)
        flow_run = fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'))
        follow(bench, 0)
        event = fake.add_event('prefect.task-run.Failed', occurred=at(5))
        event['related'] = [related('flow-run', flow_run), related('flow', flow)]
        event['payload']['task_run']['task_key'] = 'load'
        (found,) = follow(bench, 15)
        expected = tags_of(work_queue=queue, deployment=deployment, flow=flow, task_key='load')
        assert found.tags == tuple(sorted((*expected, 'state_type:FAILED')))

    def test_tags_of_the_deployment_are_tags_of_its_events(self, fake: FakePrefect, new_bench: NewBench) -> None:
        bench = new_bench(prefect_tags={'include': ['^team-']})
        flow = fake.add_flow('etl')
        deployment = fake.add_deployment(name='hourly', flow=flow, tags=['team-data', 'nightly'])
        flow_run = fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'))
        follow(bench, 0)
        parents = [related('flow', flow), related('deployment', deployment)]
        fake.add_event('prefect.flow-run.Running', occurred=at(5), related=parents)
        fake.add_event('prefect.task-run.Running', occurred=at(6), related=[related('flow-run', flow_run)])
        found = [{tag for tag in event.tags if tag.startswith('prefect_tag:')} for event in follow(bench, 15)]
        assert found == [{'prefect_tag:team-data'}] * 2

    def test_work_queue_and_work_pool_carry_their_own(self, fake: FakePrefect, bench: Bench) -> None:
        queue = fake.default_queue(fake.add_work_pool('prod'))
        pool = fake.tables['work_pools'].get(queue['work_pool_id'])
        follow(bench, 0)
        named = related('work-queue', queue)
        fake.add_event('prefect.work-queue.ready', occurred=at(5), resource=named, related=[related('work-pool', pool)])
        named = related('work-pool', pool) | {'prefect.work-pool.type': 'process'}
        fake.add_event('prefect.work-pool.ready', occurred=at(6), resource=named)
        assert [event.tags for event in follow(bench, 15)] == [
            tags_of(work_queue=queue),
            tags_of(work_pool=pool, work_pool_type='process'),
        ]


class TestFilters:
    """Events of the pool `prod` with the queue `high` and the deployment `hourly`, and of a run without any of them."""

    @pytest.fixture
    def happen(self, fake: FakePrefect) -> Callable[[], None]:
        queue = fake.add_work_queue(fake.add_work_pool('prod'), 'high')
        pool = fake.tables['work_pools'].get(queue['work_pool_id'])
        deployment = fake.add_deployment(name='hourly', work_queue=queue)
        flow, local = fake.tables['flows'].get(deployment['flow_id']), fake.add_flow('local')
        runs = [fake.add_flow_run(deployment=deployment), fake.add_flow_run(flow=local)]
        of_pool = [related('work-pool', pool)]
        of_queue = [*of_pool, related('work-queue', queue)]
        of_flow = [*of_queue, related('flow', flow)]
        everything = [*of_flow, related('deployment', deployment)]

        def happen() -> None:
            fake.add_event('prefect.work-pool.ready', occurred=at(1), resource=of_pool[0], related=[])
            fake.add_event('prefect.work-queue.ready', occurred=at(2), resource=of_queue[1], related=of_pool)
            fake.add_event('prefect.deployment.ready', occurred=at(3), resource=everything[-1], related=of_flow)
            for second, run, parents in ((4, runs[0], everything), (5, runs[1], [related('flow', local)])):
                fake.add_event('prefect.flow-run.Failed', occurred=at(second), related=parents)
                fake.add_event('prefect.task-run.Failed', occurred=at(second + 2), related=[related('flow-run', run)])
            fake.add_event('prefect.task-run.Failed', occurred=at(8), related=[])

        return happen

    @pytest.mark.parametrize(
        ('filters', 'sent'),
        [
            ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
            ({'work_pool_names': {'include': ['prod']}}, [1, 2, 3, 4, 6]),
            ({'work_pool_names': {'include': ['test']}}, []),
            ({'work_pool_names': {'exclude': ['prod']}}, [5, 7, 8]),
            ({'work_queue_names': {'include': ['high']}}, [1, 2, 3, 4, 6]),
            ({'work_queue_names': {'exclude': ['high']}}, [1, 5, 7, 8]),
            ({'deployment_names': {'include': ['hourly']}}, [1, 2, 3, 4, 6]),
            ({'deployment_names': {'exclude': ['hourly']}}, [1, 2, 5, 7, 8]),
            ({'flow_names': {'include': ['local']}}, [1, 2, 5, 7]),
            ({'flow_names': {'exclude': ['local']}}, [1, 2, 3, 4, 6, 8]),
            ({'deployment_names': {'exclude': ['daily']}}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ],
        ids=str,
    )
    def test_filter_on_a_parent_applies_to_its_events(
        self, new_bench: NewBench, happen: Callable[[], None], filters: Row, sent: list[int]
    ) -> None:
        bench = new_bench(**filters)
        follow(bench, 0)
        happen()
        assert times(follow(bench, 15)) == sent

    def test_events_that_are_filtered_out_are_not_read_again(
        self, fake: FakePrefect, new_bench: NewBench, happen: Callable[[], None]
    ) -> None:
        bench = new_bench(work_pool_names={'include': ['test']})
        follow(bench, 0)
        happen()
        follow(bench, 15)
        follow(bench, 60)
        before = asked(fake)
        follow(bench, 75)
        assert asked(fake) - before == 2
