"""What the check remembers over restarts: one cursor per stream, as one versioned JSON document."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Generic, TypeVar

from datadog_checks.prefect.api.times import format_time, parse_time
from datadog_checks.prefect.sample import AgentEvent, AgentLog, Sample

M = TypeVar('M')

VERSION = 1

# Prefect 3 is younger, and arithmetic with days stays within what a datetime can hold.
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
# Times of one cursor are this much later than its last read at most: clocks are ahead, and step back, by minutes.
_LEEWAY = timedelta(hours=1)
# The identities that one stream remembers: 133 log records per second over twice the longest overlap of logs, 900 s. Of
# the other streams these are 1,000 happenings per second. They take 3 MB of persisted state.
MOST_SEEN = 133 * 2 * 900
# An identity and the space after it.
_MOST_SEEN_CHARACTERS = 12 * MOST_SEEN
# Each value of a document takes up to a hundred bytes of memory beside its text. There is one for each second.
_MOST_VALUES = 1_000_000


class StateError(ValueError):
    """A persisted text that is not a state of this version."""


@dataclass(frozen=True)
class StreamCursor:
    """How far a stream is read.

    `floor` is the time of the stream's very first check: what happened up to then is never read. `until` is the
    server's time of the last successful read. `seen` maps the digest of each identity that was counted to the epoch
    second at which it happened. `reached` is set when that read was cut: what happened after it is still to be read.
    See `streams/window.py` for how they are used.
    """

    floor: datetime
    until: datetime
    seen: Mapping[str, int] = field(default_factory=dict)
    reached: datetime | None = None

    @cached_property
    def document(self) -> str:
        """The cursor as JSON. The state is written once for each stream, of which one has moved."""
        row: dict[str, object] = {'floor': format_time(self.floor), 'until': format_time(self.until)}
        if self.reached is not None:
            row['reached'] = format_time(self.reached)
        # By second, of which there are few: half as long as digest by digest, and written twice as fast.
        by_second: defaultdict[int, list[str]] = defaultdict(list)
        for digest, second in self.seen.items():
            by_second[second].append(digest)
        row['seen'] = {second: ' '.join(digests) for second, digests in by_second.items()}
        return json.dumps(row, separators=(',', ':'))


@dataclass(frozen=True)
class Batch(Generic[M]):
    """What one read of a stream found, and the cursor and memory to take over once all of it is submitted.

    `rest` are the batches that follow in the same run of the check. Each is read when the one before is persisted, so
    that a crash repeats one of them only.
    """

    samples: list[Sample]
    cursor: StreamCursor
    memory: M
    events: tuple[AgentEvent, ...] = ()
    logs: tuple[AgentLog, ...] = ()
    rest: Iterable[Batch[M]] = ()


@dataclass(frozen=True, slots=True)
class CheckState:
    """All cursors by stream name, and what they were saved with.

    `serial` grows with each cursor that moves and each time that the state is saved: the larger one is the newer state.
    `saved` is the Agent's time when it was saved, None before that and in a state of version 1.0. `writer` names the
    instance that saved it, '' if unknown.
    """

    streams: Mapping[str, StreamCursor] = field(default_factory=dict)
    serial: int = 0
    saved: datetime | None = None
    writer: str = ''

    @property
    def used_until(self) -> datetime | None:
        """When it was last in use: when it was saved, else when a stream was last read; None if that is unknown."""
        return self.saved or max((cursor.until for cursor in self.streams.values()), default=None)

    def cursor(self, stream: str) -> StreamCursor | None:
        """The cursor of `stream`; None before its first check."""
        return self.streams.get(stream)

    def advanced(self, stream: str, cursor: StreamCursor) -> CheckState:
        """This state with the cursor of one stream replaced."""
        return replace(self, streams={**self.streams, stream: cursor}, serial=self.serial + 1)

    def of(self, streams: Collection[str]) -> CheckState:
        """This state without the cursors of all other streams."""
        return replace(self, streams={name: cursor for name, cursor in self.streams.items() if name in streams})

    def dumps(self) -> str:
        streams = ','.join(f'{json.dumps(name)}:{cursor.document}' for name, cursor in self.streams.items())
        saved = f'"saved":"{format_time(self.saved)}",' if self.saved else ''
        writer = f'"writer":{json.dumps(self.writer)},' if self.writer else ''
        return f'{{"version":{VERSION},"serial":{self.serial},{saved}{writer}"streams":{{{streams}}}}}'

    @classmethod
    def loads(cls, text: str) -> CheckState:
        """The state that `dumps` wrote; an empty state for an empty text; StateError for anything else.

        StateError also for times that no state can hold: they would count nothing, or end each run of the check.
        """
        if not text:
            return cls()
        if text.count(',') + text.count('[') + text.count('{') > _MOST_VALUES:
            raise StateError('too many values')
        try:
            document = json.loads(text)
            version = document['version']
            if version != VERSION:
                raise StateError(f'version {version!r:.20} is not {VERSION}')
            serial = document['serial']
            if type(serial) is not int or not 0 <= serial < 2**53:
                raise StateError('"serial" is not a number')
            saved = document.get('saved')
            return cls(
                {str(name): _load_cursor(row) for name, row in document['streams'].items()},
                serial,
                None if saved is None else _load_time(saved),
                str(document.get('writer', '')),
            )
        except StateError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise StateError(f'not readable: {type(error).__name__}') from error


def _load_cursor(row: Mapping[str, object]) -> StreamCursor:
    seen = row['seen']
    if not isinstance(seen, dict):
        raise StateError('"seen" does not map seconds to identities')
    if sum(len(digests) for digests in seen.values()) > _MOST_SEEN_CHARACTERS:
        raise StateError('too many identities')
    reached = row.get('reached')
    cursor = StreamCursor(
        floor=_load_time(row['floor']),
        until=_load_time(row['until']),
        seen={digest: int(second) for second, digests in seen.items() for digest in digests.split()},
        reached=None if reached is None else _load_time(reached),
    )
    latest = cursor.until + _LEEWAY
    if max(cursor.floor, cursor.reached or cursor.floor) > latest:
        raise StateError('a time lies after the last read')
    if max(cursor.seen.values(), default=0) > latest.timestamp():
        raise StateError('an identity lies after the last read')
    return cursor


def _load_time(text: object) -> datetime:
    time = parse_time(str(text))
    if not _EARLIEST <= time < _LATEST:
        raise StateError('a time that cannot be')
    return time
