"""How fresh the work of each deployment is: its last success, its failures since, its next run, its schedules."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class FreshnessMemory:
    """`without_run_since` are deployments with an active schedule, by the time since when they have no run to come.

    `unscheduled` are those with runs to come, but no active schedule: somebody made them by hand.
    """

    without_run_since: Mapping[str, datetime] = field(default_factory=dict)
    unscheduled: Set[str] = frozenset()


class Freshness:
    name = 'freshness'
    initial_memory = FreshnessMemory()

    def __init__(self) -> None:
        # Facts of the server, like those that the inventory keeps.
        self._pasts = DeploymentOutcomes()

    def collect(self, run: RunContext, memory: FreshnessMemory) -> tuple[list[Sample], FreshnessMemory]:
        pasts = self._pasts.refresh(run)
        future = run.inventory.future_runs()
        deployments, remembered = _deployments(run, future, memory)
        samples: list[Sample] = []
        for deployment in deployments.values():
            own_tags = run.inventory.tags_of_deployment(deployment)
            past = pasts[deployment.id]
            if past.last_success is not None:
                age = age_seconds(past.last_success, run.now)
                samples.append(Sample(DEPLOYMENT_SECONDS_SINCE_SUCCESS, age, own_tags))
            if past.is_read:
                samples.append(Sample(DEPLOYMENT_CONSECUTIVE_FAILURES, len(past.failures), own_tags))
            samples.append(Sample(DEPLOYMENT_SCHEDULES_ACTIVE, deployment.active_schedules, own_tags))
            if future is None:
                continue
            if deployment.id in future.next_times:
                ahead = (future.next_times[deployment.id] - run.now).total_seconds()
                samples.append(Sample(DEPLOYMENT_SECONDS_UNTIL_NEXT_RUN, ahead, own_tags))
            since = remembered.without_run_since.get(deployment.id)
            is_without_run = since is not None and run.now - since >= _SCHEDULING
            samples.append(Sample(DEPLOYMENT_SCHEDULES_IS_WITHOUT_RUN, is_without_run, own_tags))
        return samples, remembered


def _deployments(
    run: RunContext, future: Future | None, memory: FreshnessMemory
) -> tuple[Mapping[str, Deployment], FreshnessMemory]:
    """The deployments by id, with their schedules as they are now, and which of them are without a run."""
    deployments = run.inventory.deployments()
    if future is None:
        return deployments, memory
    unscheduled = {key for key, item in deployments.items() if key in future.next_times and not item.active_schedules}
    doubtful = {key for key, item in deployments.items() if _is_without_run(item, future)}
    doubtful |= unscheduled - memory.unscheduled
    if doubtful:
        # Who switches a schedule off or on, or adds one, does not edit the deployment (3.8.8).
        deployments = deployments | run.inventory.deployments_anew(doubtful)
    without_run = [key for key, item in deployments.items() if _is_without_run(item, future)]
    since = {key: memory.without_run_since.get(key, run.now) for key in without_run}
    return deployments, FreshnessMemory(since, unscheduled)


def _is_without_run(deployment: Deployment, future: Future) -> bool:
    return deployment.active_schedules > 0 and not deployment.is_paused and deployment.id not in future.next_times
