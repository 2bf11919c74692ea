"""Events: what Prefect says about runs, work pools, work queues and deployments, sent on as events of Datadog.

Task runs carry no deployment, pool or queue of their own: those are joined from their flow run.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

from datadog_checks.prefect.api.models import Event
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.event_text import agent_event, objects
from datadog_checks.prefect.filters import ResourceFilters
from datadog_checks.prefect.metrics import EVENTS_PENDING
from datadog_checks.prefect.sample import AgentEvent, Sample
from datadog_checks.prefect.streams.cursor import Batch, StreamCursor
from datadog_checks.prefect.streams.known_rows import KnownRows
from datadog_checks.prefect.streams.window import StreamWindow
from datadog_checks.prefect.tags import Tags

# New events that are read in one run of the check, up to the end of a page: 20 pages.
MOST_PER_RUN = 1000
# The server writes events down every 5 s (seen up to 5.2 s, 3.8.8).
_MARGIN = timedelta(seconds=10)
# What a kind hangs on; any other kind may hang on all of it, like a flow run.
_PARENTS: dict[str, tuple[str, ...]] = {
    'work-pool': ('work-pool',),
    'worker': ('work-pool',),
    'work-queue': ('work-pool', 'work-queue'),
}
_ALL_PARENTS = ('work-pool', 'work-queue', 'deployment', 'flow')


class Events:
    """The events whose names pass, each once by its id. Those of a flood wait for the next runs of the check."""

    name = 'events'
    initial_memory = KnownRows()

    def collect(self, run: RunContext, cursor: StreamCursor | None, memory: KnownRows) -> Batch[KnownRows]:
        window = run.window(self.name, cursor, memory, margin=_MARGIN)
        new, pending = _read(run, window)
        named = [event for event in new if run.settings.event_names.allows(event.name)]
        samples = [Sample(EVENTS_PENDING, pending)]
        return Batch(samples, window.next_cursor(), window.next_known(), tuple(_convert(run, named)))


def _read(run: RunContext, window: StreamWindow) -> tuple[list[Event], int]:
    """The new events, and the number of those that are left to the next run."""
    names = run.settings.event_names.criterion
    count = partial(run.inventory.count_events, names)
    # To count events by their ids takes a server longer than to send those that are about to leave the overlap: 130 ms
    # for 2,000 ids, against 13 ms for a page of 50 (3.8.8 on SQLite).
    time_ranges = window.time_ranges(count)
    new: list[Event] = []
    for number, time_range in enumerate(time_ranges, 1):
        read: list[Event] = []
        for events, left in run.inventory.event_pages(names, time_range):
            read += events
            new += _select_new(window, events)
            if left and len(new) >= MOST_PER_RUN:
                reached = new[-1].occurred
                window.cut(reached)
                new += _select_new(window, _read_if_torn(run, TimeRange(time_range.since, reached), read))
                return new, left + sum(map(count, time_ranges[number:]))
    return new, 0


def _read_if_torn(run: RunContext, passed: TimeRange, read: list[Event]) -> list[Event]:
    """All events of a time range, if pages that were not read to the end left one out between ties, otherwise none.

    The next run goes on from the end of that time range, so it is now that they are due.
    """
    names = run.settings.event_names.criterion
    if passed.is_empty or run.inventory.count_events(names, passed) == sum(
        passed.holds(item.occurred) for item in read
    ):
        return []
    return [event for events, _ in run.inventory.event_pages(names, passed) for event in events]


def _select_new(window: StreamWindow, events: list[Event]) -> list[Event]:
    window.know((event, event.occurred) for event in events)
    return [event for event in events if window.is_new(event.id, event.occurred)]


def _convert(run: RunContext, events: list[Event]) -> Iterator[AgentEvent]:
    """The events as the Agent takes them, those that the filters exclude left out."""
    flow_run_ids = {flow_run_id for event in events if (flow_run_id := _flow_run_id(event)) is not None}
    known = run.inventory.tags_by_id(flow_run_ids)
    of_no_flow_run: Tags | None = () if run.settings.filters.keep_parentless else None
    for event in events:
        more_tags: Tags | None
        if event.kind == 'task-run':
            flow_run_id = _flow_run_id(event)
            more_tags = of_no_flow_run if flow_run_id is None else known[flow_run_id]
        elif _is_allowed(event, run.settings.filters):
            deployment = objects(event).get('deployment')
            more_tags = run.inventory.prefect_tags(deployment.object_id if deployment else None)
        else:
            continue
        if more_tags is not None:
            yield agent_event(event, more_tags, run.settings.ui_url)


def _flow_run_id(event: Event) -> str | None:
    """The flow run of a task run."""
    flow_run = event.related.get('flow-run')
    return flow_run.object_id if event.kind == 'task-run' and flow_run is not None else None


def _is_allowed(event: Event, filters: ResourceFilters) -> bool:
    by_kind = {
        'work-pool': filters.work_pools,
        'work-queue': filters.work_queues,
        'deployment': filters.deployments,
        'flow': filters.flows,
    }
    found = objects(event)
    return all(
        by_kind[kind].allows(found[kind].name if kind in found else None)
        for kind in _PARENTS.get(event.kind, _ALL_PARENTS)
    )
