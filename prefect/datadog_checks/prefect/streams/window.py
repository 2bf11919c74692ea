"""Counting each happening of a stream once: what to read, what in it is new, and the cursor afterwards.

Rows of the server become visible later than the time that they carry (a task run is recorded by a background service;
seen up to 0.8 s on a loaded 3.8.8, longer after a retry of that service), so each read reaches back by `OVERLAP` and
drops what was seen before. A row is therefore counted once if it becomes visible within `OVERLAP` of its own time.

To read all of the overlap at every check would be to read each row eight times. So only what is new is read while the
overlap holds the rows that were read before (see `known_rows.py`), each of them and no other: as many as are known, and
all of these still there. After a start, or when the server says otherwise, everything is read. Where the server cannot
say whether certain rows are there, what the overlap is about to leave behind is read again: there a row must show by
now.
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
from datadog_checks.prefect.streams.cursor import MOST_SEEN, StreamCursor
from datadog_checks.prefect.streams.known_rows import KnownRow, KnownRows

OVERLAP = timedelta(seconds=120)
# Nearly all rows show within a second: what is read again of the time before the last check.
MARGIN = timedelta(seconds=2)
# So many ids go into one request. A server counts 500 of them in 6 ms, 1,500 in 25, 4,000 in 150 (3.8.8 on SQLite).
_IDS_PER_REQUEST = 1000


class HasId(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar('R', bound=HasId)
Count = Callable[[TimeRange], int]
CountOf = Callable[[TimeRange, list[str]], int]


class StreamWindow:
    """One read of a stream: `read` it, pass all rows to `select_new`, then take `next_cursor` and `next_known`.

    Nothing outside it changes: who drops the window, with the cursor and the known rows that it was made of, can read
    the same again.
    """

    def __init__(
        self,
        stream: str,
        cursor: StreamCursor | None,
        now: datetime,
        max_catchup: timedelta,
        log: Log,
        known: KnownRows | None = None,
        *,
        margin: timedelta = MARGIN,
        overlap: timedelta = OVERLAP,
    ) -> None:
        self._overlap = overlap
        self._margin = margin
        # Identities are kept for longer than they are read again, so that a server clock that steps back by no more
        # than the overlap meets only identities that are known.
        self._retention = 2 * overlap
        self._stream = stream
        self._cursor = cursor or StreamCursor(floor=now, until=now)
        self._now = now
        self._log = log
        self._known = known or KnownRows()
        self._fresh: dict[str, int] = {}
        self._cut_at: datetime | None = None
        self._rows: list[KnownRow] = []
        self.is_first = cursor is None
        self.is_baseline = self._stepped_back()
        if self.is_baseline:
            # The clock may have been ahead when the floor was set: it would hold the stream until then.
            self._cursor = replace(self._cursor, floor=min(self._cursor.floor, now))
        self.since = self._start(max_catchup)
        # All identities from here on are known. The states of a run that shows late may be older than what is read.
        is_cut = self.since > min(self._cursor.until, now) - overlap
        self.known_since = self.since if is_cut else min(self.since, self._cursor.until - self._retention)
        fresh = fresh_time_range(self._cursor.until, now, margin, overlap)
        reached = self._cursor.reached or fresh.since
        # Where the last run broke off, more may have been read than up to its `until`.
        unread_since = reached if reached > self._cursor.until else min(fresh.since, reached)
        self._unread = TimeRange(max(self.since, unread_since), fresh.until)
        # All that may hold something new.
        self.everything = TimeRange(self.since, None if self.is_baseline else fresh.until)
        # From where on all has been read.
        self._read_since = now

    def read(
        self,
        rows: Callable[[TimeRange], Iterable[R]],
        count: Count | None = None,
        count_of: CountOf | None = None,
    ) -> list[R]:
        """The rows to look at: `rows` reads those of a time range."""
        return [row for time_range in self.time_ranges(count, count_of) for row in rows(time_range)]

    def time_ranges(self, count: Count | None = None, count_of: CountOf | None = None) -> tuple[TimeRange, ...]:
        """The time ranges to read, ascending; none at the very first check.

        `count` asks the server for the number of rows in a time range, `count_of` for how many of these ids are there.
        `count_of` is for rows that keep their time: it does not show that one moved.
        """
        if self.is_first:
            return ()
        time_ranges = self._divide(count, count_of)
        self._read_since = time_ranges[-1].since
        return time_ranges

    def _divide(self, count: Count | None, count_of: CountOf | None) -> tuple[TimeRange, ...]:
        settled = TimeRange(self.since, self._unread.since)
        if self.is_baseline or settled.is_empty:
            return (self.everything,)
        known_ids = self._known.ids(settled)
        if count is not None and not (self._known.is_complete(settled.since) and count(settled) == len(known_ids)):
            return (self.everything,)
        leaving = TimeRange(self.since, min(self._now - self._overlap, self._unread.since))
        if count is not None and count_of is not None:
            is_unchanged = self._are_there(settled, leaving, count, count_of)
            return (self._unread if is_unchanged else self.everything,)
        return (self._unread,) if leaving.is_empty else (leaving, self._unread)

    def _are_there(self, settled: TimeRange, leaving: TimeRange, count: Count, count_of: CountOf) -> bool:
        """Whether the known rows, of which there are as many as the server has, are those that it has.

        If they are too many for one request, only those are looked at that are about to leave the overlap.
        """
        ids = self._known.ids(settled)
        if len(ids) > _IDS_PER_REQUEST:
            settled, ids = leaving, self._known.ids(leaving)
            if count(leaving) != len(ids):
                return False
        batches = [ids[start : start + _IDS_PER_REQUEST] for start in range(0, len(ids), _IDS_PER_REQUEST)]
        return all(count_of(settled, batch) == len(batch) for batch in batches)

    def known_ids(self, time_range: TimeRange) -> set[str]:
        """The rows of a time range that were read before: what is new in them was counted."""
        return set(self._known.ids(time_range))

    def cut(self, reached: datetime) -> None:
        """Leave what happened after `reached` to the next read."""
        self._cut_at = reached

    def read_again_from(self, time: datetime) -> None:
        """Begin the next read there, for as long as one more overlap: some lists may always lack something."""
        if time > self._now - 2 * self._overlap:
            self._cut_at = time if self._cut_at is None else min(self._cut_at, time)

    def is_new(self, identity: str, at: datetime) -> bool:
        """Whether what happened `at` that time is to be counted now; remembers it."""
        if at <= self._cursor.floor:
            return False
        digest = _digest(identity)
        if digest in self._cursor.seen or digest in self._fresh:
            return False
        self._fresh[digest] = int(at.timestamp())
        return not self.is_baseline

    def was_seen(self, identity: str, at: datetime) -> bool:
        """Whether `is_new` would say no; remembers nothing."""
        digest = _digest(identity)
        return at <= self._cursor.floor or digest in self._cursor.seen or digest in self._fresh

    def estimate(self, rows: int, since: datetime) -> float:
        """How many rows the overlap holds, if there are so many from `since` until now."""
        seconds = (self._now - since).total_seconds()
        return rows * max(1.0, self._overlap.total_seconds() / seconds) if seconds > 0 else rows

    @property
    def now(self) -> datetime:
        return self._now

    @property
    def was_read_lately(self) -> bool:
        """Whether no more time went by since the last read than the overlap is long."""
        return self._now - self._cursor.until <= self._overlap

    def number_seen(self) -> int:
        """How many identities are known of the time that is read again."""
        since = self.since.timestamp()
        return sum(second >= since for second in self._cursor.seen.values())

    def select_new(self, runs: Iterable[R], time_of: Callable[[R], datetime | None]) -> list[R]:
        """The runs to be counted now, by the time at which each started or ended. None of them has to be read again."""
        timed = [(run, at) for run in runs if (at := time_of(run)) is not None]
        self.know(timed)
        return [run for run, at in timed if self.is_new_for(run, at)]

    def know(self, rows: Iterable[tuple[HasId, datetime]]) -> None:
        """These rows of the server, each with its time there, do not have to be read again."""
        self._rows += (KnownRow(at, row.id) for row, at in rows)

    def is_new_for(self, run: HasId, at: datetime) -> bool:
        """Whether the start or end of `run` at that time is to be counted now; id and time identify it."""
        return at >= self.known_since and self.is_new(f'{run.id} {at}', at)

    def next_known(self) -> KnownRows:
        return self._known.after_read(self._rows, self._read_since, self._now - self._retention)

    def next_cursor(self) -> StreamCursor:
        return self._cursor_of(self._now, self._cut_at)

    def cursor_at(self, reached: datetime) -> StreamCursor:
        """The cursor if all up to `reached` is read, and what follows is left to the next read."""
        return self._cursor_of(self._now, reached)

    def cursor_so_far(self, reached: datetime, left: datetime | None = None) -> StreamCursor:
        """The cursor while not all is read: what is new up to `reached`, and what leaves the overlap up to `left`.

        The next read goes on from there. What came just before now may still lack something.
        """
        until = self._cursor.until if left is None else max(self._cursor.until, left + self._overlap)
        return self._cursor_of(until, min(reached, self._now - self._margin))

    def _cursor_of(self, until: datetime, reached: datetime | None) -> StreamCursor:
        horizon = int(min(self._now - self._retention, until - self._overlap, reached or until).timestamp())
        kept = {digest: second for digest, second in self._cursor.seen.items() if second >= horizon}
        kept.update(self._fresh)
        if len(kept) > MOST_SEEN:
            self._log.warning(
                '%s: %d identities to remember; the oldest %d are dropped and may be counted again. '
                'Split this server over several instances by filters.',
                self._stream,
                len(kept),
                len(kept) - MOST_SEEN,
            )
            newest = sorted(kept.items(), key=lambda item: item[1])[-MOST_SEEN:]
            kept = dict(newest)
        # What is ahead of the server's clock is read again, as is all until then.
        return StreamCursor(self._cursor.floor, until, kept, None if reached is None else min(reached, self._now))

    def _stepped_back(self) -> bool:
        """Whether the server's clock jumped back so far that identities of the times to come are no longer known.

        Then this read is a baseline: what it finds was counted before the jump, or is lost.
        """
        step = self._cursor.until - self._now
        if step <= self._overlap:
            return False
        self._log.warning(
            "%s: the server's clock jumped back by %d s; what happened since the last check is not counted.",
            self._stream,
            step.total_seconds(),
        )
        return True

    def _start(self, max_catchup: timedelta) -> datetime:
        since = min(self._cursor.until, self._now) - self._overlap
        earliest = self._now - max(max_catchup, self._overlap)
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
            since = min(since, self._cursor.reached)
        return max(since, self._cursor.floor)


def fresh_time_range(
    until: datetime, now: datetime, margin: timedelta = MARGIN, overlap: timedelta = OVERLAP
) -> TimeRange:
    """What came since the last check, which was at `until`.

    The clocks of workers may be ahead; what is further ahead than the end is read when its time has come.
    """
    return TimeRange(min(until, now) - margin, now + overlap)


def _digest(identity: str) -> str:
    """11 characters instead of 60: the state stays small, and a collision within a window is a matter of 2 ** -40."""
    return base64.urlsafe_b64encode(hashlib.blake2b(identity.encode(), digest_size=8).digest()).rstrip(b'=').decode()
