"""State of each worker, from POST /work_pools/{name}/workers/filter: one request per work pool."""

from __future__ import annotations

from collections.abc import Iterator

from datadog_checks.prefect import tags
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.metrics import WORKER_HEARTBEAT_AGE, WORKER_IS_ONLINE
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.tags import make_tags


class Workers:
    name = 'workers'

    def collect(self, run: RunContext) -> Iterator[Sample]:
        for pool in run.inventory.work_pools().values():
            for worker in run.inventory.workers()[pool.name]:
                worker_tags = make_tags(
                    {
                        tags.WORK_POOL_ID: pool.id,
                        tags.WORK_POOL_NAME: pool.name,
                        tags.WORKER_ID: worker.id,
                        tags.WORKER_NAME: worker.name,
                    }
                )
                yield Sample(WORKER_IS_ONLINE, worker.status == 'ONLINE', worker_tags)
                if worker.last_heartbeat_time is not None:
                    age = (run.now - worker.last_heartbeat_time).total_seconds()
                    yield Sample(WORKER_HEARTBEAT_AGE, max(0.0, age), worker_tags)
