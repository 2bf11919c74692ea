"""Lost heartbeats: RUNNING flow runs whose process is gone.

A run whose machine is gone stays RUNNING forever. Its process sends an event (`prefect.flow-run.heartbeat`) now and
then, from 3.6.13 on, every 30 s at the most often (3.8.8). How often is a setting of the process, so it is learnt from
three beats on. A run that never sent one is not judged: most send none before 3.6.22.

That beats do not come may also be the fault of the server: nothing is said to be lost while its own events are missing,
nor before it has been there for three intervals after it was away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median_high

from datadog_checks.prefect.aggregation import LingeringSeries, Maxima, Tally
from datadog_checks.prefect.api.models import EventCount, FlowRun
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.api.times import age_seconds
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.event_names import HEARTBEAT
from datadog_checks.prefect.metrics import FLOW_RUNS_HEARTBEAT_LOST, FLOW_RUNS_HEARTBEAT_MAX_AGE
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.streams.event_reading import EVENT_MARGIN

# So many intervals without a beat are too many.
_INTERVALS = 3
# Times between beats that are remembered of a run, and how many it takes: three beats.
_GAPS = 5
_LEAST_GAPS = 2
# How far back beats are read at most, and how far ahead the clocks of processes may be.
_PERIOD = timedelta(days=1)
# A check that comes so much later than the one before did not see what was between.
_LONGEST_PAUSE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Beats:
    """The last beat of a run by the clock of its process, and since when it may have been there by that of the server;
    the last times between two beats; whether the run is lost.
    """

    last: datetime
    there_since: datetime
    gaps: tuple[timedelta, ...] = ()
    is_lost: bool = False

    @property
    def interval(self) -> timedelta | None:
        """None before three beats. A machine that slept for a while does not change it."""
        return median_high(self.gaps) if len(self.gaps) >= _LEAST_GAPS else None

    def after(self, row: EventCount, there_since: datetime) -> Beats:
        """With those of a time range that may begin before the last one."""
        if row.last <= self.last:
            return self
        # Only the first and the last are known: those between are as far apart as in the mean.
        mean = (row.last - row.first) / max(1, row.count - 1)
        times = [row.last - mean * index for index in range(min(row.count, _GAPS + 1))]
        new = [self.last, *sorted(time for time in times if time > self.last + mean / 2)]
        gaps = tuple(later - earlier for earlier, later in pairwise(new))
        return Beats(row.last, there_since, (*self.gaps, *gaps)[-_GAPS:])


@dataclass(frozen=True)
class HeartbeatsMemory:
    """The beats by the id of the run, of those that are RUNNING.

    `read_until` is when they were read last, `pause` how long before that the last but one time was, and `there_since`
    since when they are read without a longer pause: before that the server, or the Agent, was away.
    """

    beats: Mapping[str, Beats] = field(default_factory=dict)
    read_until: datetime | None = None
    pause: timedelta = timedelta()
    there_since: datetime | None = None
    lingering: LingeringSeries = field(default_factory=LingeringSeries)


class Heartbeats:
    name = 'heartbeats'
    initial_memory = HeartbeatsMemory()

    def collect(self, run: RunContext, memory: HeartbeatsMemory) -> tuple[list[Sample], HeartbeatsMemory]:
        run.inventory.remember_states()
        memory = _going_on(run.now, memory)
        running = {item.id: item for item in run.inventory.live_flow_runs() if item.state_type == 'RUNNING'}
        beats: Mapping[str, Beats] = {key: item for key, item in memory.beats.items() if key in running}
        if running:
            beats = _read(run, _since(run, memory, running), running, memory, beats)
        if silent := _silent(run, memory, beats):
            # The clock of a process may be far behind, and the server busy: what it has by now is looked at once more.
            beats = _read(run, min(beats[key].last for key in silent), running, memory, beats)
            silent = _silent(run, memory, beats)
        is_doubted = bool(silent) and _is_doubted(run, min(beats[key].last for key in silent))
        if not is_doubted:
            beats = {**beats, **{key: replace(beats[key], is_lost=True) for key in silent}}
        samples, lingering = _describe(run, running, beats, memory.lingering)
        if is_doubted:
            # How old the last beat is nobody knows.
            samples = [item for item in samples if item.spec is not FLOW_RUNS_HEARTBEAT_MAX_AGE]
        return samples, replace(memory, beats=beats, read_until=run.now, lingering=lingering)


def _going_on(now: datetime, memory: HeartbeatsMemory) -> HeartbeatsMemory:
    """The memory with the pause since the last time."""
    if memory.read_until is None or memory.there_since is None:
        return replace(memory, there_since=now)
    pause = abs(now - memory.read_until)
    is_long = pause > 2 * memory.pause + _LONGEST_PAUSE
    return replace(memory, pause=pause, there_since=now if is_long else memory.there_since)


def _since(run: RunContext, memory: HeartbeatsMemory, running: Mapping[str, FlowRun]) -> datetime:
    """From when on to read: since the last time; after a start all of the runs that are RUNNING, a day at most."""
    since = memory.read_until
    if since is None:
        starts = [item.start_time for item in running.values() if item.start_time is not None]
        since = min(starts, default=run.now)
    return min(since, run.now) - EVENT_MARGIN


def _read(
    run: RunContext,
    since: datetime,
    running: Mapping[str, FlowRun],
    memory: HeartbeatsMemory,
    known: Mapping[str, Beats],
) -> dict[str, Beats]:
    """What is known with the beats since a time."""
    time_range = TimeRange(max(since, run.now - _PERIOD), run.now + _PERIOD)
    beats = dict(known)
    # What was not there at the last time has come since.
    there_since = memory.read_until or run.now
    for row in run.inventory.count_events_by_resource(HEARTBEAT, time_range):
        key = row.object_id
        if key in running:
            beats[key] = beats.get(key, Beats(row.first, there_since)).after(row, there_since)
    return beats


def _silent(run: RunContext, memory: HeartbeatsMemory, beats: Mapping[str, Beats]) -> list[str]:
    """The runs that are not lost yet, and have sent nothing for too long."""
    there_since = memory.there_since or run.now
    return [
        key
        for key, item in beats.items()
        if not item.is_lost
        and item.interval is not None
        and run.now - max(item.last, item.there_since, there_since) > _INTERVALS * item.interval
    ]


def _is_doubted(run: RunContext, since: datetime) -> bool:
    """Whether events that should be there are not, since a time: then beats may be missing, too."""
    if any(time > since for time in run.inventory.written_states().newest_missing):
        return True
    if run.inventory.service_settings().enabled.get('event_persister') is not False:
        return False
    # It may run in a process of its own, with other settings: then there are events.
    return not run.inventory.newest_events({}, TimeRange(since + EVENT_MARGIN, run.now), 1)


def _describe(
    run: RunContext, running: Mapping[str, FlowRun], beats: Mapping[str, Beats], lingering: LingeringSeries
) -> tuple[list[Sample], LingeringSeries]:
    lost, ages = Tally(FLOW_RUNS_HEARTBEAT_LOST), Maxima(FLOW_RUNS_HEARTBEAT_MAX_AGE)
    for flow_run, tags in run.inventory.tag([running[key] for key in beats]):
        item = beats[flow_run.id]
        # 0 too, while there is somebody who could be lost.
        lost.add(FLOW_RUNS_HEARTBEAT_LOST, tags, item.is_lost)
        ages.add(FLOW_RUNS_HEARTBEAT_MAX_AGE, tags, age_seconds(item.last, run.now))
    return lingering.samples(run.now, lost, ages)
