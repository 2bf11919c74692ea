"""The workers of each work pool, remembered between the runs of the check.

The server lists workers by work pool only, so that 500 pools are 500 requests. Up to 50 pools are all asked about in
each run. Of more, or where requests take long, each has its turn; one that shows by its status or by the polling of its
queues that its workers may have changed is asked about at once.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.models import Worker, WorkPool, WorkQueue
from datadog_checks.prefect.inventory import reading_time

# With so many pools all are asked about in each run; of more, so many, and so many of them out of their turn.
_POOLS = 50
_REQUESTS = 30
_AT_ONCE = 20
# Seconds for which one run goes on beyond that with pools that it knows nothing about yet.
_FIRST_SECONDS = 5.0
# Workers poll every 10 s by default. One that is gone is OFFLINE 90 s after its last heartbeat, as soon as the server's
# foreman comes by, every 15 s (3.8.8). So long ago a queue was polled last whose workers may be about to go.
_STOPPED = (timedelta(seconds=30), timedelta(seconds=180))

Statuses = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class PoolWorkers:
    """The workers of a pool. `is_current` says whether they were read in this run; else their heartbeats are older."""

    workers: Collection[Worker]
    is_current: bool = True


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was read of a pool: in which run, and what its status and those of its queues were then."""

    workers: Collection[Worker]
    turn: int
    statuses: Statuses


class WorkerDirectory:
    """The workers by work pool, as they were read last."""

    def __init__(self) -> None:
        self._readings: dict[str, _Reading] = {}
        self._turn = 0

    def refresh(
        self,
        client: PrefectClient,
        pools: Collection[WorkPool],
        queues: Iterable[WorkQueue],
        now: datetime,
        since: datetime,
    ) -> Mapping[str, PoolWorkers]:
        """The workers of these pools by the name of the pool; a pool that was not read yet is missing.

        Of workers that are OFFLINE and sent their last heartbeat before `since` only some. Raises a PrefectApiError;
        what was read up to then is kept.
        """
        self._turn += 1
        by_pool: dict[str | None, list[WorkQueue]] = {}
        for queue in sorted(queues, key=lambda item: item.id):
            by_pool.setdefault(queue.work_pool_id, []).append(queue)
        statuses = {pool.id: _statuses(pool, by_pool.get(pool.id, ())) for pool in pools}
        self._readings = {key: item for key, item in self._readings.items() if key in statuses}
        stopped = {pool.id for pool in pools if any(_has_stopped(item, now) for item in by_pool.get(pool.id, ()))}
        deadline = time.monotonic() + _FIRST_SECONDS
        for number, pool in enumerate(self._in_order(pools, statuses, stopped)):
            has_turns = len(pools) > _POOLS or client.is_late(reading_time.WORKERS)
            is_optional = has_turns and number >= _REQUESTS
            if is_optional and (pool.id in self._readings or time.monotonic() > deadline):
                break
            self._readings[pool.id] = _Reading(client.workers(pool.name, since), self._turn, statuses[pool.id])
        return {
            pool.name: PoolWorkers(reading.workers, reading.turn == self._turn)
            for pool in pools
            if (reading := self._readings.get(pool.id)) is not None
        }

    def _in_order(
        self, pools: Collection[WorkPool], statuses: Mapping[str, Statuses], stopped: Collection[str]
    ) -> list[WorkPool]:
        """The pools in the order in which they are to be asked about.

        Some of those whose status has changed and then of others that may have; those of which nothing is known; then
        those that were not read for longest.
        """
        readings = self._readings
        unread = [pool for pool in pools if pool.id not in readings]
        known = sorted((pool for pool in pools if pool.id in readings), key=lambda pool: readings[pool.id].turn)
        changed = {pool.id for pool in known if readings[pool.id].statuses != statuses[pool.id]}
        suspected = [pool for pool in known if pool.id in changed or pool.id in stopped]
        # Among equals those stay first that were not read for longest.
        at_once = sorted(suspected, key=lambda pool: pool.id not in changed)[:_AT_ONCE]
        ids = {pool.id for pool in at_once}
        return [*at_once, *unread, *(pool for pool in known if pool.id not in ids)]


def _statuses(pool: WorkPool, queues: Iterable[WorkQueue]) -> Statuses:
    return (pool.status, *(queue.status for queue in queues))


def _has_stopped(queue: WorkQueue, now: datetime) -> bool:
    """Whether a queue that was polled until lately is polled no more."""
    return queue.last_polled is not None and _STOPPED[0] <= now - queue.last_polled <= _STOPPED[1]
