"""The events that collectors count, read once for all of them.

Each of these collectors is a stream with a cursor and known rows of its own, so that what fails for one is not lost for
another. As long as they are in step they ask for the same time ranges, and only the first of them reaches the server:

    new, window = run.new_named_events(self.name, cursor, memory)
    mine = [event for event in new if event.name in COUNTED_EVENTS[GROUP]]
    return Batch(samples(mine), window.next_cursor(), window.next_known())

The names stand in `event_names.COUNTED_EVENTS`, by the key of the option `collect`; those of the groups that are on are
asked for together. With none of them on nothing is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.models import Event
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.inventory.lazy import LazyPages

EventPages = LazyPages[tuple[list[Event], int]]


class NamedEvents:
    """A `SharedEventSource` for one run of the check: each count and each page is asked for at most once."""

    def __init__(self, client: PrefectClient, names: Collection[str]) -> None:
        self._client = client
        self._names = {'name': sorted(names)}
        self._counts: dict[TimeRange, int] = {}
        self._pages: dict[TimeRange, EventPages] = {}
        self._newest_pages: dict[TimeRange, EventPages] = {}

    def count(self, time_range: TimeRange) -> int:
        if time_range not in self._counts:
            self._counts[time_range] = self._client.count_events(self._names, time_range)
        return self._counts[time_range]

    def pages(self, time_range: TimeRange) -> Iterable[tuple[list[Event], int]]:
        if time_range not in self._pages:
            self._pages[time_range] = LazyPages(self._client.event_pages(self._names, time_range))
        return self._pages[time_range]

    def newest_pages(self, time_range: TimeRange) -> Iterable[tuple[list[Event], int]]:
        if time_range not in self._newest_pages:
            self._newest_pages[time_range] = LazyPages(self._client.event_pages(self._names, time_range, 'DESC'))
        return self._newest_pages[time_range]
