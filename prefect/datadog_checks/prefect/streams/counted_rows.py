"""Which rows a stream has counted lately, with their exact times: two counts show whether a time range changed.

As many rows as were counted, and all of these still there: then none came late and none has gone. It takes the ids, of
which the persisted state holds digests only, so a process has to come to know the rows of an overlap by itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from datadog_checks.prefect.api.time_range import TimeRange


class CountedRow(NamedTuple):
    time: datetime
    id: str


class CountedRows:
    """Lives as long as the collector of the stream; another stream has another one."""

    def __init__(self) -> None:
        # Ascending: of the thousands of an overlap a check looks at the ends.
        self._rows: list[CountedRow] = []
        # All that was counted with that time or a later one is among the rows.
        self._since: datetime | None = None

    def knows(self, since: datetime) -> bool:
        """Whether all that was counted with that time or a later one is known."""
        return self._since is not None and self._since <= since

    def count(self, time_range: TimeRange) -> int:
        """How many are known in a time range. A row counts once for each time that it has in there."""
        return len(self._slice(time_range))

    def ids(self, time_range: TimeRange) -> list[str]:
        """The ids of those."""
        return [self._rows[index].id for index in self._slice(time_range)]

    def remember(self, rows: Collection[CountedRow], complete_since: datetime, horizon: datetime) -> None:
        """Add rows that are counted by now, all of those since a time; forget what is older than the horizon."""
        self._since = complete_since if self._since is None else min(self._since, complete_since)
        if rows:
            begin = self._index(min(rows).time)
            self._rows[begin:] = sorted({*self._rows[begin:], *rows})
        del self._rows[: self._index(horizon)]

    def _slice(self, time_range: TimeRange) -> range:
        end = len(self._rows) if time_range.until is None else self._index(time_range.until)
        return range(self._index(time_range.since), end)

    def _index(self, time: datetime) -> int:
        return bisect_left(self._rows, time, key=lambda row: row.time)
