from __future__ import annotations

from collections.abc import Iterable

import pytest

from datadog_checks.prefect.collectors import service_verdict
from datadog_checks.prefect.collectors.background_services import BackgroundServices
from tests.fake_prefect import FakePrefect, FakeResponse
from tests.fake_prefect.times import to_moment, to_text
from tests.unit.harness import Bench, Row, at, bodies, failing, run_through, sent

HOURLY = [{'active': True, 'max_scheduled_runs': None, 'schedule': {'cron': '0 * * * *'}}]
EACH_MINUTE = [{'active': True, 'max_scheduled_runs': None, 'schedule': {'interval': 60.0}}]

# Of each service that is reported: whether it is healthy, and its lag.
Found = dict[str, tuple[bool, float]]


@pytest.fixture(autouse=True)
def default_settings(fake: FakePrefect) -> None:
    """The recorded server had other intervals than the defaults."""
    tell_settings(fake)


@pytest.fixture(autouse=True)
def one_loop_tells_the_rhythm(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many it takes in an Agent is for `test_service_verdict`."""
    monkeypatch.setattr(service_verdict, 'RHYTHM', 1)


def tell_settings(fake: FakePrefect, *switched_off: str, **services: Row) -> None:
    """All services are switched on but these; the intervals are the defaults unless they are told."""
    names = (
        'scheduler',
        'late_runs',
        'foreman',
        'cancellation_cleanup',
        'task_run_recorder',
        'event_persister',
        'pause_expirations',
    )
    told = {name: {'enabled': name not in switched_off, **services.get(name, {})} for name in names}
    fake.fault = failing('/admin/settings', FakeResponse.of({'server': {'services': told}}))


class Checks:
    def __init__(self, fake: FakePrefect, bench: Bench) -> None:
        self._collector = BackgroundServices()
        self.fake = fake
        self._bench = bench

    def restart(self) -> None:
        self._collector = BackgroundServices()
        self._bench.restart()

    def at(self, second: float) -> Found:
        self.fake.now = at(second)
        found: dict[str, dict[str, float]] = {}
        for (name, tags), value in self._bench.read(self._collector).items():
            found.setdefault(name, {})[tags[0].removeprefix('background_service:')] = value
        healthy, lag = found.get('service.is_healthy', {}), found.get('service.lag_seconds', {})
        assert healthy.keys() == lag.keys()
        return {service: (bool(healthy[service]), lag[service]) for service in healthy}

    def verdicts(self, service: str, seconds: Iterable[int]) -> dict[bool | None, int]:
        """The first second of each verdict on a service."""
        first: dict[bool | None, int] = {}
        for second in seconds:
            found = self.at(second)
            first.setdefault(found[service][0] if service in found else None, second)
        return first


@pytest.fixture
def checks(fake: FakePrefect, bench: Bench) -> Checks:
    return Checks(fake, bench)


def test_nothing_is_said_on_an_idle_server(checks: Checks) -> None:
    assert checks.at(0) == checks.at(7200) == {}


def test_steady_server_is_asked_little_more(fake: FakePrefect, checks: Checks) -> None:
    deployment = fake.add_deployment(schedules=HOURLY)
    fake.add_flow_run(deployment=deployment, scheduled_time=at(9000), auto_scheduled=True)
    for second in range(1000, 1060, 15):
        checks.at(second)
    before = len(fake.requests)
    checks.at(1060)
    asked = [exchange.path.removeprefix('/api/') for exchange in fake.requests[before:]]
    assert [path for path in asked if path.startswith(('events', 'admin'))] == ['events/filter']
    checks.at(1075)
    assert len([body for body in bodies(fake, '/flow_runs/filter') if body['sort'] == 'EXPECTED_START_TIME_DESC']) == 2
    assert len(sent(fake, '/admin/settings')) == 1


class TestLateRunMarker:
    def run(self, fake: FakePrefect, due: float) -> Row:
        return fake.add_flow_run(scheduled_time=at(due), at=at(due - 100))

    def mark(self, fake: FakePrefect, run: Row, due: float, second: float) -> None:
        fake.set_flow_run_state(run, 'SCHEDULED', 'Late', scheduled_time=at(due), at=at(second))

    def test_run_that_is_not_called_late_is_a_symptom_once_some_were(self, fake: FakePrefect, checks: Checks) -> None:
        run, other = self.run(fake, 0), self.run(fake, 100)
        self.mark(fake, run, 0, 18)
        assert checks.at(30) == {'late_run_marker': (True, 0)}
        assert checks.at(120) == {'late_run_marker': (True, 0)}
        assert checks.at(125) == {'late_run_marker': (True, 5)}
        assert checks.at(181) == {'late_run_marker': (True, 61)}
        assert checks.at(186) == {'late_run_marker': (False, 66)}
        self.mark(fake, other, 100, 190)
        assert checks.at(200) == {'late_run_marker': (True, 0)}

    def test_threshold_of_services_in_a_process_of_their_own_is_learnt(self, fake: FakePrefect, checks: Checks) -> None:
        """The API's process says 15 s; the services, which run apart from it, are set to 300 s."""
        runs = {due: self.run(fake, due) for due in range(0, 3000, 150)}
        verdicts: list[bool | None] = []
        for second in range(0, 1800, 15):
            if second - 300 in runs:
                self.mark(fake, runs[second - 300], second - 300, second)
            found = checks.at(second).get('late_run_marker')
            verdicts.append(found[0] if found else None)
        assert verdicts[:20] == [None] * 20
        assert set(verdicts[20:]) == {True}
        # And now it dies. It paused for 150 s before.
        assert checks.verdicts('late_run_marker', range(1800, 3000, 15)) == {True: 1800, False: 1965}

    def test_event_tells_of_it_after_a_start(self, fake: FakePrefect, checks: Checks) -> None:
        run = run_through(fake, start=at(-3000))
        run |= {'expected_start_time': '2026-11-23T07:00:00Z', 'created': '2026-11-23T06:50:00Z'}
        resource = {'prefect.resource.id': f'prefect.flow-run.{run["id"]}'}
        fake.add_event('prefect.flow-run.Late', occurred=at(-3600 + 200), resource=resource, related=[])
        self.run(fake, 0)
        # 200 s were 180 s beyond the settings.
        assert checks.verdicts('late_run_marker', range(0, 600, 15)) == {True: 0, False: 270}

    def test_run_that_is_made_for_a_time_in_the_past_is_not_late_before_it_is_made(
        self, fake: FakePrefect, checks: Checks
    ) -> None:
        run = fake.add_flow_run(scheduled_time=at(-86400), at=at(0))
        assert checks.at(19) == {}
        self.mark(fake, run, -86400, 18)
        checks.at(30)
        self.run(fake, 30)
        assert checks.verdicts('late_run_marker', range(45, 300, 15)) == {True: 45, False: 120}

    def test_nothing_is_said_while_it_never_did_anything(self, fake: FakePrefect, checks: Checks) -> None:
        self.run(fake, 0)
        assert checks.verdicts('late_run_marker', range(0, 1200, 15)) == {None: 0, False: 930}

    def test_switched_off_on_purpose_it_is_not_accused(self, fake: FakePrefect, checks: Checks) -> None:
        run = self.run(fake, 0)
        self.mark(fake, run, 0, 18)
        assert checks.at(30) == {'late_run_marker': (True, 0)}
        # The server is restarted; the settings are asked for once an hour.
        tell_settings(fake, 'late_runs')
        self.run(fake, 60)
        assert checks.verdicts('late_run_marker', range(75, 4000, 15)) == {True: 75, None: 105}
        assert len(sent(fake, '/admin/settings')) <= 2 + 4000 / 60


class TestForeman:
    def queue(self, fake: FakePrefect, polled: float = 0) -> Row:
        pool = fake.add_work_pool('prod')
        fake.default_queue(pool).update(status='NOT_READY', last_polled=None)
        return fake.add_work_queue(pool, 'high', last_polled=at(polled))

    def test_queue_that_nobody_polls_and_is_ready_is_a_symptom_once_one_turned(
        self, fake: FakePrefect, checks: Checks
    ) -> None:
        queue = self.queue(fake)
        assert checks.at(60) == {}
        queue['status'] = 'NOT_READY'
        assert checks.at(75) == {'foreman': (True, 0)}
        queue |= {'status': 'READY', 'last_polled': '2026-11-23T08:05:00Z'}
        assert checks.verdicts('foreman', range(300, 600, 15)) == {True: 300, False: 450}

    def test_time_out_of_services_in_a_process_of_their_own_is_learnt(self, fake: FakePrefect, checks: Checks) -> None:
        queue = self.queue(fake)
        assert checks.verdicts('foreman', range(0, 600, 15)) == {None: 0}
        queue['status'] = 'NOT_READY'
        assert checks.at(600) == {'foreman': (True, 0)}
        queue |= {'status': 'READY', 'last_polled': '2026-11-23T08:20:00Z'}
        # 525 s beyond the settings, and four intervals.
        assert checks.verdicts('foreman', range(1200, 2400, 15)) == {True: 1200, False: 1875}

    def test_events_tell_of_it_after_a_start(self, fake: FakePrefect, checks: Checks) -> None:
        turned = self.queue(fake, -3600)
        turned['status'] = 'NOT_READY'
        resource = {'prefect.resource.id': f'prefect.work-queue.{turned["id"]}'}
        fake.add_event('prefect.work-queue.not-ready', occurred=at(-3535), resource=resource, related=[])
        fake.add_work_queue(fake.add_work_pool('test'), 'low', last_polled=at(0))
        fake.remove(next(row for row in fake.tables['work_queues'].newest() if row['work_pool_name'] == 'test'))
        assert checks.verdicts('foreman', range(0, 600, 15))[True] == 0

    def test_without_events_a_queue_that_turned_tells_that_it_lived(self, fake: FakePrefect, checks: Checks) -> None:
        self.queue(fake, -3600)['status'] = 'NOT_READY'
        assert checks.at(0) == {'foreman': (True, 0)}
        tell_settings(fake, 'foreman')
        checks.restart()
        assert checks.at(15) == {}

    def test_worker_that_is_online_and_gone_is_no_symptom(self, fake: FakePrefect, checks: Checks) -> None:
        """The API tells the status of workers by itself."""
        pool = fake.add_work_pool('prod')
        fake.default_queue(pool)['last_polled'] = None
        fake.add_worker(pool, status='ONLINE', last_heartbeat_time=at(0))
        assert checks.verdicts('foreman', range(0, 1800, 60)) == {None: 0}


class TestCancellationCleanup:
    def orphan(self, fake: FakePrefect, second: float, **run: Row) -> Row:
        parent = fake.add_flow_run(state=('RUNNING', 'Running'), at=at(second - 10))
        child = fake.add_flow_run(parent=parent, state=('RUNNING', 'Running'), at=at(second - 5), **run)
        fake.set_flow_run_state(parent, 'CANCELLED', at=at(second))
        return child

    def clean(self, fake: FakePrefect, child: Row, second: float, state_type: str = 'CANCELLED') -> None:
        fake.set_flow_run_state(child, state_type, message='The parent flow run was cancelled.', at=at(second))

    def test_subflow_that_outlives_a_cancelled_parent_is_a_symptom_once_some_were_ended(
        self, fake: FakePrefect, checks: Checks
    ) -> None:
        child = self.orphan(fake, 0)
        assert checks.at(10) == {}
        self.clean(fake, child, 12)
        assert checks.at(25) == {'cancellation_cleanup': (True, 0)}
        self.orphan(fake, 30)
        assert checks.at(50) == {'cancellation_cleanup': (True, 0)}
        assert checks.verdicts('cancellation_cleanup', range(60, 300, 15)) == {True: 60, False: 150}

    def test_subflow_that_its_worker_cancels_is_done_with(self, fake: FakePrefect, checks: Checks) -> None:
        child = self.orphan(fake, 0, deployment=fake.add_deployment())
        assert checks.at(30) == {}
        self.clean(fake, child, 40, 'CANCELLING')
        assert checks.at(45) == {'cancellation_cleanup': (True, 0)}

    def test_subflow_that_ends_by_itself_proves_nothing(self, fake: FakePrefect, checks: Checks) -> None:
        child = self.orphan(fake, 0)
        assert checks.at(10) == {}
        fake.set_flow_run_state(child, 'CANCELLED', at=at(12))
        assert checks.at(25) == {}

    def test_subflow_may_outlive_a_parent_that_was_not_cancelled(self, fake: FakePrefect, checks: Checks) -> None:
        parent = fake.add_flow_run(state=('RUNNING', 'Running'), at=at(-10))
        fake.add_flow_run(parent=parent, state=('RUNNING', 'Running'), at=at(-5))
        fake.set_flow_run_state(parent, 'COMPLETED', at=at(0))
        assert checks.verdicts('cancellation_cleanup', range(0, 1800, 60)) == {None: 0}

    def test_run_that_is_cancelling_beyond_its_time_is_one_too(self, fake: FakePrefect, checks: Checks) -> None:
        tell_settings(fake, cancellation_cleanup={'loop_seconds': 20, 'cancelling_timeout_seconds': 300})
        message = 'Flow run cancellation timed out; marked this flow run as Cancelled.'
        run = fake.add_flow_run(state=('CANCELLING', 'Cancelling'), at=at(0))
        assert checks.at(300) == {}
        fake.set_flow_run_state(run, 'CANCELLED', message=message, at=at(305))
        assert checks.at(315) == {'cancellation_cleanup': (True, 0)}
        fake.add_flow_run(state=('CANCELLING', 'Cancelling'), at=at(330))
        # 300 s, an interval, and four of them.
        assert checks.verdicts('cancellation_cleanup', range(330, 1200, 15)) == {True: 330, False: 750}


class TestScheduler:
    def plan(self, fake: FakePrefect, deployment: Row, made: float, *due: float) -> None:
        for second in due:
            fake.add_flow_run(deployment=deployment, scheduled_time=at(second), at=at(made), auto_scheduled=True)

    def deployment(self, fake: FakePrefect, schedules: list[Row] = HOURLY, **columns: object) -> Row:
        return fake.add_deployment(schedules=schedules, updated=at(-86400), **columns)

    def test_plan_that_is_not_made_good_is_a_symptom(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = self.deployment(fake, EACH_MINUTE)
        self.plan(fake, deployment, -90, *range(0, 3500, 60))
        self.plan(fake, deployment, -30, 3540)
        assert checks.at(0) == {'scheduler': (True, 0)}
        self.plan(fake, deployment, 30, 3600)
        assert checks.at(60) == {'scheduler': (True, 0)}
        # At 180 s it reaches 57 minutes ahead, less than the settings ask for with some slack, and four intervals pass.
        assert checks.verdicts('scheduler', range(75, 900, 15)) == {True: 75, False: 420}
        self.plan(fake, deployment, 900, *range(3660, 4500, 60))
        assert checks.at(915)['scheduler'] == (True, 0)

    @pytest.mark.parametrize(
        ('ahead', 'number'),
        [
            pytest.param(600, 10, id='SCHEDULER_MAX_RUNS'),
            pytest.param(120, 2, id='SCHEDULER_MIN_SCHEDULED_TIME and MIN_RUNS'),
            pytest.param(60, 1, id='a run at a time'),
        ],
    )
    def test_plan_that_is_short_on_purpose_is_none(
        self, fake: FakePrefect, checks: Checks, ahead: int, number: int
    ) -> None:
        """The last due is `ahead` from now when another run is planned."""
        deployment = self.deployment(fake, EACH_MINUTE)
        self.plan(fake, deployment, -600, *range(0, ahead, 60))
        verdicts = set()
        for second in range(0, 3600, 15):
            if second % 60 == 30:
                self.plan(fake, deployment, second, second - 30 + ahead)
            verdicts.add(checks.at(second).get('scheduler', (None, 0))[0])
        assert False not in verdicts
        assert True in verdicts
        # It dies: the plan becomes shorter than it ever was.
        found = checks.verdicts('scheduler', range(3600, 6000, 15))
        assert found[True] == 3600
        assert 3600 + 240 <= found[False] <= 3600 + 480

    def test_run_that_is_planned_just_before_it_is_due_is_none(self, fake: FakePrefect, checks: Checks) -> None:
        """SCHEDULER_MAX_SCHEDULED_TIME of ten minutes, an hourly deployment: there is no plan for most of the time."""
        deployment = self.deployment(fake)
        verdicts = set()
        for second in range(0, 5 * 3600, 60):
            if second % 3600 == 3000:
                self.plan(fake, deployment, second, second + 600)
            verdicts.add(checks.at(second).get('scheduler', (None, 0))[0])
        assert verdicts == {None, True}
        found = checks.verdicts('scheduler', range(5 * 3600, 8 * 3600, 60))
        assert found[True] == 5 * 3600
        assert 5 * 3600 + 3000 + 900 < found[False] < 5 * 3600 + 3600 + 900

    def test_what_was_planned_tells_after_a_start(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = self.deployment(fake)
        self.plan(fake, deployment, -9000, -7200, -3600, 0)
        self.plan(fake, deployment, -7190, 3600)
        self.plan(fake, deployment, -3590, 7200)
        # Three runs are planned, the fourth when the first is due. It paused for an hour before.
        assert checks.verdicts('scheduler', range(0, 14400, 60)) == {True: 0, False: 4680}

    def test_edit_of_a_schedule_tells_nothing_of_how_short_plans_are(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = self.deployment(fake)
        self.plan(fake, deployment, -90000, -87000)
        self.plan(fake, deployment, -86390, -82800, -79200, 0)
        assert checks.verdicts('scheduler', range(0, 14400, 60)) == {True: 0, False: 4680}

    def test_schedule_without_any_run_is_one_when_it_has_been_due(self, fake: FakePrefect, checks: Checks) -> None:
        self.deployment(fake)
        # An hour, its rest, a quarter of an hour.
        assert checks.verdicts('scheduler', range(0, 14400, 60)) == {None: 0, False: 4680}

    def test_schedule_that_the_scheduler_cannot_read_is_none_beside_others(
        self, fake: FakePrefect, checks: Checks
    ) -> None:
        self.deployment(fake, name='broken')
        deployment = self.deployment(fake)
        self.plan(fake, deployment, -100, 3600, 7200, 10_800, 14_400)
        assert checks.verdicts('scheduler', range(0, 9000, 60)) == {True: 0}

    def test_schedule_that_is_switched_off_meanwhile_is_none(self, fake: FakePrefect, checks: Checks) -> None:
        flow, queue = fake.add_flow(), fake.default_queue(fake.add_work_pool())
        queue |= {'status': 'NOT_READY', 'last_polled': None}
        deployment = self.deployment(fake, EACH_MINUTE, work_queue=queue, status='NOT_READY')
        for number in range(600):
            fake.add_deployment(flow=flow, work_queue=queue, status='NOT_READY', updated=at(-9000 - number))
        self.plan(fake, deployment, -90, *range(0, 3600, 60))
        self.plan(fake, deployment, -30, 3600)
        checks.at(0)
        # No edit of the deployment, which is not listed again for it.
        deployment['schedules'] = [EACH_MINUTE[0] | {'active': False}]
        assert set(checks.verdicts('scheduler', range(15, 600, 15))) == {True}

    @pytest.mark.parametrize(
        'columns',
        [
            pytest.param({'schedules': []}, id='no schedule'),
            pytest.param({'schedules': [HOURLY[0] | {'active': False}]}, id='inactive'),
            pytest.param({'paused': True}, id='paused'),
            pytest.param({'updated': at(7200)}, id='edited just now'),
            pytest.param({'schedules': [HOURLY[0] | {'schedule': {'rrule': 'FREQ=DAILY;COUNT=1'}}]}, id='rule'),
            pytest.param({'schedules': [HOURLY[0] | {'schedule': {'cron': '0 0 29 2 *'}}]}, id='leap day'),
            pytest.param({'schedules': [HOURLY[0] | {'max_scheduled_runs': 1}]}, id='limited'),
        ],
    )
    def test_deployment_that_may_have_none_is_not_looked_at(
        self, fake: FakePrefect, checks: Checks, columns: Row
    ) -> None:
        fake.add_deployment(**({'schedules': HOURLY, 'updated': at(-86400)} | columns))
        assert checks.verdicts('scheduler', range(0, 7200, 60)) == {None: 0}


class TestTaskRunRecorder:
    def happen(self, fake: FakePrefect, second: float, task_run: Row | None = None) -> Row:
        """An event of a task run of a flow run that is there; without a row it is not recorded."""
        flow_run = fake.add_flow_run(state=('RUNNING', 'Running'), at=at(second))
        gone = '00000000-0000-4000-8000-000000000000'
        resource = {'prefect.resource.id': f'prefect.task-run.{task_run["id"] if task_run else gone}'}
        related = {'prefect.resource.id': f'prefect.flow-run.{flow_run["id"]}', 'prefect.resource.role': 'flow-run'}
        fake.add_event('prefect.task-run.Completed', occurred=at(second), resource=resource, related=[related])
        return flow_run

    def recorded(self, fake: FakePrefect, second: float) -> None:
        self.happen(fake, second, fake.add_task_run(state=('COMPLETED', 'Completed'), at=at(second)))

    def test_event_that_is_in_no_row_is_a_symptom_once_some_were(self, fake: FakePrefect, checks: Checks) -> None:
        self.recorded(fake, -30)
        assert checks.at(0) == {'task_run_recorder': (True, 0)}
        self.happen(fake, 30)
        assert checks.at(60) == {'task_run_recorder': (True, 30)}
        assert checks.at(105) == {'task_run_recorder': (True, 75)}
        assert checks.at(120) == {'task_run_recorder': (False, 90)}
        self.recorded(fake, 130)
        assert checks.at(180) == {'task_run_recorder': (True, 0)}

    def test_dead_recorder_of_a_busy_server_is_found_too(self, fake: FakePrefect, checks: Checks) -> None:
        self.recorded(fake, -30)
        verdicts = {}
        for second in range(0, 600, 15):
            verdicts.setdefault(checks.at(second)['task_run_recorder'][0], second)
            self.happen(fake, second)
        assert verdicts == {True: 0, False: 120}

    def test_event_that_was_lost_is_no_symptom_while_others_are_recorded(
        self, fake: FakePrefect, checks: Checks
    ) -> None:
        self.recorded(fake, -30)
        checks.at(0)
        self.happen(fake, 30)
        checks.at(60)
        for second in range(75, 900, 15):
            self.recorded(fake, second - 30)
            assert checks.at(second)['task_run_recorder'][0]

    def test_row_of_an_earlier_state_is_one(self, fake: FakePrefect, checks: Checks) -> None:
        self.recorded(fake, -3600)
        task_run = fake.add_task_run(state=('RUNNING', 'Running'), at=at(0))
        self.happen(fake, 5, task_run)
        # How long it takes is not known.
        assert checks.verdicts('task_run_recorder', range(30, 1200, 15)) == {True: 30, False: 930}
        fake.set_task_run_state(task_run, 'COMPLETED', at=at(5))
        assert checks.at(1230) == {'task_run_recorder': (True, 0)}

    def test_row_that_has_ended_is_recorded_whatever_comes_later(self, fake: FakePrefect, checks: Checks) -> None:
        self.recorded(fake, -3600)
        self.happen(fake, 5, fake.add_task_run(state=('COMPLETED', 'Completed'), at=at(0), end_time=at(0)))
        assert checks.verdicts('task_run_recorder', range(30, 1200, 15)) == {True: 30}

    def test_task_run_that_was_deleted_is_none(self, fake: FakePrefect, checks: Checks) -> None:
        self.recorded(fake, -3600)
        fake.remove(self.happen(fake, 0))
        assert checks.verdicts('task_run_recorder', range(30, 1800, 30)) == {True: 30}

    def test_server_without_events_tells_nothing_of_it(self, fake: FakePrefect, checks: Checks) -> None:
        fake.fault = failing('/events/filter', 404)
        assert checks.at(0) == {}


class TestEventPersister:
    def happen(self, fake: FakePrefect, second: float, *, is_written: bool) -> None:
        """A flow run enters a state, with an event or without."""
        run = fake.add_flow_run(state=('PENDING', 'Pending'), at=at(second))
        if is_written:
            fake.add_event(
                'prefect.flow-run.Pending', occurred=at(second), visible_from=at(second + 5), id=run['state_id']
            )

    def test_events_that_are_not_written_down_are_a_symptom_once_some_were(
        self, fake: FakePrefect, checks: Checks
    ) -> None:
        verdicts: list[bool | None] = []
        for second in range(0, 1500, 15):
            self.happen(fake, second - 7, is_written=second < 600)
            verdicts.append(checks.at(second).get('event_persister', (None,))[0])
        assert set(verdicts[: 600 // 15]) == {True}
        # It stays so, however long ago the first of them was.
        first = verdicts.index(False)
        assert 660 < 15 * first < 760
        assert set(verdicts[first:]) == {False}
        for second in (1500, 1515, 1530, 1545, 1560, 1575):
            self.happen(fake, second - 7, is_written=True)
            found = checks.at(second)
        assert found['event_persister'] == (True, 0)

    def test_what_a_server_that_was_killed_had_not_written_yet_is_none(self, fake: FakePrefect, checks: Checks) -> None:
        for second in (0, 60):
            self.happen(fake, second, is_written=True)
            checks.at(second + 60)
        for second in (121, 123):
            self.happen(fake, second, is_written=False)
        assert checks.verdicts('event_persister', range(135, 1500, 15)) == {True: 135}

    def test_one_that_wrote_none_is_accused_after_a_while_if_it_is_switched_on(
        self, fake: FakePrefect, checks: Checks
    ) -> None:
        for second in range(0, 1200, 60):
            self.happen(fake, second, is_written=False)
        assert checks.verdicts('event_persister', range(60, 1500, 15)) == {None: 60, False: 1020}

    def test_switched_off_it_is_not_accused(self, fake: FakePrefect, checks: Checks) -> None:
        tell_settings(fake, 'event_persister')
        for second in range(0, 1200, 60):
            self.happen(fake, second, is_written=False)
        assert checks.verdicts('event_persister', range(60, 1500, 15)) == {None: 60}

    def test_services_apart_that_write_down_events_of_their_own_live(self, fake: FakePrefect, checks: Checks) -> None:
        """Without a common broker the events of clients do not get to them."""
        for second in range(0, 3000, 60):
            self.happen(fake, second, is_written=False)
            if second % 600 == 300:
                fake.add_event('prefect.flow-run.Late', occurred=at(second))
        assert checks.verdicts('event_persister', range(60, 3000, 30)) == {None: 60, True: 360}

    def test_states_of_background_services_tell_nothing(self, fake: FakePrefect, checks: Checks) -> None:
        for second in range(0, 1200, 60):
            fake.add_flow_run(state=('SCHEDULED', 'Late'), scheduled_time=at(second), at=at(second))
        assert 'event_persister' not in checks.at(1300)


class TestPauseExpirations:
    MESSAGE = 'The flow was paused and never resumed.'

    def pause(self, fake: FakePrefect, until: float) -> Row:
        run = fake.add_flow_run(state=('PAUSED', 'Suspended'), at=at(until - 300))
        run['state']['state_details']['pause_timeout'] = to_text(at(until))
        return run

    def test_run_that_is_not_failed_when_its_pause_is_over_is_a_symptom_once_some_were(
        self, fake: FakePrefect, checks: Checks
    ) -> None:
        run, other = self.pause(fake, 10), self.pause(fake, 300)
        assert checks.at(0) == {}
        fake.set_flow_run_state(run, 'FAILED', at=at(13), message=self.MESSAGE)
        assert checks.at(15) == {'pause_expirations': (True, 0)}
        assert checks.verdicts('pause_expirations', range(30, 600, 15)) == {True: 30, False: 375}
        fake.set_flow_run_state(other, 'FAILED', at=at(610), message=self.MESSAGE)
        assert checks.at(615) == {'pause_expirations': (True, 0)}

    def test_run_that_somebody_resumes_or_fails_is_no_work_of_it(self, fake: FakePrefect, checks: Checks) -> None:
        resumed, failed = self.pause(fake, 100), self.pause(fake, 100)
        self.pause(fake, 9000)
        checks.at(0)
        fake.set_flow_run_state(resumed, 'RUNNING', at=at(10))
        fake.set_flow_run_state(failed, 'FAILED', at=at(10), message='enough')
        assert checks.verdicts('pause_expirations', range(15, 1500, 30)) == {None: 15}

    def test_event_tells_of_it_after_a_start(self, fake: FakePrefect, checks: Checks) -> None:
        event = fake.add_event('prefect.flow-run.Failed', occurred=at(-3600))
        event['resource'] |= {'prefect.state-message': self.MESSAGE}
        assert checks.at(0)['pause_expirations'] == (True, 0)

    def test_switched_off_it_is_not_accused(self, fake: FakePrefect, checks: Checks) -> None:
        tell_settings(fake, 'pause_expirations')
        self.pause(fake, 0)
        assert checks.verdicts('pause_expirations', range(0, 1800, 30)) == {None: 0}

    def test_without_work_it_is_accused_after_a_while_if_it_is_switched_on(
        self, fake: FakePrefect, checks: Checks
    ) -> None:
        self.pause(fake, 0)
        assert checks.verdicts('pause_expirations', range(0, 1800, 15)) == {None: 0, False: 915}


class TestDatabaseVacuum:
    RETENTION = 86400

    @pytest.fixture(autouse=True)
    def settings(self, fake: FakePrefect) -> None:
        self.tell(fake, ['events'])

    def tell(self, fake: FakePrefect, enabled: object, loop: float = 60) -> None:
        services = {'db_vacuum': {'enabled': enabled, 'loop_seconds': loop}, 'event_persister': {'enabled': True}}
        document = {'server': {'services': services, 'events': {'retention_period': 'P1D'}}}
        fake.fault = failing('/admin/settings', FakeResponse.of(document))

    def event(self, fake: FakePrefect, second: float) -> Row:
        """An event that is too old from that second on."""
        return fake.add_event('prefect.work-pool.ready', occurred=at(second - self.RETENTION))

    def test_events_that_are_too_old_are_a_symptom_once_some_went(self, fake: FakePrefect, checks: Checks) -> None:
        events = [self.event(fake, second) for second in range(0, 1200, 100)]
        for second in range(0, 600, 15):
            if second % 60 == 45:
                for event in [item for item in events if to_moment(item['occurred']) < at(second - self.RETENTION)]:
                    fake.remove(event)
                    events.remove(event)
            found = checks.at(second)
        assert found['db_vacuum'] == (True, 0)
        # 600 is due, 120 s later it is overdue, and 240 s after that it is a symptom.
        assert checks.verdicts('db_vacuum', range(600, 1500, 15)) == {True: 600, False: 975}

    @pytest.mark.parametrize('enabled', [['flow_runs'], None], ids=str)
    def test_switched_off_it_is_not_accused(self, fake: FakePrefect, checks: Checks, enabled: object) -> None:
        self.tell(fake, enabled)
        self.event(fake, 0)
        assert checks.verdicts('db_vacuum', range(0, 3000, 60)) == {None: 0}

    def test_one_that_deleted_nothing_may_be_set_to_keep_them_for_longer(
        self, fake: FakePrefect, checks: Checks
    ) -> None:
        self.event(fake, 0)
        assert checks.verdicts('db_vacuum', range(0, 9000, 60)) == {None: 0}

    def test_server_that_does_not_know_it_says_nothing(self, fake: FakePrefect, checks: Checks) -> None:
        tell_settings(fake)
        self.event(fake, 0)
        assert 'db_vacuum' not in checks.at(9000)

    def test_oldest_event_is_looked_for_every_ten_minutes(self, fake: FakePrefect, checks: Checks) -> None:
        self.tell(fake, ['events'], 3600)
        for second in range(0, 3600, 15):
            checks.at(second)
        asked = [body for body in bodies(fake, '/events/filter') if body['filter']['order'] == 'ASC']
        assert len(asked) == 6


def test_intervals_are_those_of_the_server(fake: FakePrefect, checks: Checks) -> None:
    tell_settings(fake, late_runs={'loop_seconds': 60, 'after_seconds': 'PT5M'})
    fake.set_flow_run_state(
        fake.add_flow_run(scheduled_time=at(-1000), at=at(-1100)),
        'SCHEDULED',
        'Late',
        scheduled_time=at(-1000),
        at=at(-690),
    )
    fake.add_flow_run(scheduled_time=at(0), at=at(-100))
    assert checks.verdicts('late_run_marker', range(0, 900, 15)) == {True: 0, False: 615}


def test_server_that_hides_its_settings_is_judged_by_what_it_shows(fake: FakePrefect, checks: Checks) -> None:
    fake.fault = failing('/admin/settings', 403)
    run = fake.add_flow_run(scheduled_time=at(0), at=at(-100))
    assert checks.verdicts('late_run_marker', range(0, 2000, 15)) == {None: 0}
    fake.set_flow_run_state(run, 'SCHEDULED', 'Late', scheduled_time=at(0), at=at(2000))
    assert checks.at(2010) == {'late_run_marker': (True, 0)}
