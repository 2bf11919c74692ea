from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.collectors.deployments import Deployments
from datadog_checks.prefect.collectors.late_runs import LateRuns
from datadog_checks.prefect.collectors.work_queues import WorkQueues
from datadog_checks.prefect.collectors.workers import Workers
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, Values, at, failing, nonzero, series, tags_of


@pytest.fixture
def pool(fake: FakePrefect) -> Row:
    pool = fake.add_work_pool('prod')
    fake.add_worker(pool)
    return pool


@pytest.fixture
def queue(fake: FakePrefect, pool: Row) -> Row:
    return fake.add_work_queue(pool, 'high')


@pytest.fixture
def flow(fake: FakePrefect) -> Row:
    return fake.add_flow('etl')


@pytest.fixture
def deployment(fake: FakePrefect, flow: Row, queue: Row) -> Row:
    return fake.add_deployment(name='hourly', flow=flow, work_queue=queue)


@pytest.fixture
def tags(flow: Row, deployment: Row, queue: Row) -> Callable[..., tuple[str, ...]]:
    """The tags of a run of the deployment, with a reason if there is one."""
    return lambda **reason: tags_of(flow=flow, deployment=deployment, work_queue=queue, **reason)


def late(found: Values) -> Values:
    return nonzero(series(found, 'flow_runs.late'))


def reasons(found: Values) -> list[str]:
    """The reason of each tag set with late runs."""
    return [tag.partition(':')[2] for _, tags in late(found) for tag in tags if tag.startswith('late_reason:')]


def limited(slots: int) -> Row:
    return {'global_concurrency_limit': {'limit': slots, 'active_slots': 0}}


class TestLate:
    def test_run_that_is_due_for_longer_than_the_threshold_is_late(
        self, fake: FakePrefect, bench: Bench, deployment: Row, tags: Callable[..., tuple[str, ...]]
    ) -> None:
        for seconds in (-15.5, -3 * 86400):
            fake.add_flow_run(deployment=deployment, state=('SCHEDULED', 'Late'), scheduled_time=at(seconds))
        with_reason = tags(late_reason='work_not_picked_up')
        assert bench.read(LateRuns()) == {
            ('flow_runs.late', with_reason): 2,
            ('flow_runs.late.max_age', with_reason): 3 * 86400,
        }

    @pytest.mark.parametrize('seconds', [-15, -1, 0, 3600])
    def test_run_that_is_due_for_less_or_later_is_not_late(
        self, fake: FakePrefect, bench: Bench, deployment: Row, seconds: float
    ) -> None:
        fake.add_flow_run(deployment=deployment, scheduled_time=at(seconds))
        assert bench.read(LateRuns()) == {}

    def test_threshold_is_the_option(self, fake: FakePrefect, new_bench: Callable[..., Bench], deployment: Row) -> None:
        fake.add_flow_run(deployment=deployment, scheduled_time=at(-20))
        assert late(new_bench(late_start_threshold=19).read(LateRuns()))
        assert not late(new_bench(late_start_threshold=20).read(LateRuns()))

    @pytest.mark.parametrize('name', ['Scheduled', 'Late', 'Resuming', 'AwaitingRetry', 'My own'])
    def test_every_scheduled_state_can_be_late(
        self, fake: FakePrefect, bench: Bench, deployment: Row, name: str
    ) -> None:
        fake.add_flow_run(deployment=deployment, state=('SCHEDULED', name), scheduled_time=at(-60))
        assert list(late(bench.read(LateRuns())).values()) == [1]

    def test_run_that_waits_in_its_own_process_for_a_retry_is_not_late(
        self, fake: FakePrefect, bench: Bench, deployment: Row
    ) -> None:
        run = fake.add_flow_run(deployment=deployment, state=('SCHEDULED', 'AwaitingRetry'), scheduled_time=at(-60))
        run['empirical_policy']['retry_type'] = 'in_process'
        assert not late(bench.read(LateRuns()))

    def test_run_that_awaits_a_slot_is_late_by_when_it_was_expected_to_start(
        self, fake: FakePrefect, bench: Bench, deployment: Row, tags: Callable[..., tuple[str, ...]]
    ) -> None:
        run = fake.add_flow_run(deployment=deployment, scheduled_time=at(-100))
        fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingConcurrencySlot', at=at(-5), scheduled_time=at(25))
        found = bench.read(LateRuns())
        assert found['flow_runs.late.max_age', tags(late_reason='deployment_limit')] == 100

    def test_run_that_awaits_a_slot_and_is_due_again_counts_once(
        self, fake: FakePrefect, bench: Bench, deployment: Row
    ) -> None:
        run = fake.add_flow_run(deployment=deployment, scheduled_time=at(-100))
        fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingConcurrencySlot', at=at(-40), scheduled_time=at(-10))
        assert list(late(bench.read(LateRuns())).values()) == [1]

    @pytest.mark.parametrize('state_type', ['PENDING', 'RUNNING', 'PAUSED', 'CANCELLING', 'COMPLETED', 'CRASHED'])
    def test_run_in_another_state_is_not_late(
        self, fake: FakePrefect, bench: Bench, deployment: Row, state_type: str
    ) -> None:
        run = fake.add_flow_run(deployment=deployment, scheduled_time=at(-100))
        fake.set_flow_run_state(run, state_type)
        assert not late(bench.read(LateRuns()))


class TestReasons:
    @pytest.fixture(autouse=True)
    def late_run(self, fake: FakePrefect, deployment: Row) -> Row:
        return fake.add_flow_run(deployment=deployment, scheduled_time=at(-60))

    def test_nobody_picks_it_up_although_a_worker_is_online(self, bench: Bench) -> None:
        assert reasons(bench.read(LateRuns())) == ['work_not_picked_up']

    def test_pool_is_paused(self, bench: Bench, pool: Row) -> None:
        pool |= {'is_paused': True, 'status': 'PAUSED'}
        assert reasons(bench.read(LateRuns())) == ['pool_paused']

    def test_queue_is_paused(self, bench: Bench, queue: Row) -> None:
        queue |= {'is_paused': True, 'status': 'PAUSED'}
        assert reasons(bench.read(LateRuns())) == ['queue_paused']

    @pytest.mark.parametrize('statuses', [[], ['OFFLINE'], ['OFFLINE', 'OFFLINE']], ids=str)
    def test_no_worker_of_the_pool_is_online(
        self, fake: FakePrefect, bench: Bench, pool: Row, statuses: list[str]
    ) -> None:
        fake.remove(fake.tables['workers'].newest()[0])
        for number, status in enumerate(statuses):
            fake.add_worker(pool, f'worker {number}', status=status)
        fake.add_worker(fake.add_work_pool('other'))
        assert reasons(bench.read(LateRuns())) == ['no_worker']

    @pytest.mark.parametrize('pool_type', ['cloud-run:push', 'prefect:managed'])
    def test_pool_that_prefect_cloud_works_off_itself_misses_no_worker(
        self, fake: FakePrefect, bench: Bench, pool: Row, pool_type: str
    ) -> None:
        fake.remove(fake.tables['workers'].newest()[0])
        pool['type'] = pool_type
        assert reasons(bench.read(LateRuns())) == ['work_not_picked_up']

    @pytest.mark.parametrize(('status', 'reason'), [('READY', 'work_not_picked_up'), ('NOT_READY', 'no_worker')])
    def test_agents_show_in_the_queue_that_they_poll(
        self, fake: FakePrefect, bench: Bench, pool: Row, queue: Row, status: str, reason: str
    ) -> None:
        """Another queue of the pool is polled; agents are no workers."""
        fake.remove(fake.tables['workers'].newest()[0])
        pool |= {'type': 'prefect-agent', 'status': None}
        queue['status'] = status
        assert reasons(bench.read(LateRuns())) == [reason]

    @pytest.mark.parametrize('changes', [{}, {'deployment_names': {'include': ['hourly']}}], ids=['all', 'filter'])
    def test_slots_of_the_pool_are_taken_by_runs_of_all_its_queues(
        self, fake: FakePrefect, new_bench: Callable[..., Bench], pool: Row, changes: Row
    ) -> None:
        pool['concurrency_limit'] = 2
        other = fake.add_deployment(name='other', work_queue=fake.default_queue(pool))
        states = ('PENDING', 'CANCELLING', 'PAUSED')
        for state_type in states:
            fake.add_flow_run(deployment=other, state=(state_type, state_type.capitalize()))
        assert reasons(new_bench(**changes).read(LateRuns())) == ['work_not_picked_up']
        fake.add_flow_run(deployment=other, state=('RUNNING', 'Running'))
        assert reasons(new_bench(**changes).read(LateRuns())) == ['pool_limit']

    @pytest.mark.parametrize('changes', [{}, {'deployment_names': {'include': ['hourly']}}], ids=['all', 'filter'])
    def test_slots_of_the_queue_are_taken(
        self, fake: FakePrefect, new_bench: Callable[..., Bench], queue: Row, changes: Row
    ) -> None:
        queue['concurrency_limit'] = 2
        other = fake.add_deployment(name='other', work_queue=queue)
        fake.add_flow_run(deployment=other, state=('RUNNING', 'Running'))
        assert reasons(new_bench(**changes).read(LateRuns())) == ['work_not_picked_up']
        fake.add_flow_run(deployment=other, state=('PENDING', 'Submitting'))
        assert reasons(new_bench(**changes).read(LateRuns())) == ['queue_limit']

    @pytest.mark.parametrize(('kind', 'reason'), [('pool', 'pool_limit'), ('queue', 'queue_limit')])
    def test_limit_of_0_is_always_reached(self, bench: Bench, pool: Row, queue: Row, kind: str, reason: str) -> None:
        {'pool': pool, 'queue': queue}[kind]['concurrency_limit'] = 0
        assert reasons(bench.read(LateRuns())) == [reason]

    @pytest.mark.parametrize(
        ('state', 'retry_type', 'reason'),
        [
            pytest.param(('PENDING', 'Pending'), None, 'deployment_limit', id='pending'),
            pytest.param(('RUNNING', 'Running'), None, 'deployment_limit', id='running'),
            pytest.param(('CANCELLING', 'Cancelling'), None, 'deployment_limit', id='cancelling'),
            pytest.param(('SCHEDULED', 'AwaitingRetry'), 'in_process', 'deployment_limit', id='retries in its process'),
            pytest.param(('SCHEDULED', 'AwaitingRetry'), 'reschedule', 'work_not_picked_up', id='retried by hand'),
            pytest.param(('PAUSED', 'Paused'), None, 'work_not_picked_up', id='paused'),
            pytest.param(('COMPLETED', 'Completed'), None, 'work_not_picked_up', id='completed'),
        ],
    )
    def test_slot_of_the_deployment_is_taken(
        self,
        fake: FakePrefect,
        bench: Bench,
        deployment: Row,
        state: tuple[str, str],
        retry_type: str | None,
        reason: str,
    ) -> None:
        deployment |= limited(1)
        run = fake.add_flow_run(deployment=deployment, state=state, scheduled_time=at(5))
        run['empirical_policy']['retry_type'] = retry_type
        assert reasons(bench.read(LateRuns())) == [reason]

    @pytest.mark.parametrize(
        ('tried_again', 'reason'),
        [
            pytest.param(20, 'deployment_limit', id='put off'),
            pytest.param(-15, 'deployment_limit', id='about to be tried again'),
            pytest.param(-16, 'work_not_picked_up', id='not tried again'),
        ],
    )
    def test_server_knows_of_slots_whose_runs_are_gone(
        self, fake: FakePrefect, bench: Bench, late_run: Row, deployment: Row, tried_again: float, reason: str
    ) -> None:
        deployment |= limited(1)
        fake.set_flow_run_state(late_run, 'SCHEDULED', 'AwaitingConcurrencySlot', scheduled_time=at(tried_again))
        assert reasons(bench.read(LateRuns())) == [reason]

    def test_pause_of_a_deployment_with_a_pool_stops_nothing(self, bench: Bench, deployment: Row) -> None:
        deployment['paused'] = True
        assert reasons(bench.read(LateRuns())) == ['work_not_picked_up']


class TestWithoutPool:
    @pytest.mark.parametrize(
        ('columns', 'reason'),
        [
            pytest.param({'paused': True, 'status': 'READY'}, 'deployment_paused', id='paused'),
            pytest.param({'paused': True, 'status': 'NOT_READY'}, 'deployment_paused', id='paused and not polled'),
            pytest.param({'status': 'NOT_READY'}, 'no_worker', id='not polled'),
            pytest.param({'status': 'READY'}, 'work_not_picked_up', id='polled'),
            pytest.param({'status': None}, 'unknown', id='nothing known'),
            pytest.param({'status': 'READY'} | limited(0), 'deployment_limit', id='limit reached'),
        ],
    )
    def test_reason_is_told_by_the_deployment(self, fake: FakePrefect, bench: Bench, columns: Row, reason: str) -> None:
        fake.add_flow_run(deployment=fake.add_deployment(**columns), scheduled_time=at(-60))
        assert reasons(bench.read(LateRuns())) == [reason]

    def test_status_of_now_tells_the_reason(self, fake: FakePrefect, bench: Bench) -> None:
        """Among so many it would not be the turn of its deployment to be listed again."""
        flow = fake.add_flow()
        deployments = [
            fake.add_deployment(name=str(number), flow=flow, status='READY', updated=at(-9000 - number))
            for number in range(300)
        ]
        bench.read(Deployments())
        for deployment in deployments[::-1][:3]:
            fake.add_flow_run(deployment=deployment, scheduled_time=at(-60))
            deployment['status'] = 'NOT_READY'
        assert reasons(bench.read(LateRuns())) == ['no_worker'] * 3

    def test_run_of_a_work_queue_that_is_gone_is_seen_by_nobody(
        self, fake: FakePrefect, bench: Bench, deployment: Row, queue: Row, pool: Row
    ) -> None:
        fake.add_flow_run(deployment=deployment, scheduled_time=at(-60))
        assert reasons(bench.read(LateRuns())) == ['work_not_picked_up']
        fake.remove(queue)
        deployment |= {'status': 'NOT_READY'}
        assert reasons(bench.read(LateRuns())) == ['no_worker']
        other = fake.default_queue(pool)
        deployment |= {'work_queue_id': other['id'], 'work_queue_name': other['name'], 'work_pool_name': pool['name']}
        deployment |= {'status': 'READY', 'updated': at(5).isoformat()}
        assert reasons(bench.read(LateRuns())) == ['queue_deleted']

    def test_reason_of_a_run_without_deployment_is_unknown(self, fake: FakePrefect, bench: Bench, flow: Row) -> None:
        fake.add_flow_run(flow=flow, scheduled_time=at(-60))
        assert bench.read(LateRuns()) == {
            ('flow_runs.late', tags_of(flow=flow, late_reason='unknown')): 1,
            ('flow_runs.late.max_age', tags_of(flow=flow, late_reason='unknown')): 60,
        }


def test_tag_set_that_had_late_runs_is_0_for_five_minutes(
    fake: FakePrefect, bench: Bench, deployment: Row, tags: Callable[..., tuple[str, ...]]
) -> None:
    run = fake.add_flow_run(deployment=deployment, scheduled_time=at(-60))
    collector = LateRuns()
    with_reason = tags(late_reason='work_not_picked_up')
    was_late, age = ('flow_runs.late', with_reason), ('flow_runs.late.max_age', with_reason)
    assert bench.read(collector) == {was_late: 1, age: 60}
    fake.set_flow_run_state(run, 'RUNNING')
    for seconds in (15, 299):
        fake.now = at(seconds)
        assert bench.read(collector) == {was_late: 0, age: 0}
    fake.now += timedelta(seconds=15)
    bench.read(collector)
    fake.now += timedelta(seconds=15)
    assert bench.read(collector) == {}


@pytest.mark.parametrize(
    'changes',
    [
        {'work_pool_names': {'exclude': ['prod']}},
        {'work_queue_names': {'include': ['low']}},
        {'deployment_names': {'exclude': ['hourly']}},
    ],
    ids=str,
)
def test_excluded_runs_are_left_out(
    fake: FakePrefect, new_bench: Callable[..., Bench], deployment: Row, changes: Row
) -> None:
    fake.add_flow_run(deployment=deployment, scheduled_time=at(-60))
    assert new_bench(**changes).read(LateRuns()) == {}


def test_nothing_is_asked_for_that_other_collectors_do_not_ask_for(
    fake: FakePrefect, bench: Bench, pool: Row, queue: Row, deployment: Row
) -> None:
    pool['concurrency_limit'] = queue['concurrency_limit'] = 3
    fake.add_flow_run(deployment=deployment, scheduled_time=at(-60))
    run = bench.context()
    bench.read(Workers(), run)
    bench.read(WorkQueues(), run)
    run.inventory.deployments(), run.inventory.restarting_flow_runs(), run.inventory.tag(run.inventory.due_flow_runs())
    asked = len(fake.requests)
    bench.read(LateRuns(), run)
    assert len(fake.requests) == asked


def test_reason_is_not_guessed_when_a_lookup_fails(fake: FakePrefect, bench: Bench, deployment: Row) -> None:
    fake.add_flow_run(deployment=deployment, scheduled_time=at(-60))
    fake.fault = failing('/work_pools/prod/workers/filter')
    with pytest.raises(PrefectApiError):
        bench.read(LateRuns())
