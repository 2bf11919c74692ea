"""When flow runs of each deployment last succeeded, and which have ended otherwise since.

It follows what ends from check to check. What was before is read after a start, the newest end first, a few pages in
each run of the check: once a deployment's last success is read, so is all that ended after it.

A person may set an ended run to another state, and it keeps its end (3.8.8), or delete it. So the runs that count are
asked for again by their ids: those that failed or were cancelled in each run of the check, the last successes every few
minutes.

What is known is the memory of each collector that uses it; collectors that know the same share what one run reads.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from datadog_checks.prefect.api.client import IDS_PER_REQUEST
from datadog_checks.prefect.api.models import FlowRun
from datadog_checks.prefect.collectors.base import RunContext

# Failures in a row that are told apart, and runs cancelled in a row.
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
_CANCELLED = 'CANCELLED'
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class End:
    """When a flow run ended, and when it was due. `is_planned` if the scheduler made it."""

    flow_run_id: str
    time: datetime
    due: datetime | None
    is_planned: bool


@dataclass(frozen=True, slots=True)
class Past:
    """Of one deployment: the last success, and the runs by id that failed or were cancelled after it.

    `is_read` says that nothing of importance is before what was read. `gone_success` is the time of the latest success
    that was seen and whose run is gone from the server since.
    """

    last_success: End | None = None
    failures: Mapping[str, End] = field(default_factory=dict)
    cancelled: Mapping[str, End] = field(default_factory=dict)
    is_read: bool = False
    gone_success: datetime | None = None

    @property
    def seen_success(self) -> datetime | None:
        """When a run last succeeded, as far as that was ever seen."""
        seen = (self.last_success.time if self.last_success else None, self.gone_success)
        return max((time for time in seen if time is not None), default=None)

    def with_end(self, flow_run: FlowRun) -> Past:
        """Take note of an end, in any order and any number of times."""
        time, past = flow_run.end_time, self.without(flow_run.id)
        if time is None:
            return self
        if past.last_success is not None and time <= past.last_success.time:
            return past
        end = End(flow_run.id, time, flow_run.expected_start_time, flow_run.is_planned)
        if flow_run.state_type == 'COMPLETED':
            failures, cancelled = (
                {key: other for key, other in ends.items() if other.time > time}
                for ends in (past.failures, past.cancelled)
            )
            return replace(past, last_success=end, is_read=True, failures=failures, cancelled=cancelled)
        if flow_run.state_type in _FAILED:
            return replace(past, failures=_latest({**past.failures, end.flow_run_id: end}))
        if flow_run.state_type == _CANCELLED:
            return replace(past, cancelled=_latest({**past.cancelled, end.flow_run_id: end}))
        return past

    def without(self, flow_run_id: str) -> Past:
        """The same without a run that did not succeed."""
        if flow_run_id in self.failures or flow_run_id in self.cancelled:
            failures, cancelled = (
                {key: end for key, end in ends.items() if key != flow_run_id}
                for ends in (self.failures, self.cancelled)
            )
            return replace(self, failures=failures, cancelled=cancelled)
        return self


def _latest(ends: dict[str, End]) -> dict[str, End]:
    if len(ends) > MAX_FAILURES:
        del ends[min(ends, key=lambda key: ends[key].time)]
    return ends


@dataclass(frozen=True, slots=True)
class _Unread:
    """Deployments whose past is read down to `until`, None if nothing of it is."""

    ids: tuple[str, ...]
    until: datetime | None = None
    with_cancelled: bool = True

    @property
    def state_types(self) -> tuple[str, ...]:
        return ('COMPLETED', *_FAILED, _CANCELLED) if self.with_cancelled else ('COMPLETED', *_FAILED)


@dataclass(frozen=True)
class Outcomes:
    """The pasts by the id of the deployment, as far as they are known after a run of the check, at `last_check`.

    `seen` is when a run that counts was seen last, by its id.
    """

    last_check: datetime | None = None
    by_id: Mapping[str, Past] = field(default_factory=dict)
    unread: tuple[_Unread, ...] = ()
    seen: Mapping[str, datetime] = field(default_factory=dict)

    def refresh(self, run: RunContext) -> Outcomes:
        """What is known by now. Raises a PrefectApiError."""
        return run.once(('outcomes', self.last_check), lambda: _Refresh(run, self).outcomes())


class _Refresh:
    """What one run of the check finds out."""

    def __init__(self, run: RunContext, known: Outcomes) -> None:
        self._run = run
        self._last_check = known.last_check
        self._by_id = dict(known.by_id)
        self._unread = list(known.unread)
        self._seen = dict(known.seen)

    def outcomes(self) -> Outcomes:
        run = self._run
        deployment_ids = run.inventory.deployments().keys()
        self._by_id = {key: past for key, past in self._by_id.items() if key in deployment_ids}
        if self._last_check is None or abs(run.now - self._last_check) > run.settings.max_catchup:
            self._forget()
        else:
            self._add(run.inventory.flow_runs_ended_since(self._last_check))
        self._read_anew(deployment_ids - self._by_id.keys())
        self._ask_again()
        self._read()
        # A run that is retried has not ended, or not yet.
        for flow_run in (*run.inventory.live_flow_runs(), *run.inventory.restarting_flow_runs()):
            if flow_run.deployment_id in self._by_id:
                self._by_id[flow_run.deployment_id] = self._by_id[flow_run.deployment_id].without(flow_run.id)
        return Outcomes(run.now, self._by_id, tuple(self._unread), self._seen)

    def _forget(self) -> None:
        """Begin anew, after so long that what ended meanwhile is not followed any more."""
        self._by_id = {key: Past(gone_success=past.seen_success) for key, past in self._by_id.items()}
        self._unread, self._seen = [], {}
        self._read_anew([*self._by_id])

    def _add(self, flow_runs: Iterable[FlowRun]) -> None:
        for flow_run in flow_runs:
            if flow_run.deployment_id in self._by_id:
                self._by_id[flow_run.deployment_id] = self._by_id[flow_run.deployment_id].with_end(flow_run)
                self._seen[flow_run.id] = self._run.now

    def _read_anew(self, deployment_ids: Iterable[str]) -> None:
        ids = sorted(deployment_ids)
        for key in ids:
            self._by_id[key] = Past(gone_success=self._by_id[key].gone_success if key in self._by_id else None)
        for start in range(0, len(ids), _DEPLOYMENTS_PER_REQUEST):
            self._unread.append(_Unread(tuple(ids[start : start + _DEPLOYMENTS_PER_REQUEST])))

    def _ask_again(self) -> None:
        """Take note of what a person made of the runs that count, those first that were not seen for longest."""
        now = self._run.now
        deployment_ids = self._runs_that_count()
        self._seen = {key: self._seen.get(key, _NEVER) for key in deployment_ids}
        chosen = sorted(self._are_due(now), key=self._seen.__getitem__)[:_ASKED_AGAIN]
        found = {item.id: item for item in self._run.inventory.flow_runs_by_id(chosen)}
        self._seen.update(dict.fromkeys(chosen, now))
        outdated: set[str] = set()
        for key in chosen:
            deployment_id = deployment_ids[key]
            past = self._by_id[deployment_id]
            state_type = found[key].state_type if key in found else None
            if past.last_success is not None and key == past.last_success.flow_run_id:
                is_read = state_type == 'COMPLETED'
                if state_type is None:
                    past = replace(past, gone_success=past.seen_success)
            else:
                # Of more failures than are told apart the others are not known.
                is_full = max(len(past.failures), len(past.cancelled)) >= MAX_FAILURES
                is_read = not is_full or state_type in (*_FAILED, _CANCELLED, 'COMPLETED')
                past = past.without(key)
            self._by_id[deployment_id] = past.with_end(found[key]) if is_read and key in found else past
            if not is_read:
                outdated.add(deployment_id)
        self._read_anew(outdated)

    def _runs_that_count(self) -> dict[str, str]:
        """The id of the deployment by that of each run that ended lately without success, or succeeded last."""
        counting: dict[str, str] = {}
        for deployment_id, past in self._by_id.items():
            counting.update(dict.fromkeys((*past.failures, *past.cancelled), deployment_id))
            if past.last_success is not None:
                counting[past.last_success.flow_run_id] = deployment_id
        return counting

    def _are_due(self, now: datetime) -> Iterator[str]:
        """The runs that count and were not seen in this run of the check, nor of the successes lately."""
        for past in self._by_id.values():
            yield from (key for key in (*past.failures, *past.cancelled) if self._seen[key] < now)
            success = past.last_success
            if success is not None and now - self._seen[success.flow_run_id] >= _SUCCESS_INTERVAL:
                yield success.flow_run_id

    def _read(self) -> None:
        """Read on in the past, within the bounds of one run of the check."""
        deadline = time.monotonic() + _READING_SECONDS
        requests = 0
        while self._unread and requests < _REQUESTS and time.monotonic() < deadline:
            unread = self._unread.pop(0)
            ids = self._left_of(unread)
            failing = [key for key in ids if len(self._by_id[key].failures) >= MAX_FAILURES]
            # More of the same would not change anything, and fill the pages of the others.
            cancelled = [key for key in ids if len(self._by_id[key].cancelled) >= MAX_FAILURES]
            if not ids:
                continue
            if failing:
                self._read_last_success(failing[0])
            elif cancelled and unread.with_cancelled:
                self._unread += [replace(unread, ids=(key,), with_cancelled=False) for key in cancelled]
                ids = tuple(key for key in ids if key not in cancelled)
                self._unread.insert(0, replace(unread, ids=ids))
                continue
            else:
                unread = self._read_page(replace(unread, ids=ids))
            self._unread.insert(0, unread)
            requests += 1
        self._unread = [item for item in self._unread if self._left_of(item)]

    def _left_of(self, unread: _Unread) -> tuple[str, ...]:
        return tuple(key for key in unread.ids if key in self._by_id and not self._by_id[key].is_read)

    def _read_page(self, unread: _Unread) -> _Unread:
        page = self._run.inventory.newest_ends_of(unread.ids, unread.state_types, unread.until)
        self._add(self._run.inventory.allowed(page))
        earliest = min((item.end_time for item in page if item.end_time is not None), default=unread.until)
        if earliest == unread.until:
            # No older ones: what is left has no success.
            for key in unread.ids:
                self._set_read(key)
        return replace(unread, until=earliest)

    def _read_last_success(self, deployment_id: str) -> None:
        self._add(self._run.inventory.allowed(self._run.inventory.last_success_of(deployment_id)))
        self._set_read(deployment_id)

    def _set_read(self, deployment_id: str) -> None:
        self._by_id[deployment_id] = replace(self._by_id[deployment_id], is_read=True)
