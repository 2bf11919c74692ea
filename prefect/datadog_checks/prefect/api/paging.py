"""Reading a list to its end while it changes.

No sort of the server has a tie-breaker, and rows move between pages that are cut by offset. So a list that changes is
read along a time that its rows keep: each page goes on from the last time of the one before, as a filter. Rows of equal
time that fill more than a page are read by id, which is unique.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from datadog_checks.prefect.api.errors import TooLarge
from datadog_checks.prefect.api.queries import Body, Table, narrowed
from datadog_checks.prefect.api.rows import HasId, MalformedRow
from datadog_checks.prefect.api.times import RESOLUTION

# Stands for a row that is too large even alone on a page: it is passed over by its position.
TOO_LARGE: Any = MalformedRow({})
# A page that is too large is read again in parts of this size.
_PART = 4
# How many rows in turn are passed over. It may be that the server does not honour the limit at all.
MOST_PASSED_OVER = 20

R = TypeVar('R', bound=HasId)
Fetch = Callable[[Body], list[R]]

# How often a list with ties is read anew until it is complete.
_READS = 5
# After how many readings that bring nothing new a list is left as it is.
_FRUITLESS_READS = 3
# How often a reader goes back in a list that shrinks under its hands.
_STEPS_BACK = 20


T = TypeVar('T')


class PagingError(Exception):
    """The pages repeat or go backwards: the server does not honour filter or sort."""


@dataclass(frozen=True)
class TimeOrder:
    """A sort of the server, and the filter on the same time that continues a page.

    `fields` are those that hold the time, the first that is not null counts (`start_time` of flow runs is sorted and
    filtered as coalesce(start_time, expected_start_time)).
    """

    sort: str
    filter_key: str
    fields: tuple[str, ...]
    descending: bool = False
    # Whether the list can be sorted by id too.
    has_id_sort: bool = True

    def time(self, row: HasId) -> datetime:
        for field in self.fields:
            time = _time(row, field)
            if time is not None:
                return time
        raise ValueError(f'a row without {self.fields[0]}')

    def has_time(self, row: HasId) -> bool:
        return _time(row, self.fields[0]) is not None

    def next_after(self, time: datetime) -> datetime:
        return time - RESOLUTION if self.descending else time + RESOLUTION


FLOW_RUNS_BY_START = TimeOrder('START_TIME_ASC', 'start_time', ('start_time', 'expected_start_time'))
FLOW_RUNS_BY_EXPECTED_START = TimeOrder('EXPECTED_START_TIME_ASC', 'expected_start_time', ('expected_start_time',))
FLOW_RUNS_FARTHEST_FIRST = TimeOrder(
    'EXPECTED_START_TIME_DESC', 'expected_start_time', ('expected_start_time',), descending=True
)
FLOW_RUNS_BY_NEXT_START = TimeOrder(
    'NEXT_SCHEDULED_START_TIME_ASC', 'next_scheduled_start_time', ('next_scheduled_start_time',)
)
FLOW_RUNS_BY_END = TimeOrder('END_TIME_DESC', 'end_time', ('end_time',), descending=True)
TASK_RUNS_BY_EXPECTED_START = TimeOrder('EXPECTED_START_TIME_ASC', 'expected_start_time', ('expected_start_time',))
LOGS_BY_TIME = TimeOrder('TIMESTAMP_ASC', 'timestamp', ('timestamp',), has_id_sort=False)
TASK_RUNS_BY_END = TimeOrder('END_TIME_DESC', 'end_time', ('end_time',), descending=True)


def pages_by_time(fetch: Fetch[R], table: Table, body: Body, order: TimeOrder, page_size: int) -> Iterator[list[R]]:
    """The pages of `body`, each row once.

    `fetch` posts a body and returns the rows; `table` names the filter object of the listed runs in it. Raises
    PagingError, and ValueError for a row without the time of the order.
    """
    seen: set[str] = set()
    bound: datetime | None = None
    size, passed_over = page_size, 0
    while True:
        asked = _bounded(body, table, order, bound) | {'sort': order.sort}
        rows, size = _read(fetch, asked | ({'offset': passed_over} if passed_over else {}), size)
        if passed_over and (not rows or rows[0] is not TOO_LARGE):
            # Nobody knows the time of what was passed over: rows of the same one may have changed places with it.
            until = order.time(rows[0]) if rows else None
            for page in _pages_of_ties(fetch, _bounded(body, table, order, bound, until), order, page_size, seen):
                yield [row for row in page if row is not TOO_LARGE]
        yield _unseen(rows, seen)
        if len(rows) < size:
            return
        size = min(page_size, size * _PART)
        if rows[-1] is TOO_LARGE:
            passed_over = _one_more(passed_over)
            continue
        passed_over = 0
        last = order.time(rows[-1])
        if bound is not None and (last > bound if order.descending else last < bound):
            raise PagingError('the server does not honour the sort')
        if last == bound:
            tied = _bounded(body, table, order, bound, bound)
            yield from _pages_of_ties(fetch, tied, order, page_size, seen)
            last = order.next_after(last)
        bound = last


def _pages_of_ties(fetch: Fetch[R], body: Body, order: TimeOrder, page_size: int, seen: set[str]) -> Iterator[list[R]]:
    """The pages of rows of one time, those in `seen` left out.

    Where they cannot be sorted by id, a database may order them anew for each page. So the list is read again, cut at
    other places, until as many rows are known as there are, or reading does not help any more.
    """
    if order.has_id_sort:
        yield from pages_by_id(fetch, body, page_size, seen)
        return
    read: set[str | None] = set()
    attempt = fruitless = 0
    while fruitless < _FRUITLESS_READS:
        known, counted = len(read), 0
        for rows in _offset_pages(fetch, body | {'sort': order.sort}, _page_size_of(attempt % _READS, page_size)):
            counted += len(rows)
            read.update(row.id for row in rows)
            yield _unseen(rows, seen)
        if len(read) >= counted:
            return
        attempt += 1
        fruitless = 0 if len(read) > known else fruitless + 1


def pages_by_id(fetch: Fetch[R], body: Body, page_size: int, seen: set[str]) -> Iterator[list[R]]:
    """The pages of `body` by offset in the order of ids, the only total order; rows in `seen` are left out."""
    read: set[str] = set()
    for rows in _offset_pages(fetch, body | {'sort': 'ID_DESC'}, page_size):
        if rows and not _unseen(rows, read):
            raise PagingError('the pages repeat')
        yield _unseen(rows, seen)


def pages_newest_first(
    fetch: Fetch[R], body: Body, order: TimeOrder, page_size: int, since: datetime
) -> Iterator[list[R]]:
    """The pages of `body` down to the first row older than `since`, for a list that cannot be filtered by its time.

    Each page begins with the last row of the one before. If that row is no longer there, rows have left the list and
    others moved up past the reader, who goes back. Rows without a time come first on PostgreSQL, in any order.
    """
    seen: set[str] = set()
    offset = steps_back = overlap = passed_over = 0
    has_time = False
    size = page_size
    while True:
        rows, size = _read(fetch, body | {'sort': order.sort, 'offset': offset}, size)
        if overlap and has_time and offset and (not rows or rows[0].id not in seen):
            steps_back += 1
            if steps_back > _STEPS_BACK:
                raise PagingError('the rows move faster than they can be read')
            offset = max(0, offset - page_size // 2)
            continue
        yield _unseen(rows, seen)
        has_time = bool(rows) and order.has_time(rows[-1])
        if len(rows) < size or (has_time and order.time(rows[-1]) < since):
            return
        passed_over = _one_more(passed_over) if rows[-1] is TOO_LARGE else 0
        overlap = 1 if size > 1 else 0
        offset += size - overlap
        size = min(page_size, size * _PART)


def rows_by_offset(
    fetch: Fetch[R],
    body: Body,
    page_size: int,
    is_enough: Callable[[R], bool] | None = None,
    look_up: Callable[[Collection[str]], list[R]] | None = None,
) -> list[R]:
    """All rows of `body`, each once, for a list whose sort is fixed and has ties (work queues: all named 'default').

    A page whose last row `is_enough` is the last that is read: what comes after it is of no interest.

    Between ties a database may order each page anew, so that one row comes twice and another never. When that shows,
    `look_up` is given the ids that were seen and returns the other rows that it knows of. If some are still missing,
    the list is read again, cut at other places, until as many rows are known as were counted.
    """
    seen: set[str] = set()
    found: list[R] = []
    for attempt in range(_READS):
        counted = without_id = 0
        for rows in _offset_pages(fetch, body, _page_size_of(attempt, page_size)):
            counted += len(rows)
            without_id += sum(row.id is None for row in rows)
            # What has no id is told once.
            fresh = [row for row in _unseen(rows, seen) if attempt == 0 or row.id is not None]
            found += fresh
            if counted > page_size and (len(seen) + without_id) * _READS < counted:
                raise PagingError('the pages repeat')
            if is_enough is not None and rows and is_enough(rows[-1]):
                break
        if attempt == 0 and look_up is not None and len(seen) + without_id < counted:
            found += _unseen(look_up(seen), seen)
        if len(seen) + without_id >= counted:
            break
    return found


@dataclass(frozen=True)
class TokenPage(Generic[R]):
    """A page that the server continues by a token, None at the end; `total` is the number of rows on all pages."""

    rows: list[R]
    total: int
    token: str | None


def pages_by_token(
    begin: Callable[[int], TokenPage[R]], go_on: Callable[[str], TokenPage[R]], page_size: int
) -> Iterator[tuple[list[R], int]]:
    """The pages of a list that the server continues by a token: rows, each once, and how many are left after them.

    `begin` takes the size of the pages. A token stands for an offset, so between ties, and where rows come or go
    meanwhile, one row may come twice and another not at all. Then the list is read again, cut at other places, until as
    many rows are known as there were at its beginning, or reading does not help any more. Raises PagingError.
    """
    seen: set[str] = set()
    attempt = fruitless = 0
    while fruitless < _FRUITLESS_READS:
        known = len(seen)
        counted = without_id = 0
        try:
            page = begin(_page_size_of(attempt % _READS, page_size))
        except TooLarge:
            if page_size == 1:
                raise
            page_size = max(1, page_size // _PART)
            continue
        while page.rows:
            counted += len(page.rows)
            # A page may hold only rows that were read before, for between ties the order is one of chance.
            if counted > page.total + page_size:
                raise PagingError('the pages never end')
            without_id += sum(row.id is None for row in page.rows)
            yield _unseen(page.rows, seen), max(0, page.total - len(seen) - without_id)
            if page.token is None:
                break
            try:
                page = go_on(page.token)
            except TooLarge:
                if page_size == 1:
                    raise
                # A token goes on with pages of the size that it began with.
                page_size = max(1, page_size // _PART)
                break
        if len(seen) + without_id >= page.total:
            return
        attempt += 1
        fruitless = 0 if len(seen) > known else fruitless + 1


def _time(row: HasId, field: str) -> datetime | None:
    time: datetime | None = row.time(field) if isinstance(row, MalformedRow) else getattr(row, field)
    return time


def _page_size_of(attempt: int, page_size: int) -> int:
    """Smaller pages with each attempt to read a list, so that it is cut at other places."""
    return max(1, page_size - attempt * page_size // (2 * _READS))


def _offset_pages(fetch: Fetch[R], body: Body, page_size: int) -> Iterator[list[R]]:
    offset, size, passed_over = 0, page_size, 0
    while True:
        rows, size = _read(fetch, body | {'offset': offset}, size)
        yield rows
        if len(rows) < size:
            return
        offset += len(rows)
        passed_over = _one_more(passed_over) if rows[-1] is TOO_LARGE else 0
        size = min(page_size, size * _PART)


def _one_more(passed_over: int) -> int:
    if passed_over == MOST_PASSED_OVER:
        raise PagingError(f'{MOST_PASSED_OVER} objects in a row are too large to read')
    return passed_over + 1


def _read(fetch: Fetch[R], body: Body, size: int) -> tuple[list[R], int]:
    """The next rows of `body`, `size` of them or fewer where they are too large, and how many were asked for."""
    while True:
        try:
            return fetch(body | {'limit': size}), size
        except TooLarge:
            if size == 1:
                return [TOO_LARGE], 1
            size = max(1, size // _PART)


def read_in_parts(fetch: Fetch[R], body: Body) -> list[R]:
    """The rows of one page of `body`, which has a limit; those that are too large even alone as TOO_LARGE."""
    rows: list[R] = []
    size, passed_over = body['limit'], 0
    while len(rows) < body['limit']:
        wanted = min(size, body['limit'] - len(rows))
        # What is asked for at first is what the caller wrote: an offset of 0 may be left out.
        part = {'offset': body.get('offset', 0) + len(rows)} if rows else {}
        found, size = _read(fetch, body | part, wanted)
        rows += found
        if len(found) < size:
            break
        passed_over = _one_more(passed_over) if found[-1] is TOO_LARGE else 0
        size *= _PART
    return rows


def _bounded(body: Body, table: Table, order: TimeOrder, bound: datetime | None, until: datetime | None = None) -> Body:
    """`body` narrowed to the rows from `bound` on, and up to `until`, both included."""
    first, last = (until, bound) if order.descending else (bound, until)
    return narrowed(body, table, order.filter_key, since=first, until=last)


def _unseen(rows: list[R], seen: set[str]) -> list[R]:
    fresh = [row for row in rows if row.id not in seen]
    seen.update(row.id for row in fresh if row.id is not None)
    return fresh
