from __future__ import annotations

from collections.abc import Callable

import pytest

from datadog_checks.prefect.api.times import format_time
from datadog_checks.prefect.collectors.background_services import BackgroundServices
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, at, bodies, failing, sent

SERVICES = ('scheduler', 'late_run_marker', 'foreman', 'cancellation_cleanup', 'task_run_recorder')
HOURLY = [{'active': True, 'max_scheduled_runs': None, 'schedule': {'cron': '0 * * * *'}}]


@pytest.fixture(autouse=True)
def default_settings(fake: FakePrefect) -> None:
    """The recorded server had other intervals than the defaults; without the endpoint those count."""
    fake.fault = failing('/admin/settings', 403)


@pytest.fixture
def bench(new_bench: Callable[..., Bench]) -> Bench:
    return new_bench(collect_events=True)


@pytest.fixture
def collector() -> BackgroundServices:
    return BackgroundServices()


def judged(bench: Bench, collector: BackgroundServices, second: float) -> tuple[set[str], dict[str, float]]:
    """The services that are unhealthy at a second, and the lags above 0."""
    bench.fake.now = at(second)
    found = {(name, tags[0].partition(':')[2]): value for (name, tags), value in bench.read(collector).items()}
    assert {service for _, service in found} == set(SERVICES)
    unhealthy = {service for service in SERVICES if not found['service.is_healthy', service]}
    lags = {service: found['service.lag_seconds', service] for service in SERVICES}
    return unhealthy, {service: lag for service, lag in lags.items() if lag}


def late_run(fake: FakePrefect) -> Row:
    return fake.add_flow_run(scheduled_time=at(0), at=at(-100))


def unpolled_pool(fake: FakePrefect) -> Row:
    pool = fake.add_work_pool('prod')
    fake.default_queue(pool)['status'] = 'NOT_READY'
    return pool


def lost_worker(fake: FakePrefect) -> Row:
    pool = unpolled_pool(fake)
    return fake.add_worker(pool, status='ONLINE', last_heartbeat_time=at(0), heartbeat_interval_seconds=10)


def forgotten_queue(fake: FakePrefect) -> Row:
    pool = unpolled_pool(fake)
    return fake.add_work_queue(pool, 'high', status='READY', last_polled=at(0))


def orphan(fake: FakePrefect) -> Row:
    parent = fake.add_flow_run(state=('RUNNING', 'Running'), at=at(-10))
    child = fake.add_flow_run(parent=parent, state=('RUNNING', 'Running'), at=at(-5))
    fake.set_flow_run_state(parent, 'CANCELLED', at=at(0))
    return child


def mark_late(fake: FakePrefect, run: Row) -> None:
    fake.set_flow_run_state(run, 'SCHEDULED', 'Late', scheduled_time=at(0))


# Service, what makes work for it, what does that work, and the second from which on it is overdue.
WORK: list[tuple[str, Callable[[FakePrefect], Row], Callable[[FakePrefect, Row], object], float]] = [
    ('late_run_marker', late_run, mark_late, 20),
    ('foreman', lost_worker, lambda fake, worker: worker.update(status='OFFLINE'), 45),
    ('foreman', forgotten_queue, lambda fake, queue: queue.update(status='NOT_READY'), 75),
    ('cancellation_cleanup', orphan, lambda fake, child: fake.set_flow_run_state(child, 'CANCELLED'), 20),
]


@pytest.mark.parametrize(('service', 'happen', 'work', 'due'), WORK, ids=[happen.__name__ for _, happen, _, _ in WORK])
def test_work_that_stays_undone_makes_its_service_unhealthy_until_it_is_done(
    fake: FakePrefect,
    bench: Bench,
    collector: BackgroundServices,
    service: str,
    happen: Callable[[FakePrefect], Row],
    work: Callable[[FakePrefect, Row], object],
    due: float,
) -> None:
    row = happen(fake)
    assert judged(bench, collector, due) == (set(), {})
    assert judged(bench, collector, due + 1) == (set(), {service: 1})
    assert judged(bench, collector, due + 60) == (set(), {service: 60})
    assert judged(bench, collector, due + 90) == ({service}, {service: 90})
    work(fake, row)
    assert judged(bench, collector, due + 100) == (set(), {})


def test_work_left_from_an_outage_is_no_symptom_while_the_server_catches_up(
    fake: FakePrefect, bench: Bench, collector: BackgroundServices
) -> None:
    run, worker, child = late_run(fake), lost_worker(fake), orphan(fake)
    unhealthy, lags = judged(bench, collector, 3600)
    assert unhealthy == set()
    assert set(lags) == {'late_run_marker', 'foreman', 'cancellation_cleanup'}
    mark_late(fake, run)
    worker['status'] = 'OFFLINE'
    fake.set_flow_run_state(child, 'CANCELLED')
    assert judged(bench, collector, 3700) == (set(), {})


def test_subflow_that_its_worker_cancels_is_done_with(
    fake: FakePrefect, bench: Bench, collector: BackgroundServices
) -> None:
    parent = fake.add_flow_run(state=('RUNNING', 'Running'), at=at(-10))
    child = fake.add_flow_run(deployment=fake.add_deployment(), parent=parent, state=('RUNNING', 'Running'), at=at(-5))
    fake.set_flow_run_state(parent, 'CANCELLED', at=at(0))
    assert judged(bench, collector, 30) == (set(), {'cancellation_cleanup': 10})
    fake.set_flow_run_state(child, 'CANCELLING')
    assert judged(bench, collector, 40) == (set(), {})


def test_subflow_may_outlive_a_parent_that_was_not_cancelled(
    fake: FakePrefect, bench: Bench, collector: BackgroundServices
) -> None:
    parent = fake.add_flow_run(state=('RUNNING', 'Running'), at=at(-10))
    fake.add_flow_run(parent=parent, state=('RUNNING', 'Running'), at=at(-5))
    fake.set_flow_run_state(parent, 'COMPLETED', at=at(0))
    assert judged(bench, collector, 300) == (set(), {})


def test_worker_that_sends_its_heartbeats_late_is_no_symptom(
    fake: FakePrefect, bench: Bench, collector: BackgroundServices
) -> None:
    worker = lost_worker(fake)
    for second in range(0, 600, 60):
        worker['last_heartbeat_time'] = format_time(at(second))
        assert judged(bench, collector, second + 59) == (set(), {'foreman': 14})


class TestScheduler:
    def test_schedule_without_runs_far_enough_ahead_is_a_symptom(
        self, fake: FakePrefect, bench: Bench, collector: BackgroundServices
    ) -> None:
        deployment = fake.add_deployment(schedules=HOURLY)
        fake.add_flow_run(deployment=deployment, scheduled_time=at(7200), auto_scheduled=True)
        assert judged(bench, collector, 3000) == (set(), {})
        assert judged(bench, collector, 3800) == (set(), {})
        assert judged(bench, collector, 4000) == (set(), {'scheduler': 200})
        assert judged(bench, collector, 4050) == ({'scheduler'}, {'scheduler': 250})
        fake.add_flow_run(deployment=deployment, scheduled_time=at(10_800), auto_scheduled=True)
        assert judged(bench, collector, 4060) == (set(), {})

    def test_plan_is_asked_for_once_in_an_interval_of_the_scheduler(
        self, fake: FakePrefect, bench: Bench, collector: BackgroundServices
    ) -> None:
        fake.add_deployment(schedules=HOURLY)
        asked = 0
        for second, is_due in ((1000, True), (1015, False), (1059, False), (1060, True), (1000, True), (1015, False)):
            judged(bench, collector, second)
            asked += is_due
            assert len([body for body in bodies(fake, '/deployments/count') if 'flow_runs' in body]) == asked

    @pytest.mark.parametrize(
        'deployment',
        [
            pytest.param({'schedules': []}, id='no schedule'),
            pytest.param({'schedules': [HOURLY[0] | {'active': False}]}, id='inactive'),
            pytest.param({'schedules': HOURLY, 'paused': True}, id='paused'),
            pytest.param({'schedules': [HOURLY[0] | {'schedule': {'rrule': 'FREQ=DAILY;COUNT=1'}}]}, id='rule'),
            pytest.param({'schedules': [HOURLY[0] | {'schedule': {'cron': '0 0 29 2 *'}}]}, id='leap day'),
            pytest.param({'schedules': [HOURLY[0] | {'schedule': {'interval': 30.0}}]}, id='100 runs are no hour'),
            pytest.param({'schedules': [HOURLY[0] | {'max_scheduled_runs': 1}]}, id='limited'),
        ],
    )
    def test_deployment_that_may_have_none_is_not_looked_at(
        self, fake: FakePrefect, bench: Bench, collector: BackgroundServices, deployment: Row
    ) -> None:
        fake.add_deployment(**deployment)
        for second in (1000, 2000):
            assert judged(bench, collector, second) == (set(), {})


class TestTaskRunRecorder:
    def happen(self, fake: FakePrefect, second: float, task_run_id: str) -> None:
        resource = {'prefect.resource.id': f'prefect.task-run.{task_run_id}'}
        fake.add_event('prefect.task-run.Completed', occurred=at(second), resource=resource, related=[])

    def test_event_that_is_in_no_row_is_a_symptom(
        self, fake: FakePrefect, bench: Bench, collector: BackgroundServices
    ) -> None:
        gone = '00000000-0000-4000-8000-000000000000'
        self.happen(fake, 0, gone)
        assert judged(bench, collector, 10) == (set(), {})
        assert judged(bench, collector, 20) == (set(), {'task_run_recorder': 20})
        assert judged(bench, collector, 90) == ({'task_run_recorder'}, {'task_run_recorder': 90})
        assert judged(bench, collector, 700) == (set(), {})

    def test_row_of_an_earlier_state_is_a_symptom(
        self, fake: FakePrefect, bench: Bench, collector: BackgroundServices
    ) -> None:
        task_run = fake.add_task_run(state=('RUNNING', 'Running'), at=at(0))
        self.happen(fake, 5, task_run['id'])
        assert judged(bench, collector, 30) == (set(), {'task_run_recorder': 25})
        fake.set_task_run_state(task_run, 'COMPLETED', at=at(5))
        assert judged(bench, collector, 31) == (set(), {})

    def test_event_that_is_recorded_is_asked_for_once(
        self, fake: FakePrefect, bench: Bench, collector: BackgroundServices
    ) -> None:
        task_run = fake.add_task_run(state=('RUNNING', 'Running'), at=at(0))
        self.happen(fake, 0, task_run['id'])
        for second in (20, 30, 40):
            assert judged(bench, collector, second) == (set(), {})
        assert len(sent(fake, '/task_runs/filter')) == 1

    def test_without_collect_events_none_is_asked_for(
        self, fake: FakePrefect, new_bench: Callable[..., Bench], collector: BackgroundServices
    ) -> None:
        found = {tags[0].partition(':')[2] for _, tags in new_bench().read(collector)}
        assert found == set(SERVICES) - {'task_run_recorder'}
        assert sent(fake, '/events/filter') == []

    def test_server_without_events_tells_nothing_of_it(
        self, fake: FakePrefect, bench: Bench, collector: BackgroundServices
    ) -> None:
        fake.fault = failing('/events/filter', 404)
        found = {tags[0].partition(':')[2] for _, tags in bench.read(collector)}
        assert found == set(SERVICES) - {'task_run_recorder'}


def test_intervals_are_those_of_the_server(fake: FakePrefect, bench: Bench, collector: BackgroundServices) -> None:
    fake.fault = None
    run = fake.add_flow_run(state=('CANCELLING', 'Cancelling'), at=at(0))
    assert run['state_type'] == 'CANCELLING'
    # cancelling_timeout_seconds 300, loop_seconds 20.
    assert judged(bench, collector, 321) == (set(), {'cancellation_cleanup': 1})
    assert len(sent(fake, '/admin/settings')) == 1


def test_steady_server_is_asked_one_question_more(
    fake: FakePrefect, bench: Bench, collector: BackgroundServices
) -> None:
    deployment = fake.add_deployment(schedules=HOURLY)
    fake.add_flow_run(deployment=deployment, scheduled_time=at(9000), auto_scheduled=True)
    judged(bench, collector, 1000)
    before = len(fake.requests)
    judged(bench, collector, 1015)
    own = [exchange.path.removeprefix('/api/') for exchange in fake.requests[before:]]
    assert [path for path in own if path.startswith(('events', 'task_runs', 'admin'))] == ['events/filter']
    assert 'deployments/count' not in own
