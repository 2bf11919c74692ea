from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from datadog_checks.prefect.api.errors import TooLarge
from datadog_checks.prefect.api.models import FlowRun, TaskRun, WorkQueue
from datadog_checks.prefect.api.paging import (
    FLOW_RUNS_BY_END,
    FLOW_RUNS_BY_NEXT_START,
    FLOW_RUNS_BY_START,
    LOGS_BY_TIME,
    TASK_RUNS_BY_END,
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
from datadog_checks.prefect.api.rows import MalformedRow, read_rows
from datadog_checks.prefect.api.times import format_time
from tests.fake_prefect import FakePrefect
from tests.unit.harness import Row, at, run_task_through, run_through

PAGE = 5
MODELS: dict[str, Any] = {
    '/flow_runs/filter': FlowRun,
    '/task_runs/filter': TaskRun,
    '/work_queues/filter': WorkQueue,
}


class Reader:
    """Fetches from a fake server; `meanwhile[n]` happens after the n-th page (1 is the first)."""

    def __init__(self, fake: FakePrefect, path: str) -> None:
        self._fake = fake
        self._path = path
        self.meanwhile: dict[int, Callable[[], object]] = {}
        self.pages = 0

    def __call__(self, body: dict[str, Any]) -> list[Any]:
        assert body['limit'] <= PAGE
        answer = self._fake.handle('POST', f'/api{self._path}', {}, {}, json.dumps(body).encode())
        assert answer.status == 200, answer.body
        self.pages += 1
        self.meanwhile.get(self.pages, lambda: None)()
        return read_rows(MODELS[self._path], answer.body)


def listed(*objects: Row) -> list[MalformedRow]:
    """Rows of which no more is known than what paging needs."""
    return [MalformedRow(row) for row in objects]


def numbered(size: int) -> list[MalformedRow]:
    return listed(*({'id': str(index)} for index in range(size)))


@pytest.fixture
def flow_runs(fake: FakePrefect) -> Reader:
    return Reader(fake, '/flow_runs/filter')


def ids(pages: Iterator[list[Any]]) -> list[str]:
    """The ids of all rows; each may come once only."""
    found = [row.id for page in pages for row in page]
    assert len(found) == len(set(found)), 'a row comes twice'
    return found


def by_time(reader: Reader, order: TimeOrder, body: Row | None = None) -> list[str]:
    return ids(pages_by_time(reader, 'flow_runs', body or {}, order, PAGE))


class TestPagesByTime:
    @pytest.mark.parametrize(
        'times',
        [
            pytest.param([], id='nothing'),
            pytest.param(range(4), id='less than a page'),
            pytest.param(range(5), id='exactly a page'),
            pytest.param(range(23), id='many pages'),
            pytest.param([0] * 5, id='a page of ties'),
            pytest.param([0] * 17, id='ties larger than a page'),
            pytest.param([0] * 3 + [1] * 14 + [2] * 9, id='ties in the middle'),
            pytest.param([*range(4), *[4] * 12, 5], id='ties across a page'),
            pytest.param([index // 2 for index in range(30)], id='pairs'),
            pytest.param([index * 1e-6 for index in range(12)], id='microseconds'),
        ],
    )
    @pytest.mark.parametrize('order', [FLOW_RUNS_BY_START, FLOW_RUNS_BY_END], ids=['ascending', 'descending'])
    def test_every_row_comes_once(
        self, fake: FakePrefect, flow_runs: Reader, times: list[float], order: TimeOrder
    ) -> None:
        expected = {run_through(fake, start=at(time), seconds=0.25)['id'] for time in times}
        assert set(by_time(flow_runs, order)) == expected

    @pytest.mark.parametrize('database', ['sqlite', 'postgresql'])
    def test_runs_without_start_are_sorted_by_their_expected_start(
        self, fake: FakePrefect, flow_runs: Reader, database: str
    ) -> None:
        fake.database = database
        expected = {fake.add_flow_run(scheduled_time=at(seconds))['id'] for seconds in range(11)}
        expected |= {run_through(fake, start=at(seconds + 0.5))['id'] for seconds in range(11)}
        assert set(by_time(flow_runs, FLOW_RUNS_BY_START)) == expected

    def test_own_limits_of_the_body_stay(self, fake: FakePrefect, flow_runs: Reader) -> None:
        runs = [run_through(fake, start=at(seconds), seconds=0) for seconds in range(20)]
        body = {'flow_runs': {'end_time': {'after_': runs[3]['end_time'], 'is_null_': False}}}
        assert set(by_time(flow_runs, FLOW_RUNS_BY_END, body)) == {run['id'] for run in runs[3:]}
        assert body == {'flow_runs': {'end_time': {'after_': runs[3]['end_time'], 'is_null_': False}}}

    def test_row_that_moves_back_while_it_is_read_comes_once(self, fake: FakePrefect, flow_runs: Reader) -> None:
        """A scheduled run starts: its time in the sort changes."""
        runs = [fake.add_flow_run(scheduled_time=at(seconds)) for seconds in range(12)]
        flow_runs.meanwhile[1] = lambda: fake.set_flow_run_state(runs[2], 'RUNNING', at=at(10.5))
        assert set(by_time(flow_runs, FLOW_RUNS_BY_START)) == {run['id'] for run in runs}

    @pytest.mark.parametrize('ties', [False, True])
    def test_rows_that_vanish_between_pages_hide_no_others(
        self, fake: FakePrefect, flow_runs: Reader, ties: bool
    ) -> None:
        runs = [fake.add_flow_run(scheduled_time=at(seconds // 3 if ties else seconds)) for seconds in range(14)]
        flow_runs.meanwhile[1] = lambda: [fake.remove(run) for run in runs[:3]]
        found = set(by_time(flow_runs, FLOW_RUNS_BY_NEXT_START))
        assert found >= {run['id'] for run in runs[3:]}

    def test_rows_that_come_between_pages_hide_no_others(self, fake: FakePrefect, flow_runs: Reader) -> None:
        runs = [fake.add_flow_run(scheduled_time=at(seconds)) for seconds in range(14)]
        flow_runs.meanwhile[1] = lambda: [fake.add_flow_run(scheduled_time=at(0.5)) for _ in range(7)]
        assert set(by_time(flow_runs, FLOW_RUNS_BY_NEXT_START)) >= {run['id'] for run in runs}

    def test_last_row_of_a_page_may_vanish(self, fake: FakePrefect, flow_runs: Reader) -> None:
        runs = [fake.add_flow_run(scheduled_time=at(seconds)) for seconds in range(12)]
        flow_runs.meanwhile[1] = lambda: fake.remove(runs[4])
        assert set(by_time(flow_runs, FLOW_RUNS_BY_NEXT_START)) == {run['id'] for run in runs}

    def test_page_that_repeats_is_an_error(self) -> None:
        page = listed(*({'id': str(index), 'end_time': '2026-11-23T08:00:00Z'} for index in range(PAGE)))
        with pytest.raises(PagingError, match='repeat'):
            list(pages_by_time(lambda body: page, 'flow_runs', {}, FLOW_RUNS_BY_END, PAGE))

    def test_server_that_ignores_the_filter_is_an_error(self) -> None:
        page = listed(*({'id': str(index), 'end_time': f'2026-11-23T08:00:0{9 - index}Z'} for index in range(PAGE)))
        with pytest.raises(PagingError):
            list(pages_by_time(lambda body: page, 'flow_runs', {}, FLOW_RUNS_BY_END, PAGE))

    def test_server_that_ignores_the_sort_is_an_error(self) -> None:
        seconds = count()

        def fetch(body: Row) -> list[MalformedRow]:
            time = format_time(at(next(seconds)))
            return listed(*({'id': f'{time} {index}', 'end_time': time} for index in range(PAGE)))

        with pytest.raises(PagingError, match='sort'):
            list(pages_by_time(fetch, 'flow_runs', {}, FLOW_RUNS_BY_END, PAGE))


class TestPagesNewestFirst:
    @pytest.fixture
    def task_runs(self, fake: FakePrefect) -> Reader:
        return Reader(fake, '/task_runs/filter')

    def read(self, reader: Reader, seconds: float = -1000) -> list[str]:
        return ids(pages_newest_first(reader, {}, TASK_RUNS_BY_END, PAGE, at(seconds)))

    @pytest.mark.parametrize('size', [0, 4, 5, 6, 23])
    def test_every_row_comes_once(self, fake: FakePrefect, task_runs: Reader, size: int) -> None:
        expected = {run_task_through(fake, start=at(index), seconds=0.5)['id'] for index in range(size)}
        assert set(self.read(task_runs)) == expected

    def test_reading_stops_at_the_first_older_row(self, fake: FakePrefect, task_runs: Reader) -> None:
        runs = [run_task_through(fake, start=at(index), seconds=0.5) for index in range(100)]
        found = self.read(task_runs, 93)
        assert {run['id'] for run in runs[93:]} <= set(found)
        assert task_runs.pages == 2

    def test_rows_without_a_time_that_come_first_hide_no_others(self, fake: FakePrefect, task_runs: Reader) -> None:
        fake.database = 'postgresql'
        for index in range(10 * PAGE):
            run_task_through(fake, start=at(index))['end_time'] = None
        runs = [run_task_through(fake, start=at(index), seconds=0.5) for index in range(100)]
        assert {run['id'] for run in runs[93:]} <= set(self.read(task_runs, 93))
        assert task_runs.pages == 15

    def test_rows_that_come_between_pages_hide_no_others(self, fake: FakePrefect, task_runs: Reader) -> None:
        runs = [run_task_through(fake, start=at(index), seconds=0.5) for index in range(12)]
        task_runs.meanwhile[1] = lambda: [run_task_through(fake, start=at(50 + index)) for index in range(9)]
        assert set(self.read(task_runs)) >= {run['id'] for run in runs}

    @pytest.mark.parametrize('gone', [1, 3, 4, 5, 6, 8])
    def test_rows_that_vanish_between_pages_hide_no_others(
        self, fake: FakePrefect, task_runs: Reader, gone: int
    ) -> None:
        runs = [run_task_through(fake, start=at(index), seconds=0.5) for index in range(13)]
        task_runs.meanwhile[2] = lambda: [fake.remove(run) for run in runs[-gone:]]
        assert set(self.read(task_runs)) >= {run['id'] for run in runs[:-gone]}

    def test_rows_that_vanish_so_that_nothing_is_left_at_the_reader_hide_no_others(
        self, fake: FakePrefect, task_runs: Reader
    ) -> None:
        runs = [run_task_through(fake, start=at(index), seconds=0.5) for index in range(8)]
        task_runs.meanwhile[1] = lambda: [fake.remove(run) for run in runs[-5:]]
        assert set(self.read(task_runs)) >= {run['id'] for run in runs[:3]}

    def test_rows_that_never_stand_still_are_an_error(self) -> None:
        numbers = count()

        def fetch(body: Row) -> list[MalformedRow]:
            return listed(*({'id': str(next(numbers)), 'end_time': '2026-11-23T08:00:00Z'} for _ in range(PAGE)))

        with pytest.raises(PagingError, match='move'):
            list(pages_newest_first(fetch, {}, TASK_RUNS_BY_END, PAGE, at(-1)))


class TestObjectsByOffset:
    @pytest.fixture
    def work_queues(self, fake: FakePrefect) -> Reader:
        return Reader(fake, '/work_queues/filter')

    @pytest.mark.parametrize('pools', [0, 1, 5, 6, 40])
    def test_every_row_comes_once_though_all_have_the_same_name(
        self, fake: FakePrefect, work_queues: Reader, pools: int
    ) -> None:
        """The fake orders ties anew at each request, as a database may."""
        expected = {fake.default_queue(fake.add_work_pool(f'pool {index}'))['id'] for index in range(pools)}
        found = [row.id for row in rows_by_offset(work_queues, {}, PAGE)]
        assert set(found) <= expected
        assert len(found) == len(set(found))
        # Random ties over many pages may hide a row in each of the few readings.
        assert len(found) >= pools * 0.9

    def test_page_that_repeats_for_ever_is_an_error(self) -> None:
        page = numbered(PAGE)
        with pytest.raises(PagingError, match='repeat'):
            rows_by_offset(lambda body: page, {}, PAGE)

    def test_row_without_id_is_left_to_the_model(self) -> None:
        rows = listed({'id': 'a'}, {'id': None}, {}, {'id': [1]})
        asked: list[Row] = []

        def fetch(body: Row) -> list[MalformedRow]:
            asked.append(body)
            return rows

        assert rows_by_offset(fetch, {}, PAGE) == rows
        assert len(asked) == 1


@pytest.mark.parametrize('size', [1, 2, 3])
@pytest.mark.parametrize('order', [FLOW_RUNS_BY_START, FLOW_RUNS_BY_END], ids=['ascending', 'descending'])
def test_smallest_pages_reach_the_end(fake: FakePrefect, flow_runs: Reader, size: int, order: TimeOrder) -> None:
    expected = {run_through(fake, start=at(index // 2), seconds=0.5)['id'] for index in range(9)}
    assert set(ids(pages_by_time(flow_runs, 'flow_runs', {}, order, size))) == expected


def test_bound_of_a_page_includes_the_last_time_of_the_one_before(fake: FakePrefect, flow_runs: Reader) -> None:
    """Rows of equal time may be cut by the end of a page."""
    for index in range(PAGE + 1):
        run_through(fake, start=at(0) + timedelta(seconds=index - index % 2))
    by_time(flow_runs, FLOW_RUNS_BY_START)
    second = fake.requests[1].body['flow_runs']['start_time']
    assert second == {'after_': '2026-11-23T08:00:04.000000Z'}


class TestByToken:
    """Tokens that stand for an offset, as those of the server do."""

    def read(
        self, rows: list[MalformedRow], meanwhile: dict[int, Callable[[], object]] | None = None
    ) -> list[list[MalformedRow]]:
        """The pages of 5 rows; `meanwhile[n]` happens after the n-th request."""
        self.sizes: list[int] = []
        self.left: list[int] = []
        requests = count(1)

        def page(total: int, size: int, offset: int) -> TokenPage[MalformedRow]:
            token = f'{total} {size} {offset + size}' if offset + size < total else None
            answer = TokenPage(rows[offset : offset + size], total, token)
            (meanwhile or {}).get(next(requests), lambda: None)()
            return answer

        def begin(size: int) -> TokenPage[MalformedRow]:
            self.sizes.append(size)
            return page(len(rows), size, 0)

        pages = []
        for fresh, left in pages_by_token(begin, lambda token: page(*map(int, token.split())), PAGE):
            pages.append(fresh)
            self.left.append(left)
        return pages

    @pytest.mark.parametrize('number', [1, 4, 5, 6, 10, 11])
    def test_all_rows_come_once(self, number: int) -> None:
        rows = numbered(number)
        pages = self.read(rows)
        assert [row for page in pages for row in page] == rows
        assert len(self.sizes) == 1
        assert self.left == [max(0, number - PAGE * (index + 1)) for index in range(len(pages))]

    def test_row_with_an_id_that_is_no_text_comes_too(self) -> None:
        rows = listed({'id': ['1']}, {'id': {}}, {'id': '2'})
        assert self.read(rows) == [rows]

    def test_no_rows_are_no_pages(self) -> None:
        assert self.read([]) == []

    def test_row_that_comes_late_pushes_none_out(self) -> None:
        rows = numbered(12)
        pages = self.read(rows, {1: lambda: rows.insert(0, *listed({'id': 'late'}))})
        assert ids(iter(pages)) == [str(index) for index in range(12)]
        assert len(self.sizes) == 1

    def test_row_that_goes_makes_the_list_be_read_again(self) -> None:
        rows = numbered(12)
        pages = self.read(rows, {1: lambda: rows.pop(0)})
        assert sorted(ids(iter(pages)), key=int) == [str(index) for index in range(12)]
        assert self.sizes == [PAGE, 5]

    def test_ties_in_another_order_on_each_page_are_all_found(self) -> None:
        rows = numbered(12)
        pages = self.read(rows, {1: rows.reverse, 2: rows.reverse})
        assert sorted(ids(iter(pages)), key=int) == [str(index) for index in range(12)]

    def test_rows_without_an_id_are_no_reason_to_read_again(self) -> None:
        rows = listed({}, {'id': '1'}, {'id': None})
        assert self.read(rows) == [rows]
        assert self.sizes == [PAGE]

    def test_page_of_ties_that_were_all_read_before_is_no_error(self) -> None:
        rows = numbered(2 * PAGE)

        def swap() -> None:
            rows[:] = [*rows[PAGE:], *rows[:PAGE]]

        pages = self.read(rows, {1: swap})
        assert pages[1] == []
        assert sorted(ids(iter(pages)), key=int) == [str(index) for index in range(2 * PAGE)]

    def test_page_that_repeats_for_ever_is_an_error(self) -> None:
        page = TokenPage(numbered(1), 2, 'again')
        with pytest.raises(PagingError, match='never end'):
            list(pages_by_token(lambda size: page, lambda token: page, PAGE))

    def test_empty_page_is_the_end_whatever_its_token_says(self) -> None:
        """The total of the first page holds rows that were deleted meanwhile."""
        first, last = TokenPage(numbered(1), 2, 'more'), TokenPage(numbered(0), 2, 'more')
        pages = pages_by_token(lambda size: first, lambda token: last, PAGE)
        assert ids(rows for rows, _ in pages) == ['0']


class TestTooLarge:
    """A page that is too large is read in parts, and a row that is so even alone is passed over by its position."""

    def limited(self, reader: Reader, large: set[str], most: int = PAGE) -> Callable[[dict[str, Any]], list[Any]]:
        """Pages of more than `most` rows are too large, and all pages with one of these rows."""

        def fetch(body: dict[str, Any]) -> list[Any]:
            rows = reader(body)
            if len(rows) > most or any(row.id in large for row in rows):
                raise TooLarge('POST /flow_runs/filter', 'too large')
            return rows

        return fetch

    @pytest.mark.parametrize('order', [FLOW_RUNS_BY_START, FLOW_RUNS_BY_END], ids=['ascending', 'descending'])
    @pytest.mark.parametrize('most', [1, 2, PAGE])
    @pytest.mark.parametrize('large', [(), (0,), (8,), (3, 4, 5), range(9), (4,)], ids=str)
    @pytest.mark.parametrize('per_second', [1, 2])
    def test_every_other_row_comes_once(
        self, fake: FakePrefect, flow_runs: Reader, order: TimeOrder, most: int, large: Sequence[int], per_second: int
    ) -> None:
        runs = [run_through(fake, start=at(index // per_second), seconds=0.5)['id'] for index in range(9)]
        too_large = {runs[index] for index in large}
        pages = list(pages_by_time(self.limited(flow_runs, too_large, most), 'flow_runs', {}, order, PAGE))
        assert set(ids(iter([[row for row in page if row is not TOO_LARGE] for page in pages]))) == {*runs} - too_large
        # Of rows with one time, one may be met again.
        assert sum(row is TOO_LARGE for page in pages for row in page) >= len(too_large)

    @pytest.mark.parametrize('large', [(), (0,), (11,), (3, 4, 5)], ids=str)
    def test_list_by_offset_has_every_other_row(self, large: Sequence[int]) -> None:
        names = [str(index) for index in range(12)]

        def fetch(body: dict[str, Any]) -> list[Any]:
            page = names[body['offset'] :][: body['limit']]
            if any(names[index] in page for index in large):
                raise TooLarge('POST /work_pools/filter', 'too large')
            return listed(*({'id': name} for name in page))

        found = rows_by_offset(fetch, {}, PAGE)
        assert [row.id for row in found if row is not TOO_LARGE] == [
            name for index, name in enumerate(names) if index not in large
        ]
        assert sum(row is TOO_LARGE for row in found) == len(large)

    def test_newest_rows_are_read_past_it(self, fake: FakePrefect) -> None:
        reader = Reader(fake, '/task_runs/filter')
        runs = [run_task_through(fake, start=at(index), seconds=0.5)['id'] for index in range(9)]
        pages = pages_newest_first(self.limited(reader, {runs[4]}), {}, TASK_RUNS_BY_END, PAGE, at(-1))
        assert {row.id for page in pages for row in page if row is not TOO_LARGE} == {*runs} - {runs[4]}

    @pytest.mark.parametrize('most', [1, 7, 49])
    def test_pages_by_token_begin_again_with_smaller_ones(self, most: int) -> None:
        names = [str(index) for index in range(120)]

        def page(offset: int, size: int) -> TokenPage[MalformedRow]:
            if size > most and offset + size > 60:
                raise TooLarge('POST /events/filter', 'too large')
            after = offset + size
            rows = listed(*({'id': name} for name in names[offset:after]))
            return TokenPage(rows, len(names), f'{after} {size}' if after < len(names) else None)

        pages = pages_by_token(lambda size: page(0, size), lambda token: page(*map(int, token.split())), 50)
        assert ids(rows for rows, _ in pages) == names

    @pytest.mark.parametrize('large', [(), (0,), (11,), (3, 4, 5)], ids=str)
    @pytest.mark.parametrize('limit', [1, 5, 12, 200])
    @pytest.mark.parametrize('offset', [None, 2])
    def test_page_that_is_read_in_parts_has_the_rows_of_the_whole(
        self, large: Sequence[int], limit: int, offset: int | None
    ) -> None:
        names = [str(index) for index in range(12)]

        def fetch(body: dict[str, Any]) -> list[Any]:
            page = names[body.get('offset', 0) :][: body['limit']]
            if any(names[index] in page for index in large):
                raise TooLarge('POST /flows/filter', 'too large')
            return listed(*({'id': name} for name in page))

        found = read_in_parts(fetch, {'limit': limit} | ({} if offset is None else {'offset': offset}))
        wanted = range(12)[offset or 0 :][:limit]
        assert [row.id for row in found] == [None if index in large else names[index] for index in wanted]

    def test_limit_that_is_not_honoured_ends_in_an_error(self) -> None:
        asked = count()

        def fetch(body: dict[str, Any]) -> list[Any]:
            next(asked)
            raise TooLarge('POST /work_pools/filter', 'too large')

        with pytest.raises(PagingError, match='20 objects in a row'):
            rows_by_offset(fetch, {}, 200)
        assert next(asked) < 50


@pytest.mark.parametrize('odd', [[], {}, None, 7])
def test_row_with_an_id_of_another_kind_blinds_no_other(odd: object) -> None:
    rows = listed({'id': 'a', 'start_time': format_time(at(1))}, {'id': odd}, {'id': 'b'})
    pages = pages_by_time(lambda body: rows, 'flow_runs', {}, FLOW_RUNS_BY_START, PAGE)
    assert list(pages) == [rows]


def test_list_of_ties_that_always_lacks_a_row_is_left_after_three_more_reads() -> None:
    moment = format_time(at(0))
    rows = listed(*({'id': key, 'timestamp': moment} for key in 'abcd'))
    begun = 0

    def fetch(body: Row) -> list[Any]:
        nonlocal begun
        begun += body.get('offset') == 0
        if body.get('logs', {}).get('timestamp', {}).get('after_', moment) > moment:
            return []
        # The database orders the ties so that two pages are the same.
        return rows[:2] if body.get('offset', 0) < 4 else []

    assert ids(pages_by_time(fetch, 'logs', {}, LOGS_BY_TIME, 2)) == ['a', 'b']
    assert begun == 4
