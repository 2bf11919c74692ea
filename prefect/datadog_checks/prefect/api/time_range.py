"""Stretches of the server's time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from datadog_checks.prefect.api.times import RESOLUTION, format_time


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From `since` on, up to but without `until`; None leaves the end open."""

    since: datetime
    until: datetime | None = None

    @property
    def is_empty(self) -> bool:
        return self.until is not None and self.until <= self.since

    def criterion(self) -> dict[str, object]:
        """The time range as the API filters a time: both its bounds are inclusive."""
        criterion: dict[str, object] = {'after_': format_time(self.since)}
        if self.until is not None:
            criterion['before_'] = format_time(self.until - RESOLUTION)
        return criterion

    def holds(self, time: datetime) -> bool:
        return self.since <= time and (self.until is None or time < self.until)
