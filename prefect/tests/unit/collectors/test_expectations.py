from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import DAILY, HOURLY, MINUTELY, MONTHLY, WEEKLY, rrule
from hypothesis import given, settings
from hypothesis import strategies as st

from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.collectors.expectations import Expectations
from datadog_checks.prefect.collectors.freshness import Freshness
from tests.fake_prefect import FakePrefect
from tests.unit.harness import START, Bench, Row, bodies, failing, run_through

HOUR, DAY = 3600.0, 86400.0
AGE, AGE_RATIO = 'max_age_seconds', 'max_age_ratio'
RUN_TIME, RUN_TIME_RATIO = 'max_run_time_seconds', 'max_run_time_ratio'
SCHEDULE = {'id': '5b1c0f3e-0b7b-4c6f-8f2e-5b8a4b5c7d11', 'active': True, 'schedule': {'cron': '0 * * * *'}}
BERLIN = ZoneInfo('Europe/Berlin')
FAILED = ('FAILED', None)
CANCELLED = ('CANCELLED', None)

Found = dict[str, tuple[float, str]]


class Checks:
    """Runs of the collector."""

    def __init__(self, fake: FakePrefect, bench: Bench) -> None:
        self.fake = fake
        self.bench = bench

    def next(self, after: float = 15) -> dict[str, Found]:
        """What the next run says by the name of the deployment: the value and the source of each series."""
        self.fake.now += timedelta(seconds=after)
        found: dict[str, Found] = {}
        for (name, tags), value in self.bench.read(Expectations()).items():
            by_key = dict(tag.split(':', 1) for tag in tags)
            series = found.setdefault(by_key['deployment_name'], {})
            name = name.removeprefix('deployment.expectation.')
            if value or name not in series:
                series[name] = (value, by_key['expectation_source'])
        return found

    def of(self, deployment: Row, after: float = 15) -> Found:
        return self.next(after).get(deployment['name'], {})

    def ratio(self, deployment: Row, after: float = 15) -> float:
        return self.of(deployment, after)[AGE_RATIO][0]


@pytest.fixture
def checks(fake: FakePrefect, bench: Bench) -> Checks:
    return Checks(fake, bench)


@pytest.fixture
def with_options(fake: FakePrefect, new_bench: Callable[..., Bench]) -> Callable[..., Checks]:
    return lambda *entries: Checks(fake, new_bench(expectations=list(entries)))


def made(fake: FakePrefect, name: str = 'hourly', age: float = 365 * DAY, **changes: object) -> Row:
    """A deployment that was made so many seconds ago."""
    return fake.add_deployment(name=name, created=fake.now - timedelta(seconds=age), **changes)


def scheduled(fake: FakePrefect, name: str = 'hourly', **changes: object) -> Row:
    return made(fake, name, schedules=[SCHEDULE], **changes)


def ran(
    fake: FakePrefect,
    deployment: Row,
    ago: float,
    seconds: float = 1,
    end: tuple[str, str | None] = ('COMPLETED', None),
    due_before: float = 0,
    auto_scheduled: bool = True,
) -> Row:
    """A run that ended so long ago, ran so many seconds, and was due so many before it started."""
    start = fake.now - timedelta(seconds=ago + seconds)
    run = run_through(fake, deployment=deployment, start=start, seconds=seconds, end=end, auto_scheduled=auto_scheduled)
    run['expected_start_time'] = (start - timedelta(seconds=due_before)).strftime('%Y-%m-%dT%H:%M:%S.%fZ')
    return run


def plan(fake: FakePrefect, deployment: Row, ahead: float) -> Row:
    return fake.add_flow_run(
        deployment=deployment, auto_scheduled=True, scheduled_time=fake.now + timedelta(seconds=ahead)
    )


class TestOptionsAndTags:
    @pytest.mark.parametrize(
        ('text', 'seconds'),
        [
            *(('90', 90), (90, 90), (1.5, 1.5), ('45s', 45)),
            *(('30m', 1800), ('26h', 26 * 3600), ('2d', 2 * DAY), ('1w', 7 * DAY)),
        ],
    )
    def test_durations_are_seconds_or_have_a_unit(
        self, fake: FakePrefect, with_options: Callable[..., Checks], text: object, seconds: float
    ) -> None:
        deployment = made(fake)
        tagged = made(fake, 'tagged', tags=[f'expect:max_age={text}'])
        for item in (deployment, tagged):
            ran(fake, item, 85)
        checks = with_options({'deployment_names': {'include': ['^hourly$']}, 'max_age': text})
        found = checks.next()
        assert found['hourly'] == {AGE: (100, 'option'), AGE_RATIO: (pytest.approx(100 / seconds), 'option')}
        assert found['tagged'] == {AGE: (100, 'tag'), AGE_RATIO: (pytest.approx(100 / seconds), 'tag')}

    def test_per_key_the_first_entry_that_has_it_wins_then_the_tag_then_the_rhythm(
        self, fake: FakePrefect, with_options: Callable[..., Checks]
    ) -> None:
        deployment = scheduled(fake, 'etl-daily', tags=['expect:max_age=1h', 'expect:max_run_time=1h'])
        tagged = scheduled(fake, 'other', tags=['expect:max_age=1h'])
        untagged = scheduled(fake, 'plain')
        for item in (deployment, tagged, untagged):
            for ago in range(1, 8):
                ran(fake, item, ago * 100)
            plan(fake, item, 1000)
            fake.add_flow_run(deployment=item, state=('RUNNING', 'Running'), at=fake.now - timedelta(seconds=15))
        checks = with_options(
            {'deployment_names': {'include': ['^nothing$']}, 'max_age': 1},
            {'deployment_names': ['^etl-'], 'max_age': '100s'},
            {'deployment_names': {'include': ['daily'], 'exclude': ['x']}, 'max_age': '1d', 'max_run_time': 30},
            {'deployment_names': {'include': ['^etl-']}, 'max_run_time': 10},
        )
        found = checks.next()
        assert found['etl-daily'][AGE_RATIO] == (1.15, 'option')
        assert found['etl-daily'][RUN_TIME_RATIO] == (1.0, 'option')
        assert found['other'][AGE_RATIO] == (115 / 3600, 'tag')
        assert found['other'][RUN_TIME_RATIO] == (30 / 62, 'history')
        assert found['plain'][AGE_RATIO][1] == 'schedule'

    @pytest.mark.parametrize('off', ['off', 'Off', False])
    def test_off_switches_one_off_whatever_comes_after_it(
        self, fake: FakePrefect, with_options: Callable[..., Checks], off: object
    ) -> None:
        deployment = scheduled(fake, tags=['expect:max_age=1h', 'expect:max_run_time=1h'])
        by_tag = scheduled(fake, 'by tag', tags=['expect:max_age=off', 'expect:max_run_time=off'])
        for item in (deployment, by_tag):
            ran(fake, item, 100)
            plan(fake, item, 1000)
            fake.add_flow_run(deployment=item, state=('RUNNING', 'Running'))
        checks = with_options({'deployment_names': {'exclude': ['tag']}, 'max_age': off})
        assert checks.next() == {'hourly': {RUN_TIME: (15, 'tag'), RUN_TIME_RATIO: (15 / 3600, 'tag')}}

    def test_entry_without_names_is_for_all(self, fake: FakePrefect, with_options: Callable[..., Checks]) -> None:
        ran(fake, made(fake), 85)
        assert with_options({'max_age': 50}).next()['hourly'][AGE_RATIO] == (2, 'option')

    @pytest.mark.parametrize(
        'tag',
        [
            'expect:',
            'expect:max_age',
            'expect:max_ages=1h',
            *(f'expect:max_age={text}' for text in ('', '0', '-1h', '26 hours', 'nan', '1h30m', '\uff11h')),
        ],
    )
    def test_bad_tag_is_skipped_with_one_warning(
        self, fake: FakePrefect, checks: Checks, caplog: pytest.LogCaptureFixture, tag: str
    ) -> None:
        deployment = scheduled(fake, tags=['team:data', tag])
        ran(fake, deployment, 85)
        plan(fake, deployment, 1000)
        with caplog.at_level(logging.WARNING):
            found = [checks.of(deployment) for _ in range(3)]
        assert [item[AGE_RATIO][1] for item in found] == ['schedule'] * 3
        (record,) = caplog.records
        assert repr('hourly') in record.getMessage()
        assert repr(tag) in record.getMessage()

    def test_of_two_tags_the_longer_counts(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = made(fake, tags=['expect:max_age=200', 'expect:max_age = 400'])
        ran(fake, deployment, 85)
        assert checks.ratio(deployment) == 0.25


class TestSince:
    """From when the time counts."""

    def test_time_counts_from_the_last_success(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = made(fake, tags=['expect:max_age=1h'])
        ran(fake, deployment, 300)
        ran(fake, deployment, 200)
        ran(fake, deployment, 100, end=FAILED)
        assert checks.of(deployment)[AGE] == (215, 'tag')
        ran(fake, deployment, 0)
        assert checks.of(deployment)[AGE] == (15, 'tag')

    def test_never_run_counts_from_its_creation(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = made(fake, age=7200, tags=['expect:max_age=1h'])
        assert checks.of(deployment, after=0) == {AGE: (7200, 'tag'), AGE_RATIO: (2, 'tag')}
        ran(fake, made(fake, 'other'), 3 * HOUR)
        assert checks.of(deployment, after=0)[AGE] == (7200, 'tag')

    def test_where_the_server_deletes_old_runs_it_counts_from_the_end_of_the_oldest(
        self, fake: FakePrefect, checks: Checks
    ) -> None:
        other = made(fake, 'other')
        ran(fake, other, 1800)
        ran(fake, other, 60)
        deployment = made(fake, tags=['expect:max_age=1h'])
        assert checks.of(deployment, after=0)[AGE] == (1800, 'tag')

    def test_oldest_run_is_asked_for_now_and_then(self, fake: FakePrefect, checks: Checks) -> None:
        oldest = ran(fake, made(fake, 'other'), 1800)
        ran(fake, made(fake, 'another'), 600)
        deployment = made(fake, tags=['expect:max_age=1h'])
        checks.next(after=0)
        fake.remove(oldest)
        fake.requests.clear()
        found = [checks.of(deployment)[AGE][0] for _ in range(50)]
        assert found[-1] == 600 + 50 * 15
        asked = [body for body in bodies(fake, '/flow_runs/filter') if body.get('sort') == 'EXPECTED_START_TIME_ASC']
        assert len(asked) == 1

    def test_success_that_was_seen_stays_known(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = made(fake, tags=['expect:max_age=1h'])
        ran(fake, made(fake, 'other'), 20)
        success = ran(fake, deployment, 100)
        assert checks.of(deployment)[AGE] == (115, 'tag')
        fake.remove(success)
        for _ in range(50):
            found = checks.of(deployment)
        assert found[AGE] == (115 + 50 * 15, 'tag')
        # Over a time without checks, too.
        assert checks.of(deployment, after=3 * HOUR)[AGE] == (115 + 50 * 15 + 3 * HOUR, 'tag')

    def test_success_that_a_person_marks_failed_is_none(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = made(fake, tags=['expect:max_age=1h'])
        ran(fake, deployment, 1000)
        success = ran(fake, deployment, 100)
        assert checks.of(deployment)[AGE] == (115, 'tag')
        fake.set_flow_run_state(success, 'FAILED')
        for _ in range(40):
            found = checks.of(deployment)
        assert found[AGE] == (1015 + 40 * 15, 'tag')

    def test_paused_has_none_and_its_series_end_in_zeros(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = made(fake, tags=['expect:max_age=50'])
        ran(fake, deployment, 85)
        assert checks.ratio(deployment) == 2
        deployment |= {'paused': True, 'updated': '2026-11-23T08:00:20Z'}
        assert [checks.of(deployment).get(AGE_RATIO) for _ in range(25)] == [(0, 'tag')] * 20 + [None] * 5

    def test_resumed_counts_from_then(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = made(fake, tags=['expect:max_age=1h'], paused=True)
        ran(fake, deployment, 10 * DAY)
        assert checks.of(deployment) == {}
        deployment |= {'paused': False, 'updated': '2026-11-23T08:00:20Z'}
        assert checks.of(deployment)[AGE] == (0, 'tag')
        assert checks.of(deployment)[AGE] == (15, 'tag')

    def test_schedule_that_is_switched_on_counts_from_then(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = made(fake, tags=['expect:max_age=1h'], schedules=[SCHEDULE | {'active': False}])
        ran(fake, deployment, 10 * DAY)
        assert checks.ratio(deployment) > 200
        deployment['schedules'] = [SCHEDULE]
        plan(fake, deployment, 600)
        assert checks.of(deployment)[AGE] == (0, 'tag')

    def test_on_demand_has_none_of_its_own(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = made(fake)
        ran(fake, deployment, 100)
        off = made(fake, 'off', schedules=[SCHEDULE | {'active': False}])
        ran(fake, off, 100)
        assert checks.next() == {}

    def test_nothing_is_told_of_a_past_that_is_not_read(self, fake: FakePrefect, checks: Checks) -> None:
        made(fake, tags=['expect:max_age=1h'])
        fake.fault = failing('/flow_runs/filter')
        with pytest.raises(PrefectApiError):
            checks.next()


class TestBySchedule:
    def test_expected_is_the_time_to_the_next_run_and_what_runs_take(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = scheduled(fake)
        ran(fake, deployment, 400, seconds=300, due_before=20)
        plan(fake, deployment, 600)
        # It took 320 s from due to done: half of it is the margin.
        assert checks.of(deployment, after=0) == {
            AGE: (400, 'schedule'),
            AGE_RATIO: (pytest.approx(400 / (1000 + 320 + 160)), 'schedule'),
        }

    def test_margin_is_a_minute_at_least(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = scheduled(fake)
        ran(fake, deployment, 400, seconds=10)
        plan(fake, deployment, 600)
        assert checks.ratio(deployment, after=0) == pytest.approx(400 / (1000 + 10 + 60))

    def test_longest_of_the_recent_runs_counts_when_one_is_overdue(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = scheduled(fake)
        for number in range(30):
            ran(fake, deployment, 1000 + 100 * number, seconds={5: 500, 25: 5000}.get(number, 10))
        plan(fake, deployment, 200)
        checks.next(after=0)
        # Due 1200 s after the last success.
        assert checks.ratio(deployment, after=300) == pytest.approx(1300 / (1200 + 500 + 250))
        assert checks.ratio(deployment, after=649) < 1
        assert checks.ratio(deployment, after=2) > 1

    @pytest.mark.parametrize('restart', [False, True])
    @pytest.mark.parametrize('end', [FAILED, CANCELLED, ('CRASHED', None), None])
    def test_first_run_that_was_due_counts_whatever_became_of_it(
        self, fake: FakePrefect, checks: Checks, end: tuple[str, str | None] | None, restart: bool
    ) -> None:
        """None is a run that nobody takes up. The later ones do not move the expectation."""
        deployment = scheduled(fake)
        ran(fake, deployment, 300, seconds=10)
        for ahead in (100, 400, 700, 1000):
            plan(fake, deployment, ahead)
        checks.next(after=0)
        for run in fake.tables['flow_runs'].newest():
            if run['next_scheduled_start_time'] and end:
                due = datetime.fromisoformat(run['next_scheduled_start_time'])
                if due < fake.now + timedelta(seconds=800):
                    fake.set_flow_run_state(run, 'RUNNING', at=due)
                    fake.set_flow_run_state(run, *end, at=due + timedelta(seconds=1))
        checks.next(after=500)
        if restart:
            checks.bench.restart()
        assert checks.ratio(deployment, after=300) == pytest.approx(1100 / (400 + 10 + 60))

    def test_runs_that_a_person_starts_are_not_due(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = scheduled(fake)
        ran(fake, deployment, 3000, seconds=10)
        ran(fake, deployment, 1000, end=FAILED, auto_scheduled=False)
        fake.add_flow_run(deployment=deployment)
        plan(fake, deployment, 600)
        assert checks.ratio(deployment, after=0) == pytest.approx(3000 / (3600 + 10 + 60))

    def test_more_failures_than_are_remembered_change_nothing(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = scheduled(fake)
        ran(fake, deployment, 20_000, seconds=10)
        for number in range(150):
            ran(fake, deployment, 19_000 - 100 * number, end=FAILED)
        plan(fake, deployment, 50)
        for _ in range(3):
            found = checks.ratio(deployment, after=0)
        assert found == pytest.approx(20_000 / (1000 - 1 + 10 + 60))

    def test_first_run_ever_is_given_time(self, fake: FakePrefect, checks: Checks) -> None:
        ran(fake, made(fake, 'other'), 5000)
        deployment = scheduled(fake, age=300)
        run = plan(fake, deployment, 100)
        plan(fake, deployment, 4000)
        assert checks.ratio(deployment, after=0) == pytest.approx(300 / 460)
        fake.set_flow_run_state(run, 'RUNNING', at=fake.now + timedelta(seconds=100))
        checks.next(after=100)
        # Running: how long it takes is not known.
        assert checks.of(deployment, after=3000).get(AGE_RATIO, (0, ''))[0] == 0
        fake.set_flow_run_state(run, 'FAILED')
        assert checks.ratio(deployment) > 1

    def test_resumed_after_an_agents_restart_is_no_alarm(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = scheduled(fake, paused=True)
        ran(fake, deployment, 10 * DAY)
        checks.next()
        deployment |= {'paused': False, 'updated': '2026-11-23T08:00:20Z'}
        plan(fake, deployment, 600)
        checks.bench.restart()
        assert checks.ratio(deployment) < 1
        assert checks.ratio(deployment, after=500) < 1

    def test_schedule_without_a_planned_run_expects_nothing(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = scheduled(fake)
        ran(fake, deployment, 100)
        assert checks.of(deployment) == {}

    def test_verdict_waits_for_the_past(self, fake: FakePrefect, checks: Checks) -> None:
        """More deployments are overdue than one run of the check reads of."""
        deployments = [scheduled(fake, str(number)) for number in range(12)]
        for deployment in deployments:
            ran(fake, deployment, 1500, seconds=500)
            ran(fake, deployment, 1000, seconds=10)
            plan(fake, deployment, 10)
        fake.now += timedelta(seconds=200)
        for _ in range(3):
            fake.requests.clear()
            found = checks.next(after=0)
            assert len([body for body in bodies(fake, '/flow_runs/filter') if body.get('limit') == 20]) <= 5
            assert all(values[AGE_RATIO][0] < 1 for values in found.values() if AGE_RATIO in values)
        assert len(found) == 12


def daily(hour: int, minute: int, zone: ZoneInfo) -> Callable[[datetime], Iterator[datetime]]:
    """By the wall clock of a zone, as Prefect plans it: over a change of the clock the day has 23 or 25 hours."""

    def times(start: datetime) -> Iterator[datetime]:
        day = start.astimezone(zone).date()
        while True:
            moment = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone).astimezone(UTC)
            if moment > start:
                yield moment
            day += timedelta(days=1)

    return times


def by_rule(frequency: int, **rule: object) -> Callable[[datetime], Iterator[datetime]]:
    return lambda start: iter(rrule(frequency, dtstart=start + timedelta(seconds=1), **rule))  # type: ignore[arg-type]


RHYTHMS: dict[str, Callable[[datetime], Iterator[datetime]]] = {
    'every 5 minutes': by_rule(MINUTELY, interval=5),
    'hourly': by_rule(HOURLY),
    'office hours': by_rule(HOURLY, byhour=range(9, 18), byweekday=range(5), byminute=0, bysecond=0),
    'weekly': by_rule(WEEKLY),
    'monthly': by_rule(MONTHLY, bymonthday=1),
    'last Friday': by_rule(MONTHLY, byweekday=4, bysetpos=-1),
    'two schedules': by_rule(DAILY, byhour=(3, 4), byminute=(0, 20), bysecond=0),
    'by the clock of Berlin': daily(2, 30, BERLIN),
}


class Life:
    """A deployment that runs in a rhythm, as a scheduler and a worker let it; time goes from moment to moment."""

    def __init__(self, fake: FakePrefect, bench: Bench, begin: datetime, times: Iterator[datetime]) -> None:
        fake.now = begin
        self.fake = fake
        self.checks = Checks(fake, bench)
        self.deployment = scheduled(fake, age=60)
        self._times = times
        self._planned: list[tuple[datetime, Row]] = []
        self.plan()

    def plan(self) -> None:
        while len(self._planned) < 3:
            due = next(self._times)
            self._planned.append((due, plan(self.fake, self.deployment, (due - self.fake.now).total_seconds())))

    def look(self, moment: datetime) -> float:
        """The ratio at that moment, and shortly before it if there is much time until then."""
        after = (moment - self.fake.now).total_seconds()
        early = [] if after < 40 else [self.checks.ratio(self.deployment, after=after - 15)]
        return max([*early, self.checks.ratio(self.deployment, after=15 if early else after)])

    def cycle(self, wait: float, seconds: float, end: tuple[str, str | None] = ('COMPLETED', None)) -> list[float]:
        """The next run starts and ends: the ratios before it is due, when it starts, before it ends and after."""
        due, run = self._planned.pop(0)
        ratios = [self.look(due)]
        self.plan()
        start = due + timedelta(seconds=wait)
        self.fake.set_flow_run_state(run, 'RUNNING', at=start)
        ratios.append(self.look(start))
        done = start + timedelta(seconds=seconds)
        ratios.append(self.look(done))
        self.fake.set_flow_run_state(run, *end, at=done)
        return [*ratios, self.look(done + timedelta(seconds=15))]


@pytest.mark.parametrize('rhythm', RHYTHMS.values(), ids=RHYTHMS.keys())
def test_an_ordinary_cycle_stays_below_one_and_one_that_is_missing_does_not(
    fake: FakePrefect, bench: Bench, rhythm: Callable[[datetime], Iterator[datetime]]
) -> None:
    begin = datetime(2026, 10, 22, 1, 0, tzinfo=UTC)
    life = Life(fake, bench, begin, rhythm(begin))
    for number in range(8):
        ratios = life.cycle(wait=3, seconds=30 + 5 * (number % 3))
        assert max(ratios) < 1, f'cycle {number}: {ratios}'
    # One fails: it was to be done 43 s after it was due, and a minute is the margin.
    assert max(life.cycle(wait=3, seconds=20, end=FAILED)) < 1
    failed_due = fake.now - timedelta(seconds=38)
    assert life.look(failed_due + timedelta(seconds=43 + 60 - 1)) < 1
    assert life.look(failed_due + timedelta(seconds=43 + 60 + 1)) > 1


@given(st.data())
@settings(max_examples=15)
def test_no_rhythm_gives_a_false_alarm(data: st.DataObject) -> None:
    """Runs that take up to half as long again as the longest before, or less than a minute more, are ordinary."""
    gaps = st.lists(st.floats(90, 40 * DAY), min_size=4, max_size=8)
    begin = START
    moments: list[datetime] = []
    for gap in [*data.draw(gaps), *[DAY] * 3]:
        moments.append((moments[-1] if moments else begin) + timedelta(seconds=gap))
    fake = FakePrefect()
    with fake.install() as url:
        life = Life(fake, Bench(fake, url), begin, iter(moments))
        shortest = min((late - early).total_seconds() for early, late in pairwise(moments))
        longest = 0.0
        for _ in range(len(moments) - 3):
            seconds = data.draw(st.floats(0.5, min(max(longest * 1.4, longest + 40), shortest - 40)))
            longest = max(longest, seconds)
            ratios = life.cycle(wait=1, seconds=seconds)
            assert max(ratios) <= 1
        # Nobody takes up the next.
        assert life.look(moments[len(moments) - 3] + timedelta(seconds=longest + max(60, longest / 2) + 100)) > 1


class TestRunTime:
    def running(self, fake: FakePrefect, deployment: Row, ago: float) -> Row:
        return fake.add_flow_run(
            deployment=deployment, state=('RUNNING', 'Running'), at=fake.now - timedelta(seconds=ago)
        )

    def test_oldest_run_counts_and_afterwards_there_are_zeros(self, fake: FakePrefect, checks: Checks) -> None:
        deployment = made(fake, tags=['expect:max_run_time=100'])
        assert checks.of(deployment) == {}
        runs = [self.running(fake, deployment, ago) for ago in (35, 185)]
        assert checks.of(deployment) == {RUN_TIME: (200, 'tag'), RUN_TIME_RATIO: (2, 'tag')}
        for run in runs:
            fake.set_flow_run_state(run, 'COMPLETED')
        assert [checks.of(deployment).get(RUN_TIME_RATIO) for _ in range(25)] == [(0, 'tag')] * 20 + [None] * 5

    def test_expected_is_twice_the_longest_of_twenty_successes_and_a_minute(
        self, fake: FakePrefect, checks: Checks
    ) -> None:
        deployment = made(fake)
        for number in range(30):
            ran(fake, deployment, 10_000 - 100 * number, seconds={5: 90, 15: 50}.get(number, 10))
        ran(fake, deployment, 50, seconds=1000, end=FAILED)
        fake.requests.clear()
        self.running(fake, deployment, 65)
        assert checks.of(deployment)[RUN_TIME_RATIO] == (80 / (2 * 50 + 60), 'history')
        assert len([body for body in bodies(fake, '/flow_runs/filter') if body.get('limit') == 20]) == 1
        fake.requests.clear()
        ran(fake, deployment, 1, seconds=70)
        assert checks.of(deployment)[RUN_TIME_RATIO] == (95 / (2 * 70 + 60), 'history')
        assert not [body for body in bodies(fake, '/flow_runs/filter') if body.get('limit') == 20]

    @pytest.mark.parametrize(('successes', 'is_told'), [(4, False), (5, True)])
    def test_of_few_successes_nothing_is_told(
        self, fake: FakePrefect, checks: Checks, successes: int, is_told: bool
    ) -> None:
        deployment = made(fake)
        for number in range(successes):
            ran(fake, deployment, 1000 + number)
        # It never ran: a person said so.
        forced = fake.add_flow_run(deployment=deployment)
        fake.set_flow_run_state(forced, 'COMPLETED')
        self.running(fake, deployment, 65)
        assert (RUN_TIME_RATIO in checks.of(deployment)) is is_told

    def test_pasts_of_five_deployments_are_read_at_most(self, fake: FakePrefect, checks: Checks) -> None:
        for number in range(12):
            deployment = made(fake, str(number))
            for ago in range(5):
                ran(fake, deployment, 1000 + ago)
            self.running(fake, deployment, 65)
        told = []
        for _ in range(4):
            fake.requests.clear()
            told.append(len(checks.next()))
            assert len([body for body in bodies(fake, '/flow_runs/filter') if body.get('limit') == 20]) <= 5
        assert told == [5, 10, 12, 12]


def test_pasts_are_read_once_for_both_collectors(fake: FakePrefect, bench: Bench) -> None:
    def asked() -> list[Row]:
        """For the pasts of deployments, and for runs that count."""
        asked_for = [body['flow_runs'] for body in bodies(fake, '/flow_runs/filter')]
        return [criteria for criteria in asked_for if {'id', 'deployment_id'} & criteria.keys()]

    deployment = scheduled(fake)
    ran(fake, deployment, 100, end=FAILED)
    plan(fake, deployment, 1000)
    run = bench.context()
    bench.read(Freshness(), run)
    assert asked()
    fake.requests.clear()
    bench.read(Expectations(), run)
    assert not asked()
    # A failure of one of them does not part what they know for good.
    fake.now += timedelta(seconds=15)
    bench.read(Freshness())
    fake.now += timedelta(seconds=15)
    for collector in (Freshness(), Expectations()):
        bench.read(collector)
    fake.now += timedelta(seconds=15)
    run = bench.context()
    bench.read(Freshness(), run)
    fake.requests.clear()
    bench.read(Expectations(), run)
    assert not asked()
