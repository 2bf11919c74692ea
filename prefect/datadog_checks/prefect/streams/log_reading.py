"""Reading the new records of a log, the page at a time: each page is handed over before the next one is read.

The server counts no records, so what the overlap holds is told by what was read of it before. As long as that is less
than a page, all of it is read at each run of the check, in one request. Beyond, what is new is read first, and then
what the overlap is about to leave behind: there a record must show by now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from datadog_checks.prefect.api.errors import PrefectError
from datadog_checks.prefect.api.models import LogRecord
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.sample import AgentLog
from datadog_checks.prefect.streams.cursor import StreamCursor
from datadog_checks.prefect.streams.window import StreamWindow

PAGE_SIZE = 200
# New records that are read in one run of the check, up to the end of a page.
MOST_NEW = 10 * PAGE_SIZE
# Pages that are read for them, where most of what they hold is excluded.
MOST_PAGES = 50
# What is handed over in one run. The Agent writes it into a file that it removes when it has 10 MB.
MOST_BYTES = 4 * 10**6
# Of that for what is new, while some is left for what shows late.
MOST_NEW_BYTES = 3 * 10**6


class LogSource(Protocol):
    """Records of a level and of certain runs. Its methods raise a PrefectApiError."""

    def pages(self, time_range: TimeRange) -> Iterator[list[LogRecord]]:
        """Those of a time range, in the order of time."""
        ...

    def convert(self, records: Sequence[LogRecord]) -> list[AgentLog | None]:
        """Each of them as the Agent takes it, None for one that is excluded."""
        ...


@dataclass(frozen=True)
class LogPart:
    """What is to be handed over, and the cursor for afterwards.

    `reached` is set in the last part if records are left for the next run: the time of the first of them. `held` is
    about how many records the overlap holds.
    """

    logs: tuple[AgentLog, ...]
    cursor: StreamCursor
    held: float
    reached: datetime | None = None
    is_last: bool = False


def read_parts(window: StreamWindow, source: LogSource, held: float) -> Iterator[LogPart]:
    """The parts of one run of the check, of at most a page each. `held` is that of the last part of the run before."""
    if window.is_first or window.is_baseline:
        if window.is_baseline:
            for page in source.pages(window.everything):
                for record in page:
                    window.is_new(record.id, record.timestamp)
        yield LogPart((), window.next_cursor(), held, is_last=True)
        return
    reading = _Reading(window, source, held)
    waiting: tuple[LogPart, ...] = ()
    try:
        for part in reading.parts():
            yield from waiting
            waiting = (part,)
    except PrefectError:
        # The next run goes on from here, even if nothing was new so far: on a slow server it would never get further.
        if reading.has_read:
            yield LogPart(waiting[0].logs if waiting else (), reading.cursor_so_far(), held)
        raise
    # The last of them is persisted together with the end of the read.
    end = reading.end()
    yield replace(end, logs=waiting[0].logs) if waiting else end


class _Reading:
    def __init__(self, window: StreamWindow, source: LogSource, held: float) -> None:
        self._window = window
        self._source = source
        self._held = held
        is_busy = window.was_read_lately and max(held, window.number_seen()) >= PAGE_SIZE
        self._spans = tuple(reversed(window.time_ranges())) if is_busy else (window.everything,)
        # Up to which time the first span was read, and the second one.
        self._read_up_to = self._spans[0].since
        self._left_up_to: datetime | None = None
        # Where the first span was left, and the second one.
        self._reached: datetime | None = None
        self._late_reached: datetime | None = None
        self._bytes = 0
        self._rows = 0

    def parts(self) -> Iterator[LogPart]:
        first, *leaving = self._spans
        for logs, reached, is_cut in self._read(first, MOST_NEW_BYTES if leaving else MOST_BYTES, MOST_PAGES):
            self._reached = reached if is_cut else None
            self._read_up_to = reached
            if logs or is_cut:
                yield LogPart(logs, self.cursor_so_far(), self._held)
        self._held = self._estimate(first)
        for span in leaving:
            self._read_up_to = self._reached or self._window.now
            for logs, reached, is_cut in self._read(span, MOST_BYTES, None):
                self._late_reached = reached if is_cut else None
                self._left_up_to = reached
                if logs or is_cut:
                    yield LogPart(logs, self.cursor_so_far(), self._held)

    @property
    def has_read(self) -> bool:
        return self._read_up_to > self._spans[0].since

    def cursor_so_far(self) -> StreamCursor:
        """The cursor from which the next run goes on if this one breaks off now."""
        if len(self._spans) > 1:
            return self._window.cursor_so_far(self._read_up_to, self._left_up_to)
        # In the order of time, so nothing is left behind.
        return self._window.cursor_at(self._read_up_to)

    def end(self) -> LogPart:
        window = self._window
        if self._late_reached is None:
            cursor = window.next_cursor() if self._reached is None else window.cursor_at(self._reached)
            return LogPart((), cursor, self._held, self._reached, is_last=True)
        reached = min(self._late_reached, self._reached or self._late_reached)
        return LogPart((), self.cursor_so_far(), self._held, reached, is_last=True)

    def _read(
        self, span: TimeRange, most_bytes: int, most_pages: int | None
    ) -> Iterator[tuple[tuple[AgentLog, ...], datetime, bool]]:
        """What is new on each page, up to which time the span was read with it, and whether it is left there.

        A page may hold nothing new.
        """
        window, number, pages = self._window, 0, 0
        for page in self._source.pages(span):
            pages += 1
            self._rows += len(page)
            new = [record for record in page if not window.was_seen(record.id, record.timestamp)]
            taken: list[AgentLog] = []
            cut_at: datetime | None = None
            for record, log in zip(new, self._source.convert(new) if new else (), strict=True):
                if log is None:
                    continue
                if self._bytes and self._bytes + log.size > most_bytes:
                    cut_at = record.timestamp
                    break
                window.is_new(record.id, record.timestamp)
                self._bytes += log.size
                taken.append(log)
            number += len(taken)
            if not page:
                continue
            last = page[-1].timestamp
            # Records of one time may be more than are read in a run.
            has_enough = most_pages is not None and pages >= most_pages and last > span.since
            if cut_at is None and (number >= MOST_NEW or has_enough):
                cut_at = last
            yield tuple(taken), cut_at or last, cut_at is not None
            if cut_at is not None:
                return

    def _estimate(self, span: TimeRange) -> float:
        if self._reached is not None:
            return max(self._held, PAGE_SIZE)
        return self._window.estimate(self._rows, span.since)
