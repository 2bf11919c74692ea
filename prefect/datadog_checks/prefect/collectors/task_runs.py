"""Task runs: how many are in which state now, and what started and ended since the last run of the check.

They carry no deployment, pool or queue of their own: those are joined from their flow run. The dummy task run that
stands for a subflow in its parent is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from datadog_checks.prefect.aggregation import Durations, LingeringSeries, Tally
from datadog_checks.prefect.api.models import TaskRun
from datadog_checks.prefect.api.versions import TASK_RUN_END_FILTER
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.failure_reason import FailureMemory, Failures
from datadog_checks.prefect.metrics import (
    TASK_RUNS_CANCELLED,
    TASK_RUNS_COMPLETED,
    TASK_RUNS_CRASHED,
    TASK_RUNS_DEPENDENCY_WAIT_DURATION,
    TASK_RUNS_EXECUTION_DURATION,
    TASK_RUNS_FAILED,
    TASK_RUNS_FAILURES,
    TASK_RUNS_LATE_START,
    TASK_RUNS_PAUSED,
    TASK_RUNS_PENDING,
    TASK_RUNS_RUNNING,
    TASK_RUNS_THROUGHPUT,
)
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.streams.cursor import Batch, StreamCursor
from datadog_checks.prefect.streams.known_rows import KnownRows
from datadog_checks.prefect.streams.window import OVERLAP, StreamWindow

_LIVE_SERIES = {'PENDING': TASK_RUNS_PENDING, 'RUNNING': TASK_RUNS_RUNNING, 'PAUSED': TASK_RUNS_PAUSED}
_TERMINAL_SERIES = {
    'COMPLETED': TASK_RUNS_COMPLETED,
    'FAILED': TASK_RUNS_FAILED,
    'CRASHED': TASK_RUNS_CRASHED,
    'CANCELLED': TASK_RUNS_CANCELLED,
}


class TaskRuns:
    """How many task runs are PENDING, RUNNING and PAUSED now.

    Only those whose flow run is RUNNING, and those of none.
    """

    name = 'task_runs'
    initial_memory = LingeringSeries()

    def collect(self, run: RunContext, memory: LingeringSeries) -> tuple[list[Sample], LingeringSeries]:
        tally = Tally(*_LIVE_SERIES.values())
        for task_run, tags in run.inventory.tag_task_runs(run.inventory.live_task_runs()):
            if task_run.state_type in _LIVE_SERIES:
                tally.add(_LIVE_SERIES[task_run.state_type], tags)
        return memory.samples(run.now, tally, tag_sets=tally.tag_sets())


@dataclass(frozen=True)
class StreamMemory:
    """What a stream of task runs remembers."""

    known: KnownRows = field(default_factory=KnownRows)
    reported: LingeringSeries = field(default_factory=LingeringSeries)


@dataclass(frozen=True)
class FinishedMemory(StreamMemory):
    failures: FailureMemory = field(default_factory=FailureMemory)


class FinishedTaskRuns:
    """The task runs that ended, each once per end."""

    name = 'task_runs.finished'
    initial_memory = FinishedMemory()

    def collect(self, run: RunContext, cursor: StreamCursor | None, memory: FinishedMemory) -> Batch[FinishedMemory]:
        window = run.window(self.name, cursor, memory.known)
        tally = Tally(*_TERMINAL_SERIES.values())
        durations = Durations(TASK_RUNS_EXECUTION_DURATION)
        failures = Failures(TASK_RUNS_FAILURES, run, memory.failures)
        finished = self._read(run, window)
        run.inventory.remember_ends(finished)
        new = window.select_new(finished, lambda item: item.end_time)
        for task_run, tags in run.inventory.tag_task_runs(new):
            if task_run.state_type in _TERMINAL_SERIES:
                tally.add(_TERMINAL_SERIES[task_run.state_type], tags)
                failures.add(tags, task_run.state_type, task_run.state_name, task_run.state_message)
            if task_run.run_count:
                durations.add(tags, task_run.total_run_time)
        samples, reported = memory.reported.samples(run.now, tally, tag_sets=tally.tag_sets())
        reasons, failure_memory = failures.samples()
        samples += [*durations.samples(), *reasons]
        return Batch(samples, window.next_cursor(), FinishedMemory(window.next_known(), reported, failure_memory))

    def _read(self, run: RunContext, window: StreamWindow) -> list[TaskRun]:
        """The task runs that ended. Some servers have no filter on their end, but a sort by it."""
        inventory = run.inventory
        if inventory.has(TASK_RUN_END_FILTER):
            counts = inventory.count_finished_task_runs
            return window.read(inventory.finished_task_runs, counts, counts)
        return [] if window.is_first else inventory.newest_finished_task_runs(window.since)


class StartedTaskRuns:
    """The task runs that entered RUNNING for the first time, and how long after the end of their upstreams they did."""

    name = 'task_runs.started'
    initial_memory = StreamMemory()

    def collect(self, run: RunContext, cursor: StreamCursor | None, memory: StreamMemory) -> Batch[StreamMemory]:
        window = run.window(self.name, cursor, memory.known)
        tally = Tally(TASK_RUNS_THROUGHPUT, TASK_RUNS_LATE_START)
        waits = Durations(TASK_RUNS_DEPENDENCY_WAIT_DURATION)
        count = run.inventory.count_started_task_runs
        started = window.read(run.inventory.started_task_runs, count, count)
        run.inventory.remember_ends(started)
        upstream_ends = run.inventory.task_run_ends({upstream for item in started for upstream in item.upstream_ids})
        complete = (item for item in started if not _is_incomplete(item, upstream_ends, run.now))
        new = [item for item in window.select_new(complete, lambda item: item.start_time) if item.run_count]
        for task_run, tags in run.inventory.tag_task_runs(new):
            tally.add(TASK_RUNS_THROUGHPUT, tags)
            if _delay(task_run) > run.settings.late_start_threshold:
                tally.add(TASK_RUNS_LATE_START, tags)
            wait = _wait(task_run, upstream_ends)
            if wait is not None:
                waits.add(tags, wait)
        samples, reported = memory.reported.samples(run.now, tally, tag_sets=tally.tag_sets())
        samples += waits.samples()
        return Batch(samples, window.next_cursor(), StreamMemory(window.next_known(), reported))


def _delay(task_run: TaskRun) -> timedelta:
    """How long after the time for which it was expected a task run started."""
    if task_run.start_time is None or task_run.expected_start_time is None:
        return timedelta()
    return task_run.start_time - task_run.expected_start_time


def _wait(task_run: TaskRun, upstream_ends: Mapping[str, datetime]) -> timedelta | None:
    """How long after the last end of its upstreams a task run started; None if that is not known."""
    ends = [upstream_ends[item] for item in task_run.upstream_ids if item in upstream_ends]
    return task_run.start_time - max(ends) if ends and task_run.start_time is not None else None


def _is_incomplete(task_run: TaskRun, upstream_ends: dict[str, datetime], now: datetime) -> bool:
    """Whether an upstream that must have ended is not recorded as ended yet: then the task run counts in a later run.

    The recorder writes rows one by one, so the row of a task run may be seen before the last row of its upstream. That
    one shows within `OVERLAP` too, and for so long the task run is read again.
    """
    if task_run.start_time is None or now - task_run.start_time > OVERLAP:
        return False
    return any(upstream_id not in upstream_ends for upstream_id in task_run.upstream_ids)
