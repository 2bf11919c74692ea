"""Concurrency limits and how much of them is taken: of work pools, work queues, deployments, tags, and global ones.

Work pools and work queues have their limit in their own row; those of deployments, of tags and the global ones come
from POST /v2/concurrency_limits/filter. POST /concurrency_limits/filter tells who holds the slots of tags.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from datadog_checks.prefect import tags
from datadog_checks.prefect.api.models import DEPLOYMENT_LIMIT_PREFIX, TAG_LIMIT_PREFIX, ConcurrencyLimit, TagLimit
from datadog_checks.prefect.api.times import is_due
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.leaked_slots import NOTHING, LeakedSlots, Observation, find_leaks
from datadog_checks.prefect.inventory.slots import percent_in_use
from datadog_checks.prefect.inventory.tagging import work_pool_tags, work_queue_status_tags
from datadog_checks.prefect.metrics import (
    CONCURRENCY_LIMIT_ACTIVE_SLOTS,
    CONCURRENCY_LIMIT_IN_USE,
    CONCURRENCY_LIMIT_IS_ACTIVE,
    CONCURRENCY_LIMIT_LEAKED_SLOTS,
    CONCURRENCY_LIMIT_LIMIT,
    DEPLOYMENT_CONCURRENCY_ACTIVE_SLOTS,
    DEPLOYMENT_CONCURRENCY_IN_USE,
    DEPLOYMENT_CONCURRENCY_LEAKED_SLOTS,
    DEPLOYMENT_CONCURRENCY_LIMIT,
    WORK_POOL_CONCURRENCY_ACTIVE_SLOTS,
    WORK_POOL_CONCURRENCY_IN_USE,
    WORK_POOL_CONCURRENCY_LIMIT,
    WORK_QUEUE_CONCURRENCY_ACTIVE_SLOTS,
    WORK_QUEUE_CONCURRENCY_LIMIT,
    MetricSpec,
)
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.tags import Tags, make_tags

# How often a server whose tags take no slots is asked for tags that it does not keep with the other limits.
_TAG_LIMITS_INTERVAL = timedelta(minutes=10)


@dataclass(frozen=True)
class ConcurrencyMemory:
    """`has_tags_apart` says that the server keeps limits of tags which are not among the other limits."""

    last: Observation = NOTHING
    tag_limits_asked_at: datetime | None = None
    has_tags_apart: bool = False


class Concurrency:
    name = 'concurrency'
    initial_memory = ConcurrencyMemory()

    def collect(self, run: RunContext, memory: ConcurrencyMemory) -> tuple[list[Sample], ConcurrencyMemory]:
        samples = [*_work_pools(run), *_work_queues(run)]
        limits = run.inventory.concurrency_limits()
        tag_limits, asked_at = _read_tag_limits(run, limits, memory)
        leaked, observation = find_leaks(run, memory.last, limits, tag_limits)
        names = {limit.name for limit in limits}
        apart = [_as_limit(item) for item in tag_limits if TAG_LIMIT_PREFIX + item.tag not in names]
        samples += (*_deployments(run, limits, leaked), *_tags_and_global((*limits, *apart), leaked))
        return samples, ConcurrencyMemory(observation, asked_at, bool(apart))


def _read_tag_limits(
    run: RunContext, limits: Sequence[ConcurrencyLimit], memory: ConcurrencyMemory
) -> tuple[list[TagLimit], datetime | None]:
    """Who holds the slots of tags, and when that was asked last.

    It is not if there is nothing to hold, but that a server may keep tags apart.
    """
    are_slots_taken = any(item.active_slots and item.name.startswith(TAG_LIMIT_PREFIX) for item in limits)
    is_time = is_due(memory.tag_limits_asked_at, run.now, _TAG_LIMITS_INTERVAL)
    if is_time or are_slots_taken or memory.has_tags_apart:
        return run.inventory.tag_limits(), run.now
    tag_limits = [
        TagLimit(id=item.id, tag=tag, holder_ids=(), limit=item.limit)
        for item in limits
        if (tag := _tag(item)) is not None
    ]
    return tag_limits, memory.tag_limits_asked_at


@dataclass(frozen=True)
class _Usage:
    """The series that tell how much of a limit is taken."""

    in_use: MetricSpec | None
    active_slots: MetricSpec
    limit: MetricSpec

    def samples(self, taken: int, limit: int, of: Tags) -> Iterator[Sample]:
        if self.in_use is not None:
            yield Sample(self.in_use, percent_in_use(taken, limit), of)
        yield Sample(self.active_slots, taken, of)
        yield Sample(self.limit, limit, of)


_WORK_POOL = _Usage(WORK_POOL_CONCURRENCY_IN_USE, WORK_POOL_CONCURRENCY_ACTIVE_SLOTS, WORK_POOL_CONCURRENCY_LIMIT)
# Their share is told with the state of the queue.
_WORK_QUEUE = _Usage(None, WORK_QUEUE_CONCURRENCY_ACTIVE_SLOTS, WORK_QUEUE_CONCURRENCY_LIMIT)
_DEPLOYMENT = _Usage(DEPLOYMENT_CONCURRENCY_IN_USE, DEPLOYMENT_CONCURRENCY_ACTIVE_SLOTS, DEPLOYMENT_CONCURRENCY_LIMIT)
_LIMIT = _Usage(CONCURRENCY_LIMIT_IN_USE, CONCURRENCY_LIMIT_ACTIVE_SLOTS, CONCURRENCY_LIMIT_LIMIT)


def _work_pools(run: RunContext) -> Iterator[Sample]:
    for pool in run.inventory.work_pools().values():
        if pool.concurrency_limit is not None:
            taken = run.inventory.taken_slots.of_work_pool(pool)
            yield from _WORK_POOL.samples(taken, pool.concurrency_limit, work_pool_tags(pool))


def _work_queues(run: RunContext) -> Iterator[Sample]:
    for queue in run.inventory.work_queues():
        if queue.concurrency_limit is not None:
            taken = run.inventory.taken_slots.of_work_queue(queue)
            yield from _WORK_QUEUE.samples(taken, queue.concurrency_limit, work_queue_status_tags(queue))


def _deployments(run: RunContext, limits: Sequence[ConcurrencyLimit], leaked: LeakedSlots) -> Iterator[Sample]:
    by_name: Mapping[str, ConcurrencyLimit] = {limit.name: limit for limit in limits}
    for deployment in run.inventory.deployments().values():
        limit = by_name.get(DEPLOYMENT_LIMIT_PREFIX + deployment.id)
        if limit is not None:
            own_tags = run.inventory.tags_of_deployment(deployment)
            yield from _DEPLOYMENT.samples(limit.active_slots, limit.limit, own_tags)
            yield Sample(DEPLOYMENT_CONCURRENCY_LEAKED_SLOTS, leaked[limit.name], own_tags)


def _tags_and_global(limits: Sequence[ConcurrencyLimit], leaked: LeakedSlots) -> Iterator[Sample]:
    for limit in limits:
        if limit.name.startswith(DEPLOYMENT_LIMIT_PREFIX):
            continue
        tag = _tag(limit)
        own_tags = make_tags(
            {
                tags.CONCURRENCY_LIMIT_ID: limit.id,
                tags.CONCURRENCY_LIMIT_NAME: limit.name if tag is None else tag,
                tags.CONCURRENCY_LIMIT_TYPE: 'global' if tag is None else 'tag',
            }
        )
        yield from _LIMIT.samples(limit.active_slots, limit.limit, own_tags)
        yield Sample(CONCURRENCY_LIMIT_IS_ACTIVE, limit.is_active, own_tags)
        if limit.name in leaked:
            yield Sample(CONCURRENCY_LIMIT_LEAKED_SLOTS, leaked[limit.name], own_tags)


def _tag(limit: ConcurrencyLimit) -> str | None:
    is_of_tag = limit.name.startswith(TAG_LIMIT_PREFIX)
    return limit.name.removeprefix(TAG_LIMIT_PREFIX) if is_of_tag else None


def _as_limit(item: TagLimit) -> ConcurrencyLimit:
    """A tag that the server keeps apart from the other limits: always enforced, one slot for each holder."""
    return ConcurrencyLimit(
        item.id, TAG_LIMIT_PREFIX + item.tag, item.limit, len(item.holder_ids), is_active=True, slot_decay=0.0
    )
