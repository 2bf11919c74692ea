from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import suppress
from threading import Event
from weakref import ReferenceType, ref

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


def test_error_keeps_nothing_of_its_call() -> None:
    """Nor does the thread: a broken answer has a socket, which would stay open until garbage is collected."""

    class Socket:
        pass

    kept: list[ReferenceType[Socket]] = []

    def break_off() -> None:
        answer = Socket()
        kept.append(ref(answer))
        raise ConnectionResetError

    caller = BoundedCaller()
    gc.disable()
    try:
        with suppress(ConnectionResetError):
            caller.call(break_off, 5)
        deadline = time.monotonic() + 1
        while kept[0]() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert kept[0]() is None
    finally:
        gc.enable()


def test_call_that_takes_too_long_is_left_behind(forever: Event) -> None:
    caller = BoundedCaller()
    with pytest.raises(TookTooLong):
        caller.call(forever.wait, 0.05)
    assert caller.call(lambda: 8, 5) == 8
