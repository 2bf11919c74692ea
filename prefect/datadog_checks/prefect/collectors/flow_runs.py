"""Flow runs: how many are in which state now, and what started, ended and was retried since the last check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain

from datadog_checks.prefect.aggregation import Durations, ReportedTagSets, Tally
from datadog_checks.prefect.api.models import FlowRun, FlowRunState
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.metrics import (
    FLOW_RUNS_CANCELLED,
    FLOW_RUNS_COMPLETED,
    FLOW_RUNS_CRASHED,
    FLOW_RUNS_EXECUTION_DURATION,
    FLOW_RUNS_FAILED,
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
from datadog_checks.prefect.streams.window import StreamWindow
from datadog_checks.prefect.tags import Tags

_LIVE_SERIES = {'PENDING': FLOW_RUNS_PENDING, 'RUNNING': FLOW_RUNS_RUNNING, 'PAUSED': FLOW_RUNS_PAUSED}
_TERMINAL_SERIES = {
    'COMPLETED': FLOW_RUNS_COMPLETED,
    'FAILED': FLOW_RUNS_FAILED,
    'CRASHED': FLOW_RUNS_CRASHED,
    'CANCELLED': FLOW_RUNS_CANCELLED,
}


class FlowRuns:
    """How many flow runs are SCHEDULED, PENDING, RUNNING and PAUSED now."""

    name = 'flow_runs'

    def __init__(self) -> None:
        self._reported = ReportedTagSets()

    def collect(self, run: RunContext) -> Iterator[Sample]:
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
        yield from tally.samples(_tag_sets_to_report(run, self._reported, tally.tag_sets()))


class FinishedFlowRuns:
    """The flow runs that ended. A run that is retried by hand ends again, at another time, and counts again."""

    name = 'flow_runs.finished'

    def __init__(self) -> None:
        self._histories = Histories()
        self._reported = ReportedTagSets()

    def collect(self, run: RunContext, cursor: StreamCursor | None) -> Batch:
        window = run.window(self.name, cursor)
        tally = Tally(*_TERMINAL_SERIES.values())
        durations = Durations(FLOW_RUNS_EXECUTION_DURATION)
        inventory = run.inventory
        finished = window.read(inventory.finished_flow_runs, inventory.count_finished_flow_runs)
        for flow_run, tags in inventory.tag(window.select_new(finished, lambda item: item.ended_at)):
            if flow_run.state_type in _TERMINAL_SERIES:
                tally.add(_TERMINAL_SERIES[flow_run.state_type], tags)
            if flow_run.run_count:
                durations.add(tags, flow_run.total_run_time)
        # Ends that a retry by hand has taken back on the row meanwhile.
        for flow_run, tags, states in self._histories.read(run, window):
            for state, running_seconds in state_history.ends(states):
                if window.is_new_for(flow_run, state.timestamp):
                    tally.add(_TERMINAL_SERIES[state.type], tags)
                    if running_seconds is not None:
                        durations.add(tags, running_seconds)
        tag_sets = _tag_sets_to_report(run, self._reported, tally.tag_sets())
        self._histories.commit()
        return Batch(chain(tally.samples(tag_sets), durations.samples()), window.next_cursor())


class StartedFlowRuns:
    """The flow runs that entered RUNNING for the first time, and how long after the expected time they did."""

    name = 'flow_runs.started'

    def __init__(self) -> None:
        self._histories = Histories()
        self._reported = ReportedTagSets()

    def collect(self, run: RunContext, cursor: StreamCursor | None) -> Batch:
        window = run.window(self.name, cursor)
        tally = Tally(FLOW_RUNS_THROUGHPUT, FLOW_RUNS_LATE_START)
        waits = Durations(FLOW_RUNS_QUEUE_WAIT_DURATION)

        def add(flow_run: FlowRun, start_time: datetime, tags: Tags) -> None:
            wait = start_time - (flow_run.expected_start_time or start_time)
            tally.add(FLOW_RUNS_THROUGHPUT, tags)
            waits.add(tags, wait)
            if wait > run.settings.late_start_threshold:
                tally.add(FLOW_RUNS_LATE_START, tags)

        started = window.read(run.inventory.started_flow_runs, run.inventory.count_started_flow_runs)
        # The row of a run that ended without a start, and then was retried, keeps that end as its start.
        doubtful = [item for item in started if item.was_interrupted]
        plain = window.select_new((item for item in started if not item.was_interrupted), lambda item: item.start_time)
        for flow_run, tags in run.inventory.tag(plain):
            # A run that ended without having run has a start, but no run count.
            if flow_run.start_time is not None and flow_run.run_count:
                add(flow_run, flow_run.start_time, tags)
        for flow_run, tags, states in self._histories.read(run, window, doubtful):
            first = state_history.start(states)
            if first is not None and window.is_new_for(flow_run, first.timestamp):
                add(flow_run, first.timestamp, tags)
        tag_sets = _tag_sets_to_report(run, self._reported, tally.tag_sets())
        self._histories.commit()
        return Batch(chain(tally.samples(tag_sets), waits.samples()), window.next_cursor())


class RetryGaps:
    """How long flow runs waited from AwaitingRetry to the RUNNING state that followed."""

    name = 'flow_runs.retry_gaps'

    def __init__(self) -> None:
        self._histories = Histories()

    def collect(self, run: RunContext, cursor: StreamCursor | None) -> Batch:
        window = run.window(self.name, cursor)
        gaps = Durations(FLOW_RUNS_RETRY_GAPS_DURATION)
        for _, tags, states in self._histories.read(run, window):
            for running, gap in state_history.retry_gaps(states):
                if running.timestamp >= window.known_since and window.is_new(running.id, running.timestamp):
                    gaps.add(tags, gap)
        self._histories.commit()
        return Batch(gaps.samples(), window.next_cursor())


class Histories:
    """The states of the flow runs that may have left one unseen.

    They are only to be had run by run, so each run is looked at once per state that it is found in. `commit` makes that
    final, once nothing can fail any more. What was found so is not persisted: after a start all of the window is read.
    """

    def __init__(self) -> None:
        # State id -> when the run entered it; None before the first commit.
        self._looked_at: dict[str | None, datetime] | None = None
        self._uncommitted: dict[str | None, datetime] = {}

    def read(
        self, run: RunContext, window: StreamWindow, more: Iterable[FlowRun] = ()
    ) -> Iterator[tuple[FlowRun, Tags, list[FlowRunState]]]:
        """Each such run of the window, and of `more`, with its tags and all its states."""
        looked_at = self._looked_at or {}
        self._uncommitted = {state: entered for state, entered in looked_at.items() if entered >= window.since}
        candidates = {(item.id, item.state_id): item for item in (*self._interrupted(run, window), *more)}
        unread = [
            item
            for item in candidates.values()
            if _entered(run, item) >= window.since and item.state_id not in self._uncommitted
        ]
        for flow_run, tags in run.inventory.tag(unread):
            self._uncommitted[flow_run.state_id] = _entered(run, flow_run)
            yield flow_run, tags, run.inventory.flow_run_states(flow_run.id)

    def commit(self) -> None:
        self._looked_at = self._uncommitted

    def _interrupted(self, run: RunContext, window: StreamWindow) -> list[FlowRun]:
        if not window.time_ranges:
            return []
        return run.inventory.interrupted_flow_runs(
            window.time_ranges if self._looked_at is not None else [window.everything]
        )


def _entered(run: RunContext, flow_run: FlowRun) -> datetime:
    return flow_run.state_time or run.now


def _tag_sets_to_report(run: RunContext, reported: ReportedTagSets, active: Iterable[Tags]) -> set[Tags]:
    """The tag sets with a value, those that are to be 0 now, and those of every deployment: these at each run."""
    of_deployments = set(run.inventory.deployment_tags().values())
    # Last, for it forgets what was reported as 0: a lookup that fails must come before.
    return of_deployments | reported.update(run.now, active)
