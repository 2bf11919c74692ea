"""Whether each deployment does what is expected of it: how long ago it last succeeded, how long a run of it runs.

What is expected says an option, a tag of the deployment in Prefect, or else its own rhythm: when runs of it were due
since the last success, and how long its last runs took. What is due, lives and ends is read by other collectors anyway.
The last successes of a deployment are read when they are needed: when a run of it is RUNNING, or overdue.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from datadog_checks.prefect import expectations
from datadog_checks.prefect.aggregation import LingeringSeries, Maxima
from datadog_checks.prefect.api.log import Log
from datadog_checks.prefect.api.models import Deployment, FlowRun
from datadog_checks.prefect.api.times import age_seconds
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.deployment_outcomes import MAX_FAILURES, Outcomes, Past
from datadog_checks.prefect.collectors.deployment_schedules import Schedules
from datadog_checks.prefect.expectations import MAX_AGE, MAX_RUN_TIME, OFF
from datadog_checks.prefect.metrics import (
    DEPLOYMENT_EXPECTATION_MAX_AGE,
    DEPLOYMENT_EXPECTATION_MAX_AGE_RATIO,
    DEPLOYMENT_EXPECTATION_MAX_RUN_TIME,
    DEPLOYMENT_EXPECTATION_MAX_RUN_TIME_RATIO,
)
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.tags import EXPECTATION_SOURCE, make_tags, merge_tags

# The successes by which the next run is judged, and of how few nothing is told about a run time.
_SUCCESSES = 20
_FEW = 5
# Deployments of which one run of the check reads something of the past.
_READ = 5
_LEAST_MARGIN = 60.0
# The end of the oldest flow run moves on as the server deletes them.
_OLDEST_INTERVAL = timedelta(minutes=10)
# Bad tags of which a warning is given.
_WARNINGS = 50

_OPTION = 'option'
_TAG = 'tag'
_SCHEDULE = 'schedule'
_HISTORY = 'history'


@dataclass(frozen=True, slots=True)
class _Success:
    """When a flow run succeeded, how many seconds after it was due, and how many it ran; None if unknown."""

    flow_run_id: str
    time: datetime
    since_due: float | None
    run_time: float | None

    @classmethod
    def of(cls, flow_run: FlowRun) -> _Success | None:
        """None of a run that did not succeed."""
        time, due = flow_run.end_time, flow_run.expected_start_time
        if time is None or flow_run.state_type != 'COMPLETED':
            return None
        # A person may set a run to COMPLETED that never ran.
        run_time = flow_run.total_run_time if flow_run.run_count else None
        return cls(flow_run.id, time, age_seconds(due, time) if due else None, run_time)


@dataclass(frozen=True, slots=True)
class _FirstDue:
    """When the first planned run after `since` was due, of a deployment that failed more often than is remembered."""

    since: datetime
    due: datetime | None


@dataclass(frozen=True, slots=True)
class _Oldest:
    """When the oldest flow run of the server ended, None without any, as it was at `asked_at`."""

    asked_at: datetime
    end: datetime | None


@dataclass(frozen=True)
class ExpectationsMemory:
    """What is known after a run of the check, at `last_check`; mappings are by the id of the deployment.

    `successes` are the last ones, newest first, of the deployments of which they were read. `rhythms` are whether a
    deployment is paused and how many active schedules it has, `began` is when one was resumed or a schedule switched
    on. `warned` are the bad tags of which a warning was given.
    """

    last_check: datetime | None = None
    outcomes: Outcomes = field(default_factory=Outcomes)
    schedules: Schedules = field(default_factory=Schedules)
    successes: Mapping[str, tuple[_Success, ...]] = field(default_factory=dict)
    first_due: Mapping[str, _FirstDue] = field(default_factory=dict)
    rhythms: Mapping[str, tuple[bool, int]] = field(default_factory=dict)
    began: Mapping[str, datetime] = field(default_factory=dict)
    oldest: _Oldest | None = None
    warned: Set[tuple[str, str]] = frozenset()
    reported: LingeringSeries = field(default_factory=LingeringSeries)


class Expectations:
    name = 'expectations'
    initial_memory = ExpectationsMemory()

    def collect(self, run: RunContext, memory: ExpectationsMemory) -> tuple[list[Sample], ExpectationsMemory]:
        outcomes = memory.outcomes.refresh(run)
        deployments, schedules = memory.schedules.refresh(run)
        facts = _Facts(run, memory, outcomes, deployments)
        ages = Maxima(DEPLOYMENT_EXPECTATION_MAX_AGE, DEPLOYMENT_EXPECTATION_MAX_AGE_RATIO)
        run_times = Maxima(DEPLOYMENT_EXPECTATION_MAX_RUN_TIME, DEPLOYMENT_EXPECTATION_MAX_RUN_TIME_RATIO)
        bad_tags: list[tuple[Deployment, str]] = []
        for deployment in deployments.values():
            of_tags, bad = expectations.of_tags(deployment.tags)
            bad_tags += ((deployment, tag) for tag in bad)
            wanted = {key: (duration, _TAG) for key, duration in of_tags.items()}
            of_options = expectations.of_options(run.settings.expectations, deployment.name)
            wanted |= {key: (duration, _OPTION) for key, duration in of_options.items()}
            verdicts = (
                (ages, facts.age(deployment, wanted.get(MAX_AGE))),
                (run_times, facts.run_time(deployment, wanted.get(MAX_RUN_TIME))),
            )
            for maxima, verdict in verdicts:
                if verdict is not None:
                    source = make_tags({EXPECTATION_SOURCE: verdict.source})
                    tags = merge_tags(run.inventory.tags_of_deployment(deployment), source)
                    seconds, ratio = (spec for spec, _ in maxima.series())
                    maxima.add(seconds, tags, verdict.seconds)
                    maxima.add(ratio, tags, verdict.seconds / verdict.expected)
        samples, reported = memory.reported.samples(run.now, ages, run_times)
        return samples, ExpectationsMemory(
            last_check=run.now,
            outcomes=outcomes,
            schedules=schedules,
            successes=facts.successes,
            first_due=facts.first_due,
            rhythms={key: (item.is_paused, item.active_schedules) for key, item in deployments.items()},
            began=facts.began,
            oldest=facts.oldest,
            warned=_warn(run.log, bad_tags, memory.warned),
            reported=reported,
        )


@dataclass(frozen=True, slots=True)
class _Verdict:
    """How much time has passed, and how much is expected at most, in seconds."""

    seconds: float
    expected: float
    source: str


class _Facts:
    """What one run of the check knows of the deployments, and reads of them where that does not do."""

    def __init__(
        self,
        run: RunContext,
        memory: ExpectationsMemory,
        outcomes: Outcomes,
        deployments: Mapping[str, Deployment],
    ) -> None:
        self._run = run
        self._outcomes = outcomes
        self._future = run.inventory.future_runs()
        self._reads = _READ
        self.began = _began(deployments, memory, run.now)
        self.oldest = memory.oldest
        self.first_due = {key: first for key, first in memory.first_due.items() if key in deployments}
        self.successes = self._followed(memory, deployments.keys())
        # When the RUNNING runs of each deployment became so, and when its planned ones were due that have not ended.
        self._running: defaultdict[str | None, list[datetime]] = defaultdict(list)
        self._unfinished: defaultdict[str | None, list[datetime]] = defaultdict(list)
        live, due = run.inventory.live_flow_runs(), run.inventory.due_flow_runs()
        self._live_ids = {item.deployment_id for item in live}
        for flow_run in live:
            if flow_run.state_type == 'RUNNING' and flow_run.state_time is not None:
                self._running[flow_run.deployment_id].append(flow_run.state_time)
        for flow_run in (*live, *due, *run.inventory.restarting_flow_runs()):
            if flow_run.is_planned and flow_run.expected_start_time is not None:
                self._unfinished[flow_run.deployment_id].append(flow_run.expected_start_time)

    def age(self, deployment: Deployment, wanted: tuple[float, str] | None) -> _Verdict | None:
        """How old the last success is, and how old it may be; None where nothing is expected, or not known by now."""
        if deployment.is_paused:
            return None
        if wanted is None and not deployment.active_schedules:
            return None
        past = self._outcomes.by_id[deployment.id]
        if past.seen_success is None and not past.is_read:
            return None
        if wanted is not None:
            expected, source = wanted
            if expected == OFF:
                return None
            since = self._since(deployment, past)
            return _Verdict(age_seconds(since, self._run.now), expected, source) if since is not None else None
        return self._age_by_schedule(deployment, past)

    def run_time(self, deployment: Deployment, wanted: tuple[float, str] | None) -> _Verdict | None:
        """How long the oldest RUNNING run has been so, and how long it may; None as above."""
        running = self._running.get(deployment.id)
        if not running:
            return None
        seconds = age_seconds(min(running), self._run.now)
        if wanted is not None:
            return _Verdict(seconds, *wanted) if wanted[0] != OFF else None
        successes = self._successes_of(deployment.id)
        run_times = [item.run_time for item in successes or () if item.run_time is not None]
        if len(run_times) < _FEW:
            return None
        return _Verdict(seconds, 2 * max(run_times) + _LEAST_MARGIN, _HISTORY)

    def _age_by_schedule(self, deployment: Deployment, past: Past) -> _Verdict | None:
        since = self._since(deployment, past)
        first_due = self._first_due(deployment.id, past, since) if since is not None else None
        if since is None or first_due is None:
            return None
        until_due = age_seconds(since, first_due)
        seconds = age_seconds(since, self._run.now)
        verdict = _Verdict(seconds, until_due + _time_to_end(self._known_successes(deployment.id, past)), _SCHEDULE)
        if verdict.seconds <= verdict.expected:
            return verdict
        # It is overdue, as far as that is known: others of the last runs may have taken longer than the last one.
        successes = self._successes_of(deployment.id)
        if successes is None or (not successes and deployment.id in self._live_ids):
            return None
        return _Verdict(seconds, until_due + _time_to_end(successes), _SCHEDULE)

    def _since(self, deployment: Deployment, past: Past) -> datetime | None:
        """From when the time counts."""
        # Where there was no success since the oldest flow run, there may have been one before it.
        start = past.seen_success or self._oldest_end()
        times = (start, deployment.created, self.began.get(deployment.id))
        return max((time for time in times if time is not None), default=None)

    def _first_due(self, deployment_id: str, past: Past, since: datetime) -> datetime | None:
        """When the first planned run was due after a time, or is, None if none is known."""
        ended = [end.due for end in (*past.failures.values(), *past.cancelled.values()) if end.is_planned and end.due]
        known = [time for time in (*ended, *self._unfinished.get(deployment_id, ())) if time > since]
        first = min(known, default=None)
        if first is not None and max(len(past.failures), len(past.cancelled)) >= MAX_FAILURES:
            return self._first_of_many(deployment_id, since)
        if first is None and self._future is not None:
            return self._future.next_times.get(deployment_id)
        return first

    def _first_of_many(self, deployment_id: str, since: datetime) -> datetime | None:
        known = self.first_due.get(deployment_id)
        if known is None or known.since != since:
            if not self._reads:
                return None
            self._reads -= 1
            first = self._run.inventory.first_planned_flow_run_of(deployment_id, since)
            known = _FirstDue(since, first.expected_start_time if first is not None else None)
            self.first_due[deployment_id] = known
        return known.due

    def _oldest_end(self) -> datetime | None:
        now, oldest = self._run.now, self.oldest
        is_outdated = oldest is None or oldest.end is None or now - oldest.asked_at >= _OLDEST_INTERVAL
        if oldest is None or (is_outdated and oldest.asked_at != now):
            self.oldest = oldest = _Oldest(now, self._run.inventory.oldest_end())
        return oldest.end

    def _known_successes(self, deployment_id: str, past: Past) -> Iterable[_Success]:
        """Those that were read, or the last one."""
        if deployment_id in self.successes:
            return self.successes[deployment_id]
        last = past.last_success
        if last is None or last.due is None:
            return ()
        return [_Success(last.flow_run_id, last.time, age_seconds(last.due, last.time), None)]

    def _successes_of(self, deployment_id: str) -> tuple[_Success, ...] | None:
        """The last ones, newest first; None if this run of the check has read enough."""
        if deployment_id not in self.successes:
            if not self._reads:
                return None
            self._reads -= 1
            found = self._run.inventory.last_successes_of(deployment_id, _SUCCESSES)
            self.successes[deployment_id] = _newest(map(_Success.of, found))
        return self.successes[deployment_id]

    def _followed(self, memory: ExpectationsMemory, deployment_ids: Set[str]) -> dict[str, tuple[_Success, ...]]:
        """The successes that were read, and those since."""
        last_check, run = memory.last_check, self._run
        if last_check is None or abs(run.now - last_check) > run.settings.max_catchup:
            return {}
        known = {key: successes for key, successes in memory.successes.items() if key in deployment_ids}
        for flow_run in run.inventory.flow_runs_ended_since(last_check):
            if flow_run.deployment_id in known:
                others = [item for item in known[flow_run.deployment_id] if item.flow_run_id != flow_run.id]
                known[flow_run.deployment_id] = _newest([_Success.of(flow_run), *others])
        return known


def _newest(successes: Iterable[_Success | None]) -> tuple[_Success, ...]:
    there = [item for item in successes if item is not None]
    return tuple(sorted(there, key=lambda item: item.time, reverse=True)[:_SUCCESSES])


def _time_to_end(successes: Iterable[_Success]) -> float:
    """Within how many seconds after it is due a run is expected to have succeeded."""
    longest = max((item.since_due for item in successes if item.since_due is not None), default=0.0)
    return longest + max(_LEAST_MARGIN, longest / 2)


def _began(deployments: Mapping[str, Deployment], memory: ExpectationsMemory, now: datetime) -> Mapping[str, datetime]:
    """When each deployment was resumed, or a schedule of it was switched on, as far as that was seen."""
    began = {key: time for key, time in memory.began.items() if key in deployments}
    for key, item in deployments.items():
        was_paused, active_schedules = memory.rhythms.get(key, (item.is_paused, item.active_schedules))
        if (was_paused and not item.is_paused) or item.active_schedules > active_schedules:
            began[key] = now
    return began


def _warn(log: Log, bad_tags: Iterable[tuple[Deployment, str]], warned: Set[tuple[str, str]]) -> Set[tuple[str, str]]:
    """Warn once of each; of so many only."""
    for deployment, tag in bad_tags:
        key = (deployment.id, tag)
        if key not in warned and len(warned) < _WARNINGS:
            log.warning(
                'Deployment %r has an invalid expectation in a Prefect tag, which is ignored: %r. Use, for example, '
                '`expect:max_age=26h` or `expect:max_run_time=30m` (units s, m, h, d, w; or off)',
                deployment.name[:100],
                tag[:100],
            )
            warned = warned | {key}
    return warned
