"""Times as Prefect writes them: ISO 8601 with a zone, up to microseconds; ages; and whether it is time to ask again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

# The smallest step between two of the server's times.
RESOLUTION = timedelta(microseconds=1)


def parse_time(text: str) -> datetime:
    """An aware datetime in UTC; ValueError for a text that is no time or has no zone."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f'time without a zone: {text[:40]!r}')
    return time.astimezone(UTC)


def format_time(time: datetime) -> str:
    """The form in which Prefect 3 writes times, with all six digits: `2026-11-23T01:28:10.597974Z`."""
    return time.astimezone(UTC).isoformat(timespec='microseconds').replace('+00:00', 'Z')


def is_due(asked_at: datetime | None, now: datetime, interval: timedelta) -> bool:
    """Whether to ask again what was asked at that time, None for never; also after a clock that stepped back."""
    return asked_at is None or not timedelta() <= now - asked_at < interval


def age_seconds(since: datetime, now: datetime) -> float:
    """How long ago a time is, never less than 0: the clock of a worker may be ahead of the server's."""
    return max(0.0, (now - since).total_seconds())
