"""The collectors, in the order in which they run. Each module of this folder is one kind of Prefect object."""

from __future__ import annotations

from datadog_checks.prefect.collectors.base import SnapshotCollector, StreamCollector
from datadog_checks.prefect.collectors.deployments import Deployments
from datadog_checks.prefect.collectors.flow_runs import FinishedFlowRuns, FlowRuns, RetryGaps, StartedFlowRuns
from datadog_checks.prefect.collectors.task_runs import FinishedTaskRuns, StartedTaskRuns, TaskRuns
from datadog_checks.prefect.collectors.work_pools import WorkPools
from datadog_checks.prefect.collectors.work_queues import WorkQueues
from datadog_checks.prefect.collectors.workers import Workers


def snapshot_collectors() -> tuple[SnapshotCollector, ...]:
    """New snapshot collectors, with empty memories."""
    return (WorkPools(), Workers(), WorkQueues(), Deployments(), FlowRuns(), TaskRuns())


def stream_collectors() -> tuple[StreamCollector, ...]:
    """New stream collectors, with empty memories.

    What ended comes before what started: it tells the ends of most upstream task runs.
    """
    return (StartedFlowRuns(), RetryGaps(), FinishedFlowRuns(), FinishedTaskRuns(), StartedTaskRuns())
