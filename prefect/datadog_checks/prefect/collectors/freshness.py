"""How fresh the work of each deployment is: its last success, its failures since, its next run, its schedules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from datadog_checks.prefect.api.models import Deployment
from datadog_checks.prefect.api.times import age_seconds
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.deployment_outcomes import DeploymentOutcomes
from datadog_checks.prefect.inventory.future_runs import Future
from datadog_checks.prefect.metrics import (
    DEPLOYMENT_CONSECUTIVE_FAILURES,
    DEPLOYMENT_SCHEDULES_ACTIVE,
    DEPLOYMENT_SCHEDULES_IS_WITHOUT_RUN,
    DEPLOYMENT_SECONDS_SINCE_SUCCESS,
    DEPLOYMENT_SECONDS_UNTIL_NEXT_RUN,
)
from datadog_checks.prefect.sample import Sample

# The scheduler comes by every 60 s.
_SCHEDULING = timedelta(seconds=120)


class Freshness:
    name = 'freshness'

    def __init__(self) -> None:
        self._pasts = DeploymentOutcomes()
        # Deployments with an active schedule, by the time since when they have no run to come.
        self._without_run_since: dict[str, datetime] = {}
        # Deployments with runs to come, but no active schedule: somebody made them by hand.
        self._unscheduled: set[str] = set()

    def collect(self, run: RunContext) -> Iterator[Sample]:
        pasts = self._pasts.refresh(run)
        future = run.inventory.future_runs()
        for deployment in self._deployments(run, future).values():
            own_tags = run.inventory.tags_of_deployment(deployment)
            past = pasts[deployment.id]
            if past.last_success is not None:
                age = age_seconds(past.last_success, run.now)
                yield Sample(DEPLOYMENT_SECONDS_SINCE_SUCCESS, age, own_tags)
            if past.is_read:
                yield Sample(DEPLOYMENT_CONSECUTIVE_FAILURES, len(past.failures), own_tags)
            yield Sample(DEPLOYMENT_SCHEDULES_ACTIVE, deployment.active_schedules, own_tags)
            if future is None:
                continue
            if deployment.id in future.next_times:
                ahead = (future.next_times[deployment.id] - run.now).total_seconds()
                yield Sample(DEPLOYMENT_SECONDS_UNTIL_NEXT_RUN, ahead, own_tags)
            since = self._without_run_since.get(deployment.id)
            is_without_run = since is not None and run.now - since >= _SCHEDULING
            yield Sample(DEPLOYMENT_SCHEDULES_IS_WITHOUT_RUN, is_without_run, own_tags)

    def _deployments(self, run: RunContext, future: Future | None) -> Mapping[str, Deployment]:
        """The deployments by id, with their schedules as they are now; notes which of them are without a run."""
        deployments = run.inventory.deployments()
        if future is None:
            return deployments
        unscheduled = {
            key for key, item in deployments.items() if key in future.next_times and not item.active_schedules
        }
        doubtful = {key for key, item in deployments.items() if _is_without_run(item, future)}
        doubtful |= unscheduled - self._unscheduled
        self._unscheduled = unscheduled
        if doubtful:
            # Who switches a schedule off or on, or adds one, does not edit the deployment (3.8.8).
            deployments = deployments | run.inventory.deployments_anew(doubtful)
        without_run = [key for key, item in deployments.items() if _is_without_run(item, future)]
        self._without_run_since = {key: self._without_run_since.get(key, run.now) for key in without_run}
        return deployments


def _is_without_run(deployment: Deployment, future: Future) -> bool:
    return deployment.active_schedules > 0 and not deployment.is_paused and deployment.id not in future.next_times
