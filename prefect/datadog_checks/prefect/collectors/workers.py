"""State of each worker, and how many there are, from POST /work_pools/{name}/workers/filter: one request per pool.

Beyond 50 pools they are asked about in turns (`inventory/workers.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from datadog_checks.prefect.api.models import Worker
from datadog_checks.prefect.api.times import age_seconds
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.inventory.tagging import work_pool_tags, worker_tags
from datadog_checks.prefect.metrics import (
    WORK_POOL_WORKERS_OFFLINE,
    WORK_POOL_WORKERS_ONLINE,
    WORKER_COUNTS,
    WORKER_HEARTBEAT_AGE,
    WORKER_IS_ONLINE,
)
from datadog_checks.prefect.sample import Sample


class Workers:
    """Prefect keeps each worker that there ever was; one that is OFFLINE is reported for `worker_retention`."""

    name = 'workers'

    def collect(self, run: RunContext) -> Iterator[Sample]:
        for pool in run.inventory.work_pools().values():
            found = run.inventory.workers().get(pool.name)
            if found is None:
                continue
            workers = [item for item in found.workers if _is_reported(item, run)]
            for worker in workers:
                own_tags = worker_tags(pool, worker)
                yield Sample(WORKER_IS_ONLINE, worker.is_online, own_tags)
                # An age that is repeated would show a dead worker as fresh.
                if found.is_current and worker.last_heartbeat_time is not None:
                    age = age_seconds(worker.last_heartbeat_time, run.now)
                    yield Sample(WORKER_HEARTBEAT_AGE, age, own_tags)
            if WORKER_COUNTS in run.settings.groups:
                online = sum(worker.is_online for worker in workers)
                yield Sample(WORK_POOL_WORKERS_ONLINE, online, work_pool_tags(pool))
                yield Sample(WORK_POOL_WORKERS_OFFLINE, len(workers) - online, work_pool_tags(pool))


def _is_reported(worker: Worker, run: RunContext) -> bool:
    """Whether a worker is still of interest. One that never sent a heartbeat has no age to judge it by."""
    if worker.is_online or worker.last_heartbeat_time is None:
        return True
    return timedelta(seconds=age_seconds(worker.last_heartbeat_time, run.now)) <= run.settings.worker_retention
