"""The deployments with their schedules as they are now: to switch a schedule off or on is no edit of its deployment."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime

from datadog_checks.prefect.api.models import Deployment
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.inventory.future_runs import Future


@dataclass(frozen=True)
class Schedules:
    """What is known of the deployments after a run of the check, at `last_check`.

    `without_run_since` are those with an active schedule, by the time since when they have no run to come.
    `unscheduled` are those with runs to come, but no active schedule: somebody made them by hand.
    """

    last_check: datetime | None = None
    without_run_since: Mapping[str, datetime] = field(default_factory=dict)
    unscheduled: Set[str] = frozenset()

    def refresh(self, run: RunContext) -> tuple[Mapping[str, Deployment], Schedules]:
        """The deployments by id, with their schedules as they are now, and what to remember."""
        return run.once(('schedules', self.last_check), lambda: self._refresh(run, run.inventory.future_runs()))

    def _refresh(self, run: RunContext, future: Future | None) -> tuple[Mapping[str, Deployment], Schedules]:
        deployments = run.inventory.deployments()
        if future is None:
            return deployments, self
        unscheduled = {
            key for key, item in deployments.items() if key in future.next_times and not item.active_schedules
        }
        doubtful = {key for key, item in deployments.items() if _is_without_run(item, future)}
        doubtful |= unscheduled - self.unscheduled
        if doubtful:
            # Who switches a schedule off or on, or adds one, does not edit the deployment (3.8.8).
            deployments = deployments | run.inventory.deployments_anew(doubtful)
        without_run = [key for key, item in deployments.items() if _is_without_run(item, future)]
        since = {key: self.without_run_since.get(key, run.now) for key in without_run}
        return deployments, Schedules(run.now, since, unscheduled)


def _is_without_run(deployment: Deployment, future: Future) -> bool:
    return deployment.active_schedules > 0 and not deployment.is_paused and deployment.id not in future.next_times
