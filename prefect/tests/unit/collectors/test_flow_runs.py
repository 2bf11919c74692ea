from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest

from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.collectors.flow_runs import FinishedFlowRuns, FlowRuns, RetryGaps, StartedFlowRuns
from tests.fake_prefect import FakePrefect, FakeResponse
from tests.unit.harness import (
    Bench,
    Row,
    at,
    bodies,
    failing,
    five,
    nonzero,
    rows_sent,
    run_through,
    sent,
    series,
    tags_of,
)

STATE_GAUGES = ('scheduled', 'pending', 'running', 'paused')
END_COUNTS = ('completed', 'failed', 'crashed', 'cancelled')


@pytest.fixture
def bench(new_bench: Callable[..., Bench]) -> Bench:
    """Without the reasons of failures, which `test_failure_reason.py` is about."""
    return new_bench(collect={'failure_reasons': False})


class TestFlowRuns:
    @pytest.fixture
    def collector(self) -> FlowRuns:
        return FlowRuns()

    @pytest.mark.parametrize(
        ('state', 'gauge'),
        [
            pytest.param(('SCHEDULED', 'Scheduled'), 'scheduled', id='scheduled'),
            pytest.param(('SCHEDULED', 'Late'), 'scheduled', id='late'),
            pytest.param(('SCHEDULED', 'AwaitingRetry'), 'scheduled', id='awaiting retry'),
            pytest.param(('PENDING', 'Pending'), 'pending', id='pending'),
            pytest.param(('PENDING', 'Submitting'), 'pending', id='submitting'),
            pytest.param(('PENDING', 'InfrastructurePending'), 'pending', id='infrastructure pending'),
            pytest.param(('RUNNING', 'Running'), 'running', id='running'),
            pytest.param(('RUNNING', 'My own name'), 'running', id='running under another name'),
            pytest.param(('PAUSED', 'Paused'), 'paused', id='paused'),
            pytest.param(('PAUSED', 'Suspended'), 'paused', id='suspended'),
            pytest.param(('CANCELLING', 'Cancelling'), None, id='cancelling'),
            pytest.param(('COMPLETED', 'Completed'), None, id='completed'),
            pytest.param(('FAILED', 'Failed'), None, id='failed'),
            pytest.param(('CRASHED', 'Crashed'), None, id='crashed'),
            pytest.param(('CANCELLED', 'Cancelled'), None, id='cancelled'),
            pytest.param(None, None, id='no state'),
        ],
    )
    def test_run_is_in_the_gauge_of_its_state_type(
        self,
        fake: FakePrefect,
        bench: Bench,
        collector: FlowRuns,
        deployment: Row,
        tags: tuple[str, ...],
        state: tuple[str, str] | None,
        gauge: str | None,
    ) -> None:
        fake.add_flow_run(deployment=deployment, state=state)
        assert bench.read(collector) == {(f'flow_runs.{name}', tags): int(name == gauge) for name in STATE_GAUGES}

    @pytest.mark.parametrize('seconds', [-86400, -1, 0, 0.000001, 1, 59, 86400])
    def test_scheduled_run_counts_once_whenever_it_is_due(
        self,
        fake: FakePrefect,
        bench: Bench,
        collector: FlowRuns,
        deployment: Row,
        tags: tuple[str, ...],
        seconds: float,
    ) -> None:
        fake.add_flow_run(deployment=deployment, scheduled_time=at(seconds))
        assert nonzero(bench.read(collector)) == {('flow_runs.scheduled', tags): 1}

    def test_scheduled_run_stays_one_while_it_becomes_due(
        self, fake: FakePrefect, bench: Bench, collector: FlowRuns, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        fake.add_flow_run(deployment=deployment, scheduled_time=at(10))
        for seconds in (0, 5, 10, 15):
            fake.now = at(seconds)
            assert nonzero(bench.read(collector)) == {('flow_runs.scheduled', tags): 1}

    def test_runs_of_the_future_are_not_downloaded_at_each_run(
        self, fake: FakePrefect, bench: Bench, collector: FlowRuns, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        for index in range(50):
            fake.add_flow_run(deployment=deployment, scheduled_time=at(3600 + index), auto_scheduled=True)
        bench.read(collector)
        first = sum(exchange.response_bytes for exchange in fake.requests)
        fake.requests.clear()
        fake.now = at(15)
        assert bench.read(collector)[('flow_runs.scheduled', tags)] == 50
        assert sum(exchange.response_bytes for exchange in fake.requests) < first / 10

    def test_paused_schedule_shows_at_once(
        self, fake: FakePrefect, bench: Bench, collector: FlowRuns, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        """The server deletes the scheduled runs, and no run and no event tells so."""
        runs = [fake.add_flow_run(deployment=deployment, scheduled_time=at(3600)) for _ in range(3)]
        assert bench.read(collector)[('flow_runs.scheduled', tags)] == 3
        for run in runs:
            fake.remove(run)
        fake.now = at(15)
        assert bench.read(collector)[('flow_runs.scheduled', tags)] == 0

    def test_run_of_the_future_that_moves_to_another_deployment_shows_after_a_minute(
        self, fake: FakePrefect, bench: Bench, collector: FlowRuns, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        other = fake.add_deployment(name='other')
        run = fake.add_flow_run(deployment=deployment, scheduled_time=at(3600))
        bench.read(collector)
        fake.remove(run)
        fake.add_flow_run(deployment=other, scheduled_time=at(3600))
        for seconds in (15, 30, 45, 60, 75):
            fake.now = at(seconds)
            found = nonzero(bench.read(collector))
        other_flow = fake.tables['flows'].get(other['flow_id'])
        assert found == {('flow_runs.scheduled', tags_of(deployment=other, flow=other_flow)): 1}

    def test_deployment_without_runs_is_reported_as_0_at_every_run(
        self, bench: Bench, collector: FlowRuns, tags: tuple[str, ...]
    ) -> None:
        for _ in range(3):
            assert bench.read(collector) == {(f'flow_runs.{name}', tags): 0 for name in STATE_GAUGES}

    def test_run_without_deployment_is_reported_by_flow_and_once_more_as_0(
        self, fake: FakePrefect, bench: Bench, collector: FlowRuns, flow: Row
    ) -> None:
        run = fake.add_flow_run(flow=flow, state=('RUNNING', 'Running'))
        of_flow = tags_of(flow=flow)
        assert nonzero(bench.read(collector)) == {('flow_runs.running', of_flow): 1}
        fake.now = at(15)
        fake.set_flow_run_state(run, 'COMPLETED')
        assert bench.read(collector) == {(f'flow_runs.{name}', of_flow): 0 for name in STATE_GAUGES}
        fake.now = at(30)
        assert bench.read(collector) == {}

    def test_last_0_of_a_run_without_deployment_survives_a_failed_run(
        self, fake: FakePrefect, bench: Bench, collector: FlowRuns, flow: Row
    ) -> None:
        run = fake.add_flow_run(flow=flow, state=('RUNNING', 'Running'))
        bench.read(collector)
        fake.set_flow_run_state(run, 'COMPLETED')
        fake.fault = failing('/deployments/filter')
        fake.now = at(15)
        with pytest.raises(PrefectApiError):
            bench.read(collector)
        fake.fault = None
        fake.now = at(30)
        assert bench.read(collector)[('flow_runs.running', tags_of(flow=flow))] == 0

    def test_run_in_another_queue_than_its_deployment_is_reported_with_its_own(
        self, fake: FakePrefect, bench: Bench, collector: FlowRuns, flow: Row, deployment: Row
    ) -> None:
        (pool,) = fake.tables['work_pools'].newest()
        queue = fake.default_queue(pool)
        fake.add_flow_run(
            deployment=deployment,
            state=('PENDING', 'Pending'),
            work_queue_id=queue['id'],
            work_queue_name=queue['name'],
        )
        own = tags_of(flow=flow, deployment=deployment, work_queue=queue)
        assert nonzero(bench.read(collector)) == {('flow_runs.pending', own): 1}

    def test_run_whose_deployment_is_deleted_keeps_its_id_and_has_no_name(
        self, fake: FakePrefect, bench: Bench, collector: FlowRuns, flow: Row, deployment: Row
    ) -> None:
        fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'))
        queue = fake.tables['work_queues'].get(deployment['work_queue_id'])
        fake.remove(deployment)
        orphan = tags_of(flow=flow, work_queue=queue, deployment_id=deployment['id'])
        assert nonzero(bench.read(collector)) == {('flow_runs.running', orphan): 1}

    def test_run_whose_work_pool_is_deleted_has_no_tags_of_it(
        self, fake: FakePrefect, bench: Bench, collector: FlowRuns, flow: Row, deployment: Row
    ) -> None:
        fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'))
        (pool,) = fake.tables['work_pools'].newest()
        fake.remove(pool)
        orphan = tags_of(flow=flow, deployment=deployment)
        assert nonzero(bench.read(collector)) == {('flow_runs.running', orphan): 1}

    def test_subflow_is_a_flow_run_of_its_own_flow(
        self, fake: FakePrefect, bench: Bench, collector: FlowRuns, flow: Row
    ) -> None:
        child_flow = fake.add_flow('child')
        parent = fake.add_flow_run(flow=flow, state=('RUNNING', 'Running'))
        fake.add_flow_run(flow=child_flow, parent=parent, state=('RUNNING', 'Running'))
        assert nonzero(bench.read(collector)) == {
            ('flow_runs.running', tags_of(flow=flow)): 1,
            ('flow_runs.running', tags_of(flow=child_flow)): 1,
        }

    @pytest.mark.parametrize('version', ['3.8.8', '3.4.0'])
    def test_runs_of_many_pages_are_all_counted(
        self, fake: FakePrefect, bench: Bench, collector: FlowRuns, deployment: Row, tags: tuple[str, ...], version: str
    ) -> None:
        """Before 3.4.1 the filter that continues a page by the start leaves out what has not started."""
        fake.version = version
        bench.client.version()
        fake.default_limit = 7
        for index in range(30):
            fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'), at=at(-index // 3))
            fake.add_flow_run(deployment=deployment, state=('PENDING', 'Pending'), at=at(-index // 3))
            fake.add_flow_run(deployment=deployment, scheduled_time=at(100 + index // 10))
        assert nonzero(bench.read(collector)) == {
            ('flow_runs.pending', tags): 30,
            ('flow_runs.running', tags): 30,
            ('flow_runs.scheduled', tags): 30,
        }


class TestFinishedFlowRuns:
    @pytest.fixture
    def collector(self, bench: Bench) -> FinishedFlowRuns:
        """A stream that was read once."""
        collector = FinishedFlowRuns()
        bench.follow(collector)
        return collector

    @pytest.mark.parametrize(
        ('end', 'count'),
        [
            pytest.param(('COMPLETED', 'Completed'), 'completed', id='completed'),
            pytest.param(('COMPLETED', 'Cached'), 'completed', id='cached'),
            pytest.param(('FAILED', 'Failed'), 'failed', id='failed'),
            pytest.param(('FAILED', 'TimedOut'), 'failed', id='timed out'),
            pytest.param(('CRASHED', 'Crashed'), 'crashed', id='crashed'),
            pytest.param(('CANCELLED', 'Cancelled'), 'cancelled', id='cancelled'),
        ],
    )
    def test_run_counts_as_the_state_type_in_which_it_ended(
        self,
        fake: FakePrefect,
        bench: Bench,
        collector: FinishedFlowRuns,
        deployment: Row,
        tags: tuple[str, ...],
        end: tuple[str, str],
        count: str,
    ) -> None:
        run_through(fake, deployment=deployment, start=at(1), seconds=2.5, end=end)
        fake.now = at(15)
        assert bench.follow(collector) == {
            **{(f'flow_runs.{name}.count', tags): int(name == count) for name in END_COUNTS},
            **five('flow_runs.execution_duration', tags, 2.5),
        }

    def test_cancelling_is_not_cancelled(
        self, fake: FakePrefect, bench: Bench, collector: FinishedFlowRuns, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run = run_through(fake, deployment=deployment, start=at(1), seconds=2, end=('CANCELLING', None))
        fake.now = at(15)
        assert nonzero(bench.follow(collector)) == {}
        fake.set_flow_run_state(run, 'CANCELLED', at=at(16))
        fake.now = at(30)
        # The time in CANCELLING is no time in RUNNING.
        assert nonzero(bench.follow(collector)) == {
            ('flow_runs.cancelled.count', tags): 1,
            **five('flow_runs.execution_duration', tags, 2),
        }

    def test_run_that_ended_without_having_run_counts_and_has_no_duration(
        self, fake: FakePrefect, bench: Bench, collector: FinishedFlowRuns, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run = fake.add_flow_run(deployment=deployment)
        fake.set_flow_run_state(run, 'CANCELLED', at=at(3))
        assert run['start_time'] is not None
        fake.now = at(15)
        assert nonzero(bench.follow(collector)) == {('flow_runs.cancelled.count', tags): 1}

    @pytest.mark.parametrize(
        ('due', 'end'),
        [
            pytest.param(3, 'CRASHED', id='crashed while pending'),
            pytest.param(7200, 'CANCELLED', id='cancelled long before its time'),
            pytest.param(-86000, 'CANCELLED', id='cancelled long after its time'),
        ],
    )
    def test_run_that_ended_without_having_run_counts_once_on_a_server_that_notes_no_end_of_it(
        self,
        fake: FakePrefect,
        bench: Bench,
        collector: FinishedFlowRuns,
        deployment: Row,
        tags: tuple[str, ...],
        due: float,
        end: str,
    ) -> None:
        fake.version = '3.6.13'
        bench.client.version()
        run = fake.add_flow_run(deployment=deployment, scheduled_time=at(due))
        fake.set_flow_run_state(run, end, at=at(8))
        assert (run['start_time'], run['end_time']) == (None, None)
        counted = []
        for seconds in (15, 30, 60, 90, 150, 180):
            fake.now = at(seconds)
            counted.append(nonzero(bench.follow(collector)))
        assert counted == [{(f'flow_runs.{end.lower()}.count', tags): 1}, *[{}] * 5]

    def test_runs_that_ended_without_having_run_are_not_asked_for_where_they_have_an_end(
        self, fake: FakePrefect, bench: Bench, collector: FinishedFlowRuns
    ) -> None:
        fake.version = '3.6.14'
        bench.client.version()
        fake.now = at(15)
        bench.follow(collector)
        asked = bodies(fake, '/flow_runs/filter')
        assert asked
        assert not [body for body in asked if 'is_null_' in body['flow_runs'].get('start_time', {})]

    def test_duration_is_the_time_in_running_without_pauses_and_waits(
        self, fake: FakePrefect, bench: Bench, collector: FinishedFlowRuns, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run = run_through(fake, deployment=deployment, start=at(1), seconds=4, end=('PAUSED', None))
        fake.set_flow_run_state(run, 'RUNNING', at=at(100))
        fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry', at=at(102))
        fake.set_flow_run_state(run, 'RUNNING', at=at(200))
        fake.set_flow_run_state(run, 'COMPLETED', at=at(201))
        fake.now = at(202)
        assert nonzero(bench.follow(collector)) == {
            ('flow_runs.completed.count', tags): 1,
            **five('flow_runs.execution_duration', tags, 7),
        }

    def test_run_counts_once_in_however_many_reads_it_shows(
        self, fake: FakePrefect, bench: Bench, collector: FinishedFlowRuns, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run_through(fake, deployment=deployment, start=at(1), seconds=1)
        total = 0.0
        for seconds in range(15, 300, 15):
            fake.now = at(seconds)
            total += bench.follow(collector)[('flow_runs.completed.count', tags)]
        assert total == 1

    def test_run_retried_by_hand_ends_twice(
        self, fake: FakePrefect, bench: Bench, collector: FinishedFlowRuns, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run = run_through(fake, deployment=deployment, start=at(1), seconds=2, end=('FAILED', None))
        fake.now = at(15)
        assert nonzero(series(bench.follow(collector), 'flow_runs.failed.count')) == {
            ('flow_runs.failed.count', tags): 1
        }
        fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry', at=at(20))
        fake.now = at(30)
        assert nonzero(bench.follow(collector)) == {}
        fake.set_flow_run_state(run, 'RUNNING', at=at(31))
        fake.set_flow_run_state(run, 'FAILED', at=at(34))
        fake.now = at(45)
        assert nonzero(bench.follow(collector)) == {
            ('flow_runs.failed.count', tags): 1,
            **five('flow_runs.execution_duration', tags, 5),
        }

    def test_first_read_counts_nothing_and_reports_0(
        self, fake: FakePrefect, bench: Bench, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run_through(fake, deployment=deployment, start=at(-30), seconds=20)
        assert bench.follow(FinishedFlowRuns()) == {(f'flow_runs.{name}.count', tags): 0 for name in END_COUNTS}
        assert not sent(fake, '/flow_runs/filter')

    def test_run_that_ended_before_the_first_read_never_counts(
        self, fake: FakePrefect, bench: Bench, deployment: Row
    ) -> None:
        run_through(fake, deployment=deployment, start=at(-30), seconds=20)
        collector = FinishedFlowRuns()
        bench.follow(collector)
        fake.now = at(15)
        assert nonzero(bench.follow(collector)) == {}

    def test_run_that_shows_late_counts_within_the_overlap(
        self, fake: FakePrefect, bench: Bench, collector: FinishedFlowRuns, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run = fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'), at=at(1))
        fake.set_flow_run_state(run, 'COMPLETED', at=at(10), visible_from=at(125))
        found = []
        for seconds in (15, 60, 120, 135):
            fake.now = at(seconds)
            found.append(bench.follow(collector)[('flow_runs.completed.count', tags)])
        assert found == [0, 0, 0, 1]

    def test_failed_read_leaves_all_to_the_next_one(
        self, fake: FakePrefect, bench: Bench, collector: FinishedFlowRuns, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run_through(fake, deployment=deployment, start=at(1), seconds=1)
        fake.fault = failing('/flow_runs/filter', 503)
        for seconds in (15, 30, 600):
            fake.now = at(seconds)
            with pytest.raises(PrefectApiError):
                bench.follow(collector)
        fake.fault = None
        fake.now = at(1200)
        assert bench.follow(collector)[('flow_runs.completed.count', tags)] == 1

    def test_durations_of_one_tag_set_are_summed_up_together(
        self, fake: FakePrefect, bench: Bench, collector: FinishedFlowRuns, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run_through(fake, deployment=deployment, start=at(1), seconds=2)
        run_through(fake, deployment=deployment, start=at(1), seconds=9, end=('FAILED', None))
        fake.now = at(15)
        assert nonzero(bench.follow(collector)) == {
            ('flow_runs.completed.count', tags): 1,
            ('flow_runs.failed.count', tags): 1,
            **five('flow_runs.execution_duration', tags, 2, 9),
        }


class TestStartedFlowRuns:
    @pytest.fixture
    def collector(self, bench: Bench) -> StartedFlowRuns:
        collector = StartedFlowRuns()
        bench.follow(collector)
        return collector

    def test_started_run_counts_once_with_its_wait(
        self, fake: FakePrefect, bench: Bench, collector: StartedFlowRuns, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run = fake.add_flow_run(deployment=deployment, scheduled_time=at(2))
        fake.set_flow_run_state(run, 'RUNNING', at=at(5.5))
        fake.now = at(15)
        assert bench.follow(collector) == {
            ('flow_runs.throughput', tags): 1,
            ('flow_runs.late_start.count', tags): 0,
            **five('flow_runs.queue_wait_duration', tags, 3.5),
        }
        fake.set_flow_run_state(run, 'COMPLETED', at=at(20))
        fake.now = at(30)
        assert bench.follow(collector) == {
            ('flow_runs.throughput', tags): 0,
            ('flow_runs.late_start.count', tags): 0,
        }

    @pytest.mark.parametrize('end', ['RUNNING', 'COMPLETED', 'FAILED', 'CRASHED', 'CANCELLING', 'PAUSED', 'SCHEDULED'])
    def test_run_has_started_whatever_state_it_is_in_since(
        self,
        fake: FakePrefect,
        bench: Bench,
        collector: StartedFlowRuns,
        deployment: Row,
        tags: tuple[str, ...],
        end: str,
    ) -> None:
        run_through(fake, deployment=deployment, start=at(1), seconds=1, end=(end, None))
        fake.now = at(15)
        assert bench.follow(collector)[('flow_runs.throughput', tags)] == 1

    @pytest.mark.parametrize(
        ('threshold', 'delay', 'late'),
        [
            pytest.param(15, 14.9, 0, id='below'),
            pytest.param(15, 15, 0, id='exactly'),
            pytest.param(15, 15.1, 1, id='above'),
            pytest.param(0, 0, 0, id='no delay'),
            pytest.param(0, 0.001, 1, id='0 counts any delay'),
            pytest.param(0.5, 0.6, 1, id='a part of a second'),
            pytest.param(600, 599, 0, id='long threshold'),
        ],
    )
    def test_start_is_late_above_the_threshold(
        self,
        fake: FakePrefect,
        new_bench: Callable[..., Bench],
        deployment: Row,
        tags: tuple[str, ...],
        threshold: float,
        delay: float,
        late: int,
    ) -> None:
        bench, collector = new_bench(late_start_threshold=threshold), StartedFlowRuns()
        bench.follow(collector)
        run = fake.add_flow_run(deployment=deployment, scheduled_time=at(1))
        fake.set_flow_run_state(run, 'RUNNING', at=at(1 + delay))
        fake.now = at(700)
        assert bench.follow(collector)[('flow_runs.late_start.count', tags)] == late

    def test_run_that_starts_before_its_time_has_waited_0(
        self, fake: FakePrefect, bench: Bench, collector: StartedFlowRuns, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run = fake.add_flow_run(deployment=deployment, scheduled_time=at(10))
        fake.set_flow_run_state(run, 'RUNNING', at=at(1))
        fake.now = at(15)
        found = bench.follow(collector)
        assert found[('flow_runs.queue_wait_duration.max', tags)] == 0
        assert found[('flow_runs.throughput', tags)] == 1

    def test_run_that_ended_without_having_run_has_not_started(
        self, fake: FakePrefect, bench: Bench, collector: StartedFlowRuns, deployment: Row
    ) -> None:
        run = fake.add_flow_run(deployment=deployment, scheduled_time=at(-500))
        fake.set_flow_run_state(run, 'CANCELLED', at=at(3))
        assert run['start_time'] == run['end_time']
        fake.now = at(15)
        assert nonzero(bench.follow(collector)) == {}

    def test_run_that_is_only_expected_to_start_has_not_started(
        self, fake: FakePrefect, bench: Bench, collector: StartedFlowRuns, deployment: Row
    ) -> None:
        """The server takes the expected time for the start where it filters."""
        fake.add_flow_run(deployment=deployment, scheduled_time=at(3))
        fake.add_flow_run(deployment=deployment, state=('PENDING', 'Pending'), at=at(3))
        fake.now = at(15)
        assert nonzero(bench.follow(collector)) == {}

    def test_retry_is_no_start(
        self, fake: FakePrefect, bench: Bench, collector: StartedFlowRuns, deployment: Row
    ) -> None:
        run = run_through(fake, deployment=deployment, start=at(-500), seconds=20, end=('SCHEDULED', 'AwaitingRetry'))
        fake.set_flow_run_state(run, 'RUNNING', at=at(2))
        fake.now = at(15)
        assert nonzero(bench.follow(collector)) == {}

    def test_run_that_waited_longer_than_the_overlap_is_found(
        self, fake: FakePrefect, bench: Bench, collector: StartedFlowRuns, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run = fake.add_flow_run(deployment=deployment, scheduled_time=at(-86400))
        fake.set_flow_run_state(run, 'RUNNING', at=at(1))
        fake.now = at(15)
        assert nonzero(bench.follow(collector)) == {
            ('flow_runs.throughput', tags): 1,
            ('flow_runs.late_start.count', tags): 1,
            **five('flow_runs.queue_wait_duration', tags, 86401),
        }

    def test_runs_without_deployment_count_by_flow(
        self, fake: FakePrefect, bench: Bench, collector: StartedFlowRuns, flow: Row
    ) -> None:
        run_through(fake, flow=flow, start=at(1), seconds=1)
        found = []
        for seconds in (15, 30, 45):
            fake.now = at(seconds)
            found.append(bench.follow(collector).get(('flow_runs.throughput', tags_of(flow=flow))))
        assert found == [1, 0, None]


class TestRetryGaps:
    @pytest.fixture
    def collector(self, bench: Bench) -> RetryGaps:
        collector = RetryGaps()
        bench.follow(collector)
        return collector

    def follow(self, fake: FakePrefect, bench: Bench, collector: RetryGaps, seconds: float) -> dict[str, float]:
        """The gaps that a read finds so many seconds after the start, without tags."""
        fake.now = at(seconds)
        return {
            name.removeprefix('flow_runs.retry_gaps_duration.'): v for (name, _), v in bench.follow(collector).items()
        }

    def test_gap_lasts_from_awaiting_retry_to_running(
        self, fake: FakePrefect, bench: Bench, collector: RetryGaps, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run = run_through(fake, deployment=deployment, start=at(1), seconds=2, end=('SCHEDULED', 'AwaitingRetry'))
        fake.set_flow_run_state(run, 'RUNNING', at=at(9.5))
        fake.now = at(15)
        assert bench.follow(collector) == five('flow_runs.retry_gaps_duration', tags, 6.5)

    def test_gap_counts_once(self, fake: FakePrefect, bench: Bench, collector: RetryGaps, deployment: Row) -> None:
        run = run_through(fake, deployment=deployment, start=at(1), seconds=2, end=('SCHEDULED', 'AwaitingRetry'))
        fake.set_flow_run_state(run, 'RUNNING', at=at(9))
        assert self.follow(fake, bench, collector, 15)['count'] == 1
        assert self.follow(fake, bench, collector, 30) == {}
        fake.set_flow_run_state(run, 'COMPLETED', at=at(40))
        assert self.follow(fake, bench, collector, 45) == {}
        assert self.follow(fake, bench, collector, 300) == {}

    def test_gap_that_ends_after_another_collector_has_read_the_history_counts(
        self, fake: FakePrefect, bench: Bench, collector: RetryGaps, deployment: Row
    ) -> None:
        """The read of the gaps had failed before, so that it lists the ended runs itself, later in the same check."""
        finished = FinishedFlowRuns()
        bench.follow(finished)
        run = run_through(fake, deployment=deployment, start=at(1), seconds=2, end=('SCHEDULED', 'AwaitingRetry'))
        fake.now = at(130)
        bench.follow(finished)
        fake.set_flow_run_state(run, 'RUNNING', at=at(140))
        fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry', at=at(141))
        fake.now = at(145)
        check = bench.context()
        bench.follow(finished, check)
        fake.set_flow_run_state(run, 'RUNNING', at=at(145.5))
        fake.set_flow_run_state(run, 'COMPLETED', at=at(146))
        gaps = bench.follow(collector, check)
        fake.now = at(160)
        gaps |= bench.follow(collector)
        assert sum(value for (name, _), value in gaps.items() if name.endswith('.count')) == 2

    def test_history_of_a_replica_that_is_behind_is_read_again(
        self, fake: FakePrefect, bench: Bench, collector: RetryGaps, deployment: Row
    ) -> None:
        run = run_through(fake, deployment=deployment, start=at(1), seconds=2, end=('SCHEDULED', 'AwaitingRetry'))
        fake.set_flow_run_state(run, 'RUNNING', at=at(9))
        states = sorted(fake.tables['flow_run_states'].newest(), key=lambda row: row['timestamp'])
        fake.fault = failing('/flow_run_states/', FakeResponse.of(states[:-1]))
        assert self.follow(fake, bench, collector, 15) == {}
        fake.fault = None
        assert self.follow(fake, bench, collector, 30)['count'] == 1

    def test_gap_that_is_not_over_does_not_count_yet(
        self, fake: FakePrefect, bench: Bench, collector: RetryGaps, deployment: Row
    ) -> None:
        run = run_through(fake, deployment=deployment, start=at(1), seconds=2, end=('SCHEDULED', 'AwaitingRetry'))
        assert self.follow(fake, bench, collector, 15) == {}
        fake.set_flow_run_state(run, 'RUNNING', at=at(900))
        assert self.follow(fake, bench, collector, 905)['max'] == 897

    def test_each_of_several_retries_is_a_gap(
        self, fake: FakePrefect, bench: Bench, collector: RetryGaps, deployment: Row
    ) -> None:
        run = run_through(fake, deployment=deployment, start=at(1), seconds=1, end=('SCHEDULED', 'AwaitingRetry'))
        for start in (4, 20):
            fake.set_flow_run_state(run, 'RUNNING', at=at(start))
            fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry', at=at(start + 1))
        fake.set_flow_run_state(run, 'RUNNING', at=at(51))
        fake.set_flow_run_state(run, 'FAILED', at=at(52))
        # 2 to 4, 5 to 20 and 21 to 51.
        found = self.follow(fake, bench, collector, 60)
        assert (found['count'], found['median'], found['max']) == (3, 15, 30)

    def test_gap_between_two_reads_counts_though_the_run_waits_again(
        self, fake: FakePrefect, bench: Bench, collector: RetryGaps, deployment: Row
    ) -> None:
        run = run_through(fake, deployment=deployment, start=at(1), seconds=1, end=('SCHEDULED', 'AwaitingRetry'))
        fake.set_flow_run_state(run, 'RUNNING', at=at(5))
        fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry', at=at(6))
        assert self.follow(fake, bench, collector, 15)['max'] == 3

    def test_states_between_the_wait_and_running_belong_to_the_gap(
        self, fake: FakePrefect, bench: Bench, collector: RetryGaps, deployment: Row
    ) -> None:
        run = run_through(fake, deployment=deployment, start=at(1), seconds=1, end=('SCHEDULED', 'AwaitingRetry'))
        for state, seconds in ((('PENDING', 'Pending'), 8), (('PENDING', 'Submitting'), 9), (('RUNNING', None), 12)):
            fake.set_flow_run_state(run, *state, at=at(seconds))
        assert self.follow(fake, bench, collector, 15)['max'] == 10

    def test_retry_by_hand_is_a_gap_from_its_request(
        self, fake: FakePrefect, bench: Bench, collector: RetryGaps, deployment: Row
    ) -> None:
        run = run_through(fake, deployment=deployment, start=at(-600), seconds=1, end=('FAILED', None))
        fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry', at=at(3))
        fake.set_flow_run_state(run, 'PENDING', at=at(5))
        fake.set_flow_run_state(run, 'RUNNING', at=at(7))
        assert self.follow(fake, bench, collector, 15)['max'] == 4

    @pytest.mark.parametrize(
        'states',
        [
            pytest.param([('PAUSED', 'Paused'), ('RUNNING', 'Running')], id='a pause'),
            pytest.param(
                [('PAUSED', 'Suspended'), ('SCHEDULED', 'Resuming'), ('PENDING', 'Pending'), ('RUNNING', 'Running')],
                id='a suspension',
            ),
            pytest.param([('SCHEDULED', 'AwaitingConcurrencySlot'), ('RUNNING', 'Running')], id='a wait for a slot'),
            pytest.param([('SCHEDULED', 'AwaitingRetry'), ('CANCELLED', 'Cancelled')], id='cancelled while it waited'),
            pytest.param([('FAILED', 'Failed')], id='no retry'),
        ],
    )
    def test_nothing_else_is_a_gap(
        self,
        fake: FakePrefect,
        bench: Bench,
        collector: RetryGaps,
        deployment: Row,
        states: list[tuple[str, str]],
    ) -> None:
        run = run_through(fake, deployment=deployment, start=at(1), seconds=1, end=states[0])
        for index, state in enumerate(states[1:]):
            fake.set_flow_run_state(run, *state, at=at(3 + index))
        run['run_count'] = 5
        assert self.follow(fake, bench, collector, 15) == {}

    def test_states_are_asked_for_only_of_runs_that_ran_again_and_once_per_state(
        self, fake: FakePrefect, bench: Bench, collector: RetryGaps, deployment: Row
    ) -> None:
        for _ in range(5):
            run_through(fake, deployment=deployment, start=at(1), seconds=1)
        run = run_through(fake, deployment=deployment, start=at(1), seconds=1, end=('SCHEDULED', 'AwaitingRetry'))
        fake.set_flow_run_state(run, 'RUNNING', at=at(5))
        for seconds in (15, 30, 45):
            self.follow(fake, bench, collector, seconds)
        assert [exchange.query for exchange in sent(fake, '/flow_run_states/')] == [{'flow_run_id': run['id']}]

    def test_gap_before_the_first_read_never_counts(self, fake: FakePrefect, bench: Bench, deployment: Row) -> None:
        run = run_through(fake, deployment=deployment, start=at(-60), seconds=1, end=('SCHEDULED', 'AwaitingRetry'))
        fake.set_flow_run_state(run, 'RUNNING', at=at(-5))
        collector = RetryGaps()
        assert self.follow(fake, bench, collector, 0) == {}
        fake.set_flow_run_state(run, 'COMPLETED', at=at(5))
        assert self.follow(fake, bench, collector, 15) == {}

    def test_run_that_is_deleted_meanwhile_has_no_gap_and_is_looked_at_once(
        self, fake: FakePrefect, bench: Bench, collector: RetryGaps, deployment: Row
    ) -> None:
        run = run_through(fake, deployment=deployment, start=at(1), seconds=1, end=('SCHEDULED', 'AwaitingRetry'))
        fake.set_flow_run_state(run, 'RUNNING', at=at(5))
        fake.tables['flow_run_states'] = type(fake.tables['flow_run_states'])()
        assert self.follow(fake, bench, collector, 15) == {}
        assert self.follow(fake, bench, collector, 30) == {}
        assert len(sent(fake, '/flow_run_states/')) == 1

    def test_failed_read_of_states_leaves_the_gap_to_the_next_one(
        self, fake: FakePrefect, bench: Bench, collector: RetryGaps, deployment: Row
    ) -> None:
        run = run_through(fake, deployment=deployment, start=at(1), seconds=1, end=('SCHEDULED', 'AwaitingRetry'))
        fake.set_flow_run_state(run, 'RUNNING', at=at(5))
        fake.fault = failing('/flow_run_states/', 503)
        with pytest.raises(PrefectApiError):
            self.follow(fake, bench, collector, 15)
        fake.fault = None
        assert self.follow(fake, bench, collector, 30)['max'] == 3


@pytest.mark.parametrize('make', [FlowRuns, FinishedFlowRuns, StartedFlowRuns, RetryGaps])
@pytest.mark.parametrize(
    'changes',
    [
        pytest.param({'work_pool_names': {'include': ['^mine$']}}, id='pool included'),
        pytest.param({'work_pool_names': {'exclude': ['^other$']}}, id='pool excluded'),
        pytest.param({'work_queue_names': {'include': ['^mine$']}}, id='queue included'),
        pytest.param({'work_queue_names': {'exclude': ['^other$']}}, id='queue excluded'),
        pytest.param({'deployment_names': {'include': ['^mine$']}}, id='deployment included'),
        pytest.param({'deployment_names': {'exclude': ['^other$']}}, id='deployment excluded'),
    ],
)
def test_excluded_runs_are_not_downloaded(
    fake: FakePrefect,
    new_bench: Callable[..., Bench],
    make: type[FlowRuns | FinishedFlowRuns | StartedFlowRuns | RetryGaps],
    changes: Row,
) -> None:
    bench, collector = new_bench(**changes), make()

    def read() -> set[str]:
        found = bench.read(collector) if isinstance(collector, FlowRuns) else bench.follow(collector)
        return {tag for _, tags in nonzero(found) for tag in tags if tag.startswith('deployment_name:')}

    deployments = [
        fake.add_deployment(name=name, work_queue=fake.add_work_queue(fake.add_work_pool(name), name))
        for name in ('mine', 'other')
    ]
    read()
    for deployment in deployments:
        fake.add_flow_run(deployment=deployment, scheduled_time=at(900))
        fake.add_flow_run(deployment=deployment, scheduled_time=at(0))
        run = run_through(fake, deployment=deployment, start=at(1), seconds=1, end=('SCHEDULED', 'AwaitingRetry'))
        fake.set_flow_run_state(run, 'RUNNING', at=at(5))
        run_through(fake, deployment=deployment, start=at(1), seconds=1)
    fake.now += timedelta(seconds=15)
    fake.requests.clear()
    assert read() == {'deployment_name:mine'}
    downloaded = rows_sent(fake, '/flow_runs/filter')
    assert {row['deployment_id'] for row in downloaded} == {deployments[0]['id']}


def test_end_and_start_that_a_quick_retry_by_hand_hides_are_counted(fake: FakePrefect, bench: Bench) -> None:
    """Cancelled without having run, retried 50 ms later, and seen only when it has ended for good."""
    started, finished, gaps = StartedFlowRuns(), FinishedFlowRuns(), RetryGaps()
    for collector in (started, finished, gaps):
        bench.follow(collector)
    run = fake.add_flow_run(flow=fake.add_flow(), at=at(1))
    for second, *state in (
        (2.0, 'CANCELLED'),
        (2.05, 'SCHEDULED', 'AwaitingRetry'),
        (2.07, 'RUNNING'),
        (4.0, 'COMPLETED'),
    ):
        fake.set_flow_run_state(run, *state, at=at(second))
    fake.now = at(15)
    collectors = (started, finished, gaps)
    found = {name: value for item in collectors for (name, _), value in bench.follow(item).items()}

    assert found['flow_runs.throughput'] == 1
    assert found['flow_runs.queue_wait_duration.max'] == pytest.approx(1.07)
    assert found['flow_runs.cancelled.count'] == 1
    assert found['flow_runs.completed.count'] == 1
    assert found['flow_runs.retry_gaps_duration.max'] == pytest.approx(0.02)


@pytest.mark.parametrize('seen', ['when it had ended', 'while it waited for the next attempt'])
def test_what_a_retry_hides_of_an_end_without_a_start_counts_if_it_was_seen_before_on_an_old_server(
    fake: FakePrefect, bench: Bench, seen: str
) -> None:
    """Nothing of the end is left on the row. Another run, which ended so and is not retried, costs no request."""
    fake.version = '3.6.13'
    bench.client.version()
    flow = fake.add_flow()
    collectors = (StartedFlowRuns(), FinishedFlowRuns(), RetryGaps())
    sums: Counter[str] = Counter()

    def check(second: float) -> None:
        fake.now = at(second)
        for collector in collectors:
            sums.update({name: value for (name, _), value in bench.follow(collector).items()})

    check(0)
    fake.set_flow_run_state(fake.add_flow_run(flow=flow, at=at(1)), 'CANCELLED', at=at(2))
    run = fake.add_flow_run(flow=flow, at=at(1))
    fake.set_flow_run_state(run, 'CRASHED', at=at(3))
    if seen == 'when it had ended':
        check(4)
    fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry', at=at(5))
    for second in range(7, 1990, 60):
        check(second)
    fake.set_flow_run_state(run, 'RUNNING', at=at(2000))
    fake.set_flow_run_state(run, 'COMPLETED', at=at(2001))
    check(2005)
    assert sums['flow_runs.crashed.count'] == sums['flow_runs.cancelled.count'] == 1
    assert sums['flow_runs.completed.count'] == sums['flow_runs.throughput'] == 1
    assert sums['flow_runs.execution_duration.max'] == sums['flow_runs.retry_gaps_duration.count'] == 1
    assert sums['flow_runs.retry_gaps_duration.max'] == 1995
    assert {exchange.query['flow_run_id'] for exchange in sent(fake, '/flow_run_states/')} == {run['id']}
