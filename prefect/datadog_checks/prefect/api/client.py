"""The endpoints of the Prefect API that the check reads, as typed lists of `models`.

Every method returns all that was asked for or raises a PrefectApiError; an object that is not what the endpoint
promises is skipped and counted in `malformed`. Verified on Prefect 3.0 to 3.9.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any, Literal

from datadog_checks.prefect.api import queries
from datadog_checks.prefect.api.errors import NotFound, PrefectApiError, Rejected, TooLarge
from datadog_checks.prefect.api.log import Log
from datadog_checks.prefect.api.models import (
    Automation,
    ConcurrencyLimit,
    Deployment,
    Event,
    EventCount,
    EventPage,
    Flow,
    FlowRun,
    FlowRunState,
    LogRecord,
    ServiceSettings,
    TagLimit,
    TaskRun,
    TaskWorker,
    Worker,
    WorkPool,
    WorkQueue,
)
from datadog_checks.prefect.api.paging import (
    LOGS_BY_TIME,
    MOST_PASSED_OVER,
    TOO_LARGE,
    PagingError,
    TimeOrder,
    TokenPage,
    pages_by_time,
    pages_by_token,
    pages_newest_first,
    read_in_parts,
    rows_by_offset,
)
from datadog_checks.prefect.api.queries import NO_FILTER, Body, Table
from datadog_checks.prefect.api.rows import M, MalformedRow, Rows, UnexpectedAnswer, read_rows
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.api.times import RESOLUTION
from datadog_checks.prefect.api.transport import Transport
from datadog_checks.prefect.api.versions import TASK_RUN_END_FILTER, Difference, differences, parse_release
from datadog_checks.prefect.urls import CLOUD_URL, path_segment

# As many ids as the server's databases take in one filter without strain (27 ms for a count, 3.8.8 on SQLite).
IDS_PER_REQUEST = 100

# The most that the server gives (3.0 to 3.9), no matter what the limit of other lists is.
_EVENTS_PER_PAGE = 50
_MAX_COUNT = 10**12
TOO_LARGE_TO_READ = 'too large to read'
# As much as servers and proxies take of a path: uvicorn 64 kB, nginx and HAProxy 8 and 16 kB with the headers.
_MAX_SEGMENT = 2_000
# The token of the next page holds the filter with all names of events, in base64.
_MAX_PAGE_TOKEN = 30_000
_MAX_VERSION_BYTES = 100
_ID = re.compile('[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')
# The default of the server, and what Prefect Cloud has.
_DEFAULT_PAGE_SIZE = 200
_ANY_TIME = TimeRange(datetime(2020, 1, 1, tzinfo=UTC))
# The least that a server can be asked which refuses what it does not know (422): for none of the task runs that ended.
_PROBES: dict[Difference, tuple[str, Body]] = {
    TASK_RUN_END_FILTER: ('/task_runs/count', queries.ended_task_runs_among(NO_FILTER, _ANY_TIME, ())[0])
}


class PrefectClient:
    """Reads one Prefect server. Each `body` is one of `queries`."""

    def __init__(self, transport: Transport, log: Log) -> None:
        self._transport = transport
        self._log = log
        # Where the health of Prefect Cloud is: outside of the workspace.
        cloud = CLOUD_URL.fullmatch(transport.base_url)
        self._cloud_url = cloud and cloud['api']
        self._page_size: int | None = None
        # What the server lacks by its version; None while it does not tell one. What asking it has told instead.
        self._lacking: Collection[Difference] | None = None
        self._probed: dict[Difference, bool] = {}
        # Objects that were skipped since the last `take_malformed`, by 'Model: problem'.
        self._malformed: Counter[str] = Counter()
        self._has_warned_of_names = False

    def check_health(self) -> None:
        """GET /health; also sets the server's clock. The answer of a healthy server is `true`, without authorization.

        It says that the server answers, not that it works: the database is not asked. Up to 3.6 a URL without /api
        gives 200 with the page of the UI, so only the JSON `true` counts.
        """
        answer = self._transport.get('/health', base_url=self._cloud_url, observe_clock=True)
        if answer is not True:
            raise PrefectApiError('GET /health', 'the answer is not true. Is prefect_url the API of a Prefect server?')

    def check_ready(self) -> None:
        """GET /ready: 503 while the server does not reach its database. Prefect Cloud has none: its health counts."""
        try:
            self._transport.get('/ready')
        except NotFound:
            if self._cloud_url is None:
                raise
            self._log.debug('Prefect Cloud does not tell whether it is ready')

    def version(self) -> str:
        """GET /admin/version: Prefect's version. (GET /version is that of the API's schema, 0.8.4 since 2.20.)"""
        try:
            version = self._transport.get('/admin/version')
        except NotFound:
            self._learn('')
            raise
        if not isinstance(version, str):
            raise PrefectApiError('GET /admin/version', 'the answer is not a string')
        self._learn(version)
        return self._transport.says(version, _MAX_VERSION_BYTES)

    def has(self, item: Difference) -> bool:
        """Whether the server has what older ones lack. To be asked before a request, so that none is refused.

        By the last `version`. A server that tells none, or no release, is asked once whether it takes such a request;
        where no request could tell it is taken for a new one. Raises a PrefectApiError if it gives no answer to that.
        """
        if self._lacking is not None:
            return item not in self._lacking
        if item not in self._probed:
            self._probed[item] = item not in _PROBES or self._takes(*_PROBES[item])
        return self._probed[item]

    def _learn(self, version: str) -> None:
        """Of what is no release nothing is known."""
        self._lacking = differences(version) if parse_release(version) else None
        self._probed.clear()

    def _takes(self, path: str, body: Body) -> bool:
        try:
            self._transport.post(path, body)
        except Rejected as error:
            self._log.debug('A server that hides its version is an older one: %s', error)
            return False
        return True

    def service_settings(self) -> ServiceSettings:
        """GET /admin/settings: of all settings only those of the background services."""
        return ServiceSettings.of(self._transport.get('/admin/settings'))

    def work_pools(self) -> list[WorkPool]:
        return self._read_list('/work_pools/filter', {}, WorkPool)

    def workers(self, work_pool_name: str, since: datetime) -> list[Worker]:
        """The workers of one pool, those offline included; none if the pool is gone meanwhile.

        Of those that sent their last heartbeat before `since` only some: the server keeps each worker that there ever
        was, and lists the newest heartbeat first. None of a pool whose name fits into no path: Prefect itself could not
        ask for it.
        """
        name = _segment(work_pool_name)
        if name is None:
            if not self._has_warned_of_names:
                self._has_warned_of_names = True
                self._log.warning(
                    'Skipped the workers of work pool %r: this name does not work in a URL. Rename the work pool',
                    self._transport.says(work_pool_name, 100),
                )
            return []
        path = f'/work_pools/{name}/workers/filter'
        try:
            return self._read_list(path, {}, Worker, lambda worker: _is_gone_since(worker, since))
        except NotFound:
            return []

    def work_queues(self, known_ids: Collection[str] = ()) -> list[WorkQueue]:
        """All work queues.

        The server sorts them by name alone, and each work pool has one named `default`. PostgreSQL sorts every page
        anew, so some queues show on none (3.8.8): those of `known_ids` that are missing are asked for by id.
        """

        def look_up(seen: Collection[str]) -> Rows[WorkQueue]:
            return self._rows_of_ids('work_queues', sorted(set(known_ids) - set(seen)), WorkQueue)

        return self._read_list('/work_queues/filter', {}, WorkQueue, look_up=look_up)

    def concurrency_limits(self) -> list[ConcurrencyLimit]:
        """The limits of deployments, of tags and the global ones; none from a server that has no such endpoint."""
        return self._read_list_if_there('/v2/concurrency_limits/filter', ConcurrencyLimit)

    def tag_limits(self) -> list[TagLimit]:
        """The limits of tags, with who holds their slots.

        With more limits than a page holds, those of deployments included, some may be missing (3.8.8).
        """
        return self._read_list_if_there('/concurrency_limits/filter', TagLimit)

    def automations(self) -> list[Automation]:
        """All automations; none from a server that has no such endpoint."""
        return self._read_list_if_there('/automations/filter', Automation)

    def deployment_page(self, body: Body, offset: int, page_size: int) -> tuple[list[Deployment], int]:
        """A page of the deployments of `body`, the last edited first, and the number of rows that it has."""
        page = body | {'sort': 'UPDATED_DESC', 'offset': offset, 'limit': page_size}
        rows = self._fetch_in_parts('/deployments/filter', page, Deployment)
        return self._well_formed(rows, Deployment), len(rows)

    def deployments_by_id(self, ids: Sequence[str]) -> list[Deployment]:
        return self._read_ids('deployments', ids, Deployment)

    def count_deployments(self, body: Body) -> int:
        return self._count('/deployments/count', body)

    def flow_page(self, offset: int, page_size: int) -> tuple[list[Flow], int]:
        """A page of all flows, the newest first, and the number of rows that it has."""
        page = {'sort': 'CREATED_DESC', 'offset': offset, 'limit': page_size}
        rows = self._fetch_in_parts('/flows/filter', page, Flow)
        return self._well_formed(rows, Flow), len(rows)

    def oldest_flow(self) -> Flow | None:
        """The flow that is there longest; None without any. The server lists the newest first."""
        number = self._count('/flows/count', {})
        return next(iter(self.flow_page(number - 1, 1)[0]), None) if number else None

    def flows(self, ids: Sequence[str]) -> list[Flow]:
        return self._read_ids('flows', ids, Flow)

    def flow_runs(self, body: Body, order: TimeOrder) -> Iterator[FlowRun]:
        """The flow runs of `body`, page by page, each once though the list changes meanwhile."""
        return chain.from_iterable(self.flow_run_pages(body, order))

    def first_flow_runs(self, body: Body, order: TimeOrder, number: int = 1) -> list[FlowRun]:
        """The first of the flow runs of `body` in that order, at most so many as a page has."""
        limit = min(number, self.page_size())
        rows = self._fetch_in_parts('/flow_runs/filter', body | {'sort': order.sort, 'limit': limit}, FlowRun)
        return self._well_formed(rows, FlowRun)

    def flow_run_pages(self, body: Body, order: TimeOrder) -> Iterator[list[FlowRun]]:
        """The same by the page, each of which is parsed when it is taken."""
        return self._pages_by_time('flow_runs', body, order, FlowRun)

    def flow_runs_by_id(self, ids: Sequence[str]) -> list[FlowRun]:
        return self._read_ids('flow_runs', ids, FlowRun)

    def count_flow_runs(self, body: Body) -> int:
        return self._count('/flow_runs/count', body)

    def flow_run_states(self, flow_run_id: str) -> list[FlowRunState]:
        """All states of a run, ascending by time; none if the run is gone meanwhile."""
        endpoint = '/flow_run_states/'
        try:
            with _as_promised(f'GET {endpoint}'):
                params = {'flow_run_id': flow_run_id}
                rows = self._transport.get(endpoint, params, decode=partial(read_rows, FlowRunState))
        except TooLarge as error:
            self._malformed[f'states of a run: {error.cause}'] += 1
            return []
        return self._well_formed(rows, FlowRunState)

    def task_runs(self, body: Body, order: TimeOrder) -> Iterator[TaskRun]:
        """The task runs of `body`, page by page, each once though the list changes meanwhile."""
        return chain.from_iterable(self._pages_by_time('task_runs', body, order, TaskRun))

    def newest_task_runs(self, body: Body, order: TimeOrder, since: datetime) -> Iterator[TaskRun]:
        """The task runs of `body` down to `since`, for a server that has no filter on the time of `order`."""
        path = '/task_runs/filter'
        pages = pages_newest_first(lambda page: self._fetch(path, page, TaskRun), body, order, self.page_size(), since)
        return chain.from_iterable(self._well_formed_pages(path, pages, order, TaskRun))

    def task_runs_by_id(self, ids: Sequence[str]) -> list[TaskRun]:
        return self._read_ids('task_runs', ids, TaskRun)

    def task_workers(self) -> list[TaskWorker]:
        """The task workers that are connected to the process that answers: replicas know different ones.

        The list has no pages. Raises NotFound where there is no such endpoint.
        """
        return self._well_formed(self._fetch('/task_workers/filter', {}, TaskWorker), TaskWorker)

    def count_task_runs(self, body: Body) -> int:
        return self._count('/task_runs/count', body)

    def event_pages(
        self, names: dict[str, list[str]], time_range: TimeRange, order: Literal['ASC', 'DESC'] = 'ASC'
    ) -> Iterator[tuple[list[Event], int]]:
        """The events of a time range, in the order of time, page by page: those of the page, and how many are left.

        `names` is the `event` object of the filter.
        """
        body = queries.events(names, time_range, order)
        next_path = '/events/filter/next'

        def begin(page_size: int) -> TokenPage[Event | MalformedRow]:
            return self._event_page(body | {'limit': page_size})

        def go_on(token: str) -> TokenPage[Event | MalformedRow]:
            # The host of `next_page` is the one that a proxy asked for, or worse. Only the token is of use.
            with _as_promised(f'GET {next_path}'):
                return _token_page(self._transport.get(next_path, {'page-token': token}, decode=EventPage.read))

        passed_over = 0
        while True:
            # The time of the last event that was read, and how many had it.
            last = Counter[datetime]()
            try:
                for rows, left in pages_by_token(begin, go_on, _EVENTS_PER_PAGE):
                    events = self._well_formed(rows, Event)
                    last.update(event.occurred for event in events)
                    last = Counter({time: last[time] for time in (*last,) if time == max(last)})
                    yield events, left
            except PagingError as error:
                raise _unexpected(f'GET {next_path}', str(error)) from None
            except TooLarge:
                passed_over += 1
                if passed_over > MOST_PASSED_OVER:
                    raise
                time_range = self._after_too_large(names, time_range, last)
                body = queries.events(names, time_range)
                # Nothing may be left behind it.
                yield [], 0
            else:
                return

    def _after_too_large(
        self, names: dict[str, list[str]], time_range: TimeRange, last: Counter[datetime]
    ) -> TimeRange:
        """What comes after an event that is too large even alone on a page, which only counts can tell.

        Events of the very same microsecond are passed over with it.
        """
        for time, read in last.items():
            time_range = TimeRange(time + RESOLUTION, time_range.until)
            unread = self.count_events(names, TimeRange(time, time_range.since)) - read
            if unread > 0:
                self._malformed[f'Event: {TOO_LARGE_TO_READ}'] += unread
                return time_range
        total = self.count_events(names, time_range)
        # All that is left comes from `first` on, and not all of it from `later` on.
        first, later = time_range.since, time_range.until or queries.END_OF_TIME
        while later - first > RESOLUTION:
            middle = first + (later - first) / 2
            is_all = self.count_events(names, TimeRange(middle, time_range.until)) == total
            first, later = (middle, later) if is_all else (first, middle)
        rest = TimeRange(later, time_range.until)
        self._malformed[f'Event: {TOO_LARGE_TO_READ}'] += max(1, total - self.count_events(names, rest))
        return rest

    def count_events(self, names: dict[str, list[str]], time_range: TimeRange) -> int:
        return self._event_page(queries.events(names, time_range) | {'limit': 0}).total

    def newest_events(self, names: dict[str, list[str]], time_range: TimeRange, number: int) -> list[Event]:
        """The newest events of a time range, at most 50, the newest first. `names` as for `event_pages`."""
        body = queries.events(names, time_range, 'DESC')
        while True:
            try:
                return self._well_formed(self._event_page(body | {'limit': number}).rows, Event)
            except TooLarge as error:
                if number == 1:
                    self._malformed[f'Event: {error.cause}'] += 1
                    return []
                number = max(1, number // 4)

    def oldest_event(self, time_range: TimeRange) -> Event | None:
        """The oldest event of a time range, None without any."""
        rows = self._event_page(queries.events({}, time_range) | {'limit': 1}).rows
        return next(iter(self._well_formed(rows, Event)), None)

    def events_by_id(self, ids: Sequence[str], time_range: TimeRange) -> list[Event]:
        """Those of at most 50 events that occurred in a time range; what is no id is left out."""
        known = [item for item in ids if _is_id(item)]
        if not known:
            return []
        body = queries.events_of_ids(known, time_range) | {'limit': _EVENTS_PER_PAGE}
        return self._well_formed(self._event_page(body).rows, Event)

    def count_events_by_resource(self, name: str, time_range: TimeRange) -> list[EventCount]:
        """Of each resource that has such events in a time range: how many, the first and the last, in one answer."""
        rows = self._fetch('/events/count-by/resource', queries.events({'name': [name]}, time_range), EventCount)
        return self._well_formed(rows, EventCount)

    def _event_page(self, body: Body) -> TokenPage[Event | MalformedRow]:
        path = '/events/filter'
        with _as_promised(f'POST {path}'):
            return _token_page(self._transport.post(path, body, decode=EventPage.read))

    def log_pages(self, body: Body, page_size: int) -> Iterator[list[LogRecord]]:
        """The log records of `body` in the order of time, page by page, each once though the list grows meanwhile."""
        path, order = '/logs/filter', LOGS_BY_TIME
        size = min(page_size, self.page_size())
        pages = pages_by_time(lambda page: self._fetch(path, page, LogRecord), 'logs', body, order, size)
        return self._well_formed_pages(path, pages, order, LogRecord)

    def take_malformed(self) -> dict[str, int]:
        """How often which problem made an object be skipped since the last call."""
        malformed = dict(self._malformed)
        self._malformed.clear()
        return malformed

    def _read_list(
        self,
        path: str,
        body: Body,
        model: type[M],
        is_enough: Callable[[Any], bool] | None = None,
        look_up: Callable[[Collection[str]], Rows[M]] | None = None,
    ) -> list[M]:
        try:
            rows = rows_by_offset(
                lambda page: self._fetch(path, page, model), body, self.page_size(), is_enough, look_up
            )
        except PagingError as error:
            raise _unexpected(f'POST {path}', str(error)) from None
        return self._well_formed(rows, model)

    def _read_list_if_there(self, path: str, model: type[M]) -> list[M]:
        try:
            return self._read_list(path, {}, model)
        except NotFound as error:
            self._log.debug('Nothing of this server: %s', error)
            return []

    def _read_ids(self, table: Table, ids: Sequence[str], model: type[M]) -> list[M]:
        """The objects of these ids, in no certain order; those that are gone are missing."""
        return self._well_formed(self._rows_of_ids(table, ids, model), model)

    def _rows_of_ids(self, table: Table, ids: Sequence[str], model: type[M]) -> Rows[M]:
        size = min(IDS_PER_REQUEST, self.page_size())
        possible = [item for item in ids if _is_id(item)]
        found: Rows[M] = []
        for start in range(0, len(possible), size):
            body = queries.by_ids(table, possible[start : start + size]) | {'limit': size}
            found += self._fetch_in_parts(f'/{table}/filter', body, model)
        return found

    def _pages_by_time(self, table: Table, body: Body, order: TimeOrder, model: type[M]) -> Iterator[list[M]]:
        path = f'/{table}/filter'
        pages = pages_by_time(lambda page: self._fetch(path, page, model), table, body, order, self.page_size())
        return self._well_formed_pages(path, pages, order, model)

    def _well_formed_pages(
        self, path: str, pages: Iterator[Rows[M]], order: TimeOrder, model: type[M]
    ) -> Iterator[list[M]]:
        try:
            for rows in pages:
                yield self._well_formed(rows, model)
        except PagingError as error:
            raise _unexpected(f'POST {path}', str(error)) from None
        except (ValueError, TypeError, OverflowError):
            raise _unexpected(f'POST {path}', f'a row at the end of a page has no {order.filter_key}') from None

    def _fetch_in_parts(self, path: str, body: Body, model: type[M]) -> Rows[M]:
        """One page, read in parts if it is too large as a whole."""
        try:
            return read_in_parts(lambda page: self._fetch(path, page, model), body)
        except PagingError as error:
            raise _unexpected(f'POST {path}', str(error)) from None

    def _fetch(self, path: str, body: Body, model: type[M]) -> Rows[M]:
        """One page. A server that was restarted with a lower limit refuses ours: the next check learns it anew."""
        try:
            with _as_promised(f'POST {path}'):
                rows: Rows[M] = self._transport.post(path, body, decode=partial(read_rows, model))
            return rows
        except Rejected as error:
            if 'Invalid limit' not in error.cause:
                raise
            self._page_size = None
            raise PrefectApiError(
                f'POST {path}', 'the server lowered its page limit meanwhile; the next check asks for less'
            ) from None

    def deadline(self, part: float) -> float:
        """When this part of the time of this run of the check is over, on the monotonic clock: see `TimeLimit`."""
        return self._transport.budget.deadline(part)

    def is_late(self, part: float) -> bool:
        """Whether that part of the time is over."""
        return self._transport.budget.is_late(part)

    def page_size(self) -> int:
        """The server's page size, PREFECT_SERVER_API_DEFAULT_LIMIT (200 by default): a higher `limit` is refused."""
        if self._page_size is None:
            endpoint = '/flow_runs/paginate'
            try:
                answer = self._transport.post(endpoint, queries.page_limit())
            except NotFound as error:
                self._log.debug('Taking the page limit for %d: %s', _DEFAULT_PAGE_SIZE, error)
                answer = {'limit': _DEFAULT_PAGE_SIZE}
            limit = answer.get('limit') if isinstance(answer, dict) else None
            if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= _MAX_COUNT:
                raise _unexpected(f'POST {endpoint}', 'the answer has no page limit')
            self._page_size = limit
        return self._page_size

    def _count(self, path: str, body: Body) -> int:
        return _number(f'POST {path}', self._transport.post(path, body))

    def _well_formed(self, rows: Rows[M], model: type[M]) -> list[M]:
        well_formed: list[M] = []
        for row in rows:
            if row is TOO_LARGE:
                self._malformed[f'{model.__name__}: {TOO_LARGE_TO_READ}'] += 1
            elif isinstance(row, MalformedRow):
                self._malformed[f'{model.__name__}: {row.problem(model)}'] += 1
            else:
                well_formed.append(row)
        return well_formed


@contextmanager
def _as_promised(endpoint: str) -> Iterator[None]:
    try:
        yield
    except UnexpectedAnswer as error:
        raise _unexpected(endpoint, str(error)) from None


def _number(endpoint: str, answer: Any) -> int:
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer <= _MAX_COUNT:
        raise _unexpected(endpoint, 'the answer is not a number')
    return answer


def _token_page(page: EventPage) -> TokenPage[Event | MalformedRow]:
    return TokenPage(page.rows, page.total, page.token)


def _unexpected(endpoint: str, what: str) -> PrefectApiError:
    return PrefectApiError(endpoint, f'{what}. Is this a supported Prefect server, and does a proxy cache its answers?')


def _is_gone_since(worker: object, since: datetime) -> bool:
    """Whether a worker is offline and sent its last heartbeat before a time; False of one that is malformed."""
    if not isinstance(worker, Worker):
        return False
    time = worker.last_heartbeat_time
    return not worker.is_online and time is not None and time < since


def _is_id(text: str) -> bool:
    """Whether the server would take a text as an id; for another one it refuses the whole request."""
    return _ID.fullmatch(text) is not None


def _segment(name: str) -> str | None:
    """A name as one segment of a path; None if there is none.

    A slash ends a segment even if it is quoted: the server unquotes the path before it looks for an endpoint (3.8.8).
    Dots are resolved on the way to the server, quoted or not.
    """
    quoted = path_segment(name)
    return None if name in ('', '.', '..') or '/' in name or len(quoted) > _MAX_SEGMENT else quoted
