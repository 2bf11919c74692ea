from __future__ import annotations

from collections.abc import Callable

import pytest

from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.collectors.task_runs import FinishedTaskRuns, StartedTaskRuns, TaskRuns
from tests.fake_prefect import FakePrefect, FakeResponse
from tests.fake_prefect.server import FakeRequest
from tests.unit.harness import (
    Bench,
    Row,
    at,
    bodies,
    failing,
    five,
    nonzero,
    rows_sent,
    run_task_through,
    sent,
    tags_of,
)

STATE_GAUGES = ('pending', 'running', 'paused')
END_COUNTS = ('completed', 'failed', 'crashed', 'cancelled')


@pytest.fixture
def bench(new_bench: Callable[..., Bench]) -> Bench:
    """Without the reasons of failures, which `test_failure_reason.py` is about."""
    return new_bench(collect={'failure_reasons': False})


@pytest.fixture
def deployment(fake: FakePrefect) -> Row:
    queue = fake.add_work_queue(fake.add_work_pool('prod'), 'high')
    return fake.add_deployment(name='hourly', work_queue=queue)


@pytest.fixture
def flow_run(fake: FakePrefect, deployment: Row) -> Row:
    """A flow run that is RUNNING."""
    return fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'))


@pytest.fixture
def tags(fake: FakePrefect, deployment: Row) -> tuple[str, ...]:
    """What a task run `extract` of the flow run carries."""
    return task_tags(fake, deployment, 'extract')


def task_tags(fake: FakePrefect, deployment: Row, task_key: str) -> tuple[str, ...]:
    flow = fake.tables['flows'].get(deployment['flow_id'])
    queue = fake.tables['work_queues'].get(deployment['work_queue_id'])
    return tags_of(flow=flow, deployment=deployment, work_queue=queue, task_key=task_key)


class TestTaskRuns:
    @pytest.fixture
    def collector(self) -> TaskRuns:
        return TaskRuns()

    @pytest.mark.parametrize(
        ('state', 'gauge'),
        [
            pytest.param(('PENDING', 'Pending'), 'pending', id='pending'),
            pytest.param(('PENDING', 'NotReady'), 'pending', id='not ready'),
            pytest.param(('RUNNING', 'Running'), 'running', id='running'),
            pytest.param(('RUNNING', 'Retrying'), 'running', id='retrying'),
            pytest.param(('PAUSED', 'Paused'), 'paused', id='paused'),
        ],
    )
    def test_task_run_is_in_the_gauge_of_its_state_type(
        self,
        fake: FakePrefect,
        bench: Bench,
        collector: TaskRuns,
        flow_run: Row,
        tags: tuple[str, ...],
        state: tuple[str, str],
        gauge: str,
    ) -> None:
        fake.add_task_run(flow_run=flow_run, task_key='extract', state=state)
        assert bench.read(collector) == {(f'task_runs.{name}', tags): int(name == gauge) for name in STATE_GAUGES}

    @pytest.mark.parametrize('state_type', ['SCHEDULED', 'COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED'])
    def test_other_states_are_in_no_gauge(
        self, fake: FakePrefect, bench: Bench, collector: TaskRuns, flow_run: Row, state_type: str
    ) -> None:
        fake.add_task_run(flow_run=flow_run, state=(state_type, state_type.capitalize()))
        assert bench.read(collector) == {}

    @pytest.mark.parametrize(
        'state_type', ['SCHEDULED', 'PENDING', 'PAUSED', 'CANCELLING', 'COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED']
    )
    def test_task_run_of_a_flow_run_that_is_not_running_is_left_out(
        self, fake: FakePrefect, bench: Bench, collector: TaskRuns, flow_run: Row, state_type: str
    ) -> None:
        """A killed process leaves its task runs RUNNING forever."""
        for state in (('RUNNING', 'Running'), ('PENDING', 'NotReady'), ('PAUSED', 'Paused')):
            fake.add_task_run(flow_run=flow_run, state=state)
        fake.set_flow_run_state(flow_run, state_type)
        assert bench.read(collector) == {}

    def test_background_task_run_has_its_task_key_only(
        self, fake: FakePrefect, bench: Bench, collector: TaskRuns
    ) -> None:
        fake.add_task_run(task_key='mail', state=('RUNNING', 'Running'))
        assert nonzero(bench.read(collector)) == {('task_runs.running', tags_of(task_key='mail')): 1}

    def test_dummy_of_a_subflow_is_left_out(
        self, fake: FakePrefect, bench: Bench, collector: TaskRuns, flow_run: Row
    ) -> None:
        fake.add_flow_run(parent=flow_run, state=('RUNNING', 'Running'))
        assert any(row['state_type'] == 'RUNNING' for row in fake.tables['task_runs'].newest())
        assert bench.read(collector) == {}

    def test_task_run_of_a_subflow_carries_the_tags_of_the_subflow(
        self, fake: FakePrefect, bench: Bench, collector: TaskRuns, flow_run: Row
    ) -> None:
        flow = fake.add_flow('child')
        subflow = fake.add_flow_run(flow=flow, parent=flow_run, state=('RUNNING', 'Running'))
        fake.add_task_run(flow_run=subflow, task_key='load', state=('RUNNING', 'Running'))
        assert nonzero(bench.read(collector)) == {('task_runs.running', tags_of(flow=flow, task_key='load')): 1}

    def test_tag_set_goes_on_as_0_for_five_minutes(
        self, fake: FakePrefect, bench: Bench, collector: TaskRuns, flow_run: Row, tags: tuple[str, ...]
    ) -> None:
        task_run = fake.add_task_run(flow_run=flow_run, task_key='extract', state=('RUNNING', 'Running'))
        bench.read(collector)
        fake.set_task_run_state(task_run, 'COMPLETED')
        found = {}
        for seconds in (15, 299, 315, 330):
            fake.now = at(seconds)
            found[seconds] = bench.read(collector).get(('task_runs.running', tags))
        assert found == {15: 0, 299: 0, 315: 0, 330: None}

    def test_task_runs_of_many_pages_are_all_counted(
        self, fake: FakePrefect, bench: Bench, collector: TaskRuns, flow_run: Row, tags: tuple[str, ...]
    ) -> None:
        fake.default_limit = 5
        for index in range(23):
            fake.add_task_run(flow_run=flow_run, task_key='extract', state=('RUNNING', 'Running'), at=at(-(index // 8)))
        assert nonzero(bench.read(collector)) == {('task_runs.running', tags): 23}


class TestFinishedTaskRuns:
    @pytest.fixture
    def collector(self, bench: Bench) -> FinishedTaskRuns:
        collector = FinishedTaskRuns()
        bench.follow(collector)
        return collector

    @pytest.fixture(params=['end_time filter', 'no end_time filter'])
    def server(self, fake: FakePrefect, request: pytest.FixtureRequest) -> None:
        """Both kinds of server: those before 3.6.22 refuse to filter task runs by their end."""
        if request.param == 'no end_time filter':
            fake.fault = without_end_time_filter

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
    @pytest.mark.usefixtures('server')
    def test_task_run_counts_as_the_state_type_in_which_it_ended(
        self,
        fake: FakePrefect,
        bench: Bench,
        collector: FinishedTaskRuns,
        flow_run: Row,
        tags: tuple[str, ...],
        end: tuple[str, str],
        count: str,
    ) -> None:
        run_task_through(fake, flow_run=flow_run, task_key='extract', start=at(1), seconds=2.5, end=end)
        fake.now = at(15)
        assert bench.follow(collector) == {
            **{(f'task_runs.{name}.count', tags): int(name == count) for name in END_COUNTS},
            **five('task_runs.execution_duration', tags, 2.5),
        }

    @pytest.mark.usefixtures('server')
    def test_rolled_back_task_run_counts_once(
        self, fake: FakePrefect, bench: Bench, collector: FinishedTaskRuns, flow_run: Row, tags: tuple[str, ...]
    ) -> None:
        """The rollback changes state and state id after the end, and leaves the end as it was."""
        task_run = run_task_through(fake, flow_run=flow_run, task_key='extract', start=at(1), seconds=2)
        fake.now = at(15)
        assert bench.follow(collector)[('task_runs.completed.count', tags)] == 1
        fake.set_task_run_state(task_run, 'COMPLETED', 'RolledBack', at=at(20))
        fake.now = at(30)
        assert nonzero(bench.follow(collector)) == {}

    @pytest.mark.usefixtures('server')
    def test_each_of_many_task_runs_counts_once(
        self, fake: FakePrefect, bench: Bench, collector: FinishedTaskRuns, flow_run: Row, tags: tuple[str, ...]
    ) -> None:
        fake.default_limit = 6
        total = 0.0
        for seconds in range(15, 615, 30):
            fake.now = at(seconds)
            for index in range(7):
                run_task_through(fake, flow_run=flow_run, task_key='extract', start=at(seconds - 6 - index), seconds=5)
            total += bench.follow(collector)[('task_runs.completed.count', tags)]
        assert total == 140

    @pytest.mark.usefixtures('server')
    def test_dummy_of_a_subflow_is_left_out(
        self, fake: FakePrefect, bench: Bench, collector: FinishedTaskRuns, flow_run: Row
    ) -> None:
        subflow = fake.add_flow_run(parent=flow_run, state=('RUNNING', 'Running'), at=at(1))
        fake.set_flow_run_state(subflow, 'COMPLETED', at=at(3))
        fake.now = at(15)
        assert bench.follow(collector) == {}

    @pytest.mark.usefixtures('server')
    def test_background_task_run_counts(self, fake: FakePrefect, bench: Bench, collector: FinishedTaskRuns) -> None:
        run_task_through(fake, task_key='mail', start=at(1), seconds=2)
        fake.now = at(15)
        assert nonzero(bench.follow(collector)) == {
            ('task_runs.completed.count', tags_of(task_key='mail')): 1,
            **five('task_runs.execution_duration', tags_of(task_key='mail'), 2),
        }

    def test_task_run_that_never_ran_has_no_duration(
        self, fake: FakePrefect, bench: Bench, collector: FinishedTaskRuns, flow_run: Row, tags: tuple[str, ...]
    ) -> None:
        task_run = fake.add_task_run(flow_run=flow_run, task_key='extract', at=at(1))
        fake.set_task_run_state(task_run, 'CANCELLED', at=at(2))
        fake.now = at(15)
        assert nonzero(bench.follow(collector)) == {('task_runs.cancelled.count', tags): 1}

    def test_end_counts_though_the_flow_run_is_not_running(
        self, fake: FakePrefect, bench: Bench, collector: FinishedTaskRuns, flow_run: Row, tags: tuple[str, ...]
    ) -> None:
        run_task_through(fake, flow_run=flow_run, task_key='extract', start=at(1), seconds=2)
        fake.set_flow_run_state(flow_run, 'COMPLETED', at=at(4))
        fake.now = at(15)
        assert bench.follow(collector)[('task_runs.completed.count', tags)] == 1

    def test_task_run_of_a_deleted_flow_run_counts_without_its_tags(
        self, fake: FakePrefect, bench: Bench, collector: FinishedTaskRuns, flow_run: Row
    ) -> None:
        run_task_through(fake, flow_run=flow_run, task_key='extract', start=at(1), seconds=2)
        fake.tables['flow_runs'].remove(flow_run)
        fake.now = at(15)
        assert bench.follow(collector)[('task_runs.completed.count', tags_of(task_key='extract'))] == 1

    def test_filter_is_tried_once_on_a_server_that_hides_its_version(
        self, fake: FakePrefect, new_bench: Callable[..., Bench], flow_run: Row
    ) -> None:
        fake.fault = without_end_time_filter
        bench, collectors = new_bench(), (StartedTaskRuns(), FinishedTaskRuns())
        for seconds in (0, 15, 30, 45):
            fake.now = at(seconds)
            for collector in collectors:
                bench.follow(collector)
        assert [exchange.path for exchange in fake.requests if exchange.status == 422] == ['/api/task_runs/count']
        assert flow_run

    @pytest.mark.parametrize('version', ['3.0.11', '3.4.25', '3.6.21'])
    def test_old_server_is_never_sent_the_filter(
        self, fake: FakePrefect, new_bench: Callable[..., Bench], flow_run: Row, version: str
    ) -> None:
        fake.version = version
        fake.fault = without_end_time_filter
        bench, collectors = new_bench(), (StartedTaskRuns(), FinishedTaskRuns())
        bench.client.version()
        for seconds in (0, 15, 30, 45):
            fake.now = at(seconds)
            for collector in collectors:
                bench.follow(collector)
        assert sent(fake, '/task_runs/filter')
        assert [exchange.path for exchange in fake.requests if exchange.status == 422] == []
        assert flow_run

    @pytest.mark.parametrize('status', [404, 500, 503])
    def test_another_error_is_no_reason_to_go_without_the_filter(
        self, fake: FakePrefect, bench: Bench, collector: FinishedTaskRuns, status: int
    ) -> None:
        fake.fault = failing('/task_runs/filter', status)
        fake.now = at(15)
        with pytest.raises(PrefectApiError):
            bench.follow(collector)
        fake.fault = None
        bench.follow(collector)
        assert 'end_time' in bodies(fake, '/task_runs/filter')[-1]['task_runs']


class TestStartedTaskRuns:
    @pytest.fixture
    def collector(self, bench: Bench) -> StartedTaskRuns:
        collector = StartedTaskRuns()
        bench.follow(collector)
        return collector

    def test_started_task_run_counts_once(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row, tags: tuple[str, ...]
    ) -> None:
        run_task_through(fake, flow_run=flow_run, task_key='extract', start=at(1), seconds=2)
        fake.now = at(15)
        assert bench.follow(collector) == {
            ('task_runs.throughput', tags): 1,
            ('task_runs.late_start.count', tags): 0,
        }
        fake.now = at(30)
        assert nonzero(bench.follow(collector)) == {}

    @pytest.mark.parametrize(
        ('threshold', 'delay', 'late'),
        [
            pytest.param(15, 15, 0, id='exactly'),
            pytest.param(15, 15.1, 1, id='above'),
            pytest.param(0, 0, 0, id='no delay'),
            pytest.param(0, 0.001, 1, id='0 counts any delay'),
        ],
    )
    def test_start_is_late_above_the_threshold(
        self,
        fake: FakePrefect,
        new_bench: Callable[..., Bench],
        flow_run: Row,
        tags: tuple[str, ...],
        threshold: float,
        delay: float,
        late: int,
    ) -> None:
        bench, collector = new_bench(late_start_threshold=threshold), StartedTaskRuns()
        bench.follow(collector)
        task_run = fake.add_task_run(flow_run=flow_run, task_key='extract', at=at(1))
        fake.set_task_run_state(task_run, 'RUNNING', at=at(1 + delay))
        fake.now = at(60)
        assert bench.follow(collector)[('task_runs.late_start.count', tags)] == late

    def test_retry_is_no_start(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row
    ) -> None:
        task_run = run_task_through(
            fake, flow_run=flow_run, start=at(-300), seconds=2, end=('SCHEDULED', 'AwaitingRetry')
        )
        fake.set_task_run_state(task_run, 'RUNNING', 'Retrying', at=at(3))
        fake.now = at(15)
        assert bench.follow(collector) == {}

    def test_task_run_that_ended_without_having_run_has_not_started(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row
    ) -> None:
        task_run = fake.add_task_run(flow_run=flow_run, at=at(1))
        fake.set_task_run_state(task_run, 'CANCELLED', at=at(2))
        assert task_run['start_time'] is not None
        fake.now = at(15)
        assert bench.follow(collector) == {}

    def test_dummy_of_a_subflow_is_left_out(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row
    ) -> None:
        fake.add_flow_run(parent=flow_run, state=('RUNNING', 'Running'), at=at(1))
        fake.now = at(15)
        assert bench.follow(collector) == {}

    def test_background_task_run_counts(self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns) -> None:
        run_task_through(fake, task_key='mail', start=at(1))
        fake.now = at(15)
        assert nonzero(bench.follow(collector)) == {('task_runs.throughput', tags_of(task_key='mail')): 1}

    def test_task_run_that_ends_while_it_is_asked_for_counts_at_once(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row, tags: tuple[str, ...]
    ) -> None:
        task_run = fake.add_task_run(flow_run=flow_run, task_key='extract', state=None, at=at(5))
        fake.set_task_run_state(task_run, 'RUNNING', at=at(5))

        def ends_with_the_second_request(_: FakeRequest) -> None:
            if len(sent(fake, '/task_runs/filter')) == 1:
                fake.set_task_run_state(task_run, 'COMPLETED', at=at(15))

        fake.now = at(15)
        fake.fault = ends_with_the_second_request
        assert bench.follow(collector)['task_runs.throughput', tags] == 1
        assert task_run['end_time']
        fake.now = at(30)
        assert bench.follow(collector)['task_runs.throughput', tags] == 0

    def test_server_without_a_filter_on_ends_is_asked_for_what_started(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row, tags: tuple[str, ...]
    ) -> None:
        fake.fault = without_end_time_filter
        counts = []
        for seconds in (15, 30, 45):
            run_task_through(fake, flow_run=flow_run, task_key='extract', start=at(seconds - 10), seconds=4)
            fake.now = at(seconds)
            counts.append(bench.follow(collector)['task_runs.throughput', tags])
        assert counts == [1, 1, 1]
        assert not [exchange for exchange in sent(fake, '/task_runs/filter') if exchange.status == 422]


class TestDependencyWait:
    @pytest.fixture
    def collector(self, bench: Bench) -> StartedTaskRuns:
        collector = StartedTaskRuns()
        bench.follow(collector)
        return collector

    def load(self, fake: FakePrefect, flow_run: Row, start: float, *upstream: Row, **inputs: object) -> Row:
        task_run = run_task_through(
            fake, flow_run=flow_run, task_key='load', start=at(start), seconds=1, upstream=list(upstream)
        )
        task_run['task_inputs'] |= inputs
        return task_run

    def follow(self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, seconds: float) -> dict[str, float]:
        """What a read so many seconds after the start says of `load`."""
        fake.now = at(seconds)
        found = bench.follow(collector)
        return {
            name.removeprefix('task_runs.').removeprefix('dependency_wait_duration.'): value
            for (name, tags), value in nonzero(found).items()
            if 'task_key:load' in tags
        }

    def test_wait_lasts_from_the_end_of_the_last_upstream_to_the_start(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row
    ) -> None:
        upstreams = [run_task_through(fake, flow_run=flow_run, start=at(1), seconds=end - 1) for end in (3, 6, 4)]
        self.load(fake, flow_run, 8.5, *upstreams)
        found = self.follow(fake, bench, collector, 15)
        assert found == {'throughput': 1, 'avg': 2.5, 'median': 2.5, '95percentile': 2.5, 'max': 2.5, 'count': 1}

    def test_upstream_of_long_ago_is_looked_up(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row
    ) -> None:
        upstream = run_task_through(fake, flow_run=flow_run, start=at(-5000), seconds=1000)
        self.load(fake, flow_run, 10, upstream)
        assert self.follow(fake, bench, collector, 15)['max'] == 4010

    def test_task_run_without_upstream_has_no_wait(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row
    ) -> None:
        parameter = {'input_type': 'parameter', 'name': 'x'}
        self.load(fake, flow_run, 2, x=[parameter], y=[])
        assert self.follow(fake, bench, collector, 15) == {'throughput': 1}

    def test_results_that_are_taken_count_as_upstreams_like_those_waited_for(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row
    ) -> None:
        upstream = run_task_through(fake, flow_run=flow_run, start=at(1), seconds=2)
        self.load(fake, flow_run, 5, x=[{'input_type': 'task_run', 'id': upstream['id']}])
        assert self.follow(fake, bench, collector, 15)['max'] == 2

    def test_task_that_called_this_one_is_no_upstream(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row
    ) -> None:
        caller = run_task_through(fake, flow_run=flow_run, start=at(1), seconds=1)
        self.load(fake, flow_run, 5, __parents__=[{'input_type': 'task_run', 'id': caller['id']}])
        assert self.follow(fake, bench, collector, 15) == {'throughput': 1}

    def test_start_before_the_end_of_an_upstream_is_a_wait_of_0(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row
    ) -> None:
        upstream = run_task_through(fake, flow_run=flow_run, start=at(1), seconds=9)
        self.load(fake, flow_run, 5, upstream)
        assert self.follow(fake, bench, collector, 15) == {'throughput': 1, 'count': 1}

    def test_upstream_that_shows_late_is_waited_for(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row
    ) -> None:
        """The recorder writes the rows of task runs one by one."""
        upstream = fake.add_task_run(flow_run=flow_run, at=at(1))
        fake.set_task_run_state(upstream, 'RUNNING', at=at(1))
        fake.set_task_run_state(upstream, 'COMPLETED', at=at(9), visible_from=at(20))
        self.load(fake, flow_run, 12, upstream)
        assert self.follow(fake, bench, collector, 15) == {}
        assert self.follow(fake, bench, collector, 30) == {
            'throughput': 1,
            **dict.fromkeys(('avg', 'median', '95percentile', 'max'), 3),
            'count': 1,
        }
        assert self.follow(fake, bench, collector, 45) == {}

    def test_upstream_that_never_ends_is_waited_for_while_the_task_run_is_read_again(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row
    ) -> None:
        running = fake.add_task_run(flow_run=flow_run, state=('RUNNING', 'Running'), at=at(1))
        self.load(fake, flow_run, 10, running)
        found = {second: self.follow(fake, bench, collector, second) for second in (15, 100, 130, 145, 160, 400)}
        assert {second: nonempty for second, nonempty in found.items() if nonempty} == {145: {'throughput': 1}}

    @pytest.mark.parametrize('before', [(), ('RUNNING',)], ids=['unstarted', 'timed out'])
    def test_upstream_to_which_an_old_server_gives_no_end_ended_with_its_last_state(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row, before: tuple[str, ...]
    ) -> None:
        """Before 3.6.14 one that never started, and before 3.1.0 one that exceeded its timeout."""
        fake.version = '3.0.11'
        upstream = fake.add_task_run(flow_run=flow_run, at=at(1))
        for state_type in (*before, 'FAILED'):
            fake.set_task_run_state(upstream, state_type, at=at(4))
        upstream['end_time'] = None
        self.load(fake, flow_run, 10, upstream)
        found = self.follow(fake, bench, collector, 15)
        assert found == {'throughput': 1, **dict.fromkeys(('avg', 'median', '95percentile', 'max'), 6), 'count': 1}

    def test_wait_goes_by_the_upstreams_that_are_known(
        self, fake: FakePrefect, bench: Bench, collector: StartedTaskRuns, flow_run: Row
    ) -> None:
        gone = run_task_through(fake, flow_run=flow_run, start=at(1), seconds=4)
        upstream = run_task_through(fake, flow_run=flow_run, start=at(1), seconds=2)
        self.load(fake, flow_run, 10, gone, upstream)
        fake.remove(gone)
        assert self.follow(fake, bench, collector, 131)['max'] == 7


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
class TestFilters:
    @pytest.fixture
    def flow_runs(self, fake: FakePrefect) -> dict[str, Row]:
        """A RUNNING flow run below the pool, queue and deployment `mine`, and one below `other`."""
        return {
            name: fake.add_flow_run(
                deployment=fake.add_deployment(
                    name=name, work_queue=fake.add_work_queue(fake.add_work_pool(name), name)
                ),
                state=('RUNNING', 'Running'),
            )
            for name in ('mine', 'other')
        }

    @pytest.mark.parametrize('make', [TaskRuns, FinishedTaskRuns, StartedTaskRuns])
    def test_task_runs_of_excluded_flow_runs_are_not_downloaded(
        self,
        fake: FakePrefect,
        new_bench: Callable[..., Bench],
        flow_runs: dict[str, Row],
        changes: Row,
        make: type[TaskRuns | FinishedTaskRuns | StartedTaskRuns],
    ) -> None:
        bench, collector = new_bench(**changes), make()
        read = bench.read if isinstance(collector, TaskRuns) else bench.follow
        read(collector)  # type: ignore[arg-type]
        fake.requests.clear()
        for flow_run in flow_runs.values():
            run_task_through(fake, flow_run=flow_run, start=at(1), seconds=2)
            fake.add_task_run(flow_run=flow_run, state=('RUNNING', 'Running'), at=at(2))
        fake.now = at(45)
        found = nonzero(read(collector))  # type: ignore[arg-type]
        assert found
        assert all('deployment_name:mine' in tags for _, tags in found)
        assert {row['flow_run_id'] for row in rows_sent(fake, '/task_runs/filter')} == {flow_runs['mine']['id']}

    def test_background_task_run_is_kept_by_exclude_and_dropped_by_include(
        self, fake: FakePrefect, new_bench: Callable[..., Bench], flow_runs: dict[str, Row], changes: Row
    ) -> None:
        fake.add_task_run(task_key='mail', state=('RUNNING', 'Running'))
        (names,) = changes.values()
        found = nonzero(new_bench(**changes).read(TaskRuns()))
        assert bool(found) is ('exclude' in names)
        assert flow_runs


def without_end_time_filter(request: FakeRequest) -> FakeResponse | None:
    """Answer as a server before 3.6.22 does."""
    if request.path.startswith('/api/task_runs/') and 'end_time' in request.body.get('task_runs', {}):
        return FakeResponse.of({'exception_message': 'Invalid request received.'}, 422)
    return None
