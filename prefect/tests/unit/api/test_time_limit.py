from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Event, get_ident

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


class TestMeanwhile:
    def test_is_done_during_a_call_in_the_thread_of_the_caller(self, forever: Event) -> None:
        threads = []

        def meanwhile() -> bool:
            threads.append(get_ident())
            if len(threads) == 5:
                forever.set()
            return True

        assert BoundedCaller(meanwhile).call(lambda: forever.wait(5), 5) is True
        assert set(threads) == {get_ident()}

    def test_ends_when_there_is_nothing_more(self) -> None:
        answers = iter([True, True, False])
        assert BoundedCaller(lambda: next(answers)).call(lambda: time.sleep(0.05) or 7, 5) == 7
        assert list(answers) == []

    def test_does_not_keep_a_call_from_taking_too_long(self, forever: Event) -> None:
        with pytest.raises(TookTooLong):
            BoundedCaller(lambda: True).call(forever.wait, 0.05)

    def test_error_of_it_does_not_mix_up_the_answers(self, forever: Event) -> None:
        def interrupt() -> bool:
            raise KeyboardInterrupt

        caller = BoundedCaller(interrupt)
        with pytest.raises(KeyboardInterrupt):
            caller.call(lambda: forever.wait(5), 5)
        forever.set()
        assert caller.call(lambda: 8, 5) == 8
