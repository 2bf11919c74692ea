"""Reading a list to its end while it changes.

No sort of the server has a tie-breaker, and rows move between pages that are cut by offset. So a list that changes is
read along a time that its rows keep: each page goes on from the last time of the one before, as a filter. Rows of equal
time that fill more than a page are read by id, which is unique.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from datadog_checks.prefect.api.models import Row
from datadog_checks.prefect.api.queries import Body, Table, narrowed
from datadog_checks.prefect.api.times import RESOLUTION, parse_time

Fetch = Callable[[Body], list[Row]]

# How often a list with ties is read anew until it is complete.
_READS = 5
# After how many readings that bring nothing new a list is left as it is.
_FRUITLESS_READS = 3
# How often a reader goes back in a list that shrinks under its hands.
_STEPS_BACK = 20


class PagingError(Exception):
    """The pages repeat or go backwards: the server does not honour filter or sort."""


@dataclass(frozen=True)
class TimeOrder:
    """A sort of the server, and the filter on the same time that continues a page.

    `fields` are the keys that hold the time, the first that is not null counts (`start_time` of flow runs is sorted and
    filtered as coalesce(start_time, expected_start_time)).
    """

    sort: str
    filter_key: str
    fields: tuple[str, ...]
    descending: bool = False

    def time(self, row: Row) -> datetime:
        for field in self.fields:
            value = row.get(field)
            if value is not None:
                return parse_time(value)
        raise ValueError(f'a row without {self.fields[0]}')

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
TASK_RUNS_BY_END = TimeOrder('END_TIME_DESC', 'end_time', ('end_time',), descending=True)


def pages_by_time(fetch: Fetch, table: Table, body: Body, order: TimeOrder, page_size: int) -> Iterator[list[Row]]:
    """The pages of `body`, each row once.

    `fetch` posts a body and returns the rows; `table` names the filter object of the listed runs in it. Raises
    PagingError, and ValueError for a row without the time of the order.
    """
    seen: set[str] = set()
    bound: datetime | None = None
    while True:
        rows = fetch(_bounded(body, table, order, bound) | {'sort': order.sort, 'limit': page_size})
        yield _unseen(rows, seen)
        if len(rows) < page_size:
            return
        last = order.time(rows[-1])
        if bound is not None and (last > bound if order.descending else last < bound):
            raise PagingError('the server does not honour the sort')
        if last == bound:
            tied = _bounded(body, table, order, bound, bound)
            yield from pages_by_id(fetch, tied, page_size, seen)
            last = order.next_after(last)
        bound = last


def pages_by_id(fetch: Fetch, body: Body, page_size: int, seen: set[str]) -> Iterator[list[Row]]:
    """The pages of `body` by offset in the order of ids, the only total order; rows in `seen` are left out."""
    read: set[str] = set()
    for rows in _offset_pages(fetch, body | {'sort': 'ID_DESC'}, page_size):
        if rows and not _unseen(rows, read):
            raise PagingError('the pages repeat')
        yield _unseen(rows, seen)


def pages_newest_first(
    fetch: Fetch, body: Body, order: TimeOrder, page_size: int, since: datetime
) -> Iterator[list[Row]]:
    """The pages of `body` down to the first row older than `since`, for a list that cannot be filtered by its time.

    Each page begins with the last row of the one before. If that row is no longer there, rows have left the list and
    others moved up past the reader, who goes back. Rows without a time come first on PostgreSQL, in any order.
    """
    overlap = 1 if page_size > 1 else 0
    seen: set[str] = set()
    offset = steps_back = 0
    has_time = False
    while True:
        rows = fetch(body | {'sort': order.sort, 'offset': offset, 'limit': page_size})
        if overlap and has_time and offset and (not rows or _identity(rows[0]) not in seen):
            steps_back += 1
            if steps_back > _STEPS_BACK:
                raise PagingError('the rows move faster than they can be read')
            offset = max(0, offset - page_size // 2)
            continue
        yield _unseen(rows, seen)
        has_time = bool(rows) and rows[-1].get(order.fields[0]) is not None
        if len(rows) < page_size or (has_time and order.time(rows[-1]) < since):
            return
        offset += page_size - overlap


def rows_by_offset(
    fetch: Fetch, body: Body, page_size: int, is_enough: Callable[[Row], bool] | None = None
) -> list[Row]:
    """All rows of `body`, each once, for a list whose sort is fixed and has ties (work queues: all named 'default').

    A page whose last row `is_enough` is the last that is read: what comes after it is of no interest.

    Between ties a database may order each page anew, so that one row comes twice and another never. When that shows,
    the list is read again, cut at other places, until as many rows are known as were counted.
    """
    known: dict[str, Row] = {}
    for attempt in range(_READS):
        counted = 0
        without_id: list[Row] = []
        for rows in _offset_pages(fetch, body, _page_size_of(attempt, page_size)):
            counted += len(rows)
            known.update((row['id'], row) for row in rows if isinstance(row.get('id'), str))
            without_id += [row for row in rows if _identity(row) is None]
            if counted > page_size and (len(known) + len(without_id)) * _READS < counted:
                raise PagingError('the pages repeat')
            if is_enough is not None and rows and is_enough(rows[-1]):
                break
        if len(known) + len(without_id) >= counted:
            break
    return [*known.values(), *without_id]


@dataclass(frozen=True)
class TokenPage:
    """A page that the server continues by a token, None at the end; `total` is the number of rows on all pages."""

    rows: list[Row]
    total: int
    token: str | None


def pages_by_token(
    begin: Callable[[int], TokenPage], go_on: Callable[[str], TokenPage], page_size: int
) -> Iterator[tuple[list[Row], int]]:
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
        page = begin(_page_size_of(attempt % _READS, page_size))
        while page.rows:
            counted += len(page.rows)
            # A page may hold only rows that were read before, for between ties the order is one of chance.
            if counted > page.total + page_size:
                raise PagingError('the pages never end')
            without_id += sum(_identity(row) is None for row in page.rows)
            yield _unseen(page.rows, seen), max(0, page.total - len(seen) - without_id)
            if page.token is None:
                break
            page = go_on(page.token)
        if len(seen) + without_id >= page.total:
            return
        attempt += 1
        fruitless = 0 if len(seen) > known else fruitless + 1


def _page_size_of(attempt: int, page_size: int) -> int:
    """Smaller pages with each attempt to read a list, so that it is cut at other places."""
    return max(1, page_size - attempt * page_size // (2 * _READS))


def _offset_pages(fetch: Fetch, body: Body, page_size: int) -> Iterator[list[Row]]:
    offset = 0
    while True:
        rows = fetch(body | {'offset': offset, 'limit': page_size})
        yield rows
        if len(rows) < page_size:
            return
        offset += len(rows)


def _bounded(body: Body, table: Table, order: TimeOrder, bound: datetime | None, until: datetime | None = None) -> Body:
    """`body` narrowed to the rows from `bound` on, and up to `until`, both included."""
    first, last = (until, bound) if order.descending else (bound, until)
    return narrowed(body, table, order.filter_key, since=first, until=last)


def _unseen(rows: list[Row], seen: set[str]) -> list[Row]:
    fresh = [row for row in rows if _identity(row) not in seen]
    seen.update(identity for row in fresh if (identity := _identity(row)) is not None)
    return fresh


def _identity(row: Row) -> str | None:
    """None for an id that is no text: it may not even be hashable, and the row is malformed anyway."""
    identity = row.get('id')
    return identity if isinstance(identity, str) else None
