"""Flow runs: how many are in which state now, and what started, ended and was retried since the last check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from datadog_checks.prefect.aggregation import Durations, ReportedTagSets, Tally
from datadog_checks.prefect.api.models import FlowRun, FlowRunState
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.failure_reason import FailureMemory, Failures
from datadog_checks.prefect.metrics import (
    FLOW_RUNS_CANCELLED,
    FLOW_RUNS_COMPLETED,
    FLOW_RUNS_CRASHED,
    FLOW_RUNS_EXECUTION_DURATION,
    FLOW_RUNS_FAILED,
    FLOW_RUNS_FAILURES,
    FLOW_RUNS_LATE_START,
    FLOW_RUNS_PAUSED,
    FLOW_RUNS_PENDING,
    FLOW_RUNS_QUEUE_WAIT_DURATION,
    FLOW_RUNS_RETRY_GAPS_DURATION,
    FLOW_RUNS_RUNNING,
    FLOW_RUNS_SCHEDULED,
    FLOW_RUNS_THROUGHPUT,
)
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.streams import state_history
from datadog_checks.prefect.streams.cursor import Batch, StreamCursor
from datadog_checks.prefect.streams.known_rows import KnownRows
from datadog_checks.prefect.streams.window import StreamWindow
from datadog_checks.prefect.tags import Tags

_LIVE_SERIES = {'PENDING': FLOW_RUNS_PENDING, 'RUNNING': FLOW_RUNS_RUNNING, 'PAUSED': FLOW_RUNS_PAUSED}
_TERMINAL_SERIES = {
    'COMPLETED': FLOW_RUNS_COMPLETED,
    'FAILED': FLOW_RUNS_FAILED,
    'CRASHED': FLOW_RUNS_CRASHED,
    'CANCELLED': FLOW_RUNS_CANCELLED,
}
# Flow runs that may have left a state unseen, by the id of the state in which their history was read, with the time at
# which they entered it. None after a start.
LookedAt = Mapping[str | None, datetime] | None


class FlowRuns:
    """How many flow runs are SCHEDULED, PENDING, RUNNING and PAUSED now."""

    name = 'flow_runs'
    initial_memory = ReportedTagSets()

    def collect(self, run: RunContext, memory: ReportedTagSets) -> tuple[list[Sample], ReportedTagSets]:
        future = run.inventory.future_runs()
        tally = Tally(*_LIVE_SERIES.values(), *([] if future is None else [FLOW_RUNS_SCHEDULED]))
        for flow_run, tags in run.inventory.tag(run.inventory.live_flow_runs()):
            if flow_run.state_type in _LIVE_SERIES:
                tally.add(_LIVE_SERIES[flow_run.state_type], tags)
        if future is not None:
            for _, tags in run.inventory.tag(run.inventory.due_flow_runs()):
                tally.add(FLOW_RUNS_SCHEDULED, tags)
            for tags, count in future.counts.items():
                tally.add(FLOW_RUNS_SCHEDULED, tags, count)
        tag_sets, reported = _tag_sets_to_report(run, memory, tally)
        return list(tally.samples(tag_sets)), reported


@dataclass(frozen=True)
class StreamMemory:
    """What a stream of flow runs remembers."""

    known: KnownRows = field(default_factory=KnownRows)
    looked_at: LookedAt = None
    reported: ReportedTagSets = field(default_factory=ReportedTagSets)


@dataclass(frozen=True)
class FinishedMemory(StreamMemory):
    failures: FailureMemory = field(default_factory=FailureMemory)


class FinishedFlowRuns:
    """The flow runs that ended. A run that is retried by hand ends again, at another time, and counts again."""

    name = 'flow_runs.finished'
    initial_memory = FinishedMemory()

    def collect(self, run: RunContext, cursor: StreamCursor | None, memory: FinishedMemory) -> Batch[FinishedMemory]:
        window = run.window(self.name, cursor, memory.known)
        tally = Tally(*_TERMINAL_SERIES.values())
        durations = Durations(FLOW_RUNS_EXECUTION_DURATION)
        failures = Failures(FLOW_RUNS_FAILURES, run, memory.failures)
        inventory = run.inventory
        finished = window.read(inventory.finished_flow_runs, inventory.count_finished_flow_runs)
        inventory.ends_are_read(window.since)
        for flow_run, tags in inventory.tag(window.select_new(finished, lambda item: item.ended_at)):
            if flow_run.state_type in _TERMINAL_SERIES:
                tally.add(_TERMINAL_SERIES[flow_run.state_type], tags)
                failures.add(tags, flow_run.state_type, flow_run.state_name, flow_run.state_message)
            if flow_run.run_count:
                durations.add(tags, flow_run.total_run_time)
        # Ends that a retry by hand has taken back on the row meanwhile.
        histories, looked_at = _read_histories(run, window, memory.looked_at)
        for flow_run, tags, states in histories:
            for state, running_seconds in state_history.ends(states):
                if window.is_new_for(flow_run, state.timestamp):
                    tally.add(_TERMINAL_SERIES[state.type], tags)
                    failures.add(tags, state.type, state.name, state.message)
                    if running_seconds is not None:
                        durations.add(tags, running_seconds)
        tag_sets, reported = _tag_sets_to_report(run, memory.reported, tally)
        reasons, failure_memory = failures.samples()
        samples = [*tally.samples(tag_sets), *durations.samples(), *reasons]
        remembered = FinishedMemory(window.next_known(), looked_at, reported, failure_memory)
        return Batch(samples, window.next_cursor(), remembered)


class StartedFlowRuns:
    """The flow runs that entered RUNNING for the first time, and how long after the expected time they did."""

    name = 'flow_runs.started'
    initial_memory = StreamMemory()

    def collect(self, run: RunContext, cursor: StreamCursor | None, memory: StreamMemory) -> Batch[StreamMemory]:
        window = run.window(self.name, cursor, memory.known)
        tally = Tally(FLOW_RUNS_THROUGHPUT, FLOW_RUNS_LATE_START)
        waits = Durations(FLOW_RUNS_QUEUE_WAIT_DURATION)

        def add(flow_run: FlowRun, start_time: datetime, tags: Tags) -> None:
            wait = start_time - (flow_run.expected_start_time or start_time)
            tally.add(FLOW_RUNS_THROUGHPUT, tags)
            waits.add(tags, wait)
            if wait > run.settings.late_start_threshold:
                tally.add(FLOW_RUNS_LATE_START, tags)

        count = run.inventory.count_started_flow_runs
        started = window.read(run.inventory.started_flow_runs, count, count)
        # The row of a run that ended without a start, and then was retried, keeps that end as its start.
        doubtful = [item for item in started if item.was_interrupted]
        window.know((item, item.start_time) for item in doubtful if item.start_time is not None)
        plain = window.select_new((item for item in started if not item.was_interrupted), lambda item: item.start_time)
        for flow_run, tags in run.inventory.tag(plain):
            # A run that ended without having run has a start, but no run count.
            if flow_run.start_time is not None and flow_run.run_count:
                add(flow_run, flow_run.start_time, tags)
        histories, looked_at = _read_histories(run, window, memory.looked_at, doubtful)
        for flow_run, tags, states in histories:
            first = state_history.start(states)
            if first is not None and window.is_new_for(flow_run, first.timestamp):
                add(flow_run, first.timestamp, tags)
        tag_sets, reported = _tag_sets_to_report(run, memory.reported, tally)
        samples = [*tally.samples(tag_sets), *waits.samples()]
        return Batch(samples, window.next_cursor(), StreamMemory(window.next_known(), looked_at, reported))


class RetryGaps:
    """How long flow runs waited from AwaitingRetry to the RUNNING state that followed."""

    name = 'flow_runs.retry_gaps'
    initial_memory: LookedAt = None

    def collect(self, run: RunContext, cursor: StreamCursor | None, memory: LookedAt) -> Batch[LookedAt]:
        window = run.window(self.name, cursor)
        gaps = Durations(FLOW_RUNS_RETRY_GAPS_DURATION)
        histories, looked_at = _read_histories(run, window, memory)
        for _, tags, states in histories:
            for running, gap in state_history.retry_gaps(states):
                if running.timestamp >= window.known_since and window.is_new(running.id, running.timestamp):
                    gaps.add(tags, gap)
        return Batch(list(gaps.samples()), window.next_cursor(), looked_at)


def _read_histories(
    run: RunContext, window: StreamWindow, looked_at: LookedAt, more: Iterable[FlowRun] = ()
) -> tuple[list[tuple[FlowRun, Tags, list[FlowRunState]]], LookedAt]:
    """The flow runs of the window, and of `more`, that may have left a state unseen, each with its tags and all states.

    These are only to be had run by run, so each run is looked at once per state that it is found in. After a start all
    of the window is.
    """
    known = {state: entered for state, entered in (looked_at or {}).items() if entered >= window.since}
    if window.is_first:
        return [], known
    interrupted = run.inventory.interrupted_flow_runs(window.everything, is_anew=looked_at is None)
    candidates = {(item.id, item.state_id): item for item in (*interrupted, *more)}
    unread = [
        item for item in candidates.values() if item.state_id not in known and _entered(run, item) >= window.since
    ]
    found = [(flow_run, tags, run.inventory.flow_run_states(flow_run)) for flow_run, tags in run.inventory.tag(unread)]
    # A replica of the server may be behind the one that showed the run: then it is looked at again.
    behind = {item.state_id for item, _, states in found if states and item.state_id not in {x.id for x in states}}
    return found, known | {item.state_id: _entered(run, item) for item in unread if item.state_id not in behind}


def _entered(run: RunContext, flow_run: FlowRun) -> datetime:
    return flow_run.state_time or run.now


def _tag_sets_to_report(run: RunContext, reported: ReportedTagSets, tally: Tally) -> tuple[set[Tags], ReportedTagSets]:
    """The tag sets with a value, those that are to be 0 now, and those of every deployment: these at each run."""
    tag_sets, reported = reported.with_active(run.now, tally.tag_sets())
    return tag_sets | set(run.inventory.deployment_tags().values()), reported
