"""The time that a run of the check may take, no matter what hangs: the network, the server, or the resolver."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TypeVar, cast

T = TypeVar('T')

# With less than this part of its time left, a run asks for nothing more.
_USED_UP = 0.05
# How much of the time of a run is divided at most; and the part of the rest for a list whose part is over.
_LONG_SECONDS = 30.0
_LEAST_PART = 0.1
# How many endpoints an error names that used up the time.
_NAMED = 3
# How many calls may go on after nobody waits for them any longer.
_MAX_LEFT_BEHIND = 4
_IDLE_SECONDS = 2.0


class TimeLimit:
    """How much of its `seconds` a run of the check has left, and what took the rest. Without limit until `start`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = math.inf
        self._spent: dict[str, float] = {}

    def start(self) -> None:
        """A run of the check begins."""
        self._until = time.monotonic() + self.seconds
        self._spent.clear()

    @property
    def remaining(self) -> float:
        return self._until - time.monotonic()

    def deadline(self, part: float) -> float:
        """When this part of the time is over, on the monotonic clock. A longer time than 30 s is taken for 30 s.

        Where that is over, or nearly, the result is a tenth of the rest from now: each run reads something.
        """
        least = _LEAST_PART * min(self.remaining, _LONG_SECONDS)
        return max(self._end_of(part), time.monotonic() + least)

    def is_late(self, part: float) -> bool:
        """Whether this part of the time is over."""
        return time.monotonic() > self._end_of(part)

    def _end_of(self, part: float) -> float:
        return self._until - self.seconds + part * min(self.seconds, _LONG_SECONDS)

    @property
    def is_used_up(self) -> bool:
        return self.remaining < self.seconds * _USED_UP

    def charge(self, endpoint: str, seconds: float) -> None:
        self._spent[endpoint] = self._spent.get(endpoint, 0) + seconds

    def explain(self) -> str:
        """What the time was used up by: the endpoints that took most of it."""
        most = sorted(self._spent.items(), key=lambda item: -round(item[1], 1))[:_NAMED]
        spent = ', '.join(f'{endpoint} ({seconds:.1f} s)' for endpoint, seconds in most)
        return f'the {self.seconds:g} s limit of this run was spent on {spent}'


class TookTooLong(Exception):
    """A call did not end in its time."""


class BoundedCaller:
    """Calls functions in a thread of their own, and waits for each no longer than it may take.

    The time-outs of the HTTP library are for one read of a socket: a server that sends a byte now and then, the
    resolver, or a source of tokens may take forever. A call that nobody waits for any longer ends when its connection
    does; while too many of those go on, there is no new one.
    """

    def __init__(self) -> None:
        self._worker = _Worker()
        self._left_behind: list[_Worker] = []

    def call(self, function: Callable[[], T], seconds: float) -> T:
        """What `function` returns or raises; TookTooLong if it takes longer than `seconds`."""
        self._left_behind = [worker for worker in self._left_behind if worker.is_busy]
        if len(self._left_behind) >= _MAX_LEFT_BEHIND:
            raise TookTooLong(f'{_MAX_LEFT_BEHIND} earlier requests are not answered yet')
        if not self._worker.begin(function):
            self._worker = _Worker()
            self._worker.begin(function)
        try:
            value, error = self._worker.end(seconds)
        except BaseException as problem:
            # Its outcome, when there is one, is not that of the next call.
            self._left_behind.append(self._worker)
            self._worker = _Worker()
            if isinstance(problem, Empty):
                raise TookTooLong from None
            raise
        try:
            if error is not None:
                raise error
            return cast(T, value)
        finally:
            # Else the error would hold this frame and the frame the error, and both the sockets of a broken answer.
            del error


class _Worker:
    """A thread that makes one call after the other: a new thread for each would cost more than a short request.

    It begins with the first call, and ends when there was none for a while.
    """

    def __init__(self) -> None:
        self.is_busy = False
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._outcomes: SimpleQueue[tuple[object, BaseException | None]] = SimpleQueue()
        self._lock = Lock()
        self._thread: Thread | None = None
        self._has_ended = False

    def begin(self, function: Callable[[], object]) -> bool:
        """Have it called; False if the thread has ended meanwhile."""
        with self._lock:
            if self._has_ended:
                return False
            self.is_busy = True
            self._calls.put(function)
        if self._thread is None:
            self._thread = Thread(target=self._work, name='prefect check', daemon=True)
            self._thread.start()
        return True

    def end(self, seconds: float) -> tuple[object, BaseException | None]:
        """What the function returned, or what it raised. Raises Empty if it takes longer than `seconds`."""
        return self._outcomes.get(timeout=max(0.0, seconds))

    def _work(self) -> None:
        while True:
            try:
                function = self._calls.get(timeout=_IDLE_SECONDS)
            except Empty:
                with self._lock:
                    self._has_ended = self._calls.empty()
                if self._has_ended:
                    return
                continue
            try:
                outcome: tuple[object, BaseException | None] = (function(), None)
            except BaseException as error:
                outcome = (None, error)
            self.is_busy = False
            self._outcomes.put(outcome)
            del function, outcome
