"""How many SCHEDULED flow runs are not due yet.

A scheduler keeps up to 100 runs per schedule ahead, and they hardly change: so they are remembered with their times,
the passing of time takes out what becomes due, and one count tells whether anything else has changed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from datadog_checks.prefect.paging import FLOW_RUNS_BY_NEXT_START
from datadog_checks.prefect.tags import Tags
from datadog_checks.prefect.times import RESOLUTION, format_time

if TYPE_CHECKING:
    from datadog_checks.prefect.collectors.base import RunContext

# A run added and another deleted leave the count as it was: that long such a change may go unseen.
_MAX_AGE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class _FutureRun:
    due: datetime
    # None for a run that the server's part of the filters lets through and the filters do not.
    tags: Tags | None


class FutureRuns:
    """The SCHEDULED flow runs that are due later, remembered between the runs of the check."""

    def __init__(self) -> None:
        self._runs: list[_FutureRun] = []
        self._read_at: datetime | None = None

    def count(self, run: RunContext) -> Counter[Tags]:
        """How many there are of each tag set."""
        body = run.inventory.scope().flow_runs(
            {
                'state': {'type': {'any_': ['SCHEDULED']}},
                'next_scheduled_start_time': {'after_': format_time(run.now + RESOLUTION)},
            }
        )
        self._runs = [item for item in self._runs if item.due > run.now]
        if self._is_outdated(run.now) or run.client.count_flow_runs(body) != len(self._runs):
            self._read(run, body)
        return Counter(item.tags for item in self._runs if item.tags is not None)

    def _is_outdated(self, now: datetime) -> bool:
        return self._read_at is None or not timedelta() <= now - self._read_at < _MAX_AGE

    def _read(self, run: RunContext, body: dict[str, object]) -> None:
        flow_runs = list(run.client.flow_runs(body, FLOW_RUNS_BY_NEXT_START))
        tags = {item.id: item_tags for item, item_tags in run.inventory.tag(run.inventory.allowed(flow_runs))}
        self._runs = [
            _FutureRun(item.next_scheduled_start_time, tags.get(item.id))
            for item in flow_runs
            if item.next_scheduled_start_time is not None
        ]
        self._read_at = run.now
