"""Slots of concurrency limits that are taken while no run is alive that could hold them.

A slot is leaked only if it was so in the last run of the check, too: a slot and its holder are read one after the
other. What cannot be told is left out: the slots of a rate limit, which become free by themselves, and those of tags
whose holders the server does not list.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from datadog_checks.prefect.api.models import (
    DEPLOYMENT_LIMIT_PREFIX,
    DEPLOYMENT_SLOT_STATE_TYPES,
    TAG_LIMIT_PREFIX,
    ConcurrencyLimit,
    TagLimit,
)

if TYPE_CHECKING:
    from datadog_checks.prefect.collectors.base import RunContext

# Slots that are leaked, by the name of the limit.
LeakedSlots = Mapping[str, int]


@dataclass(frozen=True)
class Observation:
    """What one run of the check saw: slots by limit, and who may have held them."""

    at: datetime
    slots: Mapping[str, int]
    # Flow runs by deployment.
    flow_run_ids: Mapping[str, set[str]]
    is_anything_alive: bool
    # Of each tag limit: the task runs that hold slots and are not alive, and the slots that nobody holds by name.
    dead_holders: Mapping[str, set[str]] = field(default_factory=dict)
    unnamed_slots: Mapping[str, int] = field(default_factory=dict)


NOTHING = Observation(at=datetime.min.replace(tzinfo=UTC), slots={}, flow_run_ids={}, is_anything_alive=False)


def find_leaks(
    run: RunContext, last: Observation, limits: Sequence[ConcurrencyLimit], tag_limits: Sequence[TagLimit]
) -> tuple[LeakedSlots, Observation]:
    """The leaked slots of each limit, 0 included, and what this run of the check saw; `last` is what the last one saw.

    A limit of which it cannot be told is missing.
    """
    now = _observe(run, limits, tag_limits)
    leaked: dict[str, int] = {}
    for limit in limits:
        taken = min(last.slots.get(limit.name, 0), limit.active_slots)
        if limit.name.startswith(DEPLOYMENT_LIMIT_PREFIX):
            leaked[limit.name] = _leaked_by_deployment(run, limit, taken, last, now)
        elif _is_global(limit):
            leaked[limit.name] = _leaked_by_all(run, taken, last, now)
    for tag, dead in now.dead_holders.items():
        unnamed = min(last.unnamed_slots.get(tag, 0), now.unnamed_slots[tag])
        leaked[TAG_LIMIT_PREFIX + tag] = len(dead & last.dead_holders.get(tag, set())) + unnamed
    return leaked, now


def _observe(run: RunContext, limits: Sequence[ConcurrencyLimit], tag_limits: Sequence[TagLimit]) -> Observation:
    slots = {item.name: item.active_slots for item in limits}
    return Observation(
        at=run.now,
        slots=slots,
        flow_run_ids=_holders_by_deployment(run),
        is_anything_alive=_may_global_slots_be_held(run, limits),
        dead_holders=_dead_holders(run, tag_limits),
        unnamed_slots={
            limit.tag: _unnamed_slots(run, limit, slots.get(TAG_LIMIT_PREFIX + limit.tag, 0)) for limit in tag_limits
        },
    )


def _holders_by_deployment(run: RunContext) -> Mapping[str, set[str]]:
    """The flow runs that may hold a slot of their deployment."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for flow_run in run.inventory.live_flow_runs():
        if flow_run.deployment_id and flow_run.state_type in DEPLOYMENT_SLOT_STATE_TYPES:
            found[flow_run.deployment_id].add(flow_run.id)
    for flow_run in run.inventory.restarting_flow_runs():
        # A process that retries by itself keeps the slot; a run that waits for its first slot has not started.
        if flow_run.deployment_id and flow_run.run_count:
            found[flow_run.deployment_id].add(flow_run.id)
    return found


def _may_global_slots_be_held(run: RunContext, limits: Sequence[ConcurrencyLimit]) -> bool:
    """Whether anything is alive that may hold a slot of a global limit. Not asked while none is taken."""
    are_taken = any(_is_global(item) and item.active_slots for item in limits)
    return are_taken and run.inventory.slot_holders.is_anything_alive()


def _dead_holders(run: RunContext, tag_limits: Sequence[TagLimit]) -> Mapping[str, set[str]]:
    """By tag: the task runs that hold its slots and are not alive."""
    holders = {limit.tag: set(limit.holder_ids) for limit in tag_limits}
    alive = run.inventory.slot_holders.alive_task_runs(set().union(*holders.values()))
    return {tag: ids - alive for tag, ids in holders.items()}


def _leaked_by_deployment(
    run: RunContext, limit: ConcurrencyLimit, taken: int, last: Observation, now: Observation
) -> int:
    """How many of the slots that were `taken` in both runs exceed all flow runs that may have held one."""
    deployment_id = limit.name.removeprefix(DEPLOYMENT_LIMIT_PREFIX)
    holders = last.flow_run_ids.get(deployment_id, set()) | now.flow_run_ids.get(deployment_id, set())
    if taken <= len(holders):
        return 0
    ended = {item.id for item in run.inventory.flow_runs_ended_since(last.at) if item.deployment_id == deployment_id}
    return max(0, taken - len(holders | ended))


def _leaked_by_all(run: RunContext, taken: int, last: Observation, now: Observation) -> int:
    """All slots that were `taken` in both runs, if nothing was alive that may have held one."""
    if not taken or last.is_anything_alive or now.is_anything_alive:
        return 0
    # Runs that came and went between two checks may have held slots at the moments of both.
    return 0 if run.inventory.flow_runs_ended_since(last.at) else taken


def _is_global(limit: ConcurrencyLimit) -> bool:
    return not limit.name.startswith((DEPLOYMENT_LIMIT_PREFIX, TAG_LIMIT_PREFIX)) and not limit.slot_decay


def _unnamed_slots(run: RunContext, limit: TagLimit, active_slots: int) -> int:
    """The slots of a tag that nobody holds by name, if no task run with that tag is alive.

    The server forgets the names when it is restarted (3.8.8 keeps them in its memory), the slots it does not.
    """
    unnamed = active_slots - len(limit.holder_ids)
    if unnamed <= 0:
        return 0
    return 0 if run.inventory.slot_holders.is_tag_in_use(limit.tag) else unnamed
