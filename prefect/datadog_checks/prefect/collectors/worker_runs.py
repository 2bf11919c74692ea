"""What workers started, and how it ended: the exit codes of processes, containers and jobs, by work pool.

Only workers tell of it, in events: not the process that serves a deployment, nor Prefect Cloud, which starts the runs
of push and managed pools itself. A flow that fails is no process that fails: a run that told the server how it ended
exits with 0 (3.8.8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from datadog_checks.prefect.aggregation import LingeringSeries, Tally
from datadog_checks.prefect.api.models import Event
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.failure_reason import exit_code
from datadog_checks.prefect.event_names import WORKER_EXECUTED, WORKER_SUBMITTED
from datadog_checks.prefect.inventory.tagging import work_pool_tags
from datadog_checks.prefect.metrics import WORK_POOL_FLOW_RUNS_EXITED, WORK_POOL_FLOW_RUNS_SUBMITTED
from datadog_checks.prefect.streams.cursor import Batch, StreamCursor
from datadog_checks.prefect.streams.known_rows import KnownRows
from datadog_checks.prefect.tags import EXIT_CODE, WORK_POOL_ID, WORK_POOL_NAME, Tags, make_tags, merge_tags

_NUMBER = re.compile(r'-?[0-9]{1,10}')


@dataclass(frozen=True)
class WorkerRunsMemory:
    known: KnownRows = field(default_factory=KnownRows)
    reported: LingeringSeries = field(default_factory=LingeringSeries)


class WorkerRuns:
    """The filters leave out what they leave out of the flow runs."""

    name = 'worker_runs'
    initial_memory = WorkerRunsMemory()

    def collect(
        self, run: RunContext, cursor: StreamCursor | None, memory: WorkerRunsMemory
    ) -> Batch[WorkerRunsMemory]:
        new, window = run.new_named_events(self.name, cursor, memory.known)
        tally = Tally(WORK_POOL_FLOW_RUNS_SUBMITTED, WORK_POOL_FLOW_RUNS_EXITED)
        for event in _allowed(run, [event for event in new if event.name in (WORKER_SUBMITTED, WORKER_EXECUTED)]):
            tags = _work_pool_tags(run, event)
            if event.name == WORKER_SUBMITTED:
                tally.add(WORK_POOL_FLOW_RUNS_SUBMITTED, tags)
            else:
                tally.add(WORK_POOL_FLOW_RUNS_EXITED, merge_tags(tags, _exit_tags(event)))
        samples, reported = memory.reported.samples(run.now, tally)
        return Batch(samples, window.next_cursor(), WorkerRunsMemory(window.next_known(), reported))


def _allowed(run: RunContext, events: list[Event]) -> Iterable[Event]:
    """The events whose flow runs pass the filters. Most of these were read a moment ago."""
    if not run.settings.filters.is_active:
        return events
    flow_runs = {event.id: event.related['flow-run'].object_id for event in events if 'flow-run' in event.related}
    tags = run.inventory.tags_by_id(set(flow_runs.values()))
    return [event for event in events if event.id in flow_runs and tags[flow_runs[event.id]] is not None]


def _work_pool_tags(run: RunContext, event: Event) -> Tags:
    """Those of all its series while it is there."""
    found = event.related.get('work-pool')
    if found is None:
        return ()
    pool = run.inventory.work_pools().get(found.name or '')
    if pool is not None and pool.id == found.object_id:
        return work_pool_tags(pool)
    return make_tags({WORK_POOL_ID: found.object_id, WORK_POOL_NAME: found.name})


def _exit_tags(event: Event) -> Tags:
    flow_run = event.related.get('flow-run')
    text = flow_run.status_code if flow_run is not None else None
    is_number = text is not None and _NUMBER.fullmatch(text)
    return make_tags({EXIT_CODE: exit_code(int(text)) if text is not None and is_number else None})
