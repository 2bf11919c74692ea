"""What a collector is given and what it gives back. It never sees the check, and it never submits.

What it remembers is given to it, and what it will remember is given back with the samples: the check takes that over
once they are submitted. A memory never changes, so a failure before that leaves no trace, and the next run of the check
does the same again. (What the inventory keeps of the server's facts is no such memory.)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from datadog_checks.prefect.api.log import Log
from datadog_checks.prefect.api.models import Event
from datadog_checks.prefect.inventory.inventory import Inventory
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.settings import Settings
from datadog_checks.prefect.streams.cursor import Batch, StreamCursor
from datadog_checks.prefect.streams.event_reading import EVENT_MARGIN, read_newest_first
from datadog_checks.prefect.streams.known_rows import KnownRows
from datadog_checks.prefect.streams.window import MARGIN, OVERLAP, StreamWindow

M = TypeVar('M')
T = TypeVar('T')


@dataclass(frozen=True)
class RunContext:
    """One run of the check. `now` is the server's time at its start."""

    now: datetime
    inventory: Inventory
    settings: Settings
    log: Log
    _found: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def once(self, key: Hashable, find: Callable[[], T]) -> T:
        """What several collectors find out in this run, from the same knowledge, and never change."""
        if key not in self._found:
            self._found[key] = find()
        found: T = self._found[key]
        return found

    def window(
        self,
        stream: str,
        cursor: StreamCursor | None,
        known: KnownRows | None = None,
        *,
        margin: timedelta = MARGIN,
        overlap: timedelta = OVERLAP,
    ) -> StreamWindow:
        """The window of a stream that this run is to read; most of its rows show within `margin`, all in `overlap`."""
        return StreamWindow(
            stream, cursor, self.now, self.settings.max_catchup, self.log, known, margin=margin, overlap=overlap
        )

    def new_named_events(
        self, stream: str, cursor: StreamCursor | None, known: KnownRows
    ) -> tuple[list[Event], StreamWindow]:
        """The new events of a stream that counts events of certain names (`inventory/named_events.py`), and its window.

        Raises a PrefectApiError.
        """
        window = self.window(stream, cursor, known, margin=EVENT_MARGIN)
        new, _ = read_newest_first(window, self.inventory.named_events)
        return new, window


class SnapshotCollector(Protocol[M]):
    """Describes the moment of the run. `name` is the value of its `collector` tag."""

    name: str
    initial_memory: M

    def collect(self, run: RunContext, memory: M) -> tuple[list[Sample], M]:
        """The samples of this moment, and what to remember. Raises a PrefectApiError."""
        ...


class MemorylessCollector(Protocol):
    """A snapshot collector that has nothing to remember."""

    name: str

    def collect(self, run: RunContext) -> Iterable[Sample]:
        """The samples of this moment. Raises a PrefectApiError, and then nothing of it is submitted."""
        ...


class WithoutMemory:
    """The snapshot collector that such a one is."""

    initial_memory = None

    def __init__(self, collector: MemorylessCollector) -> None:
        self.name = collector.name
        self._collector = collector

    def collect(self, run: RunContext, memory: None) -> tuple[list[Sample], None]:
        return list(self._collector.collect(run)), memory


class StreamCollector(Protocol[M]):
    """Counts what happened since its cursor. `name` is the value of its `collector` tag and the key of its cursor."""

    name: str
    initial_memory: M

    def collect(self, run: RunContext, cursor: StreamCursor | None, memory: M) -> Batch[M]:
        """What happened since `cursor`, and the next cursor; None stands for the very first run, which reads nothing.

        Raises a PrefectApiError.
        """
        ...


AnySnapshotCollector = SnapshotCollector[Any]
AnyStreamCollector = StreamCollector[Any]
