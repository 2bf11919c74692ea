"""Flow runs and task runs, as far as they pass the filters: what is live, due, restarting, started and finished."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial

from datadog_checks.prefect.api import queries
from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.models import AWAITING_RETRY, FlowRun, FlowRunState, LogRecord, TaskRun
from datadog_checks.prefect.api.paging import (
    FLOW_RUNS_BY_END,
    FLOW_RUNS_BY_EXPECTED_START,
    FLOW_RUNS_BY_NEXT_START,
    FLOW_RUNS_BY_START,
    FLOW_RUNS_FARTHEST_FIRST,
    TASK_RUNS_BY_END,
    TASK_RUNS_BY_EXPECTED_START,
    TimeOrder,
)
from datadog_checks.prefect.api.queries import Body, Table
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.api.times import RESOLUTION
from datadog_checks.prefect.api.versions import (
    ENDS_OF_UNSTARTED_FLOW_RUNS,
    START_FILTER_OF_UNSTARTED_FLOW_RUNS,
    TASK_RUN_END_FILTER,
)
from datadog_checks.prefect.inventory import reading_time
from datadog_checks.prefect.inventory.lazy import Lazy
from datadog_checks.prefect.inventory.live_runs import Changes, Count, R, Source
from datadog_checks.prefect.inventory.memory import InventoryMemory
from datadog_checks.prefect.inventory.selection import Selection
from datadog_checks.prefect.streams.window import fresh_time_range

# How long ago a run that ended unstarted was due at most (versions.ENDS_OF_UNSTARTED_FLOW_RUNS).
_UNSTARTED_DUE = timedelta(days=1)
# More ids than this are not sent with a request for log records.
_MOST_LOGGED = 1000
# Of so many flow runs that were to start first one ended first.
_OLDEST = 20


class Runs:
    """The runs of one run of the check; each lookup may raise a PrefectApiError, to all who need it the same."""

    def __init__(self, client: PrefectClient, selection: Selection, memory: InventoryMemory, now: datetime) -> None:
        self._client = client
        self._selection = selection
        self._memory = memory
        self._now = now
        self._started: dict[TimeRange, list[FlowRun]] = {}
        self._finished: dict[TimeRange, list[FlowRun]] = {}
        self._ends_read_since: datetime | None = None
        self._started_task_runs: dict[TimeRange, list[TaskRun]] = {}
        self._finished_task_runs: dict[TimeRange, list[TaskRun]] = {}
        # By the run and the state in which it was found.
        self._states: dict[tuple[str, str | None], list[FlowRunState]] = {}
        self._ended_unstarted = Lazy(self._read_ended_unstarted)
        self.live_flow_runs = Lazy(self._read_live_flow_runs)
        self.due_flow_runs = Lazy(self._read_due_flow_runs)
        self.restarting_flow_runs = Lazy(self._read_restarting_flow_runs)
        self.live_task_runs = Lazy(self._read_live_task_runs)

    def started_flow_runs(self, time_range: TimeRange) -> list[FlowRun]:
        """The flow runs that started in a time range."""
        if time_range not in self._started:
            body = queries.started_flow_runs(self._selection.server_filter(), time_range)
            self._started[time_range] = self._read_flow_runs(body, FLOW_RUNS_BY_START)
        return self._started[time_range]

    def count_started_flow_runs(self, time_range: TimeRange, ids: Collection[str] | None = None) -> int:
        """How many there are, of these ids or at all, that the server's part of the filters lets through."""
        server_filter = self._selection.server_filter()
        if ids is None:
            return self._client.count_flow_runs(queries.started_flow_runs(server_filter, time_range))
        return self._client.count_flow_runs(queries.started_flow_runs_among(server_filter, time_range, ids))

    def finished_flow_runs(self, time_range: TimeRange) -> list[FlowRun]:
        """The flow runs that ended in a time range and are still ended."""
        if time_range not in self._finished:
            body = queries.ended_flow_runs(self._selection.server_filter(), time_range)
            finished = self._read_flow_runs(body, FLOW_RUNS_BY_END)
            self._finished[time_range] = [*finished, *self._ended_unstarted_in(time_range)]
            for flow_run in self._finished[time_range]:
                if self._was_interrupted(flow_run):
                    self._memory.interrupted[flow_run.id] = flow_run
        return self._finished[time_range]

    def count_finished_flow_runs(self, time_range: TimeRange) -> int:
        """Those that the server's part of the filters lets through."""
        body = queries.ended_flow_runs(self._selection.server_filter(), time_range)
        return self._client.count_flow_runs(body) + len(self._ended_unstarted_in(time_range))

    def flow_runs_ended_since(self, last_check: datetime) -> list[FlowRun]:
        """Those that ended since the last check, at that time: what their stream reads in the steady state."""
        return self.finished_flow_runs(fresh_time_range(last_check, self._now))

    def flow_run_ids_that_logged(self, since: datetime) -> list[str] | None:
        """The included flow runs that may have logged since a time, if the server can be asked for theirs alone.

        Without filters all may. A request that names flow runs leaves out the records of background tasks, which belong
        to none. And more than 1,000 ids are not sent.
        """
        filters = self._selection.filters
        if not filters.is_active or filters.keep_parentless:
            return None
        ended = self.flow_runs_ended_since(since)
        ids = {run.id for run in (*self.live_flow_runs(), *self.restarting_flow_runs(), *ended)}
        return sorted(ids) if len(ids) <= _MOST_LOGGED else None

    def log_pages(
        self, level: int, time_range: TimeRange, flow_run_ids: Collection[str] | None, page_size: int
    ) -> Iterator[list[LogRecord]]:
        """The log records of a time range from a level up, of these flow runs if they are named, page by page."""
        if flow_run_ids is not None and not flow_run_ids:
            return iter(())
        return self._client.log_pages(queries.logs(level, time_range, flow_run_ids), page_size)

    def met_flow_runs(self) -> list[FlowRun]:
        """The flow runs that are live, and those that ended and were read in this run of the check."""
        return [*self.live_flow_runs(), *(item for runs in self._finished.values() for item in runs)]

    def ends_are_read(self, since: datetime) -> None:
        """By now all flow runs that ended since then, and show, were read in this run of the check or in one before."""
        self._ends_read_since = since

    def interrupted_flow_runs(self, everything: TimeRange, *, is_anew: bool) -> list[FlowRun]:
        """The flow runs that may have left a state in that time range that their rows do not show any more.

        It is read if that was not done by another collector in this run, or if all is to be looked at anew. What was
        read before is among them: what ended there may have shown late, when a collector that looks for such states
        failed. A run may be there twice, in two states or in the same.
        """
        if is_anew or self._ends_read_since is None or self._ends_read_since > everything.since:
            self.finished_flow_runs(everything)
        live = [*self.live_flow_runs(), *self.restarting_flow_runs()]
        return [*self._memory.interrupted.values(), *(run for run in live if self._was_interrupted(run))]

    def flow_run_states(self, flow_run: FlowRun) -> list[FlowRunState]:
        """All states of a flow run, ascending by time, read after it was found in its state.

        They lack that state if a replica of the server is behind the one that showed the run. Empty if it is gone.
        """
        key = flow_run.id, flow_run.state_id
        if key not in self._states:
            self._states[key] = self._client.flow_run_states(flow_run.id)
        return self._states[key]

    def newest_ends_of(
        self, deployment_ids: Collection[str], state_types: Collection[str], until: datetime | None
    ) -> list[FlowRun]:
        """A page of the flow runs of these deployments that ended so up to a time, from the newest end on.

        The filters are not applied to its end: the page goes down to the end of its last run.
        """
        body = queries.flow_runs_ended_of(self._selection.server_filter(), sorted(deployment_ids), state_types, until)
        return next(self._client.flow_run_pages(body, FLOW_RUNS_BY_END), [])

    def last_success_of(self, deployment_id: str) -> list[FlowRun]:
        """The flow run of this deployment that succeeded last, if one did."""
        body = queries.flow_runs_ended_of(self._selection.server_filter(), [deployment_id], ('COMPLETED',))
        return self._client.first_flow_runs(body, FLOW_RUNS_BY_END)

    def last_successes_of(self, deployment_id: str, number: int) -> list[FlowRun]:
        """So many of the flow runs of this deployment that succeeded, the newest end first."""
        body = queries.successes_of(self._selection.server_filter(), deployment_id)
        return self._selection.allowed(self._client.first_flow_runs(body, FLOW_RUNS_BY_END, number))

    def oldest_end(self) -> datetime | None:
        """When the oldest flow run that the server still has ended: what was before it may be deleted."""
        body = queries.ended_flow_runs_of_all()
        oldest = self._client.first_flow_runs(body, FLOW_RUNS_BY_EXPECTED_START, _OLDEST)
        return min((item.end_time for item in oldest if item.end_time is not None), default=None)

    def first_planned_flow_run_of(self, deployment_id: str, after: datetime) -> FlowRun | None:
        """The flow run that the scheduler made of this deployment and that was due first after a time."""
        body = queries.planned_flow_runs_of(deployment_id, after + RESOLUTION)
        return next(iter(self._client.first_flow_runs(body, FLOW_RUNS_BY_EXPECTED_START)), None)

    def planned_flow_runs_of(self, deployment_id: str, since: datetime, number: int) -> list[FlowRun]:
        """So many flow runs that the scheduler made of this deployment, those first that are furthest ahead."""
        body = queries.planned_flow_runs_of(deployment_id, since)
        return self._client.first_flow_runs(body, FLOW_RUNS_FARTHEST_FIRST, number)

    def parents_not_alive(self, subflows: Iterable[FlowRun]) -> dict[str, FlowRun]:
        """The flow runs that these subflows belong to, as far as they do not live, by the id of the subflow."""
        known = self._memory.parents
        task_run_ids = {item.id: item.parent_task_run_id for item in subflows if item.parent_task_run_id is not None}
        unknown = {task_run_id for key, task_run_id in task_run_ids.items() if key not in known}
        parent_ids = {item.id: item.flow_run_id for item in self._client.task_runs_by_id(sorted(unknown))}
        found = {key: known.get(key, parent_ids.get(task_run_id)) for key, task_run_id in task_run_ids.items()}
        self._memory.parents = {key: parent_id for key, parent_id in found.items() if parent_id is not None}
        alive = {item.id for item in self.live_flow_runs()}
        wanted = sorted({*self._memory.parents.values()} - alive)
        parents = {item.id: item for item in self._client.flow_runs_by_id(wanted)}
        return {key: parents[parent] for key, parent in self._memory.parents.items() if parent in parents}

    def waiting_background_task_runs(self) -> list[TaskRun]:
        """The background task runs that wait for a task worker, those included that flow runs asked for."""
        return [
            item
            for item in self._read_task_runs([queries.scheduled_task_runs()], TASK_RUNS_BY_EXPECTED_START)
            if item.state_name != AWAITING_RETRY and (item.is_deferred or item.flow_run_id is None)
        ]

    def started_task_runs(self, time_range: TimeRange) -> list[TaskRun]:
        """The task runs that started in a time range; some may be there twice.

        What started since a time has ended since, or is open. Those that ended are read anyway, and most of what starts
        ends soon. The open ones come first: what ends between the two requests is in both.
        """
        if time_range not in self._started_task_runs:
            self._started_task_runs[time_range] = self._read_started_task_runs(time_range)
        return self._started_task_runs[time_range]

    def count_started_task_runs(self, time_range: TimeRange, ids: Collection[str] | None = None) -> int:
        """How many there are, of these ids or at all, that the server's part of the filters lets through."""
        server_filter = self._selection.server_filter()
        if ids is None:
            return self._count_task_runs(queries.started_task_runs(server_filter, time_range))
        return self._count_task_runs(queries.started_task_runs_among(server_filter, time_range, ids))

    def finished_task_runs(self, time_range: TimeRange) -> list[TaskRun]:
        """The task runs that ended in a time range, newest first, from a server that filters by their end."""
        if time_range not in self._finished_task_runs:
            bodies = queries.ended_task_runs(self._selection.server_filter(), time_range)
            self._finished_task_runs[time_range] = self._read_task_runs(bodies, TASK_RUNS_BY_END)
            self.remember_ends(self._finished_task_runs[time_range])
        return self._finished_task_runs[time_range]

    def count_finished_task_runs(self, time_range: TimeRange, ids: Collection[str] | None = None) -> int:
        """As for those that started, and from such a server."""
        server_filter = self._selection.server_filter()
        if ids is None:
            return self._count_task_runs(queries.ended_task_runs(server_filter, time_range))
        return self._count_task_runs(queries.ended_task_runs_among(server_filter, time_range, ids))

    def newest_finished_task_runs(self, since: datetime) -> list[TaskRun]:
        """The task runs that ended since a time, and some more, from any server."""
        bodies = queries.terminal_task_runs(self._selection.server_filter())
        return [item for body in bodies for item in self._client.newest_task_runs(body, TASK_RUNS_BY_END, since)]

    def task_run_ends(self, task_run_ids: Collection[str]) -> dict[str, datetime]:
        """When these task runs ended, by id; those that have not, or are gone, are missing."""
        ends = self._memory.task_run_ends
        missing = sorted(task_run_id for task_run_id in task_run_ids if task_run_id not in ends)
        self.remember_ends(self._client.task_runs_by_id(missing) if missing else ())
        return {task_run_id: ends[task_run_id] for task_run_id in task_run_ids if task_run_id in ends}

    def remember_ends(self, task_runs: Iterable[TaskRun]) -> None:
        """Spare a later question for the ends of these task runs."""
        for task_run in task_runs:
            if (ended_at := task_run.ended_at) is not None:
                self._memory.task_run_ends[task_run.id] = ended_at

    def is_known_to_have_ended(self, task_run_id: str) -> bool:
        return task_run_id in self._memory.task_run_ends

    def _read_started_task_runs(self, time_range: TimeRange) -> list[TaskRun]:
        server_filter = self._selection.server_filter()
        is_up_to_now = time_range.until is None or time_range.until > self._now
        if is_up_to_now and self._client.has(TASK_RUN_END_FILTER):
            still_open = self._read_task_runs(
                queries.open_task_runs(server_filter, time_range), TASK_RUNS_BY_EXPECTED_START
            )
            return [*still_open, *self.finished_task_runs(time_range)]
        return self._read_task_runs(queries.started_task_runs(server_filter, time_range), TASK_RUNS_BY_EXPECTED_START)

    def _read_live_flow_runs(self) -> list[FlowRun]:
        """The flow runs that are PENDING, RUNNING, PAUSED or CANCELLING."""
        client, order = self._client, self._order_of_unstarted()
        source = self._source('flow_runs', order, client.count_flow_runs, client.flow_runs)
        body = queries.live_flow_runs(self._selection.server_filter())
        runs = self._memory.live_flow_runs.refresh(source, body, self._now, self._changes_of_flow_runs)
        return self._selection.allowed(runs)

    def _changes_of_flow_runs(self, since: datetime) -> Changes[FlowRun]:
        """What the streams of flow runs read anyway."""
        time_range = fresh_time_range(since, self._now)
        ended = self.finished_flow_runs(time_range)
        return Changes(self.started_flow_runs(time_range), [run.id for run in ended])

    def _read_due_flow_runs(self) -> list[FlowRun]:
        """The flow runs in a SCHEDULED state whose time has come."""
        body = queries.due_flow_runs(self._selection.server_filter(), self._now)
        return self._read_flow_runs(body, FLOW_RUNS_BY_NEXT_START)

    def _read_restarting_flow_runs(self) -> list[FlowRun]:
        """The flow runs that have run and wait to run again."""
        body = queries.restarting_flow_runs(self._selection.server_filter())
        return self._read_flow_runs(body, self._order_of_unstarted())

    def _read_live_task_runs(self) -> list[TaskRun]:
        """The task runs that are PENDING, RUNNING, PAUSED or wait for a retry, as far as their flow run is RUNNING."""
        client, order = self._client, TASK_RUNS_BY_EXPECTED_START
        bodies = queries.live_task_runs(self._selection.server_filter())
        if not client.has(TASK_RUN_END_FILTER):
            # What ended since the last check cannot be asked for.
            return self._read_task_runs(bodies, order)
        source = self._source('task_runs', order, client.count_task_runs, client.task_runs)
        known = zip(bodies, self._memory.live_task_runs, (True, False), strict=False)
        return [
            run
            for body, runs, is_of_flow_run in known
            for run in runs.refresh(source, body, self._now, partial(self._changes_of_task_runs, is_of_flow_run))
        ]

    def _changes_of_task_runs(self, is_of_flow_run: bool, since: datetime) -> Changes[TaskRun]:
        """What the streams of task runs read anyway, those of flow runs or those of none."""
        time_range = fresh_time_range(since, self._now)
        started = [run for run in self.started_task_runs(time_range) if (run.flow_run_id is not None) is is_of_flow_run]
        return Changes(started, [run.id for run in self.finished_task_runs(time_range)])

    def _source(self, table: Table, order: TimeOrder, count: Count, list_runs: Callable[..., Iterator[R]]) -> Source[R]:
        client = self._client
        deadline = client.deadline(reading_time.LIVE_RUNS)
        return Source(table, order, count, partial(list_runs, order=order), client.page_size(), deadline)

    def _order_of_unstarted(self) -> TimeOrder:
        """In which to read runs of which some have not started."""
        has_filter = self._client.has(START_FILTER_OF_UNSTARTED_FLOW_RUNS)
        return FLOW_RUNS_BY_START if has_filter else FLOW_RUNS_BY_EXPECTED_START

    def _was_interrupted(self, run: FlowRun) -> bool:
        """Whether it may have left a state that its row hides, as the row tells, or what was seen of the run before.

        A server that notes no end of a run that never started shows nothing of it any more once the run is retried.
        """
        ended_unstarted = self._memory.ended_unstarted
        waits_unstarted = run.start_time is None and run.state_name == AWAITING_RETRY
        if waits_unstarted or (run.start_time is not None and run.id in ended_unstarted):
            # Known for as long as it is met.
            ended_unstarted[run.id] = None
            return True
        return run.was_interrupted

    def _ended_unstarted_in(self, time_range: TimeRange) -> list[FlowRun]:
        runs = self._ended_unstarted()
        return [run for run in runs if run.ended_at is not None and time_range.holds(run.ended_at)]

    def _read_ended_unstarted(self) -> list[FlowRun]:
        """The flow runs that ended without a start, on a server that notes no end for them: it can only tell when they
        were due, and a run may be cancelled long after that or before.
        """
        if self._client.has(ENDS_OF_UNSTARTED_FLOW_RUNS):
            return []
        body = queries.flow_runs_ended_unstarted(self._selection.server_filter(), self._now - _UNSTARTED_DUE)
        runs = self._read_flow_runs(body, FLOW_RUNS_BY_EXPECTED_START)
        for run in runs:
            self._memory.ended_unstarted[run.id] = None
        return runs

    def _read_flow_runs(self, body: Body, order: TimeOrder) -> list[FlowRun]:
        return self._selection.allowed(self._client.flow_runs(body, order))

    def _read_task_runs(self, bodies: Iterable[Body], order: TimeOrder) -> list[TaskRun]:
        return [item for body in bodies for item in self._client.task_runs(body, order)]

    def _count_task_runs(self, bodies: Iterable[Body]) -> int:
        return sum(self._client.count_task_runs(body) for body in bodies)
