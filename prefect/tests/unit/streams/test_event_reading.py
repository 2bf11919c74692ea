from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest

from datadog_checks.prefect.api.models import Event
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.streams.cursor import StreamCursor
from datadog_checks.prefect.streams.event_reading import EventPages, read_in_order, read_newest_first
from datadog_checks.prefect.streams.window import StreamWindow
from tests.unit.harness import LOG, START, at, read_row

RESOURCE = {'resource': {'prefect.resource.id': 'prefect.x.1'}}
Read = Callable[..., tuple[list[Event], int]]


class Source:
    """Events of one moment, of which one stays hidden until it is shown, however often the pages are read."""

    def __init__(self) -> None:
        self.events = [
            read_row(Event, {'id': str(uuid.uuid4()), 'event': 'x', 'occurred': at(35).isoformat(), **RESOURCE})
            for _ in range(3)
        ]
        self.hidden = 1

    def count(self, time_range: TimeRange) -> int:
        return sum(time_range.holds(event.occurred) for event in self.events)

    def pages(self, time_range: TimeRange) -> EventPages:
        found = [event for event in self.events if time_range.holds(event.occurred)]
        shown = found[: len(found) - self.hidden]
        return [(shown, len(found) - len(shown))] if found else []

    newest_pages = pages


def read(reading: Read, source: Source, cursor: StreamCursor, seconds: float) -> tuple[list[Event], int, StreamCursor]:
    """What a run of the check at that time reads after a restart, and its cursor."""
    window = StreamWindow('events', cursor, at(seconds), timedelta(hours=1), LOG)
    new, left = reading(window, source)
    return new, left, window.next_cursor()


@pytest.mark.parametrize('reading', [read_in_order, read_newest_first])
def test_event_that_the_pages_hid_is_read_though_it_leaves_the_overlap(reading: Read) -> None:
    source = Source()
    first, left, cursor = read(reading, source, StreamCursor(floor=START, until=at(150)), 160)
    assert (first, left) == (source.events[:2], 1)
    source.hidden = 0
    # The overlap of this read begins at 40, past the events.
    later, left, cursor = read(reading, source, cursor, 220)
    assert (later, left) == (source.events[2:], 0)
    assert cursor.reached is None


@pytest.mark.parametrize('reading', [read_in_order, read_newest_first])
def test_event_that_is_hidden_for_ever_is_given_up(reading: Read) -> None:
    source = Source()
    cursor = StreamCursor(floor=START, until=at(150))
    for seconds in range(160, 400, 60):
        _, _, cursor = read(reading, source, cursor, seconds)
    assert cursor.reached is None
