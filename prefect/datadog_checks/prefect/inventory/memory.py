"""What the inventory keeps between the runs of the check, so that it is not asked for again."""

from __future__ import annotations

from datetime import datetime, timedelta

from datadog_checks.prefect.api.models import FlowRun, TaskRun
from datadog_checks.prefect.inventory.activity import Activity
from datadog_checks.prefect.inventory.deployments import DeploymentDirectory
from datadog_checks.prefect.inventory.flows import FlowDirectory
from datadog_checks.prefect.inventory.future_runs import FutureRuns
from datadog_checks.prefect.inventory.live_runs import LiveRuns
from datadog_checks.prefect.inventory.recent_cache import RecentCache
from datadog_checks.prefect.inventory.server_facts import ServerFactsMemory
from datadog_checks.prefect.inventory.tagging import KnownRuns
from datadog_checks.prefect.inventory.workers import WorkerDirectory

# Runs of each kind that are remembered, and for how long: more than start and end within the overlap of a busy server.
_CAPACITY = 20_000
_LIFETIME = timedelta(minutes=10)


class InventoryMemory:
    """The directories of what hardly changes, and the runs that were met lately."""

    def __init__(self) -> None:
        self.deployments = DeploymentDirectory()
        self.flows = FlowDirectory()
        self.server_facts = ServerFactsMemory()
        self.workers = WorkerDirectory()
        self.work_queue_ids: set[str] = set()
        self.future_runs = FutureRuns()
        self.live_flow_runs: LiveRuns[FlowRun] = LiveRuns()
        # Of those that belong to a flow run, and of the others.
        self.live_task_runs: tuple[LiveRuns[TaskRun], LiveRuns[TaskRun]] = (LiveRuns(), LiveRuns())
        self.activity = Activity()
        self.known_runs = KnownRuns(_CAPACITY, _LIFETIME)
        self.task_run_ends: RecentCache[str, datetime] = RecentCache(_CAPACITY, _LIFETIME)
        # Flow runs that ended, and whose rows may hide a state, as they were read last.
        self.interrupted: RecentCache[str, FlowRun] = RecentCache(_CAPACITY, _LIFETIME)
        # Flow runs that were seen to have ended without a start: such an end may be gone from the row with a retry.
        self.ended_unstarted: RecentCache[str, None] = RecentCache(_CAPACITY, _LIFETIME)
        # The flow run that each subflow belongs to, by the id of the subflow; of those that live.
        self.parents: dict[str, str] = {}

    def go_on(self, now: datetime) -> None:
        """Another run of the check begins: forget the runs that were not asked for lately."""
        self.known_runs.go_on(now)
        self.task_run_ends.go_on(now)
        self.interrupted.go_on(now)
        self.ended_unstarted.go_on(now)
        self.server_facts.state_times.go_on(now)
