from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.collectors import deployment_outcomes
from datadog_checks.prefect.collectors.flow_runs import FlowRuns
from datadog_checks.prefect.collectors.freshness import Freshness
from tests.fake_prefect import FakePrefect
from tests.fake_prefect.times import to_text
from tests.unit.harness import Bench, Row, failing, run_through, sent, tags_of

FAILED = ('FAILED', None)
CRASHED = ('CRASHED', None)
CANCELLED = ('CANCELLED', None)
COMPLETED = ('COMPLETED', None)
AGE = 'seconds_since_success'
FAILURES = 'consecutive_failures'
NEXT = 'seconds_until_next_run'
SCHEDULES = 'schedules.active'
WITHOUT_RUN = 'schedules.is_without_run'
SCHEDULE = {'id': '5b1c0f3e-0b7b-4c6f-8f2e-5b8a4b5c7d11', 'active': True, 'schedule': {'cron': '0 * * * *'}}


class Checks:
    """Runs of one collector, 15 s apart."""

    def __init__(self, fake: FakePrefect, bench: Bench) -> None:
        self._collector = Freshness()
        self._fake = fake
        self._bench = bench

    def restart(self) -> None:
        self._bench.restart()

    def next(self, after: float = 15) -> dict[str, dict[str, float]]:
        """The values of the next run by the name of the deployment."""
        self._fake.now += timedelta(seconds=after)
        found: dict[str, dict[str, float]] = {}
        for (name, tags), value in self._bench.read(self._collector).items():
            deployment = next(tag for tag in tags if tag.startswith('deployment_name:')).partition(':')[2]
            found.setdefault(deployment, {})[name.removeprefix('deployment.')] = value
        return found

    def of(self, deployment: Row, after: float = 15) -> dict[str, float]:
        return self.next(after)[deployment['name']]


@pytest.fixture
def checks(fake: FakePrefect, bench: Bench) -> Checks:
    return Checks(fake, bench)


@pytest.fixture
def deployment(fake: FakePrefect) -> Row:
    return fake.add_deployment(name='hourly')


@pytest.fixture
def ran(fake: FakePrefect, deployment: Row) -> Callable[..., Row]:
    """Let a run of the deployment end so many seconds before now."""

    def add(ago: float, end: tuple[str, str | None] = COMPLETED, of: Row = deployment) -> Row:
        return run_through(fake, deployment=of, start=fake.now - timedelta(seconds=ago + 1), seconds=1, end=end)

    return add


def test_every_series_carries_the_tags_of_its_deployment(fake: FakePrefect, bench: Bench) -> None:
    flow = fake.add_flow('etl')
    queue = fake.add_work_queue(fake.add_work_pool('prod'), 'high')
    deployment = fake.add_deployment(name='hourly', flow=flow, work_queue=queue, schedules=[SCHEDULE])
    run_through(fake, deployment=deployment, start=fake.now - timedelta(seconds=60), seconds=20)
    fake.add_flow_run(deployment=deployment, auto_scheduled=True, scheduled_time=fake.now + timedelta(seconds=600))
    tags = tags_of(deployment=deployment, flow=flow, work_queue=queue, is_paused=False)
    assert bench.read(Freshness()) == {
        ('deployment.seconds_since_success', tags): 40,
        ('deployment.consecutive_failures', tags): 0,
        ('deployment.seconds_until_next_run', tags): 600,
        ('deployment.schedules.active', tags): 1,
        ('deployment.schedules.is_without_run', tags): 0,
    }


class TestPast:
    def test_deployment_that_never_ran_has_no_success_and_no_failure(self, checks: Checks, deployment: Row) -> None:
        assert checks.of(deployment) == {FAILURES: 0, SCHEDULES: 0, WITHOUT_RUN: 0}

    @pytest.mark.parametrize(
        ('ends', 'age', 'failures'),
        [
            pytest.param([(90, COMPLETED)], 105, 0, id='success'),
            pytest.param([(90, COMPLETED), (60, FAILED), (30, CRASHED)], 105, 2, id='failures after success'),
            pytest.param([(90, FAILED), (60, FAILED)], None, 2, id='never a success'),
            pytest.param([(90, FAILED), (60, COMPLETED)], 75, 0, id='success after failure'),
            pytest.param([(90, FAILED), (60, COMPLETED), (30, FAILED)], 75, 1, id='failure, success, failure'),
            pytest.param([(90, COMPLETED), (60, FAILED), (30, CANCELLED)], 105, 1, id='cancelled is neither'),
            pytest.param([(90, ('COMPLETED', 'Cached'))], 105, 0, id='success with another name'),
            pytest.param([(90, ('FAILED', 'TimedOut'))], None, 1, id='timed out'),
        ],
    )
    def test_past_is_read_after_a_start_and_followed_from_then_on(
        self,
        checks: Checks,
        fake: FakePrefect,
        deployment: Row,
        ran: Callable[..., Row],
        ends: list[tuple[float, tuple[str, str | None]]],
        age: float | None,
        failures: int,
    ) -> None:
        begin = fake.now
        for ago, end in ends:
            ran(ago, end)
        found = checks.of(deployment)
        assert (found.get(AGE), found[FAILURES]) == (age, failures)
        # The same while the check looks on.
        fake.now = begin + timedelta(days=1)
        other = Checks(fake, checks._bench)
        fresh = fake.add_deployment(name='fresh')
        other.next(after=0)
        for ago, end in ends:
            ran(ago - 95, end, of=fresh)
            found = other.of(fresh)
        assert found[FAILURES] == failures
        assert (AGE in found) is (age is not None)

    def test_restart_changes_nothing(self, checks: Checks, deployment: Row, ran: Callable[..., Row]) -> None:
        checks.next()
        for end in (COMPLETED, FAILED, FAILED):
            ran(1, end)
            before = checks.of(deployment)
        checks.restart()
        assert checks.of(deployment, after=0) == before
        assert before[FAILURES] == 2

    def test_no_history_is_downloaded_in_the_steady_state(
        self, fake: FakePrefect, checks: Checks, ran: Callable[..., Row]
    ) -> None:
        for ago in range(1000):
            ran(600 + ago)
        checks.next()
        checks.next()
        fake.requests.clear()
        checks.next()
        bodies = [exchange.body['flow_runs'] for exchange in sent(fake, '/flow_runs/filter')]
        assert [body['end_time'].keys() for body in bodies if 'end_time' in body] == [{'after_', 'before_'}]
        assert sum(exchange.response_bytes for exchange in sent(fake, '/flow_runs/filter')) < 100

    def test_failed_request_loses_no_end(
        self, fake: FakePrefect, checks: Checks, deployment: Row, ran: Callable[..., Row]
    ) -> None:
        checks.next()
        ran(1, FAILED)
        fake.fault = failing('/flow_runs/filter')
        with pytest.raises(PrefectApiError):
            checks.next()
        fake.fault = None
        assert checks.of(deployment)[FAILURES] == 1

    def test_a_gap_longer_than_the_catch_up_starts_anew(
        self, fake: FakePrefect, checks: Checks, deployment: Row, ran: Callable[..., Row]
    ) -> None:
        ran(5)
        checks.next()
        fake.now += timedelta(hours=3)
        ran(3600 * 2, FAILED)
        fake.requests.clear()
        assert checks.of(deployment)[FAILURES] == 1
        assert not [
            body for body in sent(fake, '/flow_runs/filter') if 'after_' in body.body['flow_runs'].get('end_time', {})
        ]

    def test_more_than_a_hundred_failures_are_a_hundred(
        self, checks: Checks, fake: FakePrefect, deployment: Row, ran: Callable[..., Row]
    ) -> None:
        success = ran(10_000)
        for ago in range(450):
            ran(450 - ago, FAILED)
        found = checks.of(deployment)
        assert found[FAILURES] == 100
        assert found[AGE] == (fake.now - datetime.fromisoformat(success['end_time'])).total_seconds()
        ran(1)
        assert checks.of(deployment)[FAILURES] == 0

    def test_excluded_deployments_are_not_asked_for(
        self, fake: FakePrefect, new_bench: Callable[..., Bench], deployment: Row, ran: Callable[..., Row]
    ) -> None:
        other = fake.add_deployment(name='other')
        ran(5, FAILED)
        ran(5, FAILED, of=other)
        found = Checks(fake, new_bench(deployment_names={'exclude': ['other']})).next()
        assert found.keys() == {'hourly'}
        assert found['hourly'][FAILURES] == 1


class TestRetriesByHand:
    def retry(self, fake: FakePrefect, run: Row) -> None:
        fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry')

    def end(self, fake: FakePrefect, run: Row, state_type: str) -> None:
        fake.set_flow_run_state(run, 'RUNNING')
        fake.set_flow_run_state(run, state_type, at=fake.now + timedelta(seconds=1))

    @pytest.mark.parametrize('is_seen_failed', [True, False])
    def test_failed_run_that_is_retried_counts_once_if_it_fails_again(
        self, fake: FakePrefect, checks: Checks, deployment: Row, ran: Callable[..., Row], is_seen_failed: bool
    ) -> None:
        ran(50)
        if is_seen_failed:
            run = ran(5, FAILED)
            assert checks.of(deployment)[FAILURES] == 1
        else:
            checks.next()
            run = ran(5, FAILED)
        self.retry(fake, run)
        assert checks.of(deployment)[FAILURES] == 0
        self.end(fake, run, 'FAILED')
        assert checks.of(deployment)[FAILURES] == 1
        checks.restart()
        assert checks.of(deployment)[FAILURES] == 1

    def test_success_of_a_retry_is_a_success(
        self, fake: FakePrefect, checks: Checks, deployment: Row, ran: Callable[..., Row]
    ) -> None:
        run = ran(50, FAILED)
        ran(30, FAILED)
        assert checks.of(deployment)[FAILURES] == 2
        self.retry(fake, run)
        self.end(fake, run, 'COMPLETED')
        found = checks.of(deployment)
        assert (found[FAILURES], found[AGE]) == (0, 14)

    def test_retry_that_is_cancelled_is_no_failure_any_more(
        self, fake: FakePrefect, checks: Checks, deployment: Row, ran: Callable[..., Row]
    ) -> None:
        run = ran(50, FAILED)
        checks.next()
        self.retry(fake, run)
        self.end(fake, run, 'CANCELLED')
        assert checks.of(deployment)[FAILURES] == 0


class TestWhatAPersonDoes:
    """A run that is set to another terminal state keeps its end."""

    def force(self, fake: FakePrefect, run: Row, state_type: str) -> None:
        end = run['end_time']
        fake.set_flow_run_state(run, state_type)
        assert run['end_time'] == end

    def assert_as_a_fresh_agent(self, checks: Checks, deployment: Row) -> dict[str, float]:
        found = checks.of(deployment)
        checks.restart()
        assert checks.of(deployment, after=0) == found
        return found

    @pytest.mark.parametrize('which', [0, 1, 2])
    @pytest.mark.parametrize('by', ['COMPLETED', 'CANCELLED', 'delete'])
    def test_failure_that_a_person_silences_is_none_at_the_next_check(
        self, fake: FakePrefect, checks: Checks, deployment: Row, ran: Callable[..., Row], which: int, by: str
    ) -> None:
        ran(100)
        failed = [ran(50, FAILED), ran(30, CRASHED), ran(10, FAILED)]
        assert checks.of(deployment)[FAILURES] == 3
        if by == 'delete':
            fake.remove(failed[which])
        else:
            self.force(fake, failed[which], by)
        found = self.assert_as_a_fresh_agent(checks, deployment)
        assert found[FAILURES] == (2 - which if by == 'COMPLETED' else 2)
        ends = (50, 30, 10)
        assert found[AGE] == 30 + (ends[which] if by == 'COMPLETED' else 100)

    @pytest.mark.parametrize('by', ['FAILED', 'CANCELLED', 'delete'])
    def test_success_that_was_none_is_found_within_ten_minutes(
        self, fake: FakePrefect, checks: Checks, deployment: Row, ran: Callable[..., Row], by: str
    ) -> None:
        ran(100)
        ran(80, FAILED)
        success = ran(50)
        ran(10, FAILED)
        begin = fake.now
        assert checks.of(deployment)[FAILURES] == 1
        if by == 'delete':
            fake.remove(success)
        else:
            self.force(fake, success, by)
        for _ in range(40):
            found = checks.of(deployment)
        assert fake.now - begin <= timedelta(minutes=11)
        assert found == self.assert_as_a_fresh_agent(checks, deployment) | {AGE: found[AGE]}
        assert found[FAILURES] == (3 if by == 'FAILED' else 2)
        assert found[AGE] == (fake.now - begin).total_seconds() - 15 + 100

    def test_cancelled_run_that_a_person_completes_is_a_success(
        self, fake: FakePrefect, checks: Checks, deployment: Row, ran: Callable[..., Row]
    ) -> None:
        ran(100)
        ran(50, FAILED)
        cancelled = ran(30, CANCELLED)
        ran(10, FAILED)
        assert checks.of(deployment)[FAILURES] == 2
        self.force(fake, cancelled, 'COMPLETED')
        found = self.assert_as_a_fresh_agent(checks, deployment)
        assert (found[FAILURES], found[AGE]) == (1, 60)

    def test_many_cancelled_runs_hide_no_failure(
        self, fake: FakePrefect, checks: Checks, deployment: Row, ran: Callable[..., Row]
    ) -> None:
        other = fake.add_deployment(name='other')
        for item in (deployment, other):
            ran(3000, of=item)
            ran(2900, FAILED, of=item)
        for number in range(450):
            ran(450 - number, CANCELLED)
        found = checks.next()
        assert [found[name][FAILURES] for name in ('hourly', 'other')] == [1, 1]

    def test_failure_that_is_deleted_of_more_than_a_hundred_leaves_a_hundred(
        self, fake: FakePrefect, checks: Checks, deployment: Row, ran: Callable[..., Row]
    ) -> None:
        failed = [ran(300 - ago, FAILED) for ago in range(150)]
        assert checks.of(deployment)[FAILURES] == 100
        fake.remove(failed[-1])
        assert self.assert_as_a_fresh_agent(checks, deployment)[FAILURES] == 100

    def test_many_failures_are_asked_for_in_turns(self, fake: FakePrefect, checks: Checks) -> None:
        flow = fake.add_flow()
        failed = []
        for number in range(12):
            deployment = fake.add_deployment(name=str(number), flow=flow)
            for ago in range(100):
                start = fake.now - timedelta(seconds=300 - ago)
                failed.append(run_through(fake, deployment=deployment, start=start, seconds=1, end=FAILED))
        # In a few runs of the check all is read.
        for _ in range(6):
            checks.next()
        for run in failed:
            self.force(fake, run, 'COMPLETED')
        for _ in range(3):
            fake.requests.clear()
            found = checks.next()
            by_id = [body for body in sent(fake, '/flow_runs/filter') if 'id' in body.body['flow_runs']]
            assert len(by_id) <= 5
        assert {values[FAILURES] for values in found.values()} == {0}

    def test_nothing_is_asked_while_nothing_failed(
        self, fake: FakePrefect, checks: Checks, ran: Callable[..., Row]
    ) -> None:
        ran(10)
        checks.next()
        fake.requests.clear()
        for _ in range(40):
            checks.next()
        assert len([body for body in sent(fake, '/flow_runs/filter') if 'id' in body.body['flow_runs']]) == 2


class TestLargeServers:
    def test_past_of_a_thousand_deployments_is_read_in_minutes(self, fake: FakePrefect, checks: Checks) -> None:
        """Every minute, every hour, every day, never; and one that fails all the time."""
        flow = fake.add_flow()
        expected: dict[str, tuple[float | None, int]] = {}
        now = fake.now
        for number in range(1000):
            edited = now - timedelta(seconds=number)
            deployment = fake.add_deployment(name=str(number), flow=flow, updated=edited)
            every, ends = ((60, 10), (3600, 5), (86400, 3), (0, 0))[number % 4]
            for count in range(1, ends + 1):
                end = FAILED if count == 1 and number % 8 == 0 else COMPLETED
                start = now - timedelta(seconds=every * count + number)
                run_through(fake, deployment=deployment, start=start, seconds=0.5, end=end)
            failures = int(bool(ends) and number % 8 == 0)
            expected[str(number)] = (every * (1 + failures) + number - 0.5 if ends else None, failures)
        hopeless = fake.add_deployment(name='hopeless', flow=flow)
        for count in range(300):
            run_through(fake, deployment=hopeless, start=now - timedelta(seconds=count + 1), seconds=0.5, end=FAILED)
        expected['hopeless'] = (None, 100)
        for _ in range(8):
            fake.requests.clear()
            found = checks.next(after=0)
            bodies = [exchange.body['flow_runs'] for exchange in sent(fake, '/flow_runs/filter')]
            assert (
                len([body for body in bodies if 'is_null_' in body.get('end_time', {})])
                <= deployment_outcomes._REQUESTS
            )
        assert {name: (values.get(AGE), values[FAILURES]) for name, values in found.items()} == expected

    def test_nothing_is_told_of_what_is_not_read_yet(
        self, fake: FakePrefect, checks: Checks, monkeypatch: pytest.MonkeyPatch, ran: Callable[..., Row]
    ) -> None:
        monkeypatch.setattr(deployment_outcomes, '_REQUESTS', 0)
        deployment = fake.add_deployment(name='another')
        checks.next()
        ran(1, FAILED, of=deployment)
        assert FAILURES not in checks.of(deployment)
        ran(1, of=deployment)
        assert checks.of(deployment)[FAILURES] == 0


class TestNextRun:
    def test_next_run_is_the_first_that_is_not_due(self, fake: FakePrefect, checks: Checks, deployment: Row) -> None:
        for seconds in (-600, 10, 40, 7200):
            fake.add_flow_run(deployment=deployment, scheduled_time=fake.now + timedelta(seconds=seconds))
        assert checks.of(deployment)[NEXT] == 25
        assert checks.of(deployment, after=10)[NEXT] == 15

    def test_future_runs_are_counted_once_for_both_collectors(self, fake: FakePrefect, bench: Bench) -> None:
        fake.add_deployment()
        run = bench.context()
        bench.read(FlowRuns(), run)
        before = len(sent(fake, '/flow_runs/count'))
        bench.read(Freshness(), run)
        assert len(sent(fake, '/flow_runs/count')) == before > 0


class TestSchedules:
    def schedule(self, deployment: Row, *are_active: bool, **changes: Any) -> None:
        deployment |= {'schedules': [SCHEDULE | {'active': is_active} for is_active in are_active], **changes}

    def test_only_active_schedules_count(self, checks: Checks, deployment: Row) -> None:
        self.schedule(deployment, True, False, True)
        assert checks.of(deployment)[SCHEDULES] == 2

    def test_schedule_without_a_run_is_told_after_two_minutes(
        self, fake: FakePrefect, checks: Checks, deployment: Row
    ) -> None:
        self.schedule(deployment, True)
        assert [checks.of(deployment)[WITHOUT_RUN] for _ in range(10)] == [0] * 8 + [1] * 2
        fake.add_flow_run(deployment=deployment, auto_scheduled=True, scheduled_time=fake.now + timedelta(hours=1))
        assert checks.of(deployment)[WITHOUT_RUN] == 0

    @pytest.mark.parametrize(
        'changes', [{'paused': True}, {'schedules': []}, {'schedules': [SCHEDULE | {'active': False}]}], ids=str
    )
    def test_deployment_that_is_not_to_run_is_not_without_a_run(
        self, checks: Checks, deployment: Row, changes: Row
    ) -> None:
        self.schedule(deployment, True)
        deployment |= changes
        assert [checks.of(deployment)[WITHOUT_RUN] for _ in range(10)] == [0] * 10

    def test_schedule_that_is_switched_off_is_no_edit_and_yet_noticed(
        self, fake: FakePrefect, checks: Checks, deployment: Row
    ) -> None:
        """Among so many deployments it would not be its turn to be listed again."""
        flow = fake.add_flow()
        for number in range(300):
            fake.add_deployment(name=str(number), flow=flow)
        self.schedule(deployment, True)
        run = fake.add_flow_run(
            deployment=deployment, auto_scheduled=True, scheduled_time=fake.now + timedelta(hours=1)
        )
        assert checks.of(deployment)[SCHEDULES] == 1
        self.schedule(deployment, False)
        fake.remove(run)
        found = checks.of(deployment)
        assert found[SCHEDULES] == 0
        self.schedule(deployment, True)
        fake.add_flow_run(deployment=deployment, auto_scheduled=True, scheduled_time=fake.now + timedelta(hours=1))
        deployment['updated'] = to_text(fake.now - timedelta(days=1))
        assert [checks.of(deployment)[SCHEDULES] for _ in range(3)][-1] == 1
