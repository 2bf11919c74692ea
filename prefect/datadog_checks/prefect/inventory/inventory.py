"""What several collectors look at in one run of the check, each list fetched at most once, filtered and by name or id.

An inventory lives for one run. What outlives it (names of flows, tags of flow runs) is in `KnownRuns`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from datadog_checks.prefect import tags
from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.api.log import Log
from datadog_checks.prefect.api.models import (
    AWAITING_CONCURRENCY_SLOT,
    AWAITING_RETRY,
    LIVE_STATE_TYPES,
    TERMINAL_STATE_TYPES,
    Deployment,
    FlowRun,
    FlowRunState,
    TaskRun,
    Worker,
    WorkPool,
    WorkQueue,
)
from datadog_checks.prefect.api.paging import (
    FLOW_RUNS_BY_END,
    FLOW_RUNS_BY_EXPECTED_START,
    FLOW_RUNS_BY_NEXT_START,
    FLOW_RUNS_BY_START,
    TASK_RUNS_BY_END,
    TASK_RUNS_BY_EXPECTED_START,
    TimeOrder,
)
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.api.times import format_time
from datadog_checks.prefect.api.versions import ENDS_OF_UNSTARTED_FLOW_RUNS, START_FILTER_OF_UNSTARTED_FLOW_RUNS
from datadog_checks.prefect.filters import NameFilter, ResourceFilters
from datadog_checks.prefect.inventory.deployments import DeploymentDirectory
from datadog_checks.prefect.inventory.flows import FlowDirectory
from datadog_checks.prefect.inventory.future_runs import FutureRuns
from datadog_checks.prefect.inventory.lazy import Lazy
from datadog_checks.prefect.inventory.recent_cache import RecentCache
from datadog_checks.prefect.inventory.server_filter import ServerFilter, flow_criteria
from datadog_checks.prefect.inventory.slots import TakenSlots
from datadog_checks.prefect.streams.window import fresh_time_range
from datadog_checks.prefect.tags import Tags, make_tags

# SCHEDULED states that a run can be in after it has started.
_RESTARTING_STATE_NAMES = [AWAITING_RETRY, AWAITING_CONCURRENCY_SLOT, 'Resuming']
# Among task runs: those that stand for a subflow in its parent are none.
NO_DUMMIES: dict[str, Any] = {'subflow_runs': {'exists_': False}}
# The task runs that are on their way. (SCHEDULED are also all background task runs that wait for a worker.)
_LIVE_TASK_RUNS = {
    'state': {
        'type': {'any_': ['PENDING', 'RUNNING', 'PAUSED']},
        'name': {'any_': [AWAITING_RETRY]},
        'operator': 'or_',
    }
} | NO_DUMMIES
# How long ago a run that ended unstarted was due at most (versions.ENDS_OF_UNSTARTED_FLOW_RUNS).
_UNSTARTED_DUE = timedelta(days=1)
# Runs of each kind that are remembered, and for how long: more than start and end within the overlap of a busy server.
_KNOWN_RUNS = 20_000
_KNOWN_FOR = timedelta(minutes=10)


class KnownRuns:
    """What is kept between the runs of the check, so that it is not asked for again."""

    def __init__(self) -> None:
        self.deployments = DeploymentDirectory()
        self.flows = FlowDirectory()
        self.future_runs = FutureRuns()
        self.flow_names: dict[str, str] = {}
        # None stands for a flow run that the filters exclude.
        self.flow_run_tags: RecentCache[str, Tags | None] = RecentCache(_KNOWN_RUNS, _KNOWN_FOR)
        self.task_run_ends: RecentCache[str, datetime] = RecentCache(_KNOWN_RUNS, _KNOWN_FOR)
        # Flow runs that ended, and whose rows may hide a state, as they were read last.
        self.interrupted: RecentCache[str, FlowRun] = RecentCache(_KNOWN_RUNS, _KNOWN_FOR)

    def go_on(self, now: datetime) -> None:
        """Another run of the check begins: forget the runs that were not asked for lately."""
        for recent in (self.flow_run_tags, self.task_run_ends, self.interrupted):
            recent.go_on(now)


class Inventory:
    """The lookups of one run. Each may raise the PrefectApiError of its first use to all who need it."""

    def __init__(
        self,
        client: PrefectClient,
        filters: ResourceFilters,
        known: KnownRuns,
        now: datetime,
        log: Log,
        prefect_tags: NameFilter | None = None,
    ) -> None:
        self._client = client
        self._filters = filters
        self._prefect_tags = prefect_tags
        self._known = known
        self._now = now
        known.go_on(now)
        self._tags_by_parents: dict[tuple[str | None, ...], Tags] = {}
        self._finished: dict[TimeRange, list[FlowRun]] = {}
        self._finished_task_runs: dict[TimeRange, list[TaskRun]] = {}
        self._states: dict[str, list[FlowRunState]] = {}
        self._all_work_queues = Lazy(client.work_queues)
        self._queue_ids = Lazy(self._index_work_queues)
        self._flow_runs_ended_unstarted = Lazy(self._read_flow_runs_ended_unstarted)
        self.work_pools = Lazy(self._select_work_pools)
        self.work_queues = Lazy(self._select_work_queues)
        self.deployments = Lazy(self._select_deployments)
        self.flow_ids = Lazy(self._select_flow_ids)
        self.scope = Lazy(self._build_scope)
        self.live_flow_runs = Lazy(self._read_live_flow_runs)
        self.due_flow_runs = Lazy(self._read_due_flow_runs)
        self.concurrency_limits = Lazy(client.concurrency_limits)
        self.future_runs = Lazy(partial(known.future_runs.refresh, self, client, now, log))
        self.restarting_flow_runs = Lazy(self._read_restarting_flow_runs)
        self.deployment_tags = Lazy(self._make_deployment_tags)
        self.live_task_runs = Lazy(self._read_live_task_runs)
        self.workers = Lazy(self._read_workers)
        # With filters the live runs are not all that take slots.
        self.taken_slots = TakenSlots(client, None if filters.is_active else self.live_flow_runs)

    def finished_flow_runs(self, time_range: TimeRange) -> list[FlowRun]:
        """The flow runs that ended in a time range and are still ended."""
        if time_range not in self._finished:
            body = self.scope().flow_runs({'end_time': time_range.criterion()})
            finished = self.allowed(self._client.flow_runs(body, FLOW_RUNS_BY_END))
            self._finished[time_range] = [*finished, *self._ended_unstarted_in(time_range)]
            for flow_run in self._finished[time_range]:
                if flow_run.was_interrupted:
                    self._known.interrupted[flow_run.id] = flow_run
        return self._finished[time_range]

    def count_finished_flow_runs(self, time_range: TimeRange) -> int:
        counted = self._client.count_flow_runs(self.scope().flow_runs({'end_time': time_range.criterion()}))
        return counted + len(self._ended_unstarted_in(time_range))

    def flow_runs_ended_since(self, last_check: datetime) -> list[FlowRun]:
        """Those that ended since the last check, at that time: what their stream reads in the steady state."""
        return self.finished_flow_runs(fresh_time_range(last_check, self._now))

    def interrupted_flow_runs(self, time_ranges: Iterable[TimeRange]) -> list[FlowRun]:
        """The flow runs that may have left a state in these time ranges that their rows do not show any more.

        Those that were read lately, in other time ranges and by other collectors, are among them: what ended there
        may have shown late, when a collector that looks for such states failed. A run may be there
        twice, in two states or in the same.
        """
        for time_range in time_ranges:
            self.finished_flow_runs(time_range)
        live = (run for run in (*self.live_flow_runs(), *self.restarting_flow_runs()) if run.was_interrupted)
        return [*self._known.interrupted.values(), *live]

    def finished_task_runs(self, time_range: TimeRange) -> list[TaskRun]:
        """The task runs that ended in a time range, newest first. Raises Rejected without such a filter."""
        if time_range not in self._finished_task_runs:
            bodies = self.scope().task_runs({'end_time': time_range.criterion()} | NO_DUMMIES)
            found = [item for body in bodies for item in self._client.task_runs(body, TASK_RUNS_BY_END)]
            self.remember_ends(found)
            self._finished_task_runs[time_range] = found
        return self._finished_task_runs[time_range]

    def task_run_ends(self, task_run_ids: Collection[str]) -> dict[str, datetime]:
        """When these task runs ended, by id; those that have not, or are gone, are missing."""
        ends = self._known.task_run_ends
        missing = sorted(task_run_id for task_run_id in task_run_ids if task_run_id not in ends)
        self.remember_ends(self._client.task_runs_by_id(missing) if missing else ())
        return {task_run_id: ends[task_run_id] for task_run_id in task_run_ids if task_run_id in ends}

    def remember_ends(self, task_runs: Iterable[TaskRun]) -> None:
        """Spare a later question for the ends of these task runs."""
        for task_run in task_runs:
            if task_run.end_time is not None:
                self._known.task_run_ends[task_run.id] = task_run.end_time

    def is_known_to_have_ended(self, task_run_id: str) -> bool:
        return task_run_id in self._known.task_run_ends

    def flow_run_states(self, flow_run_id: str) -> list[FlowRunState]:
        """All states of a flow run, ascending by time."""
        if flow_run_id not in self._states:
            self._states[flow_run_id] = self._client.flow_run_states(flow_run_id)
        return self._states[flow_run_id]

    def allowed(self, runs: Iterable[FlowRun]) -> list[FlowRun]:
        """The runs that the filters keep."""
        if not self._filters.is_active:
            return list(runs)
        runs = list(runs)
        if self._filters.flows.is_active:
            self._load_flow_names({run.flow_id for run in runs})
        return [run for run in runs if self._allows(run)]

    def tag(self, runs: Sequence[FlowRun]) -> list[tuple[FlowRun, Tags]]:
        """Each run with its tags. Flow names that are not known yet are asked for together."""
        self._load_flow_names({run.flow_id for run in runs})
        tagged = [(run, self._flow_run_tags(run)) for run in runs]
        for run, run_tags in tagged:
            # Only the task runs of a run that has started will ask for its tags.
            if run.start_time is not None:
                self._known.flow_run_tags[run.id] = run_tags
        return tagged

    def tags_by_id(self, flow_run_ids: Collection[str]) -> dict[str, Tags | None]:
        """The tags of these flow runs; None where the filters exclude it, () where it is gone and nothing is known."""
        known = self._known.flow_run_tags
        result = {run_id: known[run_id] for run_id in flow_run_ids if run_id in known}
        missing = sorted(set(flow_run_ids) - result.keys())
        if not missing:
            return result
        found = self._client.flow_runs_by_id(missing)
        result.update((run.id, run_tags) for run, run_tags in self.tag(self.allowed(found)))
        for run in found:
            if run.id not in result:
                known[run.id] = result[run.id] = None
        gone: Tags | None = () if self._filters.keep_parentless else None
        return {run_id: result.get(run_id, gone) for run_id in flow_run_ids}

    def deployments_anew(self, deployment_ids: Collection[str]) -> dict[str, Deployment]:
        """Some of these deployments as they are now: what was not edited is remembered, and schedules are no edit."""
        return self._known.deployments.list_again(self._client, deployment_ids)

    def prefect_tags(self, deployment_id: str | None) -> Tags:
        """The tags that a flow run carries for those that its deployment has in Prefect."""
        if self._prefect_tags is None:
            return ()
        return make_tags({tags.PREFECT_TAG: self._passing_tags(self.deployments().get(deployment_id or ''))})

    def _make_deployment_tags(self) -> dict[str, Tags]:
        """The tags that a flow run of each deployment carries by default, by the id of the deployment."""
        deployments = self.deployments().values()
        self._load_flow_names({item.flow_id for item in deployments})
        return {item.id: self._default_tags(item) for item in deployments}

    def _default_tags(self, deployment: Deployment) -> Tags:
        work_pool = self.work_pools().get(deployment.work_pool_name or '')
        return self._tags_of(
            work_pool.id if work_pool else None,
            deployment.work_pool_name,
            deployment.work_queue_id or self._queue_ids().get(deployment.work_queue_key),
            deployment.work_queue_name,
            deployment.id,
            deployment.flow_id,
        )

    def _select_work_pools(self) -> dict[str, WorkPool]:
        """The work pools that pass, by name."""
        return {pool.name: pool for pool in self._client.work_pools() if self._filters.work_pools.allows(pool.name)}

    def _select_work_queues(self) -> list[WorkQueue]:
        filters = self._filters
        return [
            queue
            for queue in self._all_work_queues()
            if filters.work_pools.allows(queue.work_pool_name) and filters.work_queues.allows(queue.name)
        ]

    def _select_flow_ids(self) -> set[str]:
        """The flows that pass. Without a filter on them nobody asks, and none are listed."""
        if not self._filters.flows.is_active:
            return set()
        names = self._known.flows.refresh(self._client, self._now)
        self._known.flow_names.update(names)
        return {flow_id for flow_id, name in names.items() if self._filters.flows.allows(name)}

    def _select_deployments(self) -> dict[str, Deployment]:
        """The deployments that pass, by id."""
        filters = self._filters
        body = flow_criteria(filters, self.flow_ids())
        if filters.work_pools.include:
            body |= {'work_pools': {'name': {'any_': sorted(self.work_pools())}}}
        directory = self._known.deployments
        passing = [
            deployment
            for deployment in directory.refresh(self._client, body).values()
            if filters.work_pools.allows(deployment.work_pool_name)
            and filters.work_queues.allows(deployment.work_queue_name)
            and filters.deployments.allows(deployment.name)
            and self._allows_flow(deployment.flow_id)
        ]
        try:
            queues = self._all_work_queues()
        except PrefectApiError:
            # Told by the collector that is about queues. Here they only say whose status may have changed.
            queues = []
        renewed = directory.renew_statuses(self._client, passing, queues, self._now)
        return {deployment.id: renewed.get(deployment.id, deployment) for deployment in passing}

    def _build_scope(self) -> ServerFilter:
        filters = self._filters
        if not filters.is_active:
            return ServerFilter()
        return ServerFilter.build(
            filters,
            work_pool_names=self.work_pools() if filters.work_pools.include else (),
            work_queue_ids={queue.id for queue in self.work_queues()} if filters.work_queues.include else (),
            deployments=self.deployments().values(),
            flow_ids=self.flow_ids(),
        )

    def _read_live_flow_runs(self) -> list[FlowRun]:
        """The flow runs that are PENDING, RUNNING, PAUSED or CANCELLING."""
        live = {'state': {'type': {'any_': list(LIVE_STATE_TYPES)}}}
        return self.allowed(self._client.flow_runs(self.scope().flow_runs(live), self._order_of_unstarted()))

    def _read_due_flow_runs(self) -> list[FlowRun]:
        """The flow runs in a SCHEDULED state whose time has come."""
        # That time is only set in a SCHEDULED state. Without the state SQLite takes the index on the time (3.8.8).
        due = {'next_scheduled_start_time': {'before_': format_time(self._now)}}
        return self.allowed(self._client.flow_runs(self.scope().flow_runs(due), FLOW_RUNS_BY_NEXT_START))

    def _read_restarting_flow_runs(self) -> list[FlowRun]:
        """The flow runs that have run and wait to run again."""
        restarting = {'state': {'name': {'any_': _RESTARTING_STATE_NAMES}}}
        return self.allowed(self._client.flow_runs(self.scope().flow_runs(restarting), self._order_of_unstarted()))

    def _order_of_unstarted(self) -> TimeOrder:
        """In which to read runs of which some have not started. For the first SQLite has an index (3.8.8)."""
        has_filter = self._client.has(START_FILTER_OF_UNSTARTED_FLOW_RUNS)
        return FLOW_RUNS_BY_START if has_filter else FLOW_RUNS_BY_EXPECTED_START

    def _ended_unstarted_in(self, time_range: TimeRange) -> list[FlowRun]:
        runs = self._flow_runs_ended_unstarted()
        return [run for run in runs if run.ended_at is not None and time_range.holds(run.ended_at)]

    def _read_flow_runs_ended_unstarted(self) -> list[FlowRun]:
        """The flow runs that ended without a start, on a server that notes no end for them: it can only tell when they
        were due, and a run may be cancelled long after that or before.
        """
        if self._client.has(ENDS_OF_UNSTARTED_FLOW_RUNS):
            return []
        criteria: dict[str, Any] = {
            'start_time': {'is_null_': True},
            'expected_start_time': {'after_': format_time(self._now - _UNSTARTED_DUE)},
            'state': {'type': {'any_': sorted(TERMINAL_STATE_TYPES)}},
        }
        return self.allowed(self._client.flow_runs(self.scope().flow_runs(criteria), FLOW_RUNS_BY_EXPECTED_START))

    def _index_work_queues(self) -> dict[str | tuple[str | None, str] | None, str]:
        """The id of each queue by what a deployment without it names."""
        return {(queue.work_pool_name, queue.name): queue.id for queue in self._all_work_queues()}

    def _read_live_task_runs(self) -> list[TaskRun]:
        """The task runs that are PENDING, RUNNING, PAUSED or wait for a retry, as far as their flow run is RUNNING.

        (A killed process leaves its task runs RUNNING on the server for ever, and a task run whose upstream failed
        stays NotReady: 3.8.8.)
        """
        bodies = self.scope().task_runs(_LIVE_TASK_RUNS, {'state': {'type': {'any_': ['RUNNING']}}})
        return [run for body in bodies for run in self._client.task_runs(body, TASK_RUNS_BY_EXPECTED_START)]

    def _read_workers(self) -> dict[str, list[Worker]]:
        """The workers of each work pool that passes, by the name of the pool."""
        return {name: self._client.workers(name) for name in self.work_pools()}

    def _allows(self, run: FlowRun) -> bool:
        filters = self._filters
        if not filters.work_pools.allows(run.work_pool_name) or not filters.work_queues.allows(run.work_queue_name):
            return False
        if not self._allows_flow(run.flow_id):
            return False
        if run.deployment_id is None:
            return filters.deployments.allows(None)
        # Not there: excluded by its name, queue or pool, or deleted, so that its name cannot be asked for.
        return run.deployment_id in self.deployments()

    def _allows_flow(self, flow_id: str) -> bool:
        flows = self._filters.flows
        return not flows.is_active or flows.allows(self._known.flow_names.get(flow_id))

    def _load_flow_names(self, flow_ids: set[str]) -> None:
        known = self._known.flow_names
        missing = sorted(flow_ids - known.keys())
        if missing:
            known.update((flow.id, flow.name) for flow in self._client.flows(missing))

    def _flow_run_tags(self, run: FlowRun) -> Tags:
        return self._tags_of(
            run.work_pool_id,
            run.work_pool_name,
            run.work_queue_id,
            run.work_queue_name,
            run.deployment_id,
            run.flow_id,
        )

    def _tags_of(
        self,
        work_pool_id: str | None,
        work_pool_name: str | None,
        work_queue_id: str | None,
        work_queue_name: str | None,
        deployment_id: str | None,
        flow_id: str,
    ) -> Tags:
        parents = (work_pool_id, work_pool_name, work_queue_id, work_queue_name, deployment_id, flow_id)
        made = self._tags_by_parents.get(parents)
        if made is None:
            deployment = self.deployments().get(deployment_id or '')
            made = make_tags(
                {
                    tags.WORK_POOL_ID: work_pool_id,
                    tags.WORK_POOL_NAME: work_pool_name,
                    tags.WORK_QUEUE_ID: work_queue_id,
                    tags.WORK_QUEUE_NAME: work_queue_name,
                    tags.DEPLOYMENT_ID: deployment_id,
                    tags.DEPLOYMENT_NAME: deployment.name if deployment else None,
                    tags.FLOW_ID: flow_id,
                    tags.FLOW_NAME: self._known.flow_names.get(flow_id),
                    tags.PREFECT_TAG: self._passing_tags(deployment),
                }
            )
            self._tags_by_parents[parents] = made
        return made

    def _passing_tags(self, deployment: Deployment | None) -> tuple[str, ...]:
        if deployment is None or self._prefect_tags is None:
            return ()
        return tuple(tag for tag in deployment.tags if self._prefect_tags.allows(tag))
