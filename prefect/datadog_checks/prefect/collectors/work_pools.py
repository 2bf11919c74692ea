"""State of the work pools, from POST /work_pools/filter."""

from __future__ import annotations

from collections.abc import Iterator

from datadog_checks.prefect import tags
from datadog_checks.prefect.api.models import WorkPool
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.metrics import WORK_POOL_IS_NOT_READY, WORK_POOL_IS_PAUSED, WORK_POOL_IS_READY
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.tags import Tags, make_tags

_SERIES = {'READY': WORK_POOL_IS_READY, 'NOT_READY': WORK_POOL_IS_NOT_READY, 'PAUSED': WORK_POOL_IS_PAUSED}


class WorkPools:
    name = 'work_pools'

    def collect(self, run: RunContext) -> Iterator[Sample]:
        for pool in run.inventory.work_pools().values():
            for status, spec in _SERIES.items():
                yield Sample(spec, pool.status == status, work_pool_tags(pool))


def work_pool_tags(pool: WorkPool) -> Tags:
    return make_tags({tags.WORK_POOL_ID: pool.id, tags.WORK_POOL_NAME: pool.name, tags.WORK_POOL_TYPE: pool.type})
