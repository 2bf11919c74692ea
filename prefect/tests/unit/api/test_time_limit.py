from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest

from datadog_checks.prefect.api.time_limit import BoundedCaller, TookTooLong


@pytest.fixture
def forever() -> Iterator[Event]:
    """What a call waits for; it is over with the test."""
    event = Event()
    yield event
    event.set()


def test_value_and_error_come_through() -> None:
    caller = BoundedCaller()
    assert caller.call(lambda: 7, 5) == 7
    with pytest.raises(ZeroDivisionError):
        caller.call(lambda: 1 / 0, 5)
    assert caller.call(lambda: 8, 5) == 8


def test_call_that_takes_too_long_is_left_behind(forever: Event) -> None:
    caller = BoundedCaller()
    with pytest.raises(TookTooLong):
        caller.call(forever.wait, 0.05)
    assert caller.call(lambda: 8, 5) == 8
