from __future__ import annotations

from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.streams.known_rows import KnownRow, KnownRows
from tests.unit.harness import at

ALL = TimeRange(at(0), None)


def rows(*seconds: float) -> list[KnownRow]:
    """One row at each of these seconds, with an id that says when."""
    return [KnownRow(at(second), f'at {second}') for second in seconds]


def known(*found: KnownRow, since: float = 0) -> KnownRows:
    return KnownRows().after_read(found, at(since), at(0))


def test_nothing_is_known_at_the_beginning() -> None:
    assert not KnownRows().is_complete(at(0))
    assert KnownRows().ids(ALL) == []


def test_a_time_range_goes_from_the_first_moment_up_to_the_last() -> None:
    assert known(*rows(3, 1, 2)).ids(TimeRange(at(1), at(3))) == ['at 1', 'at 2']
    assert known(*rows(3, 1, 2)).ids(TimeRange(at(2), None)) == ['at 2', 'at 3']


def test_row_is_there_once_for_each_of_its_times() -> None:
    assert known(KnownRow(at(1), 'a'), KnownRow(at(1), 'a'), KnownRow(at(2), 'a')).ids(ALL) == ['a', 'a']


def test_what_was_read_anew_takes_the_place_of_what_was_known() -> None:
    assert known(*rows(1, 3, 5)).after_read(rows(4, 6), at(3), at(0)).ids(ALL) == ['at 1', 'at 4', 'at 6']


def test_older_row_that_is_found_by_the_way_is_put_where_it_belongs() -> None:
    assert known(*rows(1, 3, 5)).after_read(rows(2, 3, 5), at(5), at(0)).ids(ALL) == ['at 1', 'at 2', 'at 3', 'at 5']


def test_what_is_older_than_the_horizon_is_forgotten() -> None:
    assert known(*rows(1, 2, 3)).after_read(rows(0.5, 1.5), at(9), at(2)).ids(ALL) == ['at 2', 'at 3']


def test_all_is_known_since_the_earliest_read() -> None:
    first = known(*rows(20), since=10)
    assert first.is_complete(at(10))
    assert not first.is_complete(at(9))
    assert first.after_read(rows(30), at(25), at(0)).is_complete(at(10))
    assert first.after_read(rows(7), at(5), at(0)).is_complete(at(5))


def test_what_was_known_before_stays_as_it_was() -> None:
    before = known(*rows(1, 3))
    before.after_read(rows(2, 4), at(2), at(1))
    assert before.ids(ALL) == ['at 1', 'at 3']
