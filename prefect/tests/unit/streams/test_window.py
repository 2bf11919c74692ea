from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.streams import window as window_module
from datadog_checks.prefect.streams.cursor import StreamCursor
from datadog_checks.prefect.streams.known_rows import KnownRows
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
        assert window(cursor, 75).time_ranges() == (TimeRange(at(20.5), at(195)),)
        assert read(cursor, 75, [10, 20.5, 21, 50])[0] == [21, 50]

    def test_what_comes_late_before_it_is_found(self, cursor: StreamCursor) -> None:
        _, cursor = read(cursor, 300, [])
        cursor = self.cut(cursor, 315, 310.5, [250, 310.5])
        assert window(cursor, 330).time_ranges() == (TimeRange(at(195), at(210)), TimeRange(at(310.5), at(450)))

    @pytest.mark.parametrize('later', [121, 300, 1000, 3000])
    def test_nothing_before_it_is_read_again_once_the_overlap_has_passed(
        self, cursor: StreamCursor, later: float
    ) -> None:
        cursor = self.cut(cursor, 200, 20.5, [10, 20.25, 20.5])
        assert window(cursor, 200 + later).since == at(20.5)
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
        monkeypatch.setattr(window_module, 'MOST_SEEN', 10)
        found, cursor = read(cursor, 60, range(1, 13))
        assert found == list(range(1, 13))
        assert sorted(cursor.seen.values()) == [int(at(second).timestamp()) for second in range(3, 13)]
        (record,) = caplog.records
        assert '12 identities' in record.getMessage()
        assert 'oldest 2 are dropped' in record.getMessage()

    def test_full_but_not_overfull_memory_says_nothing(
        self, cursor: StreamCursor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(window_module, 'MOST_SEEN', 10)
        _, cursor = read(cursor, 60, range(1, 11))
        assert len(cursor.seen) == 10
        assert not caplog.records


def test_identities_do_not_collide(cursor: StreamCursor) -> None:
    assert len(read(cursor, 60, [index / 1000 for index in range(1, 20_000)])[0]) == 19_999


class TestReadWithoutCounts:
    """What is new, and what the overlap is about to leave behind."""

    def test_first_read_asks_for_nothing(self) -> None:
        assert window(None, 0).time_ranges() == ()

    def test_what_was_seen_is_read_again_once(self, cursor: StreamCursor) -> None:
        _, cursor = read(cursor, 300, [200, 250, 290])
        assert window(cursor, 315).time_ranges() == (TimeRange(at(180), at(195)), TimeRange(at(298), at(435)))

    def test_catch_up_reads_all(self, cursor: StreamCursor) -> None:
        _, cursor = read(cursor, 300, [])
        assert window(cursor, 600).everything == TimeRange(at(180), at(720))
        assert [item.since for item in window(cursor, 600).time_ranges()] == [at(180), at(298)]

    @pytest.mark.parametrize('interval', [1, 15, 60, 119, 121, 600])
    def test_every_moment_is_read_again_when_its_row_must_show(self, cursor: StreamCursor, interval: float) -> None:
        read_again: set[int] = set()
        _, cursor = read(cursor, 1000, [])
        for index in range(1, 2 + int(1200 / interval)):
            now = 1000 + index * interval
            current = window(cursor, now)
            time_ranges = current.time_ranges()
            moments = [moment for moment in range(1000, 1900) if now > moment + OVERLAP.total_seconds()]
            read_again |= {
                moment for moment in moments if any(time_range.holds(at(moment)) for time_range in time_ranges)
            }
            cursor = current.next_cursor()
        assert read_again == set(range(1000, 1900))


class TestReadWithCount:
    """What the overlap leaves behind is read again, and everything if the number of rows is another one."""

    @pytest.mark.parametrize(
        ('shown', 'begins'),
        [
            ([200, 250, 290], [180, 298]),
            ([200, 250, 280, 290], [180]),
            ([200, 290], [180]),
            ([], [180]),
        ],
        ids=['as many', 'one more', 'one less', 'none'],
    )
    def test_other_number_than_is_known_reads_everything(
        self, cursor: StreamCursor, shown: list[float], begins: list[float]
    ) -> None:
        current = window(cursor, 300)
        current.time_ranges()
        current.select_new([StubRun(f'{second}') for second in (200, 250, 290)], lambda run: at(float(run.id)))
        following = StreamWindow('runs', current.next_cursor(), at(315), HOUR, LOG, current.next_known())

        def count(time_range: TimeRange) -> int:
            return sum(time_range.holds(at(second)) for second in shown)

        assert [item.since for item in following.time_ranges(count)] == [at(second) for second in begins]

    def test_after_a_start_everything_is_read(self, cursor: StreamCursor) -> None:
        _, cursor = read(cursor, 300, [])
        assert window(cursor, 315).time_ranges(lambda time_range: 0) == (window(cursor, 315).everything,)


class TestReadWithCounts:
    """Only what is new is read while the rows that were read before, and no others, are there."""

    def follow(
        self, shown: Callable[[float], dict[str, float]], until: int, most_requests: int = 3
    ) -> tuple[list[str], list[list[float]]]:
        """The ids that are counted, read by read, and the begins of the time ranges of each read.

        `shown` are the rows that the server has at that second, with the second at which each happened. The number of
        requests is that of a read of what is new, of what is about to leave, and of a count, or less.
        """
        known = KnownRows()
        cursor: StreamCursor | None = None
        counted: list[str] = []
        begins: list[list[float]] = []
        for now in range(0, until, 15):
            rows = shown(now)
            current = StreamWindow('runs', cursor, at(now), HOUR, LOG, known)
            asked: list[float] = []
            counts: list[TimeRange] = []

            def read_rows(
                time_range: TimeRange, rows: dict[str, float] = rows, asked: list[float] = asked
            ) -> list[StubRun]:
                asked.append((time_range.since - START).total_seconds())
                return [StubRun(key) for key, second in rows.items() if time_range.holds(at(second))]

            def count(
                time_range: TimeRange,
                ids: list[str] | None = None,
                rows: dict[str, float] = rows,
                counts: list[TimeRange] = counts,
            ) -> int:
                counts.append(time_range)
                return sum(time_range.holds(at(second)) and (ids is None or key in ids) for key, second in rows.items())

            found = current.read(read_rows, count, count)
            counted += [run.id for run in current.select_new(found, lambda run, rows=rows: at(rows[run.id]))]  # type: ignore[misc]
            cursor, known = current.next_cursor(), current.next_known()
            begins.append(asked)
            assert len(asked) + len(counts) <= most_requests
        return counted, begins

    def test_only_what_is_new_is_read(self) -> None:
        happened = {f'run {second}': second + 0.5 for second in range(0, 600, 7)}
        counted, begins = self.follow(
            lambda now: {key: second for key, second in happened.items() if second <= now}, 600
        )
        assert sorted(counted) == sorted(key for key, second in happened.items() if second <= 585)
        assert [len(asked) for asked in begins] == [0, *[1] * 39]
        assert begins[30] == [30 * 15 - 15 - 2]

    @pytest.mark.parametrize('late', [130.5, 199.5, 200.5, 201.5])
    def test_row_that_comes_late_while_another_goes_is_counted_at_once(self, late: float) -> None:
        """Their number stays the same, and the older of the two may leave the overlap first."""

        def shown(now: float) -> dict[str, float]:
            return {'goes': 200.5} if now < 240 else {'comes': late}

        counted, begins = self.follow(shown, 255)
        assert counted == ['goes', 'comes']
        assert begins[-1] == [240 - 15 - OVERLAP.total_seconds()]

    def test_row_that_comes_late_is_counted_at_once(self) -> None:
        def shown(now: float) -> dict[str, float]:
            return {'a': 200.5, **({'late': 150.5} if now >= 240 else {})}

        counted, begins = self.follow(shown, 255)
        assert counted == ['a', 'late']
        assert begins[-1] == [240 - 15 - OVERLAP.total_seconds()]

    def test_row_that_goes_is_one_read_of_everything(self) -> None:
        def shown(now: float) -> dict[str, float]:
            return {'a': 200.5, 'b': 201.5} if now < 240 else {'a': 200.5}

        counted, begins = self.follow(shown, 600)
        assert counted == ['a', 'b']
        assert begins[16:19] == [[105.0], [238.0], [253.0]]

    @pytest.mark.parametrize('late', [180.5, 185.5, 190.5])
    def test_of_more_rows_than_go_into_a_request_those_that_leave_are_looked_at(
        self, monkeypatch: pytest.MonkeyPatch, late: float
    ) -> None:
        """An older row comes late while a younger one goes, which the overlap still holds when the other leaves it."""
        monkeypatch.setattr(window_module, '_IDS_PER_REQUEST', 4)
        happened = {f'run {second}': second + 0.25 for second in range(0, 400, 5)}

        def shown(now: float) -> dict[str, float]:
            rows = {key: second for key, second in happened.items() if second <= now}
            if now < 240:
                return rows
            return {key: second for key, second in rows.items() if key != 'run 215'} | {'late': late}

        counted, _ = self.follow(shown, 400, most_requests=7)
        assert sorted(counted) == sorted({*(key for key, second in happened.items() if second <= 390), 'late'})

    def test_read_that_is_given_up_is_read_again(self) -> None:
        """Nothing changes in what a window is made of."""
        first = window(None, 0)
        cursor, known = first.next_cursor(), first.next_known()

        def counted() -> list[str]:
            current = StreamWindow('runs', cursor, at(15), HOUR, LOG, known)
            found = current.read(lambda time_range: [StubRun('a')])
            new = current.select_new(found, lambda run: at(5))
            current.next_cursor()
            current.next_known()
            return [run.id for run in new]

        assert counted() == counted() == ['a']
