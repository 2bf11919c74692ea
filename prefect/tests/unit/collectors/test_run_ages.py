from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from datadog_checks.prefect.collectors.flow_runs import FlowRuns
from datadog_checks.prefect.collectors.run_ages import FlowRunAges, TaskRunAges
from datadog_checks.prefect.collectors.task_runs import TaskRuns
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, at, nonzero, tags_of


class TestFlowRuns:
    @pytest.mark.parametrize(
        ('state', 'expected'),
        [
            pytest.param(('PENDING', 'InfrastructurePending'), {'pending.max_age': 90}, id='pending'),
            pytest.param(('RUNNING', 'Running'), {'running.max_age': 90}, id='running'),
            pytest.param(('PAUSED', 'Suspended'), {'paused.max_age': 90}, id='suspended'),
            pytest.param(('CANCELLING', 'Cancelling'), {'cancelling': 1, 'cancelling.max_age': 90}, id='cancelling'),
            pytest.param(('SCHEDULED', 'AwaitingRetry'), {'awaiting_retry': 1}, id='awaiting retry'),
            pytest.param(('SCHEDULED', 'AwaitingConcurrencySlot'), {'awaiting_concurrency': 1}, id='awaiting slot'),
            pytest.param(('SCHEDULED', 'Resuming'), {}, id='resuming'),
            pytest.param(('SCHEDULED', 'Late'), {}, id='late'),
            pytest.param(('COMPLETED', 'AwaitingRetry'), {}, id='ended under a misleading name'),
            pytest.param(None, {}, id='no state'),
        ],
    )
    def test_run_is_in_the_series_of_its_state(
        self,
        fake: FakePrefect,
        bench: Bench,
        deployment: Row,
        tags: tuple[str, ...],
        state: tuple[str, str] | None,
        expected: dict[str, float],
    ) -> None:
        fake.add_flow_run(deployment=deployment, state=state, at=at(-90))
        assert bench.read(FlowRunAges()) == {(f'flow_runs.{name}', tags): value for name, value in expected.items()}

    def test_age_is_that_of_the_oldest_run_of_a_tag_set(
        self, fake: FakePrefect, bench: Bench, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        for seconds in (-5, -700, -40):
            fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'), at=at(seconds))
        other = fake.add_flow_run(state=('RUNNING', 'Running'), at=at(-86400))
        assert nonzero(bench.read(FlowRunAges())) == {
            ('flow_runs.running.max_age', tags): 700,
            ('flow_runs.running.max_age', tags_of(flow=fake.tables['flows'].get(other['flow_id']))): 86400,
        }

    def test_running_again_after_a_retry_or_a_pause_counts_anew(
        self, fake: FakePrefect, bench: Bench, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run = fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'), at=at(-900))
        fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry', at=at(-100))
        fake.set_flow_run_state(run, 'RUNNING', at=at(-30))
        assert bench.read(FlowRunAges())['flow_runs.running.max_age', tags] == 30

    def test_pending_counts_from_the_first_pending_state(
        self, fake: FakePrefect, bench: Bench, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run = fake.add_flow_run(deployment=deployment, state=('PENDING', 'Pending'), at=at(-10))
        collector = FlowRunAges()
        for seconds, name in ((0, 'Submitting'), (60, 'InfrastructurePending'), (120, 'InfrastructurePending')):
            fake.now = at(seconds)
            assert bench.read(collector)['flow_runs.pending.max_age', tags] == seconds + 10
            fake.set_flow_run_state(run, 'PENDING', name)

    def test_pending_of_another_attempt_counts_anew(
        self, fake: FakePrefect, bench: Bench, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run = fake.add_flow_run(deployment=deployment, state=('PENDING', 'Pending'), at=at(-600))
        collector = FlowRunAges()
        bench.read(collector)
        fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry')
        bench.read(collector)
        fake.set_flow_run_state(run, 'PENDING', at=at(10))
        fake.now = at(15)
        assert bench.read(collector)['flow_runs.pending.max_age', tags] == 5

    def test_clock_that_is_ahead_makes_no_negative_age(
        self, fake: FakePrefect, bench: Bench, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'), at=at(3))
        assert bench.read(FlowRunAges())['flow_runs.running.max_age', tags] == 0

    def test_tag_set_that_had_a_value_is_0_for_five_minutes(
        self, fake: FakePrefect, bench: Bench, deployment: Row, tags: tuple[str, ...]
    ) -> None:
        run = fake.add_flow_run(deployment=deployment, state=('CANCELLING', 'Cancelling'), at=at(-60))
        collector = FlowRunAges()
        count, age = ('flow_runs.cancelling', tags), ('flow_runs.cancelling.max_age', tags)
        assert bench.read(collector) == {count: 1, age: 60}
        fake.set_flow_run_state(run, 'CANCELLED')
        fake.now = at(299)
        assert bench.read(collector) == {count: 0, age: 0}
        fake.now = at(301)
        bench.read(collector)
        assert bench.read(collector) == {}

    def test_excluded_runs_are_left_out(
        self, fake: FakePrefect, new_bench: Callable[..., Bench], deployment: Row
    ) -> None:
        fake.add_flow_run(deployment=deployment, state=('CANCELLING', 'Cancelling'))
        fake.add_flow_run(deployment=deployment, state=('SCHEDULED', 'AwaitingRetry'))
        assert new_bench(work_pool_names={'exclude': ['prod']}).read(FlowRunAges()) == {}

    def test_nothing_is_asked_for_that_other_collectors_do_not_ask_for(
        self, fake: FakePrefect, bench: Bench, deployment: Row
    ) -> None:
        fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'))
        run = bench.context()
        bench.read(FlowRuns(), run)
        run.inventory.restarting_flow_runs()
        asked = len(fake.requests)
        bench.read(FlowRunAges(), run)
        assert len(fake.requests) == asked


class TestTaskRuns:
    @pytest.fixture
    def flow_run(self, fake: FakePrefect, deployment: Row) -> Row:
        return fake.add_flow_run(deployment=deployment, state=('RUNNING', 'Running'), at=at(-1000))

    @pytest.fixture
    def task_tags(self, tags: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted((*tags, 'task_key:load', 'task_name:load')))

    @pytest.mark.parametrize(
        ('state', 'expected'),
        [
            pytest.param(('PENDING', 'NotReady'), {'pending.max_age': 90}, id='pending'),
            pytest.param(('RUNNING', 'Retrying'), {'running.max_age': 90}, id='running'),
            pytest.param(('SCHEDULED', 'AwaitingRetry'), {'awaiting_retry': 1}, id='awaiting retry'),
            pytest.param(('PAUSED', 'Paused'), {}, id='paused'),
            pytest.param(('SCHEDULED', 'Scheduled'), {}, id='scheduled'),
            pytest.param(('COMPLETED', 'AwaitingRetry'), {}, id='ended under a misleading name'),
        ],
    )
    def test_run_is_in_the_series_of_its_state(
        self,
        fake: FakePrefect,
        bench: Bench,
        flow_run: Row,
        task_tags: tuple[str, ...],
        state: tuple[str, str],
        expected: dict[str, float],
    ) -> None:
        fake.add_task_run(flow_run=flow_run, task_key='load', state=state, at=at(-90))
        assert bench.read(TaskRunAges()) == {
            (f'task_runs.{name}', task_tags): value for name, value in expected.items()
        }

    @pytest.mark.parametrize('state', [('PENDING', 'NotReady'), ('RUNNING', 'Running'), ('SCHEDULED', 'AwaitingRetry')])
    def test_task_run_whose_flow_run_does_not_run_is_left_out(
        self, fake: FakePrefect, bench: Bench, flow_run: Row, state: tuple[str, str]
    ) -> None:
        fake.add_task_run(flow_run=flow_run, task_key='load', state=state)
        fake.set_flow_run_state(flow_run, 'CRASHED')
        assert bench.read(TaskRunAges()) == {}

    def test_pending_counts_from_the_first_pending_state(
        self, fake: FakePrefect, bench: Bench, flow_run: Row, task_tags: tuple[str, ...]
    ) -> None:
        task_run = fake.add_task_run(flow_run=flow_run, task_key='load', at=at(-20))
        collector = TaskRunAges()
        bench.read(collector)
        fake.set_task_run_state(task_run, 'PENDING', 'NotReady')
        fake.now = at(40)
        assert bench.read(collector)['task_runs.pending.max_age', task_tags] == 60

    def test_tag_set_that_had_a_value_is_0_for_five_minutes(
        self, fake: FakePrefect, bench: Bench, flow_run: Row, task_tags: tuple[str, ...]
    ) -> None:
        task_run = fake.add_task_run(flow_run=flow_run, task_key='load', state=('RUNNING', 'Running'), at=at(-5))
        collector = TaskRunAges()
        key = ('task_runs.running.max_age', task_tags)
        assert bench.read(collector) == {key: 5}
        fake.set_task_run_state(task_run, 'COMPLETED')
        fake.now = at(299)
        assert bench.read(collector) == {key: 0}
        fake.now += timedelta(seconds=2)
        bench.read(collector)
        assert bench.read(collector) == {}

    def test_rows_are_read_once_for_states_and_ages(self, fake: FakePrefect, bench: Bench, flow_run: Row) -> None:
        fake.add_task_run(flow_run=flow_run, task_key='load', state=('RUNNING', 'Running'))
        run = bench.context()
        bench.read(TaskRuns(), run)
        asked = len(fake.requests)
        bench.read(TaskRunAges(), run)
        assert len(fake.requests) == asked
