"""The runs that are alive, remembered between the runs of the check where they are many.

Up to 1,000 are listed in each run. More are listed once: afterwards those that started and ended, which are read
anyway, are put in and taken out; one count tells whether all else is as it was, counts over halves of the time at which
they were expected to start find where it is not, and only that is read again. A count does not show that one run left
and another one came, nor that one changed its state: so of some thousand known runs in turn it is counted whether they
are still in their states. 20,000 task runs take 17 s and 33 MB to list, and 40 ms to count (3.8.8).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from datadog_checks.prefect.api import queries
from datadog_checks.prefect.api.errors import PrefectApiError, TooManyToRemember, TooMuch
from datadog_checks.prefect.api.models import AWAITING_RETRY, LIVE_STATE_TYPES, FlowRun, TaskRun
from datadog_checks.prefect.api.paging import TimeOrder
from datadog_checks.prefect.api.queries import Body, Table
from datadog_checks.prefect.api.times import RESOLUTION

# So many are listed in each run.
_LISTED = 1_000
# What is more than this is not remembered, and not read.
_CAPACITY = 50_000
# How many known runs one request asks about, and the seconds within which each has its turn.
_IDS_PER_COUNT = 5_000
_VERIFICATION_SECONDS = 45.0
# So many are read again by their ids, without looking for those that differ.
_FEW = 100
_EARLIEST = datetime.min.replace(tzinfo=UTC)

R = TypeVar('R', bound=FlowRun | TaskRun)
Count = Callable[[Body], int]
Lister = Callable[[Body], Iterator[R]]


@dataclass(frozen=True)
class Source(Generic[R]):
    """Where runs of a kind are counted and listed, in the order of the time at which they were expected to start.

    `deadline` is when the rest is left to the next run of the check, on the monotonic clock.
    """

    table: Table
    order: TimeOrder
    count: Count
    list: Lister[R]
    page_size: int
    deadline: float


@dataclass(frozen=True)
class Changes(Generic[R]):
    """What started and ended since a time: runs as they are now, and the ids of those that are no longer alive."""

    started: Collection[R]
    ended: Collection[str]


class LiveRuns(Generic[R]):
    """The live runs of one kind, as the server has them."""

    def __init__(self) -> None:
        self._body: Body = {}
        self._forget()

    def _forget(self) -> None:
        self._by_id: dict[str, R] = {}
        # None while they are listed in each run.
        self._refreshed_at: datetime | None = None
        self._due_chunks: list[tuple[str, list[str]]] = []
        self._chunks_per_round = 0
        self._chunks_owed = 0.0

    def refresh(
        self, source: Source[R], body: Body, now: datetime, changes_since: Callable[[datetime], Changes[R]]
    ) -> Collection[R]:
        """The runs of `body`. Raises a PrefectApiError, also while many are not read to their end yet."""
        try:
            return self._refresh(source, body, now, changes_since)
        except TooMuch:
            # It would be as much again in each run.
            self._forget()
            raise

    def _refresh(
        self, source: Source[R], body: Body, now: datetime, changes_since: Callable[[datetime], Changes[R]]
    ) -> Collection[R]:
        if body != self._body:
            self._forget()
            self._body = body
        reader = _Reader(source, body, self._by_id)
        if self._refreshed_at is None:
            self._by_id.clear()
            reader.read_all()
            if reader.is_complete and len(self._by_id) <= _LISTED:
                return list(self._by_id.values())
            self._refreshed_at = now
            return self._complete(reader)
        reader.apply(changes_since(self._refreshed_at))
        self._verify(reader, (now - self._refreshed_at).total_seconds())
        reader.reconcile()
        self._refreshed_at = now
        runs = self._complete(reader)
        if len(runs) <= _LISTED // 2:
            self._refreshed_at = None
        return runs

    def _complete(self, reader: _Reader[R]) -> Collection[R]:
        if not reader.is_complete:
            raise PrefectApiError(
                f'POST /{reader.table}/filter',
                f'{len(self._by_id)} {reader.noun} that are alive are read by now, the next run goes on',
            )
        return list(self._by_id.values())

    def _verify(self, reader: _Reader[R], seconds: float) -> None:
        """Make sure of some of the known runs, so that each has its turn within `_VERIFICATION_SECONDS`."""
        if not self._due_chunks:
            self._due_chunks = list(_chunks(self._by_id.values()))
            self._chunks_per_round = len(self._due_chunks)
        self._chunks_owed += self._chunks_per_round * max(0.0, seconds) / _VERIFICATION_SECONDS
        while self._chunks_owed >= 1 and self._due_chunks:
            state, ids = self._due_chunks.pop()
            self._chunks_owed -= 1
            # What came to another state since then is known with it.
            reader.verify(state, [key for key in ids if key in self._by_id and _state(self._by_id[key]) == state])
        if not self._due_chunks:
            self._chunks_owed = min(self._chunks_owed, 1.0)


class _Reader(Generic[R]):
    """Compares what is known with the server, and reads what differs, for one run of the check."""

    def __init__(self, source: Source[R], body: Body, known: dict[str, R]) -> None:
        self._source = source
        self._body = body
        self._known = known
        self.table = source.table
        self.noun = source.table.replace('_', ' ')
        # Whether all was read that there was to be read.
        self.is_complete = True

    def read_all(self) -> None:
        self._read(None, None)

    def apply(self, changes: Changes[R]) -> None:
        """Put in what started, as it is now, and take out what ended."""
        for run in changes.started:
            if _is_alive(run):
                self._known[run.id] = run
            else:
                self._known.pop(run.id, None)
        for key in changes.ended:
            self._known.pop(key, None)

    def verify(self, state: str, ids: list[str]) -> None:
        """Read again those of these runs that are no longer in the state in which they are known."""
        if not ids or self._is_late() or self._count_of(ids, state) == len(ids):
            return
        self._find(state, ids)

    def _find(self, state: str, ids: list[str]) -> None:
        """The same of runs of which some differ."""
        if len(ids) <= _FEW:
            found = {run.id: run for run in self._source.list(queries.live_runs_among(self._body, self.table, ids))}
            for key in ids:
                self._known.pop(key, None)
            self._known.update(found)
            return
        if self._is_late():
            return
        half, rest = ids[: len(ids) // 2], ids[len(ids) // 2 :]
        left = self._count_of(half, state)
        if left == 0 and not self._count_of(half, None):
            for key in half:
                self._known.pop(key, None)
        elif left < len(half):
            self._find(state, half)
        # If the first half is all there, the other one differs.
        if left == len(half):
            self._find(state, rest)
        else:
            self.verify(state, rest)

    def reconcile(self) -> None:
        """Read again what differs in number: first what was expected to start last, for that is where most comes."""
        counted = self._source.count(self._body)
        if counted > _CAPACITY:
            raise self._too_many(counted)
        if counted == len(self._known):
            return
        runs = self._in_order(self._known.values())
        tail = self._time(runs[-(self._source.page_size // 2)]) if len(runs) > self._source.page_size else None
        self._read(tail, None)
        if tail is None or counted == len(self._known):
            return
        front = [run for run in runs if self._time(run) < tail]
        number_of_tail = len(self._known) - len(front)
        self._reconcile(front, None, tail, counted - number_of_tail)

    def _reconcile(self, runs: list[R], since: datetime | None, until: datetime, counted: int) -> None:
        """The same in a stretch of time of which these runs, in order, are known."""
        if counted == len(runs):
            return
        if counted <= 0:
            for run in runs:
                self._known.pop(run.id, None)
            return
        if self._is_late():
            self.is_complete = False
            return
        middle = self._time(runs[len(runs) // 2]) if len(runs) > self._source.page_size else None
        if middle is None or middle == since:
            self._read(since, until)
            return
        end = middle - RESOLUTION
        left = self._source.count(
            queries.narrowed(self._body, self.table, self._source.order.filter_key, since=since, until=end)
        )
        first = [run for run in runs if self._time(run) < middle]
        self._reconcile(first, since, middle, left)
        self._reconcile(runs[len(first) :], middle, until, counted - left)

    def _read(self, since: datetime | None, until: datetime | None) -> None:
        """Put the runs of a stretch of time in the place of those that are known of it."""
        for run in list(self._known.values()):
            expected = self._time(run)
            if (since is None or expected >= since) and (until is None or expected < until):
                del self._known[run.id]
        end = None if until is None else until - RESOLUTION
        body = queries.narrowed(self._body, self.table, self._source.order.filter_key, since=since, until=end)
        for number, run in enumerate(self._source.list(body), 1):
            self._known[run.id] = run
            if len(self._known) > _CAPACITY:
                raise self._too_many(self._source.count(self._body))
            if number % self._source.page_size == 0 and self._is_late():
                self.is_complete = False
                return

    def _count_of(self, ids: list[str], state: str | None) -> int:
        """How many of these runs are alive, in that state if one is given."""
        return self._source.count(queries.live_runs_among(self._body, self.table, ids, state))

    def _is_late(self) -> bool:
        return time.monotonic() > self._source.deadline

    def _time(self, run: R) -> datetime:
        try:
            return self._source.order.time(run)
        except ValueError:
            return _EARLIEST

    def _in_order(self, runs: Iterable[R]) -> list[R]:
        return sorted(runs, key=self._time)

    def _too_many(self, number: int) -> TooManyToRemember:
        return TooManyToRemember(self.table, number, f'{self.noun} are alive', _CAPACITY)


def _is_alive(run: FlowRun | TaskRun) -> bool:
    return run.state_type in LIVE_STATE_TYPES or _state(run) == AWAITING_RETRY


def _state(run: FlowRun | TaskRun) -> str:
    """By what the server tells live runs apart: the type, but the name of those that wait for another attempt."""
    return (run.state_type if run.state_type != 'SCHEDULED' else run.state_name) or ''


def _chunks(runs: Iterable[FlowRun | TaskRun]) -> Iterator[tuple[str, list[str]]]:
    """The ids of runs by their state, in parts of about the same size that fit into one request."""
    ids: defaultdict[str, list[str]] = defaultdict(list)
    for run in runs:
        ids[_state(run)].append(run.id)
    for state, of_state in sorted(ids.items()):
        of_state.sort()
        parts = -(-len(of_state) // _IDS_PER_COUNT)
        for part in range(parts):
            yield state, of_state[part::parts]
