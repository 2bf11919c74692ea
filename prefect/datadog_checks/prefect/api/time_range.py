"""Stretches of the server's time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From `since` on, up to but without `until`; None leaves the end open."""

    since: datetime
    until: datetime | None = None

    @property
    def is_empty(self) -> bool:
        return self.until is not None and self.until <= self.since

    def holds(self, time: datetime) -> bool:
        return self.since <= time and (self.until is None or time < self.until)
