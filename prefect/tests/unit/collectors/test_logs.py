from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.api.times import parse_time
from datadog_checks.prefect.collectors.logs import Logs
from datadog_checks.prefect.sample import AgentLog
from datadog_checks.prefect.streams import log_reading
from tests.fake_prefect import FakePrefect
from tests.fake_prefect.server import FakeRequest, FakeResponse
from tests.unit.harness import Bench, Row, at, bodies, failing, run_through, sent, tags_of

NewBench = Callable[..., Bench]
PENDING = 'logs.pending'
LOGS = '/logs/filter'


def follow(bench: Bench, seconds: float) -> list[AgentLog]:
    """The records that are sent so many seconds after the start."""
    bench.fake.now = at(seconds)
    return bench.follow_logs(Logs())[0]


def pending(bench: Bench, seconds: float) -> float:
    bench.fake.now = at(seconds)
    return bench.follow_logs(Logs())[1][PENDING, ()]


def messages(logs: list[AgentLog]) -> list[str]:
    return [log.attributes['message'] for log in logs]


@pytest.fixture
def flow_run(fake: FakePrefect) -> Row:
    return fake.add_flow_run(name='brave-otter', state=('RUNNING', None))


def flood(
    fake: FakePrefect, flow_run: Row, number: int, *, second: float = 5, gap: float = 0, **record: Any
) -> set[str]:
    """So many records from that second on; returns their messages."""
    for index in range(number):
        fake.add_log(flow_run, at=at(second + index * gap), message=f'{second} {index}', **record)
    return {f'{second} {index}' for index in range(number)}


class TestOnce:
    def test_first_run_reads_nothing_back_and_asks_for_nothing(
        self, fake: FakePrefect, bench: Bench, flow_run: Row
    ) -> None:
        fake.add_log(flow_run, at=at(-1))
        assert bench.follow_logs(Logs()) == ([], {(PENDING, ()): 0})
        assert not sent(fake, LOGS)

    def test_record_is_sent_once_in_the_order_of_time(self, fake: FakePrefect, bench: Bench, flow_run: Row) -> None:
        follow(bench, 0)
        for second in (12, 3, 7):
            fake.add_log(flow_run, at=at(second), message=str(second))
        assert messages(follow(bench, 15)) == ['3', '7', '12']
        assert [follow(bench, seconds) for seconds in range(30, 300, 15)] == [[]] * 18

    @pytest.mark.parametrize('crowd', [0, 250])
    @pytest.mark.parametrize('delay', [1, 20, 119])
    def test_late_record_is_neither_lost_nor_doubled(
        self, fake: FakePrefect, bench: Bench, flow_run: Row, delay: float, crowd: int
    ) -> None:
        follow(bench, 0)
        for second in (10, 20, 30):
            fake.add_log(flow_run, at=at(second), message=str(second))
            fake.add_log(flow_run, at=at(second + 1), visible_from=at(second + 1 + delay), message=str(second + 1))
        others = flood(fake, flow_run, crowd, second=9)
        found = [text for seconds in range(15, 400, 15) for text in messages(follow(bench, seconds))]
        assert sorted(found) == sorted([*others, *(str(second) for second in (10, 11, 20, 21, 30, 31))])

    def test_later_records_are_sent_with_a_longer_overlap(self, fake: FakePrefect, new_bench: NewBench) -> None:
        bench = new_bench(log_overlap=600)
        follow(bench, 0)
        fake.add_log(fake.add_flow_run(), at=at(10), visible_from=at(500))
        assert [len(follow(bench, seconds)) for seconds in range(60, 720, 60)].count(1) == 1

    def test_record_of_a_clock_that_is_ahead_is_sent(self, fake: FakePrefect, bench: Bench, flow_run: Row) -> None:
        follow(bench, 0)
        fake.add_log(flow_run, at=at(75), message='75')
        fake.add_log(flow_run, at=at(500), message='500')
        assert messages(follow(bench, 15)) == ['75']
        assert [text for seconds in range(30, 600, 15) for text in messages(follow(bench, seconds))] == ['500']

    def test_records_of_one_moment_over_several_pages_are_all_sent(
        self, fake: FakePrefect, bench: Bench, flow_run: Row
    ) -> None:
        follow(bench, 0)
        expected = flood(fake, flow_run, 700)
        found = [text for seconds in range(15, 300, 15) for text in messages(follow(bench, seconds))]
        assert sorted(found) == sorted(expected)

    def test_restart_neither_loses_nor_repeats(self, fake: FakePrefect, bench: Bench, flow_run: Row) -> None:
        follow(bench, 0)
        expected = flood(fake, flow_run, 450, gap=0.1)
        found = []
        for seconds in range(15, 300, 15):
            found += messages(follow(bench, seconds))
            bench.restart()
        assert sorted(found) == sorted(expected)


class TestPages:
    def test_pages_before_the_one_that_fails_are_sent_and_the_rest_by_the_next_run(
        self, fake: FakePrefect, bench: Bench, flow_run: Row
    ) -> None:
        follow(bench, 0)
        expected = flood(fake, flow_run, 450, gap=0.01)

        def third_page(request: FakeRequest) -> FakeResponse | None:
            return FakeResponse.of({}, 500) if len(sent(fake, LOGS)) == 2 else None

        fake.fault = third_page
        found: list[AgentLog] = []
        fake.now = at(15)
        batches = bench.batches(Logs())
        found += [log for batch in (next(batches), next(batches)) for log in batch.logs]
        with pytest.raises(PrefectApiError, match='POST /logs/filter: HTTP 500'):
            next(batches)
        assert len(found) == 399
        fake.fault = None
        found += follow(bench, 30)
        assert sorted(messages(found)) == sorted(expected)

    def test_after_a_longer_outage_no_more_than_max_catchup_is_read(
        self, fake: FakePrefect, new_bench: NewBench, flow_run: Row
    ) -> None:
        """A run that could read nothing leaves the cursor where it was."""
        bench = new_bench(max_catchup=600)
        follow(bench, 0)
        fake.fault = failing(LOGS)
        for seconds in range(15, 1500, 15):
            with pytest.raises(PrefectApiError):
                follow(bench, seconds)
        fake.fault = None
        fake.add_log(flow_run, at=at(300), message='too old')
        fake.add_log(flow_run, at=at(1400), message='new')
        assert messages(follow(bench, 1500)) == ['new']

    @pytest.mark.parametrize('restarts', [False, True])
    def test_server_that_answers_few_requests_in_a_run_is_read_to_the_end(
        self, fake: FakePrefect, bench: Bench, flow_run: Row, restarts: bool
    ) -> None:
        """Slow, or failing now and then: what a run has read before the failure is not read again by the next."""
        follow(bench, 0)
        expected = flood(fake, flow_run, 1_000, gap=0.003)
        for seconds in range(20, 500, 15):
            expected |= flood(fake, flow_run, 1, second=seconds)
        expected |= flood(fake, flow_run, 300, second=8.0005, gap=0.003, visible_from=at(70))
        found: Counter[str] = Counter()
        requests: list[int] = []
        fake.fault = lambda request: FakeResponse.of({}, 500) if len(sent(fake, LOGS)) - requests[-1] >= 3 else None
        for seconds in range(15, 750, 15):
            fake.now = at(seconds)
            requests.append(len(sent(fake, LOGS)))
            with suppress(PrefectApiError):
                for batch in bench.batches(Logs()):
                    found.update(messages(list(batch.logs)))
            if restarts:
                bench.restart()
        assert found == Counter(expected)

    @pytest.mark.parametrize(
        ('gap', 'breaks_off_at', 'requests', 'number', 'position', 'begins_at'),
        [(0.2, 150, 1, 500, 0, 140), (0.01, 135, 3, 0, 1, 8.98)],
        ids=['among what is new', 'among what leaves the overlap'],
    )
    def test_run_that_breaks_off_leaves_the_rest_to_the_next(
        self,
        fake: FakePrefect,
        bench: Bench,
        flow_run: Row,
        gap: float,
        breaks_off_at: int,
        requests: int,
        number: int,
        position: int,
        begins_at: float,
    ) -> None:
        follow(bench, 0)
        flood(fake, flow_run, 600, gap=gap)
        for seconds in range(15, breaks_off_at, 15):
            follow(bench, seconds)
        flood(fake, flow_run, number, second=breaks_off_at - 1, gap=0.001)
        before = len(sent(fake, LOGS))
        fake.fault = lambda request: FakeResponse.of({}, 500) if len(sent(fake, LOGS)) - before == requests else None
        with pytest.raises(PrefectApiError):
            follow(bench, breaks_off_at)
        fake.fault = None
        before = len(sent(fake, LOGS))
        follow(bench, breaks_off_at + 15)
        begins = [body['logs']['timestamp']['after_'] for body in bodies(fake, LOGS)[before:]]
        assert parse_time(begins[position]) == at(begins_at)

    def test_crash_repeats_the_page_in_hand_and_no_more(self, fake: FakePrefect, bench: Bench, flow_run: Row) -> None:
        follow(bench, 0)
        expected = flood(fake, flow_run, 1000, gap=0.001)
        fake.now = at(15)
        found: list[str] = []
        for number, batch in enumerate(bench.batches(Logs(), commit=False)):
            found += messages(list(batch.logs))
            if number == 3:
                break
            bench.commit(Logs(), batch)
        bench.restart()
        found += messages(follow(bench, 30))
        assert set(found) == expected
        assert len(found) - len(expected) <= log_reading.PAGE_SIZE

    def test_one_request_while_the_overlap_holds_less_than_a_page(
        self, fake: FakePrefect, bench: Bench, flow_run: Row
    ) -> None:
        for seconds in range(0, 300, 15):
            flood(fake, flow_run, 15, second=seconds - 5, gap=0.1)
            follow(bench, seconds)
        before = len(sent(fake, LOGS))
        follow(bench, 300)
        assert len(sent(fake, LOGS)) - before == 1

    def test_two_requests_beyond_and_the_new_ones_first(self, fake: FakePrefect, bench: Bench, flow_run: Row) -> None:
        for seconds in range(0, 300, 15):
            flood(fake, flow_run, 60, second=seconds - 5, gap=0.01)
            follow(bench, seconds)
        before = len(sent(fake, LOGS))
        follow(bench, 300)
        new, leaving = (body['logs']['timestamp'] for body in bodies(fake, LOGS)[before:])
        assert new['after_'] > leaving['before_']

    def test_flood_is_cut_and_goes_on_with_the_next_run(
        self, fake: FakePrefect, bench: Bench, flow_run: Row, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(log_reading, 'MOST_NEW', 400)
        follow(bench, 0)
        expected = flood(fake, flow_run, 1000, gap=0.005)
        fake.now = at(15)
        logs, found = bench.follow_logs(Logs())
        assert len(logs) == pytest.approx(400, abs=log_reading.PAGE_SIZE)
        assert found[PENDING, ()] == pytest.approx(7.5, abs=0.5)
        texts = messages(logs)
        texts += [text for seconds in (30, 45, 60) for text in messages(follow(bench, seconds))]
        assert sorted(texts) == sorted(expected)
        assert pending(bench, 75) == 0

    @pytest.mark.parametrize('gap', [0, 0.01])
    def test_no_more_is_handed_over_than_the_agent_takes(
        self, fake: FakePrefect, bench: Bench, flow_run: Row, gap: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(log_reading, 'MOST_BYTES', 400_000)
        monkeypatch.setattr(log_reading, 'MOST_NEW_BYTES', 300_000)
        follow(bench, 0)
        for index in range(150):
            fake.add_log(flow_run, at=at(5 + index * gap), message=f'{index} ' + 'x' * 9_000)
        found = []
        for seconds in range(15, 300, 15):
            logs = follow(bench, seconds)
            assert sum(log.size for log in logs) <= log_reading.MOST_BYTES
            found += [text.split()[0] for text in messages(logs)]
        assert sorted(map(int, found)) == list(range(150))


class TestFilters:
    def test_level_and_logger(self, fake: FakePrefect, new_bench: NewBench) -> None:
        bench = new_bench(log_level='warning', log_names={'exclude': ['^noisy']})
        follow(bench, 0)
        flow_run = fake.add_flow_run()
        for level in (10, 20, 30, 40):
            fake.add_log(flow_run, at=at(5), level=level, name='prefect.flow_runs', message=str(level))
            fake.add_log(flow_run, at=at(5), level=level, name='noisy.client')
        assert sorted(messages(follow(bench, 15))) == ['30', '40']
        assert bodies(fake, LOGS)[-1]['logs']['level'] == {'ge_': 30}

    def test_request_names_the_included_runs(self, fake: FakePrefect, new_bench: NewBench) -> None:
        bench = new_bench(deployment_names={'include': ['^mine$']})
        follow(bench, 0)
        mine, other = (fake.add_deployment(name=name) for name in ('mine', 'other'))
        live = fake.add_flow_run(deployment=mine, state=('RUNNING', None))
        ended = run_through(fake, start=at(1), seconds=3, deployment=mine)
        for flow_run in (live, ended, fake.add_flow_run(deployment=other, state=('RUNNING', None)), None):
            fake.add_log(flow_run, at=at(5), message=flow_run['id'] if flow_run else 'background')
        assert sorted(messages(follow(bench, 15))) == sorted([live['id'], ended['id']])
        assert sorted(bodies(fake, LOGS)[-1]['logs']['flow_run_id']['any_']) == sorted([live['id'], ended['id']])

    def test_excluded_records_are_dropped_after_reading_where_ids_would_not_do(
        self, fake: FakePrefect, new_bench: NewBench
    ) -> None:
        bench = new_bench(deployment_names={'exclude': ['^other$']})
        follow(bench, 0)
        mine, other = (fake.add_deployment(name=name) for name in ('mine', 'other'))
        fake.add_log(fake.add_flow_run(deployment=mine, state=('RUNNING', None)), at=at(5), message='mine')
        fake.add_log(fake.add_flow_run(deployment=other, state=('RUNNING', None)), at=at(5), message='other')
        fake.add_log(None, at=at(5), message='background')
        assert sorted(messages(follow(bench, 15))) == ['background', 'mine']

    def test_many_excluded_records_do_not_hold_up_those_that_follow(
        self, fake: FakePrefect, new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(log_reading, 'MOST_PAGES', 3)
        bench = new_bench(log_names={'exclude': ['noisy']})
        follow(bench, 0)
        flow_run = fake.add_flow_run()
        flood(fake, flow_run, 900, second=1, name='noisy')
        flood(fake, flow_run, 900, second=2, gap=0.001, name='noisy')
        fake.add_log(flow_run, at=at(5), message='wanted')
        assert [text for seconds in range(15, 100, 15) for text in messages(follow(bench, seconds))] == ['wanted']


class TestRuns:
    def test_tags_and_names_are_those_of_the_runs(self, fake: FakePrefect, bench: Bench) -> None:
        follow(bench, 0)
        deployment = fake.add_deployment()
        flow = fake.tables['flows'].get(deployment['flow_id'])
        flow_run = fake.add_flow_run(deployment=deployment, name='brave-otter', state=('RUNNING', None))
        task_run = fake.add_task_run(flow_run=flow_run, name='load-1', task_key='load')
        fake.add_log(flow_run, at=at(5))
        fake.add_log(flow_run, task_run=task_run, at=at(6))
        of_flow_run, of_task_run = follow(bench, 15)
        tags = tags_of(deployment=deployment, flow=flow)
        assert of_flow_run.tags == tags
        assert of_task_run.tags == tags_of(deployment=deployment, flow=flow, task_key='load')
        about = of_task_run.attributes['prefect']
        assert (about['flow_run_name'], about['task_run_name']) == ('brave-otter', 'load-1')
        assert (about['flow_run_id'], about['task_run_id']) == (flow_run['id'], task_run['id'])

    def test_run_is_looked_up_once_even_if_it_is_gone(self, fake: FakePrefect, bench: Bench) -> None:
        follow(bench, 0)
        gone, pending_run = fake.add_flow_run(), fake.add_flow_run(state=('PENDING', None))
        fake.remove(gone)
        for seconds in (15, 30, 45):
            fake.add_log(gone, at=at(seconds - 5))
            fake.add_log(pending_run, at=at(seconds - 5))
            assert len(follow(bench, seconds)) == 2
        assert len(sent(fake, '/flow_runs/filter')) == 1

    def test_failed_lookup_sends_nothing_and_the_next_run_all(
        self, fake: FakePrefect, bench: Bench, flow_run: Row
    ) -> None:
        follow(bench, 0)
        fake.add_log(flow_run, at=at(5))
        fake.fault = failing('/flow_runs/filter')
        with pytest.raises(PrefectApiError):
            follow(bench, 15)
        fake.fault = None
        assert len(follow(bench, 30)) == 1

    def test_step_back_of_the_clock_sends_nothing_twice(self, fake: FakePrefect, bench: Bench, flow_run: Row) -> None:
        follow(bench, 0)
        flood(fake, flow_run, 300, gap=0.1)
        fake.now = at(60)
        assert len(follow(bench, 60)) == 300
        assert follow(bench, 60 - timedelta(minutes=10).total_seconds()) == []
        assert follow(bench, 75 - timedelta(minutes=10).total_seconds()) == []
