"""Which rows a stream has counted lately, with their exact times: what tells by two counts that a span has not changed.

As many rows as were counted, and all of these still there: then none came late and none has gone. It takes the ids, of
which the persisted state holds digests only, so a process has to come to know the rows of an overlap by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from datadog_checks.prefect.spans import Span


class CountedRow(NamedTuple):
    time: datetime
    id: str


class CountedRows:
    """Lives as long as the collector of the stream; another stream has another one."""

    def __init__(self) -> None:
        self._rows: set[CountedRow] = set()
        # All that was counted with that time or a later one is among the rows.
        self._since: datetime | None = None

    def ids(self, span: Span) -> list[str] | None:
        """The ids of the rows of a span, one for each time that it has in there; None if they are not all known."""
        if self._since is None or span.since < self._since:
            return None
        return [
            row.id for row in self._rows if span.since <= row.time and (span.until is None or row.time < span.until)
        ]

    def remember(self, rows: Iterable[CountedRow], complete_since: datetime, horizon: datetime) -> None:
        """Add rows that are counted by now, all of those since a time; forget what is older than the horizon."""
        self._since = complete_since if self._since is None else min(self._since, complete_since)
        self._rows = {row for row in self._rows.union(rows) if row.time >= horizon}
