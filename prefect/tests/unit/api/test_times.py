from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from datadog_checks.prefect.api.times import RESOLUTION, format_time, is_due, parse_time


@pytest.mark.parametrize(
    ('text', 'time'),
    [
        ('2026-11-23T08:00:00Z', datetime(2026, 11, 23, 8, tzinfo=UTC)),
        ('2026-11-23T08:00:00.597974Z', datetime(2026, 11, 23, 8, 0, 0, 597974, tzinfo=UTC)),
        ('2026-11-23T08:00:00.5+00:00', datetime(2026, 11, 23, 8, 0, 0, 500000, tzinfo=UTC)),
        ('2026-11-23T10:30:00+02:30', datetime(2026, 11, 23, 8, tzinfo=UTC)),
    ],
)
def test_time_of_any_zone_is_read_as_utc(text: str, time: datetime) -> None:
    assert parse_time(text) == time
    assert parse_time(text).tzinfo is UTC


@pytest.mark.parametrize('text', ['', 'now', '2026-11-23T08:00:00', '2026-11-23', '2026-13-01T00:00:00Z'])
def test_what_is_no_time_with_a_zone_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r'.'):
        parse_time(text)


@pytest.mark.parametrize('microsecond', [0, 1, 597974, 999999])
def test_written_time_has_all_six_digits_and_is_read_back(microsecond: int) -> None:
    time = datetime(2026, 11, 23, 8, 0, 0, microsecond, tzinfo=UTC)
    assert format_time(time) == f'2026-11-23T08:00:00.{microsecond:06}Z'
    assert parse_time(format_time(time)) == time


def test_time_is_written_in_utc() -> None:
    time = datetime(2026, 11, 23, 3, tzinfo=timezone(timedelta(hours=-5)))
    assert format_time(time) == '2026-11-23T08:00:00.000000Z'


def test_resolution_is_the_last_digit() -> None:
    time = datetime(2026, 11, 23, 8, tzinfo=UTC)
    assert format_time(time + RESOLUTION) == '2026-11-23T08:00:00.000001Z'


@pytest.mark.parametrize(
    ('seconds', 'expected'), [(None, True), (0, False), (59, False), (60, True), (3600, True), (-1, True)]
)
def test_is_due_once_the_interval_is_over_and_when_the_clock_stepped_back(seconds: int | None, expected: bool) -> None:
    asked_at = datetime(2026, 11, 23, 8, tzinfo=UTC)
    now = asked_at + timedelta(seconds=seconds or 0)
    assert is_due(None if seconds is None else asked_at, now, timedelta(seconds=60)) is expected
