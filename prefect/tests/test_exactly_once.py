"""Whole histories against the fake server: no matter what happens in between, the sum over all checks is what happened.

A history is a set of flow runs with their task runs and events, each change of which becomes visible up to `LATEST`
seconds after the time that it carries, and a series of checks, of which some meet a fault and some are followed by a
restart of the Agent. The last checks are good ones, and then every stream must add up to the truth, for every tag set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
import requests
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from datadog_checks.base.stubs import aggregator, datadog_agent
from datadog_checks.prefect import PrefectCheck
from datadog_checks.prefect.api import server_clock
from datadog_checks.prefect.streams import event_reading
from tests.fake_prefect import FakePrefect, FakeRequest, FakeResponse
from tests.unit.harness import after_restart

# Seconds by which a change may become visible late; the promise is for less than 120.
LATEST = 110
# Seconds after which all is visible and every interval between two checks has passed.
SETTLED = 400
TAG_KEYS = ('deployment_name', 'flow_name', 'task_key', 'failure_reason')
OUTCOMES = ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')
# What Prefect writes to a state, and the reason that it is told by.
MESSAGES = {
    'FAILED': 'Flow run encountered an exception: ValueError: no such customer',
    'CRASHED': 'Process exited with status code: 137. Process was killed.',
}
REASONS = {'FAILED': 'exception:ValueError', 'CRASHED': 'out_of_memory'}
HEARTBEAT = 'prefect.flow-run.heartbeat'
EVENTS = ('prefect.flow-run.Changed', 'prefect.flow-run.Burst')
# (series, tags): for a count the sum of its values, for the `.count` of a duration the number of samples;
# (event name, resource): how often the event was sent.
Sums = Counter[tuple[str, tuple[str, ...]]]


@dataclass(frozen=True)
class TaskLife:
    """A task run: seconds from the start of its flow run to its own, how long it ran, and how late its rows show."""

    starts_after: int
    runs_for: int
    outcome: str
    delay: int
    waits_for_previous: bool = False
    is_rolled_back: bool = False


@dataclass(frozen=True)
class RunLife:
    """A flow run: seconds from the first check to its expected start, and what then becomes of it.

    `retries` are the seconds of each wait for a retry; `retried_by_hand` are the seconds from its end to a retry by
    hand, which it follows within a second, and completes.
    """

    expected: int
    starts_after: int
    runs_for: int
    outcome: str
    delay: int
    deployment: str | None = 'hourly'
    never_starts: bool = False
    retries: tuple[int, ...] = ()
    retried_by_hand: float | None = None
    tasks: tuple[TaskLife, ...] = ()


@dataclass(frozen=True)
class Check:
    """A check, so many seconds after the one before. `fault` breaks its request of that number."""

    after: int
    fault: tuple[int, str] | None = None
    restarts: bool = False


@dataclass(frozen=True)
class Burst:
    """Events from a second on, milliseconds apart, every third of which shows late."""

    second: int
    number: int
    gap: int
    delay: int


@dataclass(frozen=True)
class History:
    runs: tuple[RunLife, ...]
    checks: tuple[Check, ...]
    skew: int = 0
    page_limit: int = 200
    bursts: tuple[Burst, ...] = ()
    events_per_check: int = event_reading.MOST_PER_RUN
    version: str = '3.8.8'
    excludes_local: bool = False


@dataclass
class Truth:
    sums: Sums = field(default_factory=Counter)

    def add(self, series: str, tags: tuple[str, ...]) -> None:
        self.sums[series, tags] += 1

    def add_end(self, runs: str, state_type: str, tags: tuple[str, ...]) -> None:
        self.add(f'{runs}.{state_type.lower()}.count', tags)
        if state_type in REASONS:
            self.add(f'{runs}.failures.count', (*tags, f'failure_reason:{REASONS[state_type]}'))


class Story:
    """Plays a history on a fake server, and knows what should be counted."""

    def __init__(self, fake: FakePrefect) -> None:
        self._fake = fake
        self._begin = fake.now
        pool = fake.add_work_pool()
        queue = fake.default_queue(pool)
        self._deployments = {name: fake.add_deployment(name=name, work_queue=queue) for name in ('hourly', 'daily')}
        self._flow = fake.add_flow('local')
        self._numbers = count()
        self.truth = Truth()

    def play(self, life: RunLife) -> None:
        fake, truth = self._fake, self.truth
        deployment = self._deployments.get(life.deployment or '')
        own = (f'deployment_name:{life.deployment}', f'flow_name:flow of {life.deployment}')
        tags = own if deployment else ('flow_name:local',)
        shown = Visibility(self, life.delay)
        expected = self.at(life.expected)
        # The row itself is there before anything can happen to the run.
        run = fake.add_flow_run(
            deployment=deployment, flow=self._flow, at=expected, scheduled_time=expected, visible_from=expected
        )
        moment = expected + timedelta(seconds=life.starts_after)
        if life.never_starts:
            fake.set_flow_run_state(
                run, life.outcome, at=moment, visible_from=shown(moment), message=MESSAGES.get(life.outcome)
            )
            truth.add_end('flow_runs', life.outcome, tags)
        else:
            fake.set_flow_run_state(run, 'RUNNING', at=moment, visible_from=shown(moment))
            started = moment
            truth.add('flow_runs.throughput', tags)
            truth.add('flow_runs.queue_wait_duration.count', tags)
            if life.starts_after > 15:
                truth.add('flow_runs.late_start.count', tags)
            for wait in life.retries:
                moment += timedelta(seconds=life.runs_for)
                fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry', at=moment, visible_from=shown(moment))
                moment += timedelta(seconds=wait)
                fake.set_flow_run_state(run, 'RUNNING', at=moment, visible_from=shown(moment))
                truth.add('flow_runs.retry_gaps_duration.count', tags)
            moment += timedelta(seconds=life.runs_for)
            fake.set_flow_run_state(
                run, life.outcome, at=moment, visible_from=shown(moment), message=MESSAGES.get(life.outcome)
            )
            truth.add_end('flow_runs', life.outcome, tags)
            truth.add('flow_runs.execution_duration.count', tags)
            self._play_tasks(run, life, started, tags)
        if life.retried_by_hand is not None:
            moment += timedelta(seconds=life.retried_by_hand)
            fake.set_flow_run_state(run, 'SCHEDULED', 'AwaitingRetry', at=moment, visible_from=shown(moment))
            moment += timedelta(seconds=min(1.0, life.retried_by_hand))
            fake.set_flow_run_state(run, 'RUNNING', at=moment, visible_from=shown(moment))
            truth.add('flow_runs.retry_gaps_duration.count', tags)
            if life.never_starts:
                truth.add('flow_runs.throughput', tags)
                truth.add('flow_runs.queue_wait_duration.count', tags)
                if (moment - expected).total_seconds() > 15:
                    truth.add('flow_runs.late_start.count', tags)
            moment += timedelta(seconds=life.runs_for)
            fake.set_flow_run_state(run, 'COMPLETED', at=moment, visible_from=shown(moment))
            truth.add('flow_runs.completed.count', tags)
            truth.add('flow_runs.execution_duration.count', tags)

    def _play_tasks(self, run: dict[str, Any], life: RunLife, flow_run_started: Any, tags: tuple[str, ...]) -> None:
        previous: dict[str, Any] | None = None
        previous_end = flow_run_started
        for number, task in enumerate(life.tasks):
            shown = Visibility(self, task.delay)
            begin = flow_run_started + timedelta(seconds=task.starts_after, microseconds=number)
            upstream = [previous] if task.waits_for_previous and previous else []
            if upstream:
                begin = max(begin, previous_end)
            task_tags = (*tags, f'task_key:task_{number}')
            row = self._fake.add_task_run(
                flow_run=run, task_key=f'task_{number}', upstream=upstream, at=begin, visible_from=shown(begin)
            )
            self._fake.set_task_run_state(row, 'RUNNING', at=begin, visible_from=shown(begin))
            self.truth.add('task_runs.throughput', task_tags)
            if upstream:
                self.truth.add('task_runs.dependency_wait_duration.count', task_tags)
            end = begin + timedelta(seconds=task.runs_for)
            self._fake.set_task_run_state(
                row, task.outcome, at=end, visible_from=shown(end), message=MESSAGES.get(task.outcome)
            )
            self.truth.add_end('task_runs', task.outcome, task_tags)
            self.truth.add('task_runs.execution_duration.count', task_tags)
            if task.is_rolled_back:
                later = end + timedelta(seconds=2)
                self._fake.set_task_run_state(row, 'COMPLETED', 'RolledBack', at=later, visible_from=shown(later))
            previous, previous_end = row, end

    def at(self, seconds: int) -> Any:
        return self._begin + timedelta(seconds=seconds)

    def play_burst(self, burst: Burst) -> None:
        for index in range(burst.number):
            moment = self.at(burst.second) + timedelta(milliseconds=index * burst.gap)
            shows = moment + timedelta(seconds=burst.delay if index % 3 == 2 else 0)
            self.play_event(HEARTBEAT if index % 7 == 6 else 'prefect.flow-run.Burst', moment, shows)

    def play_event(self, name: str, moment: Any, visible_from: Any) -> None:
        """Each event is about a resource of its own, so that one can be told from another when it was sent."""
        resource = {'prefect.resource.id': f'prefect.flow-run.{next(self._numbers)}', 'prefect.state-type': 'RUNNING'}
        self._fake.add_event(name, occurred=moment, visible_from=visible_from, resource=resource, related=[])
        if name != HEARTBEAT:
            self.truth.add(name, (resource['prefect.resource.id'],))


class Visibility:
    """When a change of that time shows: late, but in the order of the changes. Its event shows at the same time."""

    def __init__(self, story: Story, delay: int) -> None:
        self._story = story
        self._delay = timedelta(seconds=delay)
        self._last = story.at(0)

    def __call__(self, moment: Any) -> Any:
        self._last = max(self._last, moment + self._delay)
        self._story.play_event('prefect.flow-run.Changed', moment, self._last)
        return self._last


class BrokenOff(Exception):
    """The Agent is killed at this point."""


def broken(kind: str) -> FakeResponse | Exception:
    return {
        'error 500': FakeResponse.of({'exception_message': 'Internal Server Error'}, 500),
        'reset': requests.exceptions.ConnectionError('reset by the test'),
        'truncated': FakeResponse(200, b'[{"id": "0', {'Content-Type': 'application/json'}),
        'broke off': requests.exceptions.ChunkedEncodingError('broken off by the test'),
        'wrong shape': FakeResponse.of({'results': []}),
    }[kind]


FAULTS = ('error 500', 'reset', 'truncated', 'broke off', 'wrong shape')


def fault_at(number: int, kind: str) -> Callable[[FakeRequest], FakeResponse | Exception | None]:
    requests_so_far = count()
    return lambda request: broken(kind) if next(requests_so_far) == number else None


@contextmanager
def agent(
    fake: FakePrefect, skew: int, events_per_check: int, options: dict[str, Any]
) -> Iterator[Callable[[], PrefectCheck]]:
    """An Agent with its own clock: gives a new check, as after a restart, with the state persisted so far."""
    datadog_agent.reset()
    with pytest.MonkeyPatch.context() as patch, fake.install() as url:
        patch.setattr(event_reading, 'MOST_PER_RUN', events_per_check)
        patch.setattr(server_clock, 'local_now', lambda: fake.now + timedelta(seconds=skew))
        yield partial(after_restart, url, **{'collect_events': True} | options)


def add_up(sums: Sums) -> None:
    """Add what the last check submitted."""
    for name in aggregator.metric_names:
        series = name.removeprefix('prefect.server.')
        if series.startswith('api.'):
            continue
        for stub in aggregator.metrics(name):
            if stub.value and (stub.type == aggregator.COUNT or series.endswith('_duration.count')):
                tags = tuple(tag for key in TAG_KEYS for tag in stub.tags if tag.startswith(f'{key}:'))
                sums[series, tags] += int(stub.value)
    for event in aggregator.events:
        sums[event['event_type'], (event['aggregation_key'],)] += 1


def observe(history: History) -> tuple[Sums, Sums]:
    """What the checks counted, and what happened."""
    fake = FakePrefect()
    fake.default_limit = history.page_limit
    fake.version = history.version
    story = Story(fake)
    sums: Sums = Counter()
    # One of the filters, which all take the same way.
    options = {'flow_names': {'exclude': ['^local$']}} if history.excludes_local else {}
    with agent(fake, history.skew, history.events_per_check, options) as make:
        check = make()
        assert not check.run()
        for life in history.runs:
            story.play(life)
        for burst in history.bursts:
            story.play_burst(burst)
        good = (Check(after=60),) * (1 + int(SETTLED + longest(history)) // 60 + waiting(history))
        for planned in (*history.checks, *good):
            fake.now += timedelta(seconds=planned.after)
            fake.fault = fault_at(*planned.fault) if planned.fault else None
            aggregator.reset()
            error = check.run()
            assert not error or planned.fault, error
            add_up(sums)
            if planned.restarts:
                check = make()
    fake.assert_all_known()
    happened = story.truth.sums
    if history.excludes_local:
        happened = Counter({key: number for key, number in happened.items() if 'flow_name:local' not in key[1]})
    return sums, happened


def waiting(history: History) -> int:
    """How many checks it takes to send all events, if each sends as few as it may."""
    return sum(burst.number for burst in history.bursts) // history.events_per_check


def longest(history: History) -> float:
    """Seconds from the first check until the last change of any run, or the last event of a burst, has happened."""
    runs = (
        life.expected
        + life.starts_after
        + life.runs_for * (len(life.retries) + 2)
        + sum(life.retries)
        + (life.retried_by_hand or 0)
        + sum(task.starts_after + task.runs_for for task in life.tasks)
        for life in history.runs
    )
    bursts = (burst.second + burst.number * burst.gap / 1000 for burst in history.bursts)
    return max([*runs, *bursts, 0.0])


seconds = st.integers(min_value=1, max_value=60)
delays = st.integers(min_value=0, max_value=LATEST)
outcomes = st.sampled_from(OUTCOMES)
task_lives = st.builds(
    TaskLife,
    starts_after=seconds,
    runs_for=seconds,
    outcome=st.just('COMPLETED') | outcomes,
    delay=delays,
    waits_for_previous=st.booleans(),
)
run_lives = st.builds(
    RunLife,
    expected=st.integers(min_value=1, max_value=200),
    starts_after=st.integers(min_value=1, max_value=40),
    runs_for=seconds,
    outcome=outcomes,
    delay=delays,
    deployment=st.sampled_from(['hourly', 'daily', None]),
    never_starts=st.booleans(),
    retries=st.lists(seconds, max_size=2).map(tuple),
    retried_by_hand=st.none() | st.sampled_from([0.02, 0.3]) | st.integers(min_value=1, max_value=200),
    tasks=st.lists(task_lives, max_size=3).map(tuple),
)
checks = st.builds(
    Check,
    after=st.integers(min_value=1, max_value=60),
    fault=st.none() | st.tuples(st.integers(min_value=0, max_value=30), st.sampled_from(FAULTS)),
    restarts=st.booleans(),
)
bursts = st.builds(
    Burst,
    second=st.integers(min_value=1, max_value=300),
    number=st.integers(min_value=1, max_value=150),
    gap=st.sampled_from([0, 1, 50, 900]),
    delay=delays,
)
# The row of a run that ended unstarted and was retried has nothing left of that end on an old server.
run_lives_of_old_servers = run_lives.filter(lambda life: not life.never_starts or life.retried_by_hand is None)


def histories(lives: st.SearchStrategy[RunLife], version: str) -> st.SearchStrategy[History]:
    return st.builds(
        History,
        runs=st.lists(lives, min_size=1, max_size=6).map(tuple),
        checks=st.lists(checks, max_size=8).map(tuple),
        skew=st.sampled_from([0, -90, 90]),
        page_limit=st.sampled_from([200, 3]),
        excludes_local=st.booleans(),
        version=st.just(version),
    )


floods = st.builds(
    History,
    runs=st.lists(run_lives, max_size=3).map(tuple),
    checks=st.lists(checks, max_size=12).map(tuple),
    bursts=st.lists(bursts, min_size=1, max_size=3).map(tuple),
    skew=st.sampled_from([0, -90, 90]),
    events_per_check=st.sampled_from([20, 100, event_reading.MOST_PER_RUN]),
)


# Bursts that end long after they began, so that some of their events show minutes later.
LONG_BURSTS = History(
    runs=(),
    checks=(),
    bursts=(
        Burst(second=81, number=25, gap=50, delay=54),
        Burst(second=92, number=12, gap=0, delay=97),
        Burst(second=297, number=149, gap=900, delay=61),
    ),
    events_per_check=100,
)

# Pages torn between ties, some of them late, before the place where a run of the check leaves the rest to the next.
TORN_TIES = History(
    runs=(),
    checks=(Check(after=9, fault=(29, 'error 500'), restarts=True), Check(after=44, restarts=True)),
    bursts=(
        Burst(second=250, number=116, gap=1, delay=58),
        Burst(second=146, number=100, gap=0, delay=36),
        Burst(second=35, number=42, gap=900, delay=70),
    ),
    events_per_check=20,
)

PLAIN = RunLife(expected=5, starts_after=1, runs_for=5, outcome='COMPLETED', delay=0)


# A history takes too long to look for a shorter one that fails too.
thorough = settings(max_examples=2 * settings().max_examples, phases=[Phase.explicit, Phase.generate])


@thorough
@given(histories(run_lives, '3.8.8'))
@example(History(runs=(PLAIN,), checks=()))
def test_the_sum_over_all_checks_is_what_happened(history: History) -> None:
    counted, happened = observe(history)

    assert counted == happened


@settings(thorough, max_examples=thorough.max_examples // 2)
@given(histories(run_lives_of_old_servers, '3.2.15'))
@example(History(runs=(replace(PLAIN, never_starts=True, outcome='CANCELLED'),), checks=(), version='3.2.15'))
def test_the_sum_over_all_checks_of_an_old_server_is_what_happened(history: History) -> None:
    counted, happened = observe(history)

    assert counted == happened


@thorough
@given(floods)
@example(TORN_TIES)
@example(LONG_BURSTS)
def test_each_event_is_sent_once_in_a_flood_too(history: History) -> None:
    counted, happened = ({key: sums[key] for key in sums if key[0] in EVENTS} for sums in observe(history))

    assert counted == happened
    assert counted
