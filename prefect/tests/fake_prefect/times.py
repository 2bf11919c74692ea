"""Moments as the API writes them: `2026-11-23T08:32:46.454972Z`, without a fraction when it is zero."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def to_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace('+00:00', 'Z')


@lru_cache(maxsize=1 << 16)
def to_moment(text: str) -> datetime:
    """Parse an ISO 8601 text; one without an offset is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
