from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from threading import Event
from weakref import ReferenceType, ref

import pytest

from datadog_checks.prefect.api import time_limit
from datadog_checks.prefect.api.time_limit import BoundedCaller, TimeLimit, TookTooLong


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


class TestDeadline:
    """The part of the time of a run until which a long list may be read."""

    @pytest.fixture
    def now(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [1000.0]
        monkeypatch.setattr(time, 'monotonic', lambda: now[0])
        return now

    @pytest.mark.parametrize(('seconds', 'deadline'), [(10, 1004), (30, 1012), (300, 1012)])
    def test_is_a_part_of_the_time_of_the_run_and_of_half_a_minute_at_most(
        self, now: list[float], seconds: float, deadline: float
    ) -> None:
        limit = TimeLimit(seconds)
        limit.start()
        now[0] += 1
        assert limit.deadline(0.4) == deadline

    def test_leaves_some_time_to_those_who_come_late(self, now: list[float]) -> None:
        limit = TimeLimit(30)
        limit.start()
        now[0] += 20
        assert limit.deadline(0.4) == 1021

    def test_is_never_before_the_first_run(self) -> None:
        assert TimeLimit(30).deadline(0.4) > time.monotonic() + 1000


def test_thread_that_has_nothing_to_do_ends_and_the_next_call_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limit, '_IDLE_SECONDS', 0.05)
    caller = BoundedCaller()
    first = caller.call(threading.current_thread, 5)
    first.join(5)
    assert not first.is_alive()
    assert caller.call(threading.current_thread, 5) is not first
