"""Flow runs that should have started and have not, and why. Nothing is read that the other collectors do not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from functools import partial

from datadog_checks.prefect.aggregation import LingeringSeries, Maxima, Tally
from datadog_checks.prefect.api.models import (
    AWAITING_CONCURRENCY_SLOT,
    DEPLOYMENT_SLOT_STATE_TYPES,
    Deployment,
    FlowRun,
    WorkPool,
    WorkQueue,
)
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.late_reason import Circumstances, LateReason, late_reason
from datadog_checks.prefect.inventory.lazy import Lazy
from datadog_checks.prefect.metrics import FLOW_RUNS_LATE, FLOW_RUNS_LATE_MAX_AGE
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.tags import LATE_REASON, make_tags, merge_tags


class LateRuns:
    name = 'late_runs'
    initial_memory = LingeringSeries()

    def collect(self, run: RunContext, memory: LingeringSeries) -> tuple[list[Sample], LingeringSeries]:
        tally, ages = Tally(FLOW_RUNS_LATE), Maxima(FLOW_RUNS_LATE_MAX_AGE)
        due = _due_flow_runs(run)
        late = [item for item, since in due.values() if run.now - since > run.settings.late_start_threshold]
        surroundings = _Surroundings(run, late)
        for flow_run, flow_run_tags in run.inventory.tag(late):
            reason_tag = make_tags({LATE_REASON: surroundings.reason(flow_run)})
            tags = merge_tags(flow_run_tags, reason_tag)
            tally.add(FLOW_RUNS_LATE, tags)
            ages.add(FLOW_RUNS_LATE_MAX_AGE, tags, (run.now - due[flow_run.id][1]).total_seconds())
        return memory.samples(run.now, tally, ages)


def _due_flow_runs(run: RunContext) -> dict[str, tuple[FlowRun, datetime]]:
    """The flow runs that are due and wait for somebody to take them up, and since when they are due, by id.

    A run whose deployment is full is put off, by 30 s each time (3.8.8), and so hardly ever due: it counts from the
    time at which it was expected to start.
    """
    due: dict[str, tuple[FlowRun, datetime]] = {}
    for item in run.inventory.due_flow_runs():
        if item.next_scheduled_start_time is not None and not item.waits_in_process:
            due[item.id] = item, item.next_scheduled_start_time
    # Some are in both lists: it was time for another try.
    for item in run.inventory.restarting_flow_runs():
        if _is_put_off(item) and item.expected_start_time is not None:
            due[item.id] = item, item.expected_start_time
    return due


def _is_put_off(flow_run: FlowRun) -> bool:
    return flow_run.state_type == 'SCHEDULED' and flow_run.state_name == AWAITING_CONCURRENCY_SLOT


class _Surroundings:
    """Pools, queues, workers and slots of late flow runs. Nothing is looked up while none is late."""

    def __init__(self, run: RunContext, late: Collection[FlowRun]) -> None:
        self._run = run
        self._served = Lazy(lambda: _served_deployments(run, late))
        self._work_queues = Lazy(lambda: {queue.id: queue for queue in run.inventory.work_queues()})
        self._deployment_slots = Lazy(lambda: _deployment_slots(run))

    def reason(self, flow_run: FlowRun) -> LateReason:
        inventory = self._run.inventory
        deployment = inventory.deployments().get(flow_run.deployment_id or '')
        is_deployment_full = self._is_deployment_full(flow_run, deployment)
        pool = inventory.work_pools().get(flow_run.work_pool_name or '')
        if pool is None:
            served = self._served().get(flow_run.deployment_id or '')
            is_queue_gone = flow_run.work_queue_id is None and served is not None and served.work_queue_key is not None
            return late_reason(
                Circumstances(is_queue_gone=True) if is_queue_gone else _without_pool(served, is_deployment_full)
            )
        queue = self._work_queues().get(flow_run.work_queue_id or '')
        return late_reason(
            Circumstances(
                is_pool_paused=pool.is_paused,
                is_queue_paused=queue is not None and queue.is_paused,
                is_attended=self._is_attended(pool, queue),
                is_pool_full=_is_reached(pool.concurrency_limit, partial(inventory.taken_slots.of_work_pool, pool)),
                is_queue_full=queue is not None
                and _is_reached(queue.concurrency_limit, partial(inventory.taken_slots.of_work_queue, queue)),
                is_deployment_full=is_deployment_full,
            )
        )

    def _is_attended(self, pool: WorkPool, queue: WorkQueue | None) -> bool:
        """Whether somebody asks for the work of a pool. Agents are no workers: they show in the queues."""
        if pool.is_polled_by_agents:
            return (queue.status if queue is not None else self._run.inventory.status_of(pool)) == 'READY'
        if not pool.needs_workers:
            return True
        found = self._run.inventory.workers().get(pool.name)
        if found is None or not found.is_current:
            # A pool is READY while a worker of it is ONLINE (3.8.8).
            return pool.status == 'READY'
        return any(item.is_online for item in found.workers)

    def _is_deployment_full(self, flow_run: FlowRun, deployment: Deployment | None) -> bool:
        """By its slots; or the server says so, which knows of slots whose runs are gone."""
        if deployment is not None and _is_reached(
            deployment.concurrency_limit, lambda: self._deployment_slots()[deployment.id]
        ):
            return True
        tried_again_at = flow_run.next_scheduled_start_time
        is_untried = tried_again_at is None or self._run.now - tried_again_at <= self._run.settings.late_start_threshold
        return _is_put_off(flow_run) and is_untried


def _served_deployments(run: RunContext, late: Collection[FlowRun]) -> Mapping[str, Deployment]:
    """The deployments of late runs without a work pool, as they are now."""
    ids = {item.deployment_id for item in late if item.work_pool_name is None and item.deployment_id is not None}
    return run.inventory.deployments_now(ids & run.inventory.deployments().keys())


def _without_pool(deployment: Deployment | None, is_deployment_full: bool) -> Circumstances:
    """The state of a deployment that a process serves.

    The process polls the deployment; 60 s after the last poll its status is NOT_READY (3.8.8).
    """
    if deployment is None:
        return Circumstances()
    return Circumstances(
        is_deployment_paused=deployment.is_paused,
        is_attended={'READY': True, 'NOT_READY': False}.get(deployment.status or ''),
        is_deployment_full=is_deployment_full,
    )


def _is_reached(limit: int | None, slots: Callable[[], int]) -> bool:
    return limit is not None and (limit == 0 or slots() >= limit)


def _deployment_slots(run: RunContext) -> Counter[str | None]:
    """The runs that take a slot of their deployment.

    Unlike that of a work pool or work queue it is kept while a run is cancelled, and while it waits in its process for
    another attempt (3.8.8).
    """
    live = (item for item in run.inventory.live_flow_runs() if item.state_type in DEPLOYMENT_SLOT_STATE_TYPES)
    waiting = (item for item in run.inventory.restarting_flow_runs() if item.waits_in_process)
    return Counter(item.deployment_id for item in (*live, *waiting))
