"""How long flow runs and task runs have been in their state, and those that wait or are to be cancelled.

All is told by the rows that other collectors read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from datadog_checks.prefect.aggregation import LingeringSeries, Maxima, Tally
from datadog_checks.prefect.api.models import AWAITING_CONCURRENCY_SLOT, AWAITING_RETRY, FlowRun, TaskRun
from datadog_checks.prefect.api.times import age_seconds
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.metrics import (
    FLOW_RUNS_AWAITING_CONCURRENCY,
    FLOW_RUNS_AWAITING_RETRY,
    FLOW_RUNS_CANCELLING,
    FLOW_RUNS_CANCELLING_MAX_AGE,
    FLOW_RUNS_PAUSED_MAX_AGE,
    FLOW_RUNS_PENDING_MAX_AGE,
    FLOW_RUNS_RUNNING_MAX_AGE,
    TASK_RUNS_AWAITING_RETRY,
    TASK_RUNS_PENDING_MAX_AGE,
    TASK_RUNS_RUNNING_MAX_AGE,
)
from datadog_checks.prefect.sample import Sample

_FLOW_RUN_AGES = {
    'PENDING': FLOW_RUNS_PENDING_MAX_AGE,
    'RUNNING': FLOW_RUNS_RUNNING_MAX_AGE,
    'PAUSED': FLOW_RUNS_PAUSED_MAX_AGE,
    'CANCELLING': FLOW_RUNS_CANCELLING_MAX_AGE,
}
_WAITING_FLOW_RUNS = {
    AWAITING_RETRY: FLOW_RUNS_AWAITING_RETRY,
    AWAITING_CONCURRENCY_SLOT: FLOW_RUNS_AWAITING_CONCURRENCY,
}
_TASK_RUN_AGES = {'PENDING': TASK_RUNS_PENDING_MAX_AGE, 'RUNNING': TASK_RUNS_RUNNING_MAX_AGE}


@dataclass(frozen=True)
class AgesMemory:
    """`pending_since` is when each PENDING run became so, by id."""

    pending_since: Mapping[str, datetime] = field(default_factory=dict)
    reported: LingeringSeries = field(default_factory=LingeringSeries)


class FlowRunAges:
    name = 'flow_runs.ages'
    initial_memory = AgesMemory()

    def collect(self, run: RunContext, memory: AgesMemory) -> tuple[list[Sample], AgesMemory]:
        live = run.inventory.live_flow_runs()
        pending_since = _pending_since(live, memory.pending_since)
        tally = Tally(FLOW_RUNS_CANCELLING, *_WAITING_FLOW_RUNS.values())
        ages = Maxima(*_FLOW_RUN_AGES.values())
        for flow_run, tags in run.inventory.tag(live):
            spec = _FLOW_RUN_AGES.get(flow_run.state_type or '')
            since = pending_since.get(flow_run.id, flow_run.state_time)
            if spec is not None and since is not None:
                ages.add(spec, tags, age_seconds(since, run.now))
            if flow_run.state_type == 'CANCELLING':
                tally.add(FLOW_RUNS_CANCELLING, tags)
        for flow_run, tags in run.inventory.tag(run.inventory.restarting_flow_runs()):
            if flow_run.state_type == 'SCHEDULED' and flow_run.state_name in _WAITING_FLOW_RUNS:
                tally.add(_WAITING_FLOW_RUNS[flow_run.state_name], tags)
        samples, reported = memory.reported.samples(run.now, tally, ages)
        return samples, AgesMemory(pending_since, reported)


class TaskRunAges:
    """The task runs that `TaskRuns` counts."""

    name = 'task_runs.ages'
    initial_memory = AgesMemory()

    def collect(self, run: RunContext, memory: AgesMemory) -> tuple[list[Sample], AgesMemory]:
        live = run.inventory.live_task_runs()
        pending_since = _pending_since(live, memory.pending_since)
        tally = Tally(TASK_RUNS_AWAITING_RETRY)
        ages = Maxima(*_TASK_RUN_AGES.values())
        for task_run, tags in run.inventory.tag_task_runs(live):
            spec = _TASK_RUN_AGES.get(task_run.state_type or '')
            since = pending_since.get(task_run.id, task_run.state_time)
            if spec is not None and since is not None:
                ages.add(spec, tags, age_seconds(since, run.now))
            if task_run.state_type == 'SCHEDULED':
                tally.add(TASK_RUNS_AWAITING_RETRY, tags)
        samples, reported = memory.reported.samples(run.now, tally, ages)
        return samples, AgesMemory(pending_since, reported)


def _pending_since(
    runs: Iterable[FlowRun] | Iterable[TaskRun], known: Mapping[str, datetime]
) -> Mapping[str, datetime]:
    """When each PENDING run became so, by id.

    It may go through several PENDING states (Pending, Submitting, InfrastructurePending; NotReady), of which its row
    has the last, so the first that was seen is remembered: it is right to the time between two runs of the check.
    """
    return {
        item.id: min(item.state_time, known.get(item.id, item.state_time))
        for item in runs
        if item.state_type == 'PENDING' and item.state_time is not None
    }
