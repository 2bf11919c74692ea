"""State of the work pools, from POST /work_pools/filter."""

from __future__ import annotations

from collections.abc import Iterator

from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.inventory.tagging import work_pool_tags
from datadog_checks.prefect.metrics import WORK_POOL_IS_NOT_READY, WORK_POOL_IS_PAUSED, WORK_POOL_IS_READY
from datadog_checks.prefect.sample import Sample

_SERIES = {'READY': WORK_POOL_IS_READY, 'NOT_READY': WORK_POOL_IS_NOT_READY, 'PAUSED': WORK_POOL_IS_PAUSED}


class WorkPools:
    name = 'work_pools'

    def collect(self, run: RunContext) -> Iterator[Sample]:
        for pool in run.inventory.work_pools().values():
            current = run.inventory.status_of(pool)
            for status, spec in _SERIES.items():
                yield Sample(spec, current == status, work_pool_tags(pool))
