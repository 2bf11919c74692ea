from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from datadog_checks.prefect.collectors.concurrency import Concurrency
from datadog_checks.prefect.collectors.flow_runs import FinishedFlowRuns
from datadog_checks.prefect.collectors.work_queues import WorkQueues
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, Values, at, failing, run_through, sent, series, tags_of

RUNNING = ('RUNNING', 'Running')


def limit_tags(row: Row, name: str, kind: str = 'global') -> tuple[str, ...]:
    return tags_of(concurrency_limit_id=row['id'], concurrency_limit_name=name, concurrency_limit_type=kind)


class Checks:
    """Runs of one collector, 15 s apart."""

    def __init__(self, fake: FakePrefect, bench: Bench) -> None:
        self.collector = Concurrency()
        self._fake = fake
        self._bench = bench

    def next(self, name: str) -> list[float]:
        """The values of one series in the next run."""
        self._fake.now += timedelta(seconds=15)
        return list(series(self._bench.read(self.collector), name).values())

    def leaked(self) -> list[float]:
        return self.next('concurrency_limit.leaked_slots')


@pytest.fixture
def checks(fake: FakePrefect, bench: Bench) -> Checks:
    return Checks(fake, bench)


@pytest.fixture
def deployment(fake: FakePrefect) -> Row:
    """A deployment in a queue with 4 slots of a pool with 8."""
    pool = fake.add_work_pool(concurrency_limit=8)
    return fake.add_deployment(work_queue=fake.add_work_queue(pool, 'high', concurrency_limit=4))


class TestWorkPoolsAndQueues:
    @pytest.mark.parametrize('changes', [{}, {'deployment_names': {'exclude': ['.']}}], ids=['no filter', 'filter'])
    def test_slots_are_the_pending_and_running_runs_of_all(
        self, fake: FakePrefect, new_bench: Callable[..., Bench], deployment: Row, changes: Row
    ) -> None:
        for state_type in ('PENDING', 'RUNNING', 'PAUSED', 'CANCELLING', 'SCHEDULED', 'CRASHED'):
            fake.add_flow_run(deployment=deployment, state=(state_type, state_type.capitalize()))
        pool, queue = fake.tables['work_pools'].newest()[0], fake.tables['work_queues'].newest()[1]
        in_default = fake.add_deployment(work_queue=fake.default_queue(pool))
        fake.add_flow_run(deployment=in_default, state=RUNNING)
        pool_tags = tags_of(work_pool=pool, work_pool_type='process')
        queue_tags = tags_of(work_queue=queue, work_queue_priority=queue['priority'], work_queue_status='READY')
        assert new_bench(**changes).read(Concurrency()) == {
            ('work_pool.concurrency.in_use', pool_tags): 37.5,
            ('work_pool.concurrency.active_slots', pool_tags): 3,
            ('work_pool.concurrency.limit', pool_tags): 8,
            ('work_queue.concurrency.active_slots', queue_tags): 2,
            ('work_queue.concurrency.limit', queue_tags): 4,
        }

    def test_what_has_no_limit_is_left_out(self, fake: FakePrefect, bench: Bench) -> None:
        queue = fake.default_queue(fake.add_work_pool())
        fake.add_flow_run(deployment=fake.add_deployment(work_queue=queue), state=RUNNING)
        assert bench.read(Concurrency()) == {}

    def test_limit_of_0_is_all_in_use(self, fake: FakePrefect, bench: Bench) -> None:
        fake.add_work_pool(concurrency_limit=0)
        assert list(bench.read(Concurrency()).values()) == [100, 0, 0]

    def test_slots_are_counted_once_for_all_collectors(
        self, fake: FakePrefect, new_bench: Callable[..., Bench], deployment: Row
    ) -> None:
        bench = new_bench(deployment_names={'exclude': ['x']})
        run = bench.context()
        bench.read(WorkQueues(), run)
        bench.read(Concurrency(), run)
        assert len(sent(fake, '/flow_runs/count')) == 2


class TestDeployments:
    @pytest.mark.parametrize(
        ('limit', 'taken', 'percent'),
        [pytest.param(4, 1, 25, id='a quarter'), pytest.param(0, 0, 100, id='limit 0')],
    )
    def test_use_of_a_deployment_is_what_the_server_counts(
        self, fake: FakePrefect, bench: Bench, limit: int, taken: int, percent: float
    ) -> None:
        flow = fake.add_flow()
        deployment = fake.add_deployment(flow=flow)
        fake.add_deployment(flow=flow, name='without limit')
        fake.add_concurrency_limit(f'deployment:{deployment["id"]}', limit, taken)
        tags = tags_of(deployment=deployment, flow=flow, is_paused=False)
        assert bench.read(Concurrency()) == {
            ('deployment.concurrency.in_use', tags): percent,
            ('deployment.concurrency.active_slots', tags): taken,
            ('deployment.concurrency.limit', tags): limit,
            ('deployment.concurrency.leaked_slots', tags): 0,
        }

    def test_limits_of_excluded_deployments_are_left_out(
        self, fake: FakePrefect, new_bench: Callable[..., Bench]
    ) -> None:
        for name in ('a', 'b'):
            fake.add_concurrency_limit(f'deployment:{fake.add_deployment(name=name)["id"]}', 1)
        found = new_bench(deployment_names={'include': ['a']}).read(Concurrency())
        assert len(series(found, 'deployment.concurrency.limit')) == 1


class TestLimits:
    def test_global_limits_and_those_of_tags_are_told_apart(self, fake: FakePrefect, bench: Bench) -> None:
        database = fake.add_concurrency_limit('database', 4, 3)
        gpu = fake.add_concurrency_limit('tag:gpu', 2, 0, active=False)
        expected: Values = {}
        for tags, percent, slots, limit, is_active in (
            (limit_tags(database, 'database'), 75, 3, 4, 1),
            (limit_tags(gpu, 'gpu', 'tag'), 0, 0, 2, 0),
        ):
            expected |= {
                ('concurrency_limit.in_use', tags): percent,
                ('concurrency_limit.active_slots', tags): slots,
                ('concurrency_limit.limit', tags): limit,
                ('concurrency_limit.is_active', tags): is_active,
            }
        found = bench.read(Concurrency())
        leaked = series(found, 'concurrency_limit.leaked_slots')
        assert found == expected | leaked

    def test_tags_that_an_older_server_keeps_apart_are_reported(self, fake: FakePrefect, checks: Checks) -> None:
        task_run = fake.add_task_run(state=RUNNING)
        fake.add_tag_limit('gpu', 4, [task_run])
        for _ in range(3):
            assert checks.next('concurrency_limit.in_use') == [25]

    def test_holders_are_asked_for_only_if_there_may_be_some(self, fake: FakePrefect, checks: Checks) -> None:
        limit = fake.add_concurrency_limit('tag:gpu', 2)
        fake.add_tag_limit('gpu', 2)
        for _ in range(5):
            checks.leaked()
        assert len(sent(fake, '/concurrency_limits/filter')) == 1
        limit['active_slots'] = 1
        checks.leaked()
        assert len(sent(fake, '/concurrency_limits/filter')) == 2

    @pytest.mark.parametrize('path', ['/v2/concurrency_limits/filter', '/concurrency_limits/filter'])
    def test_server_without_such_limits_is_no_failure(self, fake: FakePrefect, bench: Bench, path: str) -> None:
        fake.add_work_pool(concurrency_limit=1)
        fake.fault = failing(path, 404)
        assert len(series(bench.read(Concurrency()), 'work_pool.concurrency.limit')) == 1


class TestLeaksOfDeployments:
    @pytest.fixture
    def limit(self, fake: FakePrefect, deployment: Row) -> Row:
        return fake.add_concurrency_limit(f'deployment:{deployment["id"]}', 3, 1)

    @pytest.fixture
    def leaked(self, checks: Checks) -> Callable[[], float]:
        def next_value() -> float:
            (value,) = checks.next('deployment.concurrency.leaked_slots')
            return value

        return next_value

    def test_slot_without_a_run_is_leaked_in_the_second_check(self, leaked: Callable[[], float], limit: Row) -> None:
        assert [leaked(), leaked(), leaked()] == [0, 1, 1]
        limit['active_slots'] = 0
        assert leaked() == 0

    @pytest.mark.parametrize('state_type', ['PENDING', 'RUNNING', 'CANCELLING'])
    def test_run_that_may_hold_the_slot_is_no_leak(
        self, fake: FakePrefect, leaked: Callable[[], float], deployment: Row, limit: Row, state_type: str
    ) -> None:
        fake.add_flow_run(deployment=deployment, state=(state_type, state_type.capitalize()))
        assert [leaked(), leaked()] == [0, 0]

    def test_run_that_retries_in_its_process_keeps_its_slot(
        self, fake: FakePrefect, leaked: Callable[[], float], deployment: Row, limit: Row
    ) -> None:
        run = fake.add_flow_run(deployment=deployment, state=RUNNING)
        fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry', scheduled_time=at(600))
        assert [leaked(), leaked()] == [0, 0]

    def test_runs_that_wait_for_the_slot_do_not_hide_the_leak(
        self, fake: FakePrefect, leaked: Callable[[], float], deployment: Row, limit: Row
    ) -> None:
        for _ in range(3):
            fake.add_flow_run(
                deployment=deployment, state=('SCHEDULED', 'AwaitingConcurrencySlot'), scheduled_time=at(30)
            )
        assert [leaked(), leaked()] == [0, 1]

    def test_leak_beside_a_run_that_holds_its_slot_is_told(
        self, fake: FakePrefect, leaked: Callable[[], float], deployment: Row, limit: Row
    ) -> None:
        fake.add_flow_run(deployment=deployment, state=RUNNING)
        limit['active_slots'] = 2
        assert [leaked(), leaked()] == [0, 1]

    def test_another_run_at_each_check_is_no_leak(
        self, fake: FakePrefect, leaked: Callable[[], float], deployment: Row, limit: Row
    ) -> None:
        """Each has ended when the runs are read, and the slot is read a moment before."""
        found = []
        for _ in range(4):
            run_through(fake, deployment=deployment, start=fake.now + timedelta(seconds=14), seconds=0.5)
            found.append(leaked())
        assert found == [0, 0, 0, 0]

    def test_run_of_another_deployment_does_not_hide_the_leak(
        self, fake: FakePrefect, leaked: Callable[[], float], limit: Row
    ) -> None:
        fake.add_flow_run(deployment=fake.add_deployment(name='other'), state=RUNNING)
        assert [leaked(), leaked()] == [0, 1]

    def test_ended_runs_are_those_that_their_stream_reads(
        self, fake: FakePrefect, bench: Bench, deployment: Row, limit: Row
    ) -> None:
        """Two collectors, one request."""
        concurrency, finished = Concurrency(), FinishedFlowRuns()
        for _ in range(20):
            fake.now += timedelta(seconds=15)
            run = bench.context()
            bench.read(concurrency, run)
            before = len(sent(fake, '/flow_runs/filter'))
            bench.follow(finished, run)
        # What the overlap leaves behind; what came is there already.
        assert len(sent(fake, '/flow_runs/filter')) - before == 1


class TestLeaksOfGlobalLimits:
    @pytest.fixture(autouse=True)
    def limit(self, fake: FakePrefect) -> Row:
        return fake.add_concurrency_limit('database', 4, 2)

    def test_slots_while_nothing_runs_are_leaked_in_the_second_check(self, checks: Checks) -> None:
        assert [checks.leaked(), checks.leaked()] == [[0], [2]]

    @pytest.mark.parametrize('state_type', ['RUNNING', 'PAUSED', 'CANCELLING'])
    @pytest.mark.parametrize('changes', [{}, {'deployment_names': {'include': ['x']}}], ids=['no filter', 'filter'])
    def test_any_flow_run_may_hold_them(
        self, fake: FakePrefect, new_bench: Callable[..., Bench], state_type: str, changes: Row
    ) -> None:
        fake.add_flow_run(state=(state_type, state_type.capitalize()))
        checks = Checks(fake, new_bench(**changes))
        assert [checks.leaked(), checks.leaked()] == [[0], [0]]

    def test_any_background_task_may_hold_them(self, fake: FakePrefect, checks: Checks) -> None:
        fake.add_task_run(state=RUNNING)
        assert [checks.leaked(), checks.leaked()] == [[0], [0]]

    def test_task_of_a_killed_process_holds_none(self, fake: FakePrefect, checks: Checks) -> None:
        fake.add_task_run(flow_run=run_through(fake, seconds=-20, end=('CRASHED', None)), state=RUNNING)
        fake.now += timedelta(minutes=1)
        assert [checks.leaked(), checks.leaked()] == [[0], [2]]

    def test_run_between_two_checks_may_have_held_them(self, fake: FakePrefect, checks: Checks) -> None:
        checks.leaked()
        run_through(fake, start=fake.now, seconds=5)
        assert checks.leaked() == [0]

    def test_it_is_not_told_of_a_rate_limit(self, checks: Checks, limit: Row) -> None:
        limit['slot_decay_per_second'] = 1.0
        assert [checks.leaked(), checks.leaked()] == [[], []]


class TestLeaksOfTags:
    @pytest.fixture
    def add_limit(self, fake: FakePrefect) -> Callable[..., None]:
        def add(holders: list[Row], active_slots: int | None = None) -> None:
            fake.add_concurrency_limit('tag:gpu', 4, len(holders) if active_slots is None else active_slots)
            fake.add_tag_limit('gpu', 4, holders)

        return add

    @pytest.mark.parametrize('state_type', ['PENDING', 'RUNNING'])
    def test_task_run_that_is_alive_holds_its_slot(
        self, fake: FakePrefect, checks: Checks, add_limit: Callable[..., None], state_type: str
    ) -> None:
        flow_run = fake.add_flow_run(state=RUNNING)
        add_limit([fake.add_task_run(flow_run=flow_run, state=(state_type, state_type.capitalize()))])
        assert [checks.leaked(), checks.leaked()] == [[0], [0]]

    def test_background_task_holds_its_slot(
        self, fake: FakePrefect, checks: Checks, add_limit: Callable[..., None]
    ) -> None:
        add_limit([fake.add_task_run(state=RUNNING)])
        assert [checks.leaked(), checks.leaked()] == [[0], [0]]

    def test_task_run_that_has_ended_leaks_its_slot(
        self, fake: FakePrefect, checks: Checks, add_limit: Callable[..., None]
    ) -> None:
        flow_run = fake.add_flow_run(state=RUNNING)
        add_limit([fake.add_task_run(flow_run=flow_run, state=('COMPLETED', 'Completed'))])
        assert [checks.leaked(), checks.leaked()] == [[0], [1]]

    def test_task_run_whose_process_was_killed_leaks_its_slot(
        self, fake: FakePrefect, checks: Checks, add_limit: Callable[..., None]
    ) -> None:
        """It stays RUNNING forever; only its flow run tells."""
        flow_run = run_through(fake, end=('CRASHED', None))
        add_limit([fake.add_task_run(flow_run=flow_run, state=RUNNING)])
        assert [checks.leaked(), checks.leaked()] == [[0], [1]]

    def test_waiting_task_runs_do_not_hide_the_leak(
        self, fake: FakePrefect, checks: Checks, add_limit: Callable[..., None]
    ) -> None:
        flow_run = fake.add_flow_run(state=RUNNING)
        fake.add_task_run(flow_run=flow_run, tags=['gpu'])
        add_limit([fake.add_task_run(flow_run=run_through(fake, end=('CRASHED', None)), state=RUNNING)])
        assert [checks.leaked(), checks.leaked()] == [[0], [1]]

    def test_other_holder_at_each_check_is_no_leak(
        self, fake: FakePrefect, checks: Checks, add_limit: Callable[..., None]
    ) -> None:
        """A task run gives its slot back a moment after its end."""
        flow_run = fake.add_flow_run(state=RUNNING)
        add_limit([])
        (limit,) = fake.tables['tag_limits'].newest()
        (v2_limit,) = fake.tables['concurrency_limits'].newest()
        v2_limit['active_slots'] = 1
        for _ in range(4):
            limit['active_slots'] = [fake.add_task_run(flow_run=flow_run, state=('COMPLETED', 'Completed'))['id']]
            assert checks.leaked() == [0]

    def test_holder_that_is_not_recorded_yet_is_alive(
        self, fake: FakePrefect, checks: Checks, add_limit: Callable[..., None]
    ) -> None:
        flow_run = fake.add_flow_run(state=RUNNING)
        add_limit([fake.add_task_run(flow_run=flow_run, state=RUNNING, visible_from=at(3600))])
        assert [checks.leaked(), checks.leaked()] == [[0], [0]]

    @pytest.mark.parametrize(
        ('tags', 'leaked'), [pytest.param(['gpu'], 0, id='tagged'), pytest.param([], 1, id='not tagged')]
    )
    @pytest.mark.parametrize('is_background', [False, True])
    def test_slot_without_a_name_belongs_to_any_live_task_run_with_the_tag(
        self,
        fake: FakePrefect,
        checks: Checks,
        add_limit: Callable[..., None],
        tags: list[str],
        leaked: int,
        is_background: bool,
    ) -> None:
        flow_run = None if is_background else fake.add_flow_run(state=RUNNING)
        fake.add_task_run(flow_run=flow_run, tags=tags, state=RUNNING)
        add_limit([], active_slots=1)
        assert [checks.leaked(), checks.leaked()] == [[0], [leaked]]

    def test_it_is_not_told_of_a_tag_whose_holders_are_not_listed(self, fake: FakePrefect, checks: Checks) -> None:
        fake.add_concurrency_limit('tag:gpu', 4, 1)
        assert [checks.leaked(), checks.leaked()] == [[], []]


def test_limits_whose_long_names_begin_alike_stay_apart(fake: FakePrefect, bench: Bench) -> None:
    """The Agent's side cuts tags, and Datadog writes them in small letters."""
    for name in ('x' * 300, 'x' * 301, 'Gpu', 'gpu', 'tag:gpu'):
        fake.add_concurrency_limit(name, 4)
    found = series(bench.read(Concurrency()), 'concurrency_limit.limit')
    assert len({tuple(tag.lower() for tag in tags) for _, tags in found}) == 5
