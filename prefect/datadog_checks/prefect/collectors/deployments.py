"""State of the deployments, from POST /deployments/filter."""

from __future__ import annotations

from collections.abc import Iterator

from datadog_checks.prefect import tags
from datadog_checks.prefect.api.models import Deployment
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.metrics import DEPLOYMENT_IS_READY
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.tags import Tags, make_tags, merge_tags

_IS_PAUSED_TAGS = {is_paused: make_tags({tags.IS_PAUSED: is_paused}) for is_paused in (False, True)}


class Deployments:
    name = 'deployments'

    def collect(self, run: RunContext) -> Iterator[Sample]:
        for deployment in run.inventory.deployments().values():
            yield Sample(DEPLOYMENT_IS_READY, deployment.status == 'READY', deployment_tags(run, deployment))


def deployment_tags(run: RunContext, deployment: Deployment) -> Tags:
    """The tags of the series `deployment.*`."""
    return merge_tags(run.inventory.deployment_tags()[deployment.id], _IS_PAUSED_TAGS[deployment.is_paused])
