"""All deployments of the server, remembered between the runs of the check.

The server takes 11 ms for each deployment that it lists with a schedule (3.8.8: it loads all time zones for each), so a
thousand deployments are 12 s of its time. They are listed once; afterwards their number and the newest edit tell what
to list again. Their status is no edit: it follows the polling of their queue, which is read anyway.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from datadog_checks.prefect.api import queries
from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.errors import PrefectApiError, TooManyToRemember, TooMuch
from datadog_checks.prefect.api.models import Deployment, WorkQueue
from datadog_checks.prefect.api.queries import Body
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.inventory import reading_time

_IDS_PER_COUNT = 500
# So few are listed again at once where number or edits do not agree.
_LISTED_AT_ONCE = 200
# What is more than this is not remembered, and not read.
_CAPACITY = 50_000
_READS = 5
# A queue and its deployments are READY once they are polled, and NOT_READY when that is longer ago than 60 s, as soon
# as the server's foreman comes by, every 15 s. Between the two either status is right.
_POLLED = timedelta(seconds=60)
_NOT_POLLED = timedelta(seconds=80)
# Deployments that are listed again at most in one run: because their queue says that their status has changed; because
# they have no queue that could tell, those that an event tells of coming first; because somebody doubts them; because
# their status of now is needed; and for good measure.
_CHANGED = 200
_QUEUELESS = 50
_DOUBTFUL = 20
_NEEDED = 500
_ANY = 10
# Deployments of which one run makes sure that they are still there.
_VERIFIED = 1000
_STATUS_EVENTS = {'name': ['prefect.deployment.ready', 'prefect.deployment.not-ready']}
# Events show within so long, and as many as one page has are looked at.
_EVENT_DELAY = timedelta(seconds=60)
_EVENTS = 50
_QUEUE_IS_GONE = 'the queue is gone'
_EARLIEST = datetime.min.replace(tzinfo=UTC)


class DeploymentDirectory:
    """The deployments by id. `body` of a refresh narrows them."""

    def __init__(self) -> None:
        self._body: Body = {}
        self._forget()

    def _forget(self) -> None:
        self._by_id: dict[str, Deployment] = {}
        self._is_complete = False
        # Number or edits did not agree with the server when they were compared last.
        self._is_doubted = False
        # All were listed in this run.
        self._is_fresh = False
        self._offset = 0
        self._total = 0
        # Those that the server counts, but that cannot be read.
        self._unaccounted = 0
        self._newest_edit = _EARLIEST
        # How many listings ago, as a running number; and the expected status for which one was listed again.
        self._listed_at: dict[str, int] = {}
        self._listings = 0
        self._listed_for: dict[str, str | None] = {}
        # Those that were listed in this run, and when which was last known to be there, as a running number.
        self._listed_now: set[str] = set()
        self._verified_at: dict[str, int] = {}
        # Those that have runs, and for which the last run had no time; and whether this run has none for more.
        self._wanted: set[str] = set()
        self._is_late = False
        # Those that were asked for in this run, and are gone.
        self._not_there: set[str] = set()
        self._verifications = 0
        self._events_read_until: datetime | None = None

    def refresh(self, client: PrefectClient, body: Body) -> Mapping[str, Deployment]:
        """All deployments, as far as their number and their edits tell; of a large server after a start those that are
        listed by now (`is_complete`). Raises a PrefectApiError.
        """
        with self._forgetting_too_much():
            return self._refresh(client, body)

    def _refresh(self, client: PrefectClient, body: Body) -> Mapping[str, Deployment]:
        is_other_body = body != self._body
        if is_other_body:
            # What another body lets in or leaves out shows in the number and the edits, once the list is complete.
            self._body = body
            if not self._is_complete:
                self._forget()
        total = client.count_deployments(body)
        if total > _CAPACITY:
            raise TooManyToRemember('deployments', total, 'deployments are there', _CAPACITY)
        self._is_fresh = False
        self._listed_now = set()
        self._not_there = set()
        self._is_late = False
        if self._is_complete:
            newest = self._list_edited(client)
            if len(self._by_id) > total - self._unaccounted:
                self._remove_deleted(client, sorted(self._by_id))
            else:
                # A database that was restored has others instead, and may have as many.
                self._remove_deleted(client, self._next_to_verify())
            self._newest_edit = max((_edit(item) for item in self._by_id.values()), default=_EARLIEST)
            # A database that was restored may have them as they were before they were edited.
            agrees = len(self._by_id) == total - self._unaccounted and newest in (None, self._newest_edit)
            # Somebody may make one between two requests, and a replica of the server may be behind: of many, all are
            # listed again only if the next run finds the same.
            is_sure = self._is_doubted or is_other_body or len(self._by_id) <= _LISTED_AT_ONCE
            self._is_complete = agrees or not is_sure
            self._is_doubted = not agrees
        if not self._is_complete:
            self._total = total
            self._go_on(client, client.deadline(reading_time.LISTING_DEPLOYMENTS))
        return self._by_id

    @property
    def is_complete(self) -> bool:
        """Whether all deployments are listed."""
        return self._is_complete

    def list_on(self, client: PrefectClient) -> None:
        """List more of those that are not listed yet, at the end of a run of the check."""
        with self._forgetting_too_much():
            self._go_on(client, client.deadline(reading_time.END_OF_RUN))

    def know(self, client: PrefectClient, ids: Collection[str]) -> Iterable[Deployment]:
        """Those of these deployments that are there, asked for before it is their turn to be listed.

        Raises a PrefectApiError while there are more than one run of the check has time for.
        """
        missing = {key for key in ids if key not in self._by_id and key not in self._not_there}
        if not self._is_late:
            missing = self._list_wanted(client, missing, client.deadline(reading_time.DEPLOYMENTS_OF_RUNS))
        if missing:
            self._is_late = True
            self._wanted |= missing
            raise PrefectApiError(
                'POST /deployments/filter',
                f'{len(missing)} deployments that have runs are not read yet, the next run goes on',
            )
        return [self._by_id[key] for key in ids if key in self._by_id]

    def renew_statuses(
        self, client: PrefectClient, deployments: Collection[Deployment], queues: Iterable[WorkQueue], now: datetime
    ) -> Mapping[str, Deployment]:
        """List again those of `deployments` whose status may have changed. The result is all that is known."""
        if self._is_fresh:
            return self._by_id
        # A queue that was deleted is still named here: that is no edit either.
        expected: dict[str | tuple[str | None, str] | None, str | None] = {}
        for queue in queues:
            status = _expected_status(queue, now)
            expected |= {queue.id: status, (queue.work_pool_name, queue.name): status}
        changed: list[str] = []
        told: set[str] = set()
        queueless: list[str] = []
        others: list[str] = []
        for item in deployments:
            status = expected.get(item.work_queue_key, _QUEUE_IS_GONE)
            if item.work_queue_key is None:
                queueless.append(item.id)
            elif status not in (None, item.status) and self._listed_for.get(item.id) != status:
                changed.append(item.id)
            else:
                others.append(item.id)
        if len(queueless) > _QUEUELESS:
            told = self._told_by_events(client, now).intersection(queueless)
        chosen = [
            *self._longest_not_listed(changed, _CHANGED),
            *sorted(told),
            *self._longest_not_listed([key for key in queueless if key not in told], _QUEUELESS),
            *self._longest_not_listed(others, _ANY),
        ]
        found = self._list(client, chosen)
        self._listed_for.update((key, expected.get(item.work_queue_key)) for key, item in found.items())
        return self._by_id

    def list_again(self, client: PrefectClient, ids: Iterable[str]) -> dict[str, Deployment]:
        """List again some of these, those that were not for longest first. None if all were listed in this run."""
        if self._is_fresh:
            return {}
        return self._list(client, self._longest_not_listed(list(ids), _DOUBTFUL))

    def as_of_now(self, client: PrefectClient, ids: Iterable[str]) -> dict[str, Deployment]:
        """These deployments as they are in this run; those that are gone are missing, and some of too many."""
        wanted = set(ids)
        if not self._is_fresh:
            self._list(client, self._longest_not_listed(sorted(wanted - self._listed_now), _NEEDED))
            wanted &= self._listed_now
        return {key: self._by_id[key] for key in wanted if key in self._by_id}

    def _list(self, client: PrefectClient, ids: list[str]) -> dict[str, Deployment]:
        """List these again, and forget those that are gone."""
        found = {item.id: item for item in client.deployments_by_id(ids)}
        for key in set(ids) - found.keys():
            self._remove(key)
        self._add(found.values())
        return found

    def _told_by_events(self, client: PrefectClient, now: datetime) -> set[str]:
        """The deployments whose status has changed since the last run, as far as events tell."""
        since, self._events_read_until = self._events_read_until or now, now
        try:
            events = client.newest_events(_STATUS_EVENTS, TimeRange(since - _EVENT_DELAY, now), _EVENTS)
        except PrefectApiError:
            # Told by the collector that is about events. Without them each deployment has its turn.
            return set()
        return {event.resource.object_id for event in events}

    def _next_to_verify(self) -> list[str]:
        """The known deployments that were not made sure of for longest, in the order of their ids."""
        self._verifications += 1
        chosen = sorted(self._by_id, key=lambda key: self._verified_at.get(key, 0))[:_VERIFIED]
        self._verified_at.update(dict.fromkeys(chosen, self._verifications))
        return sorted(chosen)

    @contextmanager
    def _forgetting_too_much(self) -> Iterator[None]:
        try:
            yield
        except TooMuch:
            # It would be as much again in each run.
            self._forget()
            raise

    def _go_on(self, client: PrefectClient, deadline: float) -> None:
        """List those first that the last run had no time for though they have runs, then all others."""
        self._wanted = self._list_wanted(client, self._wanted, deadline)
        if not self._wanted:
            self._list_all(client, deadline)

    def _list_wanted(self, client: PrefectClient, ids: set[str], deadline: float) -> set[str]:
        """List these that are not listed yet, a page at least. The result is those that there was no time for."""
        missing = sorted(ids - self._by_id.keys())
        while missing:
            part, missing = missing[: client.page_size()], missing[client.page_size() :]
            self._not_there.update(set(part) - self._list(client, part).keys())
            if time.monotonic() > deadline:
                break
        return set(missing)

    def _list_all(self, client: PrefectClient, deadline: float) -> None:
        """List from the newest edit to the oldest: what is edited or made meanwhile moves to the front, not past us.

        Deployments that were edited at the same moment have no order, and may be missed between two pages: if some are,
        the list is read again.
        """
        for _ in range(_READS):
            unreadable = self._list_to_the_end(client, deadline)
            if unreadable is None:
                return
            self._remove_deleted(client, sorted(self._by_id))
            self._unaccounted = client.count_deployments(self._body) - len(self._by_id)
            if self._unaccounted <= unreadable:
                break
        self._is_complete = self._is_fresh = True

    def _list_to_the_end(self, client: PrefectClient, deadline: float) -> int | None:
        """List from where the last run left off. The result is the number of deployments that cannot be read.

        None if the time ran out before the end: the next run goes on.
        """
        unreadable = 0
        number_of_rows = page_size = client.page_size()
        while number_of_rows == page_size:
            page, number_of_rows = client.deployment_page(self._body, self._offset, page_size)
            unreadable += number_of_rows - len(page)
            self._add(page)
            self._offset += number_of_rows
            if self._offset < self._total and time.monotonic() > deadline:
                return None
        self._offset = 0
        return unreadable

    def _list_edited(self, client: PrefectClient) -> datetime | None:
        """List what was edited since the last run. The result is the newest edit, None if it cannot be read."""
        newest_edit = self._newest_edit
        newest: datetime | None = None
        offset = 0
        # Mostly nothing was edited: one row tells.
        page_size = 1
        while True:
            page, number_of_rows = client.deployment_page(self._body, offset, page_size)
            self._add(page)
            if not offset and page:
                newest = _edit(page[0])
            if number_of_rows < page_size or any(_edit(item) <= newest_edit for item in page):
                return newest
            offset += number_of_rows
            page_size = min(10 * page_size, client.page_size())

    def _remove_deleted(self, client: PrefectClient, ids: list[str]) -> None:
        """Forget those of `ids` that are gone, found by counts over halves."""
        for start in range(0, len(ids), _IDS_PER_COUNT):
            chunk = ids[start : start + _IDS_PER_COUNT]
            left = client.count_deployments(queries.deployments_among(self._body, chunk))
            if left == len(chunk):
                continue
            if left == 0 or len(chunk) == 1:
                for key in chunk:
                    self._remove(key)
                continue
            self._remove_deleted(client, chunk[: len(chunk) // 2])
            self._remove_deleted(client, chunk[len(chunk) // 2 :])

    def _remove(self, key: str) -> None:
        self._by_id.pop(key, None)
        self._listed_at.pop(key, None)
        self._listed_for.pop(key, None)
        self._verified_at.pop(key, None)

    def _longest_not_listed(self, ids: list[str], number: int) -> list[str]:
        return sorted(ids, key=lambda key: self._listed_at.get(key, 0))[:number]

    def _add(self, deployments: Iterable[Deployment]) -> None:
        self._listings += 1
        for item in deployments:
            self._by_id[item.id] = item
            self._listed_at[item.id] = self._listings
            self._listed_now.add(item.id)
            self._newest_edit = max(self._newest_edit, _edit(item))


def _edit(deployment: Deployment) -> datetime:
    return deployment.updated or _EARLIEST


def _expected_status(queue: WorkQueue, now: datetime) -> str | None:
    """What the polling of a queue makes the status of its deployments, or None if that cannot be told."""
    if queue.last_polled is None or now - queue.last_polled > _NOT_POLLED:
        return 'NOT_READY'
    return 'READY' if now - queue.last_polled < _POLLED else None
