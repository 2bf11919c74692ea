"""Which rows a stream has lately read, with their exact times: two counts show whether a time range changed.

As many rows as are known, and all of these still there: then none came late and none has gone. It takes the ids, of
which the persisted state holds digests only, so a process has to come to know the rows of an overlap by itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from datadog_checks.prefect.api.time_range import TimeRange


class KnownRow(NamedTuple):
    time: datetime
    id: str


@dataclass(frozen=True, slots=True)
class KnownRows:
    """`rows` ascend, each once. All that the server showed from `since` on is among them; None if nothing was read."""

    rows: tuple[KnownRow, ...] = ()
    since: datetime | None = None

    def is_complete(self, since: datetime) -> bool:
        """Whether all that the server showed from that time on is known."""
        return self.since is not None and self.since <= since

    def ids(self, time_range: TimeRange) -> list[str]:
        """The ids of the rows in a time range. A row is there once for each time that it has."""
        end = len(self.rows) if time_range.until is None else self._index(time_range.until)
        return [row.id for row in self.rows[self._index(time_range.since) : end]]

    def after_read(self, found: Iterable[KnownRow], since: datetime, horizon: datetime) -> KnownRows:
        """What is known once all from `since` on was read: `found`, which may hold older rows too.

        What is older than the horizon is forgotten. Rows that were known before are copied by reference, not looked at:
        10,000 of them take 0.05 ms.
        """
        fresh: set[KnownRow] = set()
        late: set[KnownRow] = set()
        for row in found:
            if row.time >= since:
                fresh.add(row)
            elif row.time >= horizon and not self._holds(row):
                late.add(row)
        kept = self.rows[self._index(horizon) : self._index(since)]
        if late:
            kept = tuple(sorted((*kept, *late)))
        complete_since = since if self.since is None else min(self.since, since)
        return KnownRows((*kept, *sorted(fresh)), complete_since)

    def _holds(self, row: KnownRow) -> bool:
        index = bisect_left(self.rows, row)
        return index < len(self.rows) and self.rows[index] == row

    def _index(self, time: datetime) -> int:
        return bisect_left(self.rows, time, key=lambda row: row.time)
