"""What a collector is given and what it gives back. It never sees the check, and it never submits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from datadog_checks.prefect.api.log import Log
from datadog_checks.prefect.inventory.inventory import Inventory
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.settings import Settings
from datadog_checks.prefect.streams.counted_rows import CountedRows
from datadog_checks.prefect.streams.cursor import Batch, StreamCursor
from datadog_checks.prefect.streams.window import MARGIN, StreamWindow


@dataclass(frozen=True)
class RunContext:
    """One run of the check. `now` is the server's time at its start."""

    now: datetime
    inventory: Inventory
    settings: Settings
    log: Log

    def window(
        self,
        stream: str,
        cursor: StreamCursor | None,
        counted: CountedRows | None = None,
        *,
        margin: timedelta = MARGIN,
    ) -> StreamWindow:
        """The window of a stream that this run is to read; most of its rows show within `margin`."""
        return StreamWindow(stream, cursor, self.now, self.settings.max_catchup, self.log, counted, margin=margin)


class SnapshotCollector(Protocol):
    """Describes the moment of the run. `name` is the value of its `collector` tag."""

    name: str

    def collect(self, run: RunContext) -> Iterable[Sample]:
        """The samples of this moment. Raises a PrefectApiError, and then nothing of it is submitted."""
        ...


class StreamCollector(Protocol):
    """Counts what happened since its cursor. `name` is the value of its `collector` tag and the key of its cursor."""

    name: str

    def collect(self, run: RunContext, cursor: StreamCursor | None) -> Batch:
        """What happened since `cursor`, and the next cursor; None stands for the very first run, which reads nothing.

        Raises a PrefectApiError, and then nothing is submitted and the cursor stays.
        """
        ...
