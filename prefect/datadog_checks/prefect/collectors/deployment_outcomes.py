"""When flow runs of each deployment last succeeded, and how many have failed since.

It is kept in memory and follows what ends from check to check. What was before is read after a start, the newest end
first, a few pages in each run of the check: once a deployment's last success is read, so is all that failed since.

A person may set an ended run to another state, and it keeps its end (3.8.8), or delete it. So the runs that count are
asked for again by their ids: those that failed in each run of the check, the last successes every few minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from datadog_checks.prefect.api.client import IDS_PER_REQUEST
from datadog_checks.prefect.api.models import FlowRun

if TYPE_CHECKING:
    from datadog_checks.prefect.collectors.base import RunContext

# Failures in a row that are told apart.
MAX_FAILURES = 100
# What one run of the check reads of the past at most.
_REQUESTS = 5
_READING_SECONDS = 3.0
# Runs that one run of the check asks for again at most, and after which time it does so with a last success: twice as
# often as a change of it is to be found, so that there is time for many.
_ASKED_AGAIN = 5 * IDS_PER_REQUEST
_SUCCESS_INTERVAL = timedelta(minutes=5)
# Deployments whose past is read by one request.
_DEPLOYMENTS_PER_REQUEST = 500
_FAILED = ('FAILED', 'CRASHED')
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class Past:
    """Of one deployment: the last success, and the runs by id that failed after it with the time of their end.

    `is_read` says that nothing of importance is before what was read.
    """

    last_success: datetime | None = None
    last_success_id: str | None = None
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
            self.last_success, self.last_success_id = end, flow_run.id
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
        # When a run that counts was seen last, by its id.
        self._seen: dict[str, datetime] = {}

    def refresh(self, run: RunContext) -> Mapping[str, Past]:
        """By the id of the deployment, as far as it is known by now."""
        deployment_ids = run.inventory.deployments().keys()
        if self._last_check is None or abs(run.now - self._last_check) > run.settings.max_catchup:
            self._forget()
        else:
            self._add(run, run.inventory.flow_runs_ended_since(self._last_check))
        self._last_check = run.now
        new = deployment_ids - self._by_id.keys()
        self._by_id = {key: past for key, past in self._by_id.items() if key in deployment_ids}
        self._read_anew(new)
        self._ask_again(run)
        self._read(run)
        # A run that is retried has not failed in the end, or not yet.
        for flow_run in (*run.inventory.live_flow_runs(), *run.inventory.restarting_flow_runs()):
            if flow_run.deployment_id in self._by_id:
                self._by_id[flow_run.deployment_id].failures.pop(flow_run.id, None)
        return self._by_id

    def _add(self, run: RunContext, flow_runs: Iterable[FlowRun]) -> None:
        for flow_run in flow_runs:
            if flow_run.deployment_id in self._by_id:
                self._by_id[flow_run.deployment_id].add(flow_run)
                self._seen[flow_run.id] = run.now

    def _read_anew(self, deployment_ids: Iterable[str]) -> None:
        ids = sorted(deployment_ids)
        self._by_id.update((key, Past()) for key in ids)
        for start in range(0, len(ids), _DEPLOYMENTS_PER_REQUEST):
            self._unread.append(_Unread(ids[start : start + _DEPLOYMENTS_PER_REQUEST]))

    def _ask_again(self, run: RunContext) -> None:
        """Take note of what a person made of the runs that count, those first that were not seen for longest."""
        deployment_ids = self._runs_that_count()
        self._seen = {key: self._seen.get(key, _NEVER) for key in deployment_ids}
        chosen = sorted(self._are_due(run.now), key=self._seen.__getitem__)[:_ASKED_AGAIN]
        found = {item.id: item for item in run.inventory.flow_runs_by_id(chosen)}
        self._seen.update(dict.fromkeys(chosen, run.now))
        outdated: set[str] = set()
        for key in chosen:
            past = self._by_id[deployment_ids[key]]
            state_type = found[key].state_type if key in found else None
            if key == past.last_success_id:
                is_read = state_type == 'COMPLETED'
            else:
                # Of more failures than are told apart the others are not known.
                is_read = len(past.failures) < MAX_FAILURES or state_type in (*_FAILED, 'COMPLETED')
                past.failures.pop(key, None)
            if not is_read:
                outdated.add(deployment_ids[key])
            elif key in found:
                past.add(found[key])
        self._read_anew(outdated)

    def _runs_that_count(self) -> dict[str, str]:
        """The id of the deployment by that of each run that failed lately or succeeded last."""
        counting: dict[str, str] = {}
        for deployment_id, past in self._by_id.items():
            counting.update(dict.fromkeys(past.failures, deployment_id))
            if past.last_success_id is not None:
                counting[past.last_success_id] = deployment_id
        return counting

    def _are_due(self, now: datetime) -> Iterator[str]:
        """The runs that count and were not seen in this run of the check, nor of the successes lately."""
        for past in self._by_id.values():
            yield from (key for key in past.failures if self._seen[key] < now)
            if past.last_success_id is not None and now - self._seen[past.last_success_id] >= _SUCCESS_INTERVAL:
                yield past.last_success_id

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
        self._add(run, run.inventory.allowed(page))
        earliest = min((item.end_time for item in page if item.end_time is not None), default=unread.until)
        if earliest == unread.until:
            # No older ones: what is left has no success.
            for key in unread.ids:
                self._by_id[key].is_read = True
        unread.until = earliest

    def _read_last_success(self, run: RunContext, deployment_id: str) -> None:
        self._add(run, run.inventory.allowed(run.inventory.last_success_of(deployment_id)))
        self._by_id[deployment_id].is_read = True


@dataclass(slots=True)
class _Unread:
    """Deployments whose past is read down to `until`, None if nothing of it is."""

    ids: list[str]
    until: datetime | None = None
