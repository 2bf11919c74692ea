"""State of each worker, and how many there are, from POST /work_pools/{name}/workers/filter: one request per pool."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from datadog_checks.prefect import tags
from datadog_checks.prefect.api.models import Worker
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.work_pools import work_pool_tags
from datadog_checks.prefect.metrics import (
    WORK_POOL_WORKERS_OFFLINE,
    WORK_POOL_WORKERS_ONLINE,
    WORKER_COUNTS,
    WORKER_HEARTBEAT_AGE,
    WORKER_IS_ONLINE,
)
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.tags import make_tags


class Workers:
    """Prefect keeps each worker that there ever was; one that is OFFLINE is reported for `worker_retention`."""

    name = 'workers'

    def collect(self, run: RunContext) -> Iterator[Sample]:
        for pool in run.inventory.work_pools().values():
            workers = [item for item in run.inventory.workers()[pool.name] if _is_current(item, run)]
            for worker in workers:
                worker_tags = make_tags(
                    {
                        tags.WORK_POOL_ID: pool.id,
                        tags.WORK_POOL_NAME: pool.name,
                        tags.WORKER_ID: worker.id,
                        tags.WORKER_NAME: worker.name,
                    }
                )
                yield Sample(WORKER_IS_ONLINE, worker.is_online, worker_tags)
                if worker.last_heartbeat_time is not None:
                    yield Sample(WORKER_HEARTBEAT_AGE, _age(run.now, worker.last_heartbeat_time), worker_tags)
            if WORKER_COUNTS in run.settings.groups:
                online = sum(worker.is_online for worker in workers)
                yield Sample(WORK_POOL_WORKERS_ONLINE, online, work_pool_tags(pool))
                yield Sample(WORK_POOL_WORKERS_OFFLINE, len(workers) - online, work_pool_tags(pool))


def _is_current(worker: Worker, run: RunContext) -> bool:
    """Whether a worker is still of interest. One that never sent a heartbeat has no age to judge it by."""
    if worker.is_online or worker.last_heartbeat_time is None:
        return True
    return timedelta(seconds=_age(run.now, worker.last_heartbeat_time)) <= run.settings.worker_retention


def _age(now: datetime, time: datetime) -> float:
    return max(0.0, (now - time).total_seconds())
