"""Events: what Prefect says about runs, work pools, work queues and deployments, sent on as events of Datadog.

Task runs carry no deployment, pool or queue of their own: those are joined from their flow run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from datadog_checks.prefect.api.models import Event
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.collectors.event_text import agent_event, objects
from datadog_checks.prefect.filters import ResourceFilters
from datadog_checks.prefect.inventory.inventory import Inventory
from datadog_checks.prefect.metrics import EVENTS_PENDING
from datadog_checks.prefect.sample import AgentEvent, Sample
from datadog_checks.prefect.streams.cursor import Batch, StreamCursor
from datadog_checks.prefect.streams.event_reading import EVENT_MARGIN, read_in_order
from datadog_checks.prefect.streams.known_rows import KnownRows
from datadog_checks.prefect.tags import Tags

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
        window = run.window(self.name, cursor, memory, margin=EVENT_MARGIN)
        new, pending = read_in_order(window, _Source(run.inventory, run.settings.event_names.criterion))
        named = [event for event in new if run.settings.event_names.allows(event.name)]
        samples = [Sample(EVENTS_PENDING, pending)]
        return Batch(samples, window.next_cursor(), window.next_known(), tuple(_convert(run, named)))


@dataclass(frozen=True)
class _Source:
    """The events that may be sent."""

    inventory: Inventory
    names: dict[str, list[str]]

    def count(self, time_range: TimeRange) -> int:
        return self.inventory.count_events(self.names, time_range)

    def pages(self, time_range: TimeRange) -> Iterator[tuple[list[Event], int]]:
        return self.inventory.event_pages(self.names, time_range)


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
