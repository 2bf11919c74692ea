"""State of the deployments, from POST /deployments/filter."""

from __future__ import annotations

from collections.abc import Iterator

from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.metrics import DEPLOYMENT_IS_READY
from datadog_checks.prefect.sample import Sample


class Deployments:
    name = 'deployments'

    def collect(self, run: RunContext) -> Iterator[Sample]:
        for deployment in run.inventory.deployments().values():
            own_tags = run.inventory.tags_of_deployment(deployment)
            yield Sample(DEPLOYMENT_IS_READY, deployment.status == 'READY', own_tags)
