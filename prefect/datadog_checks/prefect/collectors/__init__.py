"""The collectors, in the order in which they run. Each module of this folder is one kind of Prefect object."""

from __future__ import annotations

from collections.abc import Callable, Collection

from datadog_checks.prefect.collectors.automations import Automations
from datadog_checks.prefect.collectors.background_services import BackgroundServices
from datadog_checks.prefect.collectors.background_tasks import BackgroundTasks
from datadog_checks.prefect.collectors.base import (
    AnySnapshotCollector,
    AnyStreamCollector,
    MemorylessCollector,
    WithoutMemory,
)
from datadog_checks.prefect.collectors.concurrency import Concurrency
from datadog_checks.prefect.collectors.deployments import Deployments
from datadog_checks.prefect.collectors.events import Events
from datadog_checks.prefect.collectors.expectations import Expectations
from datadog_checks.prefect.collectors.flow_runs import FinishedFlowRuns, FlowRuns, RetryGaps, StartedFlowRuns
from datadog_checks.prefect.collectors.freshness import Freshness
from datadog_checks.prefect.collectors.heartbeats import Heartbeats
from datadog_checks.prefect.collectors.late_runs import LateRuns
from datadog_checks.prefect.collectors.logs import Logs
from datadog_checks.prefect.collectors.run_ages import FlowRunAges, TaskRunAges
from datadog_checks.prefect.collectors.task_runs import FinishedTaskRuns, StartedTaskRuns, TaskRuns
from datadog_checks.prefect.collectors.work_pools import WorkPools
from datadog_checks.prefect.collectors.work_queues import WorkQueues
from datadog_checks.prefect.collectors.worker_runs import WorkerRuns
from datadog_checks.prefect.collectors.workers import Workers
from datadog_checks.prefect.metrics import (
    AUTOMATIONS,
    BACKGROUND_SERVICES,
    BACKGROUND_TASKS,
    CONCURRENCY,
    EXPECTATIONS,
    FRESHNESS,
    HEARTBEATS,
    LATE_RUNS,
    RUN_AGES,
    WORKER_RUNS,
)

# Those that can be switched off, by their key in the option `collect`.
_BY_GROUP: tuple[tuple[str, Callable[[], AnySnapshotCollector]], ...] = (
    (LATE_RUNS, LateRuns),
    (RUN_AGES, FlowRunAges),
    (RUN_AGES, TaskRunAges),
    (FRESHNESS, Freshness),
    (EXPECTATIONS, Expectations),
    (CONCURRENCY, Concurrency),
    (BACKGROUND_SERVICES, BackgroundServices),
    (BACKGROUND_TASKS, BackgroundTasks),
    (HEARTBEATS, Heartbeats),
)

# They share one read of the events that they count: see `inventory/named_events.py`.
_STREAMS_BY_GROUP: tuple[tuple[str, Callable[[], AnyStreamCollector]], ...] = (
    (AUTOMATIONS, Automations),
    (WORKER_RUNS, WorkerRuns),
)


def snapshot_collectors(groups: Collection[str]) -> tuple[AnySnapshotCollector, ...]:
    """New snapshot collectors: those of these groups, and those that are always on."""
    memoryless: tuple[MemorylessCollector, ...] = (WorkPools(), Workers(), WorkQueues(), Deployments())
    always: tuple[AnySnapshotCollector, ...] = (*(WithoutMemory(item) for item in memoryless), FlowRuns(), TaskRuns())
    return (*always, *(new() for group, new in _BY_GROUP if group in groups))


def stream_collectors(
    groups: Collection[str], *, collect_events: bool = False, collect_logs: bool = False
) -> tuple[AnyStreamCollector, ...]:
    """New stream collectors: those of these groups, and those that are always on.

    The flow runs that ended come first: what shows late among them is looked at by the other two streams of flow runs.
    The task runs that started come before those that ended: see `StartedTaskRuns`. Events and
    log records come last, when most flow runs are known.
    """
    of_runs: tuple[AnyStreamCollector, ...] = (
        FinishedFlowRuns(),
        StartedFlowRuns(),
        RetryGaps(),
        StartedTaskRuns(),
        FinishedTaskRuns(),
    )
    of_groups = (new() for group, new in _STREAMS_BY_GROUP if group in groups)
    events: list[AnyStreamCollector] = [Events()] if collect_events else []
    logs: list[AnyStreamCollector] = [Logs()] if collect_logs else []
    return (*of_runs, *of_groups, *events, *logs)
