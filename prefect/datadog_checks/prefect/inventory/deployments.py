"""All deployments of the server, remembered between the runs of the check.

The server takes 11 ms for each deployment that it lists with a schedule (3.8.8: it loads all time zones for each), so a
thousand deployments are 12 s of its time. They are listed once; afterwards their number and the newest edit tell what
to list again. Their status is no edit: it follows the polling of their queue, which is read anyway.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from datadog_checks.prefect.api import queries
from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.api.models import Deployment, WorkQueue
from datadog_checks.prefect.api.queries import Body

# Seconds for which one run of the check lists deployments; what is left is listed by the next.
_LISTING_SECONDS = 12.0
_IDS_PER_COUNT = 500
_READS = 5
# A queue and its deployments are READY once they are polled, and NOT_READY when that is longer ago than 60 s, as soon
# as the server's foreman comes by, every 15 s. Between the two either status is right.
_POLLED = timedelta(seconds=60)
_NOT_POLLED = timedelta(seconds=80)
# Deployments that are listed again at most in one run: because their queue says that their status has changed; because
# they have no queue that could tell (a part of them); because somebody doubts them; and for good measure.
_CHANGED = 200
_QUEUELESS_PARTS = 4
_DOUBTFUL = 20
_ANY = 10
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
        # All were listed in this run.
        self._is_fresh = False
        self._offset = 0
        # Those that the server counts, but that cannot be read.
        self._unaccounted = 0
        self._newest_edit = _EARLIEST
        # How many listings ago, as a running number; and the expected status for which one was listed again.
        self._listed_at: dict[str, int] = {}
        self._listings = 0
        self._listed_for: dict[str, str | None] = {}

    def refresh(self, client: PrefectClient, body: Body) -> Mapping[str, Deployment]:
        """All deployments, as far as their number and their edits tell.

        Raises a PrefectApiError also while a large server's deployments are not listed to their end yet.
        """
        if body != self._body:
            # What another body lets in or leaves out shows in the number and the edits, once the list is complete.
            self._body = body
            if not self._is_complete:
                self._forget()
        total = client.count_deployments(body)
        self._is_fresh = False
        if self._is_complete:
            self._list_edited(client)
            if len(self._by_id) > total - self._unaccounted:
                self._remove_deleted(client, sorted(self._by_id))
            self._is_complete = len(self._by_id) == total - self._unaccounted
        if not self._is_complete:
            self._list_all(client, total)
        return self._by_id

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
        chosen = [
            *self._longest_not_listed(changed, _CHANGED),
            *self._longest_not_listed(queueless, -(-len(queueless) // _QUEUELESS_PARTS)),
            *self._longest_not_listed(others, _ANY),
        ]
        self._add(client.deployments_by_id(chosen))
        self._listed_for.update((key, expected.get(self._by_id[key].work_queue_key)) for key in chosen)
        return self._by_id

    def list_again(self, client: PrefectClient, ids: Iterable[str]) -> dict[str, Deployment]:
        """List again some of these, those that were not for longest first. None if all were listed in this run."""
        if self._is_fresh:
            return {}
        chosen = self._longest_not_listed(list(ids), _DOUBTFUL)
        self._add(client.deployments_by_id(chosen))
        return {key: self._by_id[key] for key in chosen if key in self._by_id}

    def _list_all(self, client: PrefectClient, total: int) -> None:
        """List from the newest edit to the oldest: what is edited or made meanwhile moves to the front, not past us.

        Deployments that were edited at the same moment have no order, and may be missed between two pages: if some are,
        the list is read again.
        """
        deadline = time.monotonic() + _LISTING_SECONDS
        for _ in range(_READS):
            unreadable = self._list_to_the_end(client, total, deadline)
            self._remove_deleted(client, sorted(self._by_id))
            self._unaccounted = client.count_deployments(self._body) - len(self._by_id)
            if self._unaccounted <= unreadable:
                break
        self._is_complete = self._is_fresh = True

    def _list_to_the_end(self, client: PrefectClient, total: int, deadline: float) -> int:
        """List from where the last run left off. The result is the number of deployments that cannot be read."""
        unreadable = 0
        number_of_rows = page_size = client.page_size()
        while number_of_rows == page_size:
            page, number_of_rows = client.deployment_page(self._body, self._offset, page_size)
            unreadable += number_of_rows - len(page)
            self._add(page)
            self._offset += number_of_rows
            if self._offset < total and time.monotonic() > deadline:
                raise PrefectApiError(
                    'POST /deployments/filter',
                    f'{len(self._by_id)} of {total} deployments are listed by now, the next run goes on',
                )
        self._offset = 0
        return unreadable

    def _list_edited(self, client: PrefectClient) -> None:
        newest_edit = self._newest_edit
        offset = 0
        # Mostly nothing was edited: one row tells.
        page_size = 1
        while True:
            page, number_of_rows = client.deployment_page(self._body, offset, page_size)
            self._add(page)
            if number_of_rows < page_size or any(_edit(item) <= newest_edit for item in page):
                return
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
                    del self._by_id[key]
                    self._listed_at.pop(key, None)
                    self._listed_for.pop(key, None)
                continue
            self._remove_deleted(client, chunk[: len(chunk) // 2])
            self._remove_deleted(client, chunk[len(chunk) // 2 :])

    def _longest_not_listed(self, ids: list[str], number: int) -> list[str]:
        return sorted(ids, key=lambda key: self._listed_at.get(key, 0))[:number]

    def _add(self, deployments: Iterable[Deployment]) -> None:
        self._listings += 1
        for item in deployments:
            self._by_id[item.id] = item
            self._listed_at[item.id] = self._listings
            self._newest_edit = max(self._newest_edit, _edit(item))


def _edit(deployment: Deployment) -> datetime:
    return deployment.updated or _EARLIEST


def _expected_status(queue: WorkQueue, now: datetime) -> str | None:
    """What the polling of a queue makes the status of its deployments, or None if that cannot be told."""
    if queue.last_polled is None or now - queue.last_polled > _NOT_POLLED:
        return 'NOT_READY'
    return 'READY' if now - queue.last_polled < _POLLED else None
