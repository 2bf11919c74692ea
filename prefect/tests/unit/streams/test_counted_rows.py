from __future__ import annotations

from collections.abc import Iterable

from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.streams.counted_rows import CountedRow, CountedRows
from tests.unit.harness import at


def rows(*seconds: float) -> list[CountedRow]:
    """One row at each of these seconds, with an id that says when."""
    return [CountedRow(at(second), f'at {second}') for second in seconds]


def counted(found: Iterable[CountedRow], since: float = 0, horizon: float = 0) -> CountedRows:
    known = CountedRows()
    known.remember(list(found), at(since), at(horizon))
    return known


def test_nothing_is_known_at_the_beginning() -> None:
    known = CountedRows()
    assert not known.knows(at(0))
    assert known.count(TimeRange(at(0), None)) == 0


def test_rows_are_counted_from_the_first_moment_up_to_the_last() -> None:
    known = counted(rows(3, 1, 2))

    assert known.count(TimeRange(at(1), at(3))) == 2
    assert known.ids(TimeRange(at(1), at(3))) == ['at 1', 'at 2']
    assert known.ids(TimeRange(at(2), None)) == ['at 2', 'at 3']


def test_row_counts_once_for_each_of_its_times() -> None:
    known = counted([CountedRow(at(1), 'a'), CountedRow(at(1), 'a'), CountedRow(at(2), 'a')])

    assert known.ids(TimeRange(at(0), None)) == ['a', 'a']


def test_row_that_comes_late_is_put_where_it_belongs() -> None:
    known = counted(rows(1, 3, 5))
    known.remember(rows(2, 3), at(0), at(0))

    assert known.ids(TimeRange(at(0), None)) == ['at 1', 'at 2', 'at 3', 'at 5']


def test_what_is_older_than_the_horizon_is_forgotten() -> None:
    known = counted(rows(1, 2, 3))
    known.remember([], at(0), at(2))

    assert known.ids(TimeRange(at(0), None)) == ['at 2', 'at 3']


def test_it_knows_what_came_since_the_earliest_complete_read() -> None:
    known = counted(rows(20), since=10)
    assert known.knows(at(10))
    assert not known.knows(at(9))

    known.remember(rows(30), at(25), at(0))
    assert known.knows(at(10))
    known.remember(rows(7), at(5), at(0))
    assert known.knows(at(5))
