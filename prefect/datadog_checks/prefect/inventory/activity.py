"""Which deployments do work, or did lately."""

from __future__ import annotations

from collections.abc import Iterable, Set
from datetime import datetime, timedelta

from datadog_checks.prefect.api.models import FlowRun


class Activity:
    """When each deployment was last seen at work, by its id.

    It works while a flow run of it is due, waits for a retry, or is PENDING, RUNNING, PAUSED or CANCELLING.
    """

    def __init__(self) -> None:
        self._last: dict[str, datetime] = {}
        self.read_until: datetime | None = None

    def note(self, working: Iterable[FlowRun], ended: Iterable[FlowRun], now: datetime, linger: timedelta) -> None:
        """Take note of flow runs that show work now, and of those that ended; forget what is older than `linger`."""
        self._note((item.deployment_id, item.ended_at) for item in ended)
        self._note((item.deployment_id, now) for item in working)
        self._last = {key: last for key, last in self._last.items() if now - last < linger}
        self.read_until = now

    @property
    def deployment_ids(self) -> Set[str]:
        """The deployments that work now or did lately."""
        return self._last.keys()

    def _note(self, seen: Iterable[tuple[str | None, datetime | None]]) -> None:
        for deployment_id, moment in seen:
            if deployment_id is not None and moment is not None:
                self._last[deployment_id] = max(moment, self._last.get(deployment_id, moment))
