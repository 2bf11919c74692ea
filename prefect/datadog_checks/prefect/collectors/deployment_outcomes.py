"""When flow runs of each deployment last succeeded, and how many have failed since.

It is kept in memory and follows what ends from check to check. What was before is read after a start, the newest end
first, a few pages in each run of the check: once a deployment's last success is read, so is all that failed since.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from datadog_checks.prefect.api.models import FlowRun

if TYPE_CHECKING:
    from datadog_checks.prefect.collectors.base import RunContext

# Failures in a row that are told apart.
MAX_FAILURES = 100
# What one run of the check reads of the past at most.
_REQUESTS = 5
_READING_SECONDS = 3.0
# Deployments whose past is read by one request.
_DEPLOYMENTS_PER_REQUEST = 500
_FAILED = ('FAILED', 'CRASHED')


@dataclass(slots=True)
class Past:
    """Of one deployment: the last success, and the runs by id that failed after it with the time of their end.

    `is_read` says that nothing of importance is before what was read.
    """

    last_success: datetime | None = None
    failures: dict[str, datetime] = field(default_factory=dict)
    is_read: bool = False

    def add(self, flow_run: FlowRun) -> None:
        """Take note of an end, in any order and any number of times."""
        end = flow_run.end_time
        if end is None:
            return
        self.failures.pop(flow_run.id, None)
        if self.last_success is not None and end <= self.last_success:
            return
        if flow_run.state_type == 'COMPLETED':
            self.last_success = end
            self.is_read = True
            self.failures = {key: failed_at for key, failed_at in self.failures.items() if failed_at > end}
        elif flow_run.state_type in _FAILED:
            self.failures[flow_run.id] = end
            if len(self.failures) > MAX_FAILURES:
                del self.failures[min(self.failures, key=self.failures.__getitem__)]


class DeploymentOutcomes:
    """The pasts of all deployments."""

    def __init__(self) -> None:
        self._last_check: datetime | None = None
        self._forget()

    def _forget(self) -> None:
        self._by_id: dict[str, Past] = {}
        self._unread: list[_Unread] = []

    def refresh(self, run: RunContext) -> Mapping[str, Past]:
        """By the id of the deployment, as far as it is known by now."""
        deployment_ids = run.inventory.deployments().keys()
        if self._last_check is None or abs(run.now - self._last_check) > run.settings.max_catchup:
            self._forget()
        else:
            self._add(run.inventory.flow_runs_ended_since(self._last_check))
        self._last_check = run.now
        new = sorted(deployment_ids - self._by_id.keys())
        for start in range(0, len(new), _DEPLOYMENTS_PER_REQUEST):
            self._unread.append(_Unread(new[start : start + _DEPLOYMENTS_PER_REQUEST]))
        self._by_id = {key: self._by_id.get(key) or Past() for key in deployment_ids}
        self._read(run)
        # A run that is retried has not failed in the end, or not yet.
        for flow_run in (*run.inventory.live_flow_runs(), *run.inventory.restarting_flow_runs()):
            if flow_run.deployment_id in self._by_id:
                self._by_id[flow_run.deployment_id].failures.pop(flow_run.id, None)
        return self._by_id

    def _add(self, flow_runs: Iterable[FlowRun]) -> None:
        for flow_run in flow_runs:
            if flow_run.deployment_id in self._by_id:
                self._by_id[flow_run.deployment_id].add(flow_run)

    def _read(self, run: RunContext) -> None:
        """Read on in the past, within the bounds of one run of the check."""
        deadline = time.monotonic() + _READING_SECONDS
        requests = 0
        while self._unread and requests < _REQUESTS and time.monotonic() < deadline:
            unread = self._unread[0]
            unread.ids = [key for key in unread.ids if key in self._by_id and not self._by_id[key].is_read]
            if not unread.ids:
                del self._unread[0]
                continue
            failing = [key for key in unread.ids if len(self._by_id[key].failures) >= MAX_FAILURES]
            if failing:
                # More of its failures would not change anything, and fill the pages of the others.
                self._read_last_success(run, failing[0])
            else:
                self._read_page(run, unread)
            requests += 1

    def _read_page(self, run: RunContext, unread: _Unread) -> None:
        page = run.inventory.newest_ends_of(unread.ids, ('COMPLETED', *_FAILED), unread.until)
        self._add(run.inventory.allowed(page))
        earliest = min((item.end_time for item in page if item.end_time is not None), default=unread.until)
        if earliest == unread.until:
            # No older ones: what is left has no success.
            for key in unread.ids:
                self._by_id[key].is_read = True
        unread.until = earliest

    def _read_last_success(self, run: RunContext, deployment_id: str) -> None:
        last = run.inventory.last_success_of(deployment_id)
        self._add(run.inventory.allowed([last] if last else []))
        self._by_id[deployment_id].is_read = True


@dataclass(slots=True)
class _Unread:
    """Deployments whose past is read down to `until`, None if nothing of it is."""

    ids: list[str]
    until: datetime | None = None
