"""Task runs: how many are in which state now, and what started and ended since the last run of the check.

They carry no deployment, pool or queue of their own: those are joined from their flow run. The dummy task run that
stands for a subflow in its parent is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Any

from datadog_checks.prefect.aggregation import Durations, LingeringSeries, Tally
from datadog_checks.prefect.api.errors import Rejected
from datadog_checks.prefect.api.models import LIVE_STATE_TYPES, TaskRun, task_name
from datadog_checks.prefect.api.paging import TASK_RUNS_BY_END, TASK_RUNS_BY_EXPECTED_START
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.inventory.inventory import NO_DUMMIES
from datadog_checks.prefect.metrics import (
    TASK_RUNS_CANCELLED,
    TASK_RUNS_COMPLETED,
    TASK_RUNS_CRASHED,
    TASK_RUNS_DEPENDENCY_WAIT_DURATION,
    TASK_RUNS_EXECUTION_DURATION,
    TASK_RUNS_FAILED,
    TASK_RUNS_LATE_START,
    TASK_RUNS_PAUSED,
    TASK_RUNS_PENDING,
    TASK_RUNS_RUNNING,
    TASK_RUNS_THROUGHPUT,
)
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.streams.counted_rows import CountedRows
from datadog_checks.prefect.streams.cursor import Batch, StreamCursor
from datadog_checks.prefect.streams.window import OVERLAP, StreamWindow
from datadog_checks.prefect.tags import TASK_KEY, TASK_NAME, Tags, make_tags, merge_tags

_LIVE_SERIES = {'PENDING': TASK_RUNS_PENDING, 'RUNNING': TASK_RUNS_RUNNING, 'PAUSED': TASK_RUNS_PAUSED}
_TERMINAL_SERIES = {
    'COMPLETED': TASK_RUNS_COMPLETED,
    'FAILED': TASK_RUNS_FAILED,
    'CRASHED': TASK_RUNS_CRASHED,
    'CANCELLED': TASK_RUNS_CANCELLED,
}
_OPEN_STATE_TYPES = ['SCHEDULED', *LIVE_STATE_TYPES]


class TaskRuns:
    """How many task runs are PENDING, RUNNING and PAUSED now.

    Only those whose flow run is RUNNING, and those of none.
    """

    name = 'task_runs'

    def __init__(self) -> None:
        self._reported = LingeringSeries()

    def collect(self, run: RunContext) -> Iterator[Sample]:
        tally = Tally(*_LIVE_SERIES.values())
        for task_run, tags in tag_task_runs(run, run.inventory.live_task_runs()):
            if task_run.state_type in _LIVE_SERIES:
                tally.add(_LIVE_SERIES[task_run.state_type], tags)
        yield from self._reported.samples(run.now, tally, tag_sets=tally.tag_sets())


class FinishedTaskRuns:
    """The task runs that ended, each once per end."""

    name = 'task_runs.finished'

    def __init__(self) -> None:
        self._reported = LingeringSeries()
        self._counted = CountedRows()
        self._has_end_time_filter = True

    def collect(self, run: RunContext, cursor: StreamCursor | None) -> Batch:
        window = run.window(self.name, cursor, self._counted)
        tally = Tally(*_TERMINAL_SERIES.values())
        durations = Durations(TASK_RUNS_EXECUTION_DURATION)
        finished = self._read(run, window)
        run.inventory.remember_ends(finished)
        new = window.select_new(finished, lambda item: item.end_time)
        for task_run, tags in tag_task_runs(run, new):
            if task_run.state_type in _TERMINAL_SERIES:
                tally.add(_TERMINAL_SERIES[task_run.state_type], tags)
            if task_run.run_count:
                durations.add(tags, task_run.total_run_time)
        samples = chain(self._reported.samples(run.now, tally, tag_sets=tally.tag_sets()), durations.samples())
        return Batch(samples, window.next_cursor())

    def _read(self, run: RunContext, window: StreamWindow) -> list[TaskRun]:
        """The task runs that ended. Servers before 3.6.22 have no filter on their end, but a sort by it."""
        if self._has_end_time_filter:
            try:
                return window.read(
                    run.inventory.finished_task_runs,
                    lambda time_range: _count_time_range(run, 'end_time', time_range),
                    lambda time_range, ids: _count_time_range(run, 'end_time', time_range, ids),
                )
            except Rejected as error:
                run.log.debug('No filter on the end of task runs on this server, going by the sort: %s', error)
                self._has_end_time_filter = False
        if window.is_first:
            return []
        terminal = {'state': {'type': {'any_': list(_TERMINAL_SERIES)}}} | NO_DUMMIES
        return [
            item
            for body in run.inventory.scope().task_runs(terminal)
            for item in run.client.newest_task_runs(body, TASK_RUNS_BY_END, window.since)
        ]


class StartedTaskRuns:
    """The task runs that entered RUNNING for the first time, and how long after the end of their upstreams they did."""

    name = 'task_runs.started'

    def __init__(self) -> None:
        self._counted = CountedRows()
        self._reported = LingeringSeries()
        self._has_end_time_filter = True

    def collect(self, run: RunContext, cursor: StreamCursor | None) -> Batch:
        window = run.window(self.name, cursor, self._counted)
        tally = Tally(TASK_RUNS_THROUGHPUT, TASK_RUNS_LATE_START)
        waits = Durations(TASK_RUNS_DEPENDENCY_WAIT_DURATION)
        started = window.read(
            lambda time_range: self._read(run, time_range),
            lambda time_range: _count_time_range(run, 'start_time', time_range),
            lambda time_range, ids: _count_time_range(run, 'start_time', time_range, ids),
        )
        run.inventory.remember_ends(started)
        upstream_ends = run.inventory.task_run_ends({upstream for item in started for upstream in item.upstream_ids})
        complete = (item for item in started if not _is_incomplete(item, upstream_ends, run.now))
        new = [item for item in window.select_new(complete, lambda item: item.start_time) if item.run_count]
        for task_run, tags in tag_task_runs(run, new):
            tally.add(TASK_RUNS_THROUGHPUT, tags)
            if task_run.start_time is None:
                continue
            expected = task_run.expected_start_time or task_run.start_time
            if task_run.start_time - expected > run.settings.late_start_threshold:
                tally.add(TASK_RUNS_LATE_START, tags)
            ends = [upstream_ends[item] for item in task_run.upstream_ids if item in upstream_ends]
            if ends:
                waits.add(tags, task_run.start_time - max(ends))
        samples = chain(self._reported.samples(run.now, tally, tag_sets=tally.tag_sets()), waits.samples())
        return Batch(samples, window.next_cursor())

    def _read(self, run: RunContext, time_range: TimeRange) -> list[TaskRun]:
        """The task runs that started in a time range.

        What started since a time has ended since, or is open. Those that ended are read anyway, and most of what starts
        ends soon. The open ones come first: what ends between the two requests is in both.
        """
        is_up_to_now = time_range.until is None or time_range.until > run.now
        if self._has_end_time_filter and is_up_to_now:
            try:
                still_open = _started_in(run, time_range, {'state': {'type': {'any_': _OPEN_STATE_TYPES}}})
                return [*still_open, *run.inventory.finished_task_runs(time_range)]
            except Rejected as error:
                run.log.debug('No filter on the end of task runs on this server, reading all that started: %s', error)
                self._has_end_time_filter = False
        return _started_in(run, time_range)


def _started_in(run: RunContext, time_range: TimeRange, criteria: dict[str, Any] | None = None) -> list[TaskRun]:
    """The task runs that started in a time range and meet the criteria."""
    bodies = run.inventory.scope().task_runs({'start_time': time_range.criterion()} | NO_DUMMIES | (criteria or {}))
    return [item for body in bodies for item in run.client.task_runs(body, TASK_RUNS_BY_EXPECTED_START)]


def _count_time_range(run: RunContext, time: str, time_range: TimeRange, ids: list[str] | None = None) -> int:
    """How many there are, of these ids or at all."""
    criteria = {time: time_range.criterion()} | NO_DUMMIES | ({} if ids is None else {'id': {'any_': ids}})
    bodies = run.inventory.scope().task_runs(criteria)
    return sum(run.client.count_task_runs(body) for body in bodies)


def _is_incomplete(task_run: TaskRun, upstream_ends: dict[str, datetime], now: datetime) -> bool:
    """Whether an upstream that must have ended is not recorded as ended yet: then the task run counts in a later run.

    The recorder writes rows one by one, so the row of a task run may be seen before the last row of its upstream. That
    one shows within `OVERLAP` too, and for so long the task run is read again.
    """
    if task_run.start_time is None or now - task_run.start_time > OVERLAP:
        return False
    return any(upstream_id not in upstream_ends for upstream_id in task_run.upstream_ids)


def tag_task_runs(run: RunContext, task_runs: list[TaskRun]) -> Iterator[tuple[TaskRun, Tags]]:
    """Each task run with its tags, those that the filters exclude left out."""
    flow_run_ids = {item.flow_run_id for item in task_runs if item.flow_run_id is not None}
    flow_run_tags: dict[Any, Tags | None] = {**run.inventory.tags_by_id(flow_run_ids)}
    flow_run_tags[None] = () if run.settings.filters.keep_parentless else None
    for task_run in task_runs:
        tags = flow_run_tags[task_run.flow_run_id]
        if tags is not None:
            yield task_run, merge_tags(tags, _task_tags(task_run.task_key))


# As many functions as run lately; the key holds a hash of the code.
@lru_cache(maxsize=4096)
def _task_tags(task_key: str | None) -> Tags:
    return make_tags({TASK_KEY: task_key, TASK_NAME: task_name(task_key)})
