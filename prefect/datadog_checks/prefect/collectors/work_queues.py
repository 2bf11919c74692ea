"""State, polling, backlog and concurrency of work queues, from POST /work_queues/filter and the runs that are due."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime

from datadog_checks.prefect.api.times import age_seconds
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.inventory.slots import percent_in_use
from datadog_checks.prefect.inventory.tagging import work_queue_status_tags, work_queue_tags
from datadog_checks.prefect.metrics import (
    WORK_QUEUE_BACKLOG_AGE,
    WORK_QUEUE_BACKLOG_SIZE,
    WORK_QUEUE_CONCURRENCY_IN_USE,
    WORK_QUEUE_IS_NOT_READY,
    WORK_QUEUE_IS_PAUSED,
    WORK_QUEUE_IS_READY,
    WORK_QUEUE_LAST_POLLED_AGE,
)
from datadog_checks.prefect.sample import Sample

_SERIES = {'READY': WORK_QUEUE_IS_READY, 'NOT_READY': WORK_QUEUE_IS_NOT_READY, 'PAUSED': WORK_QUEUE_IS_PAUSED}


class WorkQueues:
    name = 'work_queues'

    def collect(self, run: RunContext) -> Iterator[Sample]:
        due = _due_times(run)
        for queue in run.inventory.work_queues():
            queue_tags = work_queue_tags(queue)
            for status, spec in _SERIES.items():
                yield Sample(spec, queue.status == status, queue_tags)
            status_tags = work_queue_status_tags(queue)
            if queue.last_polled is not None:
                yield Sample(WORK_QUEUE_LAST_POLLED_AGE, age_seconds(queue.last_polled, run.now), status_tags)
            times = due[queue.id]
            yield Sample(WORK_QUEUE_BACKLOG_SIZE, len(times), status_tags)
            yield Sample(WORK_QUEUE_BACKLOG_AGE, age_seconds(min(times), run.now) if times else 0, status_tags)
            if queue.concurrency_limit is not None:
                taken = run.inventory.taken_slots.of_work_queue(queue)
                yield Sample(WORK_QUEUE_CONCURRENCY_IN_USE, percent_in_use(taken, queue.concurrency_limit), status_tags)


def _due_times(run: RunContext) -> defaultdict[str, list[datetime]]:
    """When each run of the backlog became due, by queue id."""
    due: defaultdict[str, list[datetime]] = defaultdict(list)
    for flow_run in run.inventory.due_flow_runs():
        if flow_run.work_queue_id is not None and flow_run.next_scheduled_start_time is not None:
            due[flow_run.work_queue_id].append(flow_run.next_scheduled_start_time)
    return due
