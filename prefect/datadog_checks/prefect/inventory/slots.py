"""Slots of work pools and work queues: how many of their concurrency limits are taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.models import SLOT_STATE_TYPES, FlowRun, WorkPool, WorkQueue


class TakenSlots:
    """The slots that are taken now, by all runs, whatever the filters leave out of other series.

    The server's own `active_slots` (3.6.23 and later) are not used: in the list of all queues they count CANCELLING
    runs, which hold no slot (3.8.8).

    `live_flow_runs` are all runs that are on their way, or None when they are narrowed by filters: each pool and queue
    that is asked about takes one request then.
    """

    def __init__(self, client: PrefectClient, live_flow_runs: Callable[[], list[FlowRun]] | None) -> None:
        self._client = client
        self._live_flow_runs = live_flow_runs
        self._counts: Counter[str | None] | None = None
        self._counted: dict[str, int] = {}

    def of_work_pool(self, pool: WorkPool) -> int:
        return self._of(pool.id, 'work_pools')

    def of_work_queue(self, queue: WorkQueue) -> int:
        return self._of(queue.id, 'work_pool_queues')

    def _of(self, identity: str, filter_key: str) -> int:
        if self._live_flow_runs is not None:
            return self._count(self._live_flow_runs())[identity]
        if identity not in self._counted:
            criteria: dict[str, Any] = {'state': {'type': {'any_': list(SLOT_STATE_TYPES)}}}
            body = {'flow_runs': criteria, filter_key: {'id': {'any_': [identity]}}}
            self._counted[identity] = self._client.count_flow_runs(body)
        return self._counted[identity]

    def _count(self, flow_runs: list[FlowRun]) -> Counter[str | None]:
        """By the id of the queue and by that of the work pool."""
        if self._counts is None:
            holders = [item for item in flow_runs if item.state_type in SLOT_STATE_TYPES]
            self._counts = Counter(item.work_queue_id for item in holders)
            self._counts.update(item.work_pool_id for item in holders)
        return self._counts


def percent_in_use(taken: int, limit: int) -> float:
    """A limit of 0 lets nothing through: it is always full."""
    return 100.0 * taken / limit if limit else 100.0
