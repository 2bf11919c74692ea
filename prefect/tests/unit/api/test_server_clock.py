from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from datadog_checks.prefect.api import server_clock
from datadog_checks.prefect.api.server_clock import ServerClock
from tests.unit.harness import START, at


def observe(clock: ServerClock, seconds: float, sent: datetime = START, received: datetime = START) -> float | None:
    """Show it the answer of a server that is so many seconds ahead; how many it did not believe."""
    offset = clock.observe(format_datetime(at(seconds), usegmt=True), sent, received)
    return None if offset is None else offset.total_seconds()


def observed(seconds: float, sent: datetime = START, received: datetime = START) -> ServerClock:
    """A clock that saw two answers of such a server."""
    clock = ServerClock()
    observe(clock, seconds, sent, received)
    observe(clock, seconds, sent, received)
    return clock


@pytest.mark.parametrize('seconds', [90, -90, 3, -7, 3599, -3600])
def test_offset_is_that_of_date_and_half_a_second(seconds: int) -> None:
    assert observed(seconds).offset == timedelta(seconds=seconds + 0.5)


@pytest.mark.parametrize(
    ('seconds', 'offset'),
    [(0, 0), (1, 0), (2, 2.5), (-2, 0), (-6, 0), (-7, -6.5)],
    ids=['0.5', '1.5', '2.5', '-1.5', '-5.5', '-6.5'],
)
def test_offset_under_two_seconds_or_that_of_a_late_date_is_ignored(seconds: int, offset: float) -> None:
    assert observed(seconds).offset == timedelta(seconds=offset)


def test_offset_of_exactly_two_seconds_counts() -> None:
    assert observed(2, sent=at(0.5), received=at(0.5)).offset == timedelta(seconds=2)


def test_offset_is_taken_at_the_middle_of_the_request() -> None:
    assert observed(60, sent=at(0), received=at(5)).offset == timedelta(seconds=58)


@pytest.mark.parametrize('seconds', [0, 90])
def test_slow_answer_that_contradicts_nothing_moves_no_time(seconds: int) -> None:
    clock = observed(seconds)
    before = clock.offset
    for written in (1, 19):
        header = format_datetime(at(seconds + written), usegmt=True)
        clock.observe(header, at(0), at(20))
        assert clock.offset == before


def test_late_dates_of_a_busy_server_move_no_time() -> None:
    clock = observed(90)
    for late in (4, 5, 3, 5):
        observe(clock, 90 - late)
        assert clock.offset == timedelta(seconds=90.5)


def test_estimate_from_late_dates_is_mended_by_fresh_ones() -> None:
    clock = observed(90 - 4)
    observe(clock, 90)
    observe(clock, 90)
    assert clock.offset == timedelta(seconds=90.5)


def test_clock_that_agrees_again_has_no_offset() -> None:
    clock = observed(90)
    observe(clock, 0)
    observe(clock, 0)
    assert clock.offset == timedelta()


class TestJump:
    @pytest.mark.parametrize('before', [0, 90])
    @pytest.mark.parametrize('odd', [-600, 600, 3000, 10**6, 2 * 10**9])
    def test_one_answer_moves_no_time(self, before: int, odd: int) -> None:
        """It may come out of a cache, or from another server behind the same name."""
        clock = observed(before)
        offset = clock.offset
        for seconds in (odd, before, odd, before):
            assert observe(clock, seconds) is None
            assert clock.offset == offset

    def test_answers_that_agree_with_none_before_move_no_time(self) -> None:
        clock = observed(90)
        for seconds in (200, 300, 400, 500):
            observe(clock, seconds)
        assert clock.offset == timedelta(seconds=90.5)

    def test_is_in_doubt_until_the_next_answer(self) -> None:
        clock = observed(0)
        assert not clock.is_in_doubt
        observe(clock, 90)
        assert clock.is_in_doubt
        observe(clock, 91)
        assert not clock.is_in_doubt
        assert clock.offset == timedelta(seconds=91.5)

    @pytest.mark.parametrize('seconds', [3601, -3603, 10**6, 2 * 10**9, -2 * 10**9])
    @pytest.mark.parametrize('before', [0, 90])
    def test_above_an_hour_is_never_believed(self, before: int, seconds: int) -> None:
        clock = observed(before)
        assert observe(clock, seconds) is None
        assert observe(clock, seconds) == seconds + 0.5
        assert clock.offset == timedelta()
        assert observe(clock, seconds) is None
        assert observe(clock, seconds) == seconds + 0.5


@pytest.mark.parametrize(
    'header', [None, '', 'garbage', '2026-11-23T08:00:00Z', 'Mon, 99 Nov 2026 08:00:00 GMT', '0' * 5000]
)
def test_unusable_date_keeps_the_last_estimate(header: str | None) -> None:
    clock = observed(90)
    clock.observe(header, START, START)
    assert clock.offset == timedelta(seconds=90.5)


@pytest.mark.parametrize(
    'header', ['Mon, 23 Nov 2026 08:01:00 GMT', 'Mon, 23 Nov 2026 08:01:00 -0000', 'Mon, 23 Nov 2026 09:01:00 +0100']
)
def test_any_zone_will_do(header: str) -> None:
    clock = ServerClock()
    for _ in range(2):
        clock.observe(header, START, START.astimezone(timezone(timedelta(hours=-8))))
    assert clock.offset == timedelta(seconds=60.5)


def test_now_is_the_agents_time_and_the_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_clock, 'local_now', lambda: START)
    assert ServerClock().now() == START
    assert observed(90).now() == at(90.5)


def test_time_of_the_agent_has_a_zone() -> None:
    assert server_clock.local_now().utcoffset() == timedelta()
