"""Counting each happening of a stream once: what to read, what in it is new, and the cursor afterwards.

Rows of the server become visible later than the time that they carry (a task run is recorded by a background service;
seen up to 0.8 s on a loaded 3.8.8, longer after a retry of that service), so each read reaches back by `OVERLAP` and
drops what was seen before. A row is therefore counted once if it becomes visible within `OVERLAP` of its own time.

To read all of the overlap at every check would be to read each row eight times. It is read in two time ranges
instead: what came since the last check, and what the overlap is about to leave behind, where a row must show by now.
Between the two, the number of rows tells whether any came late; only if it differs all is read. Where the ids of the
rows that were counted are known, two counts say as much of both (see `counted_rows.py`), and only what came is read.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from datadog_checks.prefect.api.log import Log
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.api.times import format_time
from datadog_checks.prefect.streams.counted_rows import CountedRow, CountedRows
from datadog_checks.prefect.streams.cursor import StreamCursor

OVERLAP = timedelta(seconds=120)
# Nearly all rows show within a second: what is read again of the time before the last check.
MARGIN = timedelta(seconds=2)
# Identities are kept for longer than they are read again, so that a server clock that steps back by no more than
# `OVERLAP` meets only identities that are known.
_RETENTION = 2 * OVERLAP
# About 400 happenings per second over the retention: 2.5 MB of persisted state for the stream.
_SEEN_CAP = 100_000
# So many ids go into one request.
_IDS_CAP = 2000


class HasId(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar('R', bound=HasId)


class StreamWindow:
    """One read of a stream: `read` it, pass all rows to `select_new` or `is_new`, then take `next_cursor`.

    `time_ranges` are what has to be read in any case; none at the very first check. With `counted`, which outlives the
    windows of a stream, less will do.
    """

    def __init__(
        self,
        stream: str,
        cursor: StreamCursor | None,
        now: datetime,
        max_catchup: timedelta,
        log: Log,
        counted: CountedRows | None = None,
        *,
        margin: timedelta = MARGIN,
    ) -> None:
        self._stream = stream
        self._cursor = cursor or StreamCursor(floor=now, until=now)
        self._now = now
        self._log = log
        self._margin = margin
        self._fresh: dict[str, int] = {}
        self._cut_at: datetime | None = None
        self._counted = counted
        self._counted_rows: list[CountedRow] = []
        self._complete_since = now
        self.is_first = cursor is None
        self._is_baseline = self._stepped_back()
        if self._is_baseline:
            # The clock may have been ahead when the floor was set: it would hold the stream until then.
            self._cursor = replace(self._cursor, floor=min(self._cursor.floor, now))
        self.since = self._start(max_catchup)
        # All identities from here on are known. The states of a run that shows late may be older than what is read.
        is_cut = self.since > min(self._cursor.until, now) - OVERLAP
        self.known_since = self.since if is_cut else min(self.since, self._cursor.until - _RETENTION)
        self.time_ranges, self._settled = self._divide()

    @property
    def everything(self) -> TimeRange:
        """All that may hold something new, in one time range. There is none at the very first check."""
        return TimeRange(self.since, self.time_ranges[-1].until)

    def read(
        self,
        rows: Callable[[TimeRange], Iterable[R]],
        count: Callable[[TimeRange], int],
        count_of: Callable[[TimeRange, list[str]], int] | None = None,
    ) -> list[R]:
        """The rows to look at.

        `rows` reads those of a time range, `count` asks the server for their number, `count_of` for how many of these
        ids are among them.
        """
        time_ranges = self.time_ranges_to_read(count, count_of)
        if len(time_ranges) == 1 and time_ranges[0].since == self.since:
            self._complete_since = self.since
        return [row for time_range in time_ranges for row in rows(time_range)]

    def time_ranges_to_read(
        self, count: Callable[[TimeRange], int], count_of: Callable[[TimeRange, list[str]], int] | None = None
    ) -> tuple[TimeRange, ...]:
        """The time ranges to read now, ascending: all in one if rows came late."""
        if self._settled is None:
            return self.time_ranges
        if count_of is not None and self._is_unchanged(count, count_of):
            return self.time_ranges[-1:]
        if count(self._settled) != self._known_in(self._settled):
            return (self.everything,)
        return self.time_ranges

    def cut(self, reached: datetime) -> None:
        """Leave what happened after `reached` to the next read."""
        self._cut_at = reached

    def is_new(self, identity: str, at: datetime) -> bool:
        """Whether what happened `at` that time is to be counted now; remembers it."""
        if at <= self._cursor.floor:
            return False
        digest = _digest(identity)
        if digest in self._cursor.seen or digest in self._fresh:
            return False
        self._fresh[digest] = int(at.timestamp())
        return not self._is_baseline

    def select_new(self, runs: Iterable[R], time_of: Callable[[R], datetime | None]) -> list[R]:
        """The runs to be counted now, by the time at which each started or ended."""
        return [run for run in runs if (at := time_of(run)) is not None and self.is_new_for(run, at)]

    def is_new_for(self, run: HasId, at: datetime) -> bool:
        """Whether the start or end of `run` at that time is to be counted now; id and time identify it."""
        if at < self.known_since:
            return False
        is_new = self.is_new(f'{run.id} {at}', at)
        if at > self._cursor.floor:
            self._counted_rows.append(CountedRow(at, run.id))
        return is_new

    def next_cursor(self) -> StreamCursor:
        horizon = int(min(self._now - _RETENTION, self._cut_at or self._now).timestamp())
        kept = {digest: second for digest, second in self._cursor.seen.items() if second >= horizon}
        kept.update(self._fresh)
        if len(kept) > _SEEN_CAP:
            self._log.warning(
                '%s: %d identities to remember; the oldest %d are dropped and may be counted again. '
                'Split this server over several instances by filters.',
                self._stream,
                len(kept),
                len(kept) - _SEEN_CAP,
            )
            newest = sorted(kept.items(), key=lambda item: item[1])[-_SEEN_CAP:]
            kept = dict(newest)
        if self._counted is not None:
            self._counted.remember(self._counted_rows, self._complete_since, self._now - _RETENTION)
        return StreamCursor(floor=self._cursor.floor, until=self._now, seen=kept, reached=self._cut_at)

    def _divide(self) -> tuple[tuple[TimeRange, ...], TimeRange | None]:
        """The time ranges to read, and the one between them of which the number of rows will do.

        That one begins and ends on whole seconds, like the times in `seen`.
        """
        if self.is_first:
            return (), None
        if self._is_baseline:
            return (TimeRange(self.since),), None
        fresh = fresh_time_range(self._cursor.until, self._now, self._margin)
        leaving = max(self.since, _next_second(self._now - OVERLAP))
        begin = min(fresh.since, self._cursor.reached or fresh.since).replace(microsecond=0)
        if begin <= leaving:
            return (TimeRange(self.since, fresh.until),), None
        fresh = TimeRange(begin, fresh.until)
        time_ranges = (fresh,) if leaving == self.since else (TimeRange(self.since, leaving), fresh)
        return time_ranges, TimeRange(leaving, begin)

    def _is_unchanged(self, count: Callable[[TimeRange], int], count_of: Callable[[TimeRange, list[str]], int]) -> bool:
        """Whether the overlap up to what is fresh holds the rows that were counted, each of them and no other.

        Those that are about to leave it are looked at one by one: it is the last time that this can be done.
        """
        if self._counted is None or not self._counted.knows(self.since):
            return False
        settled = TimeRange(self.since, self.time_ranges[-1].since)
        leaving = TimeRange(self.since, self.time_ranges[0].until if len(self.time_ranges) > 1 else self.since)
        leaving_ids = self._counted.ids(leaving)
        if len(leaving_ids) > _IDS_CAP or count(settled) != self._counted.count(settled):
            return False
        return not leaving_ids or count_of(leaving, leaving_ids) == len(leaving_ids)

    def _known_in(self, time_range: TimeRange) -> int:
        begin, end = int(time_range.since.timestamp()), int((time_range.until or self._now).timestamp())
        return sum(begin <= second < end for second in self._cursor.seen.values())

    def _stepped_back(self) -> bool:
        """Whether the server's clock jumped back so far that identities of the times to come are no longer known.

        Then this read is a baseline: what it finds was counted before the jump, or is lost.
        """
        step = self._cursor.until - self._now
        if step <= OVERLAP:
            return False
        self._log.warning(
            "%s: the server's clock jumped back by %d s; what happened since the last check is not counted.",
            self._stream,
            step.total_seconds(),
        )
        return True

    def _start(self, max_catchup: timedelta) -> datetime:
        since = min(self._cursor.until, self._now) - OVERLAP
        earliest = self._now - max(max_catchup, OVERLAP)
        if since < earliest and not self.is_first:
            if self._cursor.until < earliest:
                self._log.warning(
                    '%s: not read since %s, longer ago than max_catchup; what happened up to %s is not counted.',
                    self._stream,
                    format_time(self._cursor.until),
                    format_time(earliest),
                )
                return max(earliest, self._cursor.floor)
            since = earliest
        if self._cursor.reached is not None:
            since = min(since, self._cursor.reached.replace(microsecond=0))
        return max(since, self._cursor.floor)


def fresh_time_range(until: datetime, now: datetime, margin: timedelta = MARGIN) -> TimeRange:
    """What came since the last check, which was at `until`; it begins on a whole second.

    The clocks of workers may be ahead; what is further ahead than the end is read when its time has come.
    """
    return TimeRange((min(until, now) - margin).replace(microsecond=0), now + OVERLAP)


def _next_second(time: datetime) -> datetime:
    return time.replace(microsecond=0) + timedelta(seconds=1)


def _digest(identity: str) -> str:
    """11 characters instead of 60: the state stays small, and a collision within a window is a matter of 2 ** -40."""
    return base64.urlsafe_b64encode(hashlib.blake2b(identity.encode(), digest_size=8).digest()).rstrip(b'=').decode()
