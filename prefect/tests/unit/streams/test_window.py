from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.streams import window as window_module
from datadog_checks.prefect.streams.counted_rows import CountedRows
from datadog_checks.prefect.streams.cursor import StreamCursor
from datadog_checks.prefect.streams.window import OVERLAP, StreamWindow
from tests.unit.harness import LOG, START, at

HOUR = timedelta(hours=1)


def window(cursor: StreamCursor | None, seconds: float, max_catchup: timedelta = HOUR) -> StreamWindow:
    """A read so many seconds after the start."""
    return StreamWindow('runs', cursor, at(seconds), max_catchup, LOG)


def read(cursor: StreamCursor | None, seconds: float, happenings: Iterable[float]) -> tuple[list[float], StreamCursor]:
    """What is new among what happened at these seconds (the identity of each is its time), and the next cursor.

    As from the server, only what is not older than `since` comes into the window.
    """
    current = window(cursor, seconds)
    shown = [second for second in happenings if at(second) >= current.since]
    found = [second for second in shown if current.is_new(str(second), at(second))]
    return found, current.next_cursor()


@pytest.fixture
def cursor() -> StreamCursor:
    """A stream that was first read at the start."""
    return window(None, 0).next_cursor()


@dataclass
class StubRun:
    id: str


def span_holds(time_range: TimeRange, second: float) -> bool:
    return time_range.since <= at(second) and (time_range.until is None or at(second) < time_range.until)


class TestFirstRead:
    def test_it_reads_nothing_back(self) -> None:
        assert window(None, 0).is_first
        assert window(None, 0).since == START
        assert read(None, 0, [-1, 0]) == ([], StreamCursor(floor=START, until=START))

    def test_what_happened_before_it_never_counts(self, cursor: StreamCursor) -> None:
        assert read(cursor, 15, [-100, -1, 0, 0.000001, 1])[0] == [0.000001, 1]
        assert not window(cursor, 15).is_first


class TestOverlap:
    def test_read_reaches_back_by_the_overlap(self, cursor: StreamCursor) -> None:
        _, cursor = read(cursor, 1000, [])
        assert window(cursor, 1015).since == at(1000) - OVERLAP

    def test_read_never_reaches_back_beyond_the_floor(self, cursor: StreamCursor) -> None:
        assert window(cursor, 15).since == START

    def test_happening_counts_once_over_all_reads_that_show_it(self, cursor: StreamCursor) -> None:
        counted: list[float] = []
        for seconds in range(15, 400, 15):
            found, cursor = read(cursor, seconds, [10, 20.5])
            counted += found
        assert counted == [10, 20.5]

    def test_happening_that_shows_late_counts(self, cursor: StreamCursor) -> None:
        for seconds in (15, 30, 45, 60, 75, 90, 105, 120):
            _, cursor = read(cursor, seconds, [])
        assert read(cursor, 135, [5])[0] == [5]

    def test_identity_that_comes_twice_in_one_read_counts_once(self, cursor: StreamCursor) -> None:
        assert read(cursor, 15, [5, 5])[0] == [5]

    def test_same_happening_at_another_time_is_another(self, cursor: StreamCursor) -> None:
        current = window(cursor, 60)
        run = StubRun('a')
        assert current.is_new_for(run, at(5))
        assert not current.is_new_for(run, at(5))
        assert current.is_new_for(run, at(6))

    def test_identities_are_forgotten_once_they_cannot_show_again(self, cursor: StreamCursor) -> None:
        _, cursor = read(cursor, 15, [10])
        _, cursor = read(cursor, 200, [150])
        assert len(cursor.seen) == 2
        _, cursor = read(cursor, 300, [])
        assert len(cursor.seen) == 1
        _, cursor = read(cursor, 600, [])
        assert cursor.seen == {}

    def test_identities_outlive_the_next_overlap(self, cursor: StreamCursor) -> None:
        _, cursor = read(cursor, 15, [10])
        _, cursor = read(cursor, 16, [])
        assert at(10) >= window(cursor, 130).since
        assert read(cursor, 130, [10])[0] == []


class TestCatchUp:
    def test_missed_reads_are_caught_up(self, cursor: StreamCursor, caplog: pytest.LogCaptureFixture) -> None:
        _, cursor = read(cursor, 1000, [])
        assert window(cursor, 4000).since == at(1000) - OVERLAP
        assert read(cursor, 4000, [1001, 2000, 3999])[0] == [1001, 2000, 3999]
        assert not caplog.records

    def test_catch_up_is_cut_with_one_warning_that_says_how_much(
        self, cursor: StreamCursor, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert window(cursor, 10_000).since == at(10_000) - HOUR
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage().startswith('runs: not read since 2026-11-23T08:00:00.000000Z')
        assert '2026-11-23T09:46:40.000000Z' in record.getMessage()

    def test_cut_within_the_overlap_loses_nothing_and_says_nothing(
        self, cursor: StreamCursor, caplog: pytest.LogCaptureFixture
    ) -> None:
        _, cursor = read(cursor, 1000, [])
        assert window(cursor, 4600).since == at(1000)
        assert not caplog.records

    def test_catch_up_shorter_than_the_overlap_does_not_cut_it(self, cursor: StreamCursor) -> None:
        _, cursor = read(cursor, 1000, [])
        assert window(cursor, 1000, timedelta()).since == at(1000) - OVERLAP


class TestCut:
    """A read that left what happened after a time to the next one."""

    def cut(self, cursor: StreamCursor, seconds: float, reached: float, happenings: Iterable[float]) -> StreamCursor:
        current = window(cursor, seconds)
        for second in happenings:
            assert current.is_new(str(second), at(second))
        current.cut(at(reached))
        return current.next_cursor()

    def test_next_read_goes_on_there(self, cursor: StreamCursor) -> None:
        cursor = self.cut(cursor, 60, 20.5, [10, 20.5])
        assert cursor.until == at(60)
        assert window(cursor, 75).time_ranges == (TimeRange(at(20), at(195)),)
        assert read(cursor, 75, [10, 20.5, 21, 50])[0] == [21, 50]

    def test_what_comes_late_before_it_is_found(self, cursor: StreamCursor) -> None:
        _, cursor = read(cursor, 300, [])
        cursor = self.cut(cursor, 315, 310.5, [250, 310.5])
        current = window(cursor, 330)
        assert current.time_ranges == (TimeRange(at(195), at(211)), TimeRange(at(310), at(450)))
        assert current.time_ranges_to_read(lambda time_range: 1) == current.time_ranges
        assert current.time_ranges_to_read(lambda time_range: 2) == (TimeRange(at(195), at(450)),)

    @pytest.mark.parametrize('later', [121, 300, 1000, 3000])
    def test_nothing_before_it_is_read_again_once_the_overlap_has_passed(
        self, cursor: StreamCursor, later: float
    ) -> None:
        cursor = self.cut(cursor, 200, 20.5, [10, 20.25, 20.5])
        assert window(cursor, 200 + later).since == at(20)
        assert read(cursor, 200 + later, [20.25, 20.5, 20.75, 30])[0] == [20.75, 30]

    def test_identities_are_kept_as_long_as_they_may_be_read_again(self, cursor: StreamCursor) -> None:
        cursor = self.cut(cursor, 200, 20.5, [10, 20.25, 20.5])
        cursor = self.cut(cursor, 2000, 20.75, [20.75])
        assert read(cursor, 3000, [20.25, 20.5, 20.75, 20.8])[0] == [20.8]
        assert len(cursor.seen) == 3

    def test_reader_that_is_behind_is_no_gap_to_catch_up(
        self, cursor: StreamCursor, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It was there all the time: `max_catchup` is for what nobody looked at."""
        cursor = self.cut(cursor, 3000, 20, [20])
        cursor = self.cut(cursor, 6000, 30, [30])
        assert window(cursor, 7000).since == at(30)
        assert not caplog.records

    def test_gap_afterwards_is_cut_like_any_other(self, cursor: StreamCursor, caplog: pytest.LogCaptureFixture) -> None:
        cursor = self.cut(cursor, 3000, 20, [20])
        assert window(cursor, 10_000).since == at(10_000) - HOUR
        assert len(caplog.records) == 1

    def test_read_to_the_end_is_cut_no_more(self, cursor: StreamCursor) -> None:
        cursor = self.cut(cursor, 60, 20.5, [20.5])
        _, cursor = read(cursor, 75, [30])
        assert cursor.reached is None


class TestClockThatJumpsBack:
    @pytest.mark.parametrize('step', [1, 60, 120])
    def test_small_step_counts_all_once(
        self, cursor: StreamCursor, caplog: pytest.LogCaptureFixture, step: float
    ) -> None:
        counted, cursor = read(cursor, 1000, [900, 990])
        now = 1000 - step
        found, cursor = read(cursor, now, [900, 990, now - 0.5])
        counted += found
        found, cursor = read(cursor, now + 15, [900, 990, now - 0.5, now + 10])
        counted += found
        assert counted == [900, 990, now - 0.5, now + 10]
        assert not caplog.records

    def test_large_step_counts_nothing_of_that_read_and_goes_on_from_there(
        self, cursor: StreamCursor, caplog: pytest.LogCaptureFixture
    ) -> None:
        _, cursor = read(cursor, 3000, [500, 2000])
        found, cursor = read(cursor, 1000, [950, 999, 2000])
        assert found == []
        (record,) = caplog.records
        assert 'jumped back by 2000 s' in record.getMessage()
        assert cursor.until == at(1000)
        assert read(cursor, 1015, [950, 999, 1010, 2000])[0] == [1010]
        assert len(caplog.records) == 1

    def test_step_to_before_the_first_read_does_not_stop_the_stream(self, cursor: StreamCursor) -> None:
        """The clock was wrong when the stream was first read."""
        _, cursor = read(cursor, 15, [10])
        assert read(cursor, -3600, [-3601, -3599, -100, 10])[0] == []
        _, cursor = read(cursor, -3600, [-3601, -100, 10])
        assert read(cursor, -3585, [-3601, -3590, -100, 10])[0] == [-3590]


class TestCap:
    def test_oldest_identities_are_dropped_with_a_warning(
        self, cursor: StreamCursor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(window_module, '_SEEN_CAP', 10)
        found, cursor = read(cursor, 60, range(1, 13))
        assert found == list(range(1, 13))
        assert sorted(cursor.seen.values()) == [int(at(second).timestamp()) for second in range(3, 13)]
        (record,) = caplog.records
        assert '12 identities' in record.getMessage()
        assert 'oldest 2 are dropped' in record.getMessage()

    def test_full_but_not_overfull_memory_says_nothing(
        self, cursor: StreamCursor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(window_module, '_SEEN_CAP', 10)
        _, cursor = read(cursor, 60, range(1, 11))
        assert len(cursor.seen) == 10
        assert not caplog.records


def test_identities_do_not_collide(cursor: StreamCursor) -> None:
    assert len(read(cursor, 60, [index / 1000 for index in range(1, 20_000)])[0]) == 19_999


class TestRead:
    """Which rows are asked for: those of two time ranges, and all if the number of those between them has changed."""

    def time_ranges(
        self, cursor: StreamCursor, seconds: float, shown: Iterable[float]
    ) -> list[tuple[float, float | None]]:
        """The time ranges that are read when these happenings show, in seconds from the start."""
        asked: list[tuple[float, float | None]] = []

        def rows(time_range: TimeRange) -> list[StubRun]:
            asked.append(
                (
                    (time_range.since - START).total_seconds(),
                    time_range.until and (time_range.until - START).total_seconds(),
                )
            )
            return []

        def count(time_range: TimeRange) -> int:
            return sum(span_holds(time_range, second) for second in shown)

        window(cursor, seconds).read(rows, count)
        return asked

    def test_first_read_asks_for_nothing(self) -> None:
        assert window(None, 0).time_ranges == ()

    def test_what_was_seen_is_not_read_again(self, cursor: StreamCursor) -> None:
        happened = [200, 250, 290]
        _, cursor = read(cursor, 300, happened)
        assert self.time_ranges(cursor, 315, happened) == [(180, 196), (298, 435)]

    @pytest.mark.parametrize('shown', [[200, 250, 280, 290], [200, 290], []], ids=['one more', 'one less', 'none'])
    def test_other_number_than_was_seen_reads_all(self, cursor: StreamCursor, shown: list[float]) -> None:
        _, cursor = read(cursor, 300, [200, 250, 290])
        assert self.time_ranges(cursor, 315, shown) == [(180, 435)]

    def test_catch_up_reads_all(self, cursor: StreamCursor) -> None:
        _, cursor = read(cursor, 300, [])
        assert self.time_ranges(cursor, 600, []) == [(180, 720)]

    @pytest.mark.parametrize('interval', [1, 15, 60, 119, 121, 600])
    def test_every_moment_is_read_again_when_its_row_must_show(self, cursor: StreamCursor, interval: float) -> None:
        """Even if one row comes late while another goes, so that their number stays the same."""
        read_again: set[int] = set()
        _, cursor = read(cursor, 1000, [])
        for index in range(1, 2 + int(1200 / interval)):
            now = 1000 + index * interval
            current = window(cursor, now)
            moments = [moment for moment in range(1000, 1900) if now >= moment + OVERLAP.total_seconds()]
            read_again |= {
                moment
                for moment in moments
                if any(span_holds(time_range, moment) for time_range in current.time_ranges)
            }
            cursor = current.next_cursor()
        assert read_again == set(range(1000, 1900))


class TestReadOfKnownRows:
    """With the ids of what was counted, only what is fresh is read while these rows, and no others, are there."""

    def follow(self, shown: Callable[[float], dict[str, float]], until: int) -> tuple[list[str], list[list[float]]]:
        """The ids that are counted over reads every 15 s, and the begins of the time ranges of each read.

        `shown` are the rows that the server has at that second, with the second at which each happened.
        """
        counted_rows = CountedRows()
        cursor: StreamCursor | None = None
        counted: list[str] = []
        begins: list[list[float]] = []
        for now in range(0, until, 15):
            rows = shown(now)
            current = StreamWindow('runs', cursor, at(now), HOUR, LOG, counted_rows)
            asked: list[float] = []

            def read_rows(
                time_range: TimeRange, rows: dict[str, float] = rows, asked: list[float] = asked
            ) -> list[StubRun]:
                asked.append((time_range.since - START).total_seconds())
                return [StubRun(key) for key, second in rows.items() if span_holds(time_range, second)]

            def count(time_range: TimeRange, rows: dict[str, float] = rows) -> int:
                return sum(span_holds(time_range, second) for second in rows.values())

            def count_of(time_range: TimeRange, ids: list[str], rows: dict[str, float] = rows) -> int:
                return sum(span_holds(time_range, rows[key]) for key in set(ids) if key in rows)

            found = current.read(read_rows, count, count_of)
            counted += [run.id for run in found if current.is_new_for(run, at(rows[run.id]))]
            cursor = current.next_cursor()
            begins.append(asked)
        return counted, begins

    def test_only_what_is_fresh_is_read(self) -> None:
        happened = {f'run {second}': second + 0.5 for second in range(0, 600, 7)}
        counted, begins = self.follow(
            lambda now: {key: second for key, second in happened.items() if second <= now}, 600
        )
        assert sorted(counted) == sorted(key for key, second in happened.items() if second <= 585)
        assert [len(asked) for asked in begins] == [0, *[1] * 39]
        assert begins[30] == [30 * 15 - 15 - 2]

    def test_row_that_comes_late_while_another_goes_is_counted(self) -> None:
        """Their number stays the same: it shows in the rows themselves, before the overlap leaves them behind."""

        def shown(now: float) -> dict[str, float]:
            return {'goes': 200.5} if now < 240 else {'comes': 201.5}

        counted, begins = self.follow(shown, 600)
        assert counted == ['goes', 'comes']
        assert max(len(asked) for asked in begins) == 2

    def test_row_that_comes_late_is_counted_at_once(self) -> None:
        def shown(now: float) -> dict[str, float]:
            return {'a': 200.5, **({'late': 150.5} if now >= 240 else {})}

        counted, begins = self.follow(shown, 255)
        assert counted == ['a', 'late']
        assert begins[-1] == [240 - 15 - OVERLAP.total_seconds()]
