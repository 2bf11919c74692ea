"""Slots of concurrency limits: how many of work pools and work queues are taken, and who may hold those of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from datadog_checks.prefect.api import queries
from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.models import (
    LIVE_STATE_TYPES,
    SLOT_STATE_TYPES,
    TERMINAL_STATE_TYPES,
    FlowRun,
    WorkPool,
    WorkQueue,
)
from datadog_checks.prefect.api.queries import GLOBAL_SLOT_STATE_TYPES, Body

FlowRunsNow = Callable[[], list[FlowRun]]


class TakenSlots:
    """The slots that are taken now, by all runs, including those that the filters leave out of other series.

    The server's own `active_slots` (3.6.23 and later) are not used: in the list of all queues they count CANCELLING
    runs, which hold no slot (3.8.8).

    `live_flow_runs` are all runs that are on their way, or None when they are narrowed by filters: each pool and queue
    that is asked about takes one request then.
    """

    def __init__(self, client: PrefectClient, live_flow_runs: FlowRunsNow | None) -> None:
        self._client = client
        self._live_flow_runs = live_flow_runs
        self._counts: Counter[str | None] | None = None
        self._counted: dict[str, int] = {}

    def of_work_pool(self, pool: WorkPool) -> int:
        return self._of(pool.id, queries.slots_of_work_pool)

    def of_work_queue(self, queue: WorkQueue) -> int:
        return self._of(queue.id, queries.slots_of_work_queue)

    def _of(self, identity: str, query: Callable[[str], Body]) -> int:
        if self._live_flow_runs is not None:
            return self._count(self._live_flow_runs())[identity]
        if identity not in self._counted:
            self._counted[identity] = self._client.count_flow_runs(query(identity))
        return self._counted[identity]

    def _count(self, flow_runs: list[FlowRun]) -> Counter[str | None]:
        """By the id of the queue and by that of the work pool."""
        if self._counts is None:
            holders = [item for item in flow_runs if item.state_type in SLOT_STATE_TYPES]
            self._counts = Counter(item.work_queue_id for item in holders)
            self._counts.update(item.work_pool_id for item in holders)
        return self._counts


class SlotHolders:
    """Who may hold slots of tags and of global limits now, including runs that the filters leave out of other series.

    `live_flow_runs` are those that pass the filters, `are_all` says that these leave none out.
    """

    def __init__(self, client: PrefectClient, live_flow_runs: FlowRunsNow, *, are_all: bool) -> None:
        self._client = client
        self._live_flow_runs = live_flow_runs
        self._are_all = are_all

    def is_anything_alive(self) -> bool:
        """Whether any flow run or background task could be in the midst of code that took a slot of a global limit."""
        if any(item.state_type in GLOBAL_SLOT_STATE_TYPES for item in self._live_flow_runs()):
            return True
        if not self._are_all and self._client.count_flow_runs(queries.flow_runs_that_may_hold_slots()):
            return True
        return bool(self._client.count_task_runs(queries.background_task_runs_that_take_slots()))

    def alive_task_runs(self, ids: Collection[str]) -> set[str]:
        """Those that have not ended, nor has their flow run; also those that are not recorded (yet)."""
        if not ids:
            return set()
        rows = {item.id: item for item in self._client.task_runs_by_id(sorted(ids))}
        live = {item.id for item in self._live_flow_runs()}
        others = {item.flow_run_id for item in rows.values() if item.flow_run_id} - live
        if others:
            found = self._client.flow_runs_by_id(sorted(others))
            live |= {item.id for item in found if item.state_type in LIVE_STATE_TYPES}
        ended = {
            item.id
            for item in rows.values()
            if item.state_type in TERMINAL_STATE_TYPES or (item.flow_run_id and item.flow_run_id not in live)
        }
        return set(ids) - ended

    def is_tag_in_use(self, tag: str) -> bool:
        """Whether a task run with this tag is alive that may hold a slot of it."""
        bodies = (queries.task_runs_that_take_slots_of(tag), queries.background_task_runs_that_take_slots_of(tag))
        return any(self._client.count_task_runs(body) for body in bodies)


def percent_in_use(taken: int, limit: int) -> float:
    """A limit of 0 lets nothing through: it is always full."""
    return 100.0 * taken / limit if limit else 100.0
