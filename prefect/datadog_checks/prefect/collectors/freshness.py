"""How fresh the work of each deployment is: its last success, its failures since, its next run, its schedules."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from datadog_checks.prefect.api.times import age_seconds
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.deployment_outcomes import Outcomes
from datadog_checks.prefect.collectors.deployment_schedules import Schedules
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
    outcomes: Outcomes = field(default_factory=Outcomes)
    schedules: Schedules = field(default_factory=Schedules)


class Freshness:
    name = 'freshness'
    initial_memory = FreshnessMemory()

    def collect(self, run: RunContext, memory: FreshnessMemory) -> tuple[list[Sample], FreshnessMemory]:
        outcomes = memory.outcomes.refresh(run)
        future = run.inventory.future_runs()
        deployments, schedules = memory.schedules.refresh(run)
        samples: list[Sample] = []
        for deployment in deployments.values():
            own_tags = run.inventory.tags_of_deployment(deployment)
            past = outcomes.by_id[deployment.id]
            if past.last_success is not None:
                age = age_seconds(past.last_success.time, run.now)
                samples.append(Sample(DEPLOYMENT_SECONDS_SINCE_SUCCESS, age, own_tags))
            if past.is_read:
                samples.append(Sample(DEPLOYMENT_CONSECUTIVE_FAILURES, len(past.failures), own_tags))
            samples.append(Sample(DEPLOYMENT_SCHEDULES_ACTIVE, deployment.active_schedules, own_tags))
            if future is None:
                continue
            if deployment.id in future.next_times:
                ahead = (future.next_times[deployment.id] - run.now).total_seconds()
                samples.append(Sample(DEPLOYMENT_SECONDS_UNTIL_NEXT_RUN, ahead, own_tags))
            since = schedules.without_run_since.get(deployment.id)
            is_without_run = since is not None and run.now - since >= _SCHEDULING
            samples.append(Sample(DEPLOYMENT_SCHEDULES_IS_WITHOUT_RUN, is_without_run, own_tags))
        return samples, FreshnessMemory(outcomes, schedules)
