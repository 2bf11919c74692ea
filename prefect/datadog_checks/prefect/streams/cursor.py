"""What the check remembers over restarts: one cursor per stream, as one versioned JSON document."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from datadog_checks.prefect.api.times import format_time, parse_time
from datadog_checks.prefect.sample import AgentEvent, Sample

VERSION = 1


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


@dataclass(frozen=True, slots=True)
class Batch:
    """What one read of a stream found, and the cursor to persist once all of it is submitted.

    `samples` are to be taken once: made as they are submitted, thousands of them need not be there at a time. All that
    can fail comes before.
    """

    samples: Iterable[Sample]
    cursor: StreamCursor
    events: tuple[AgentEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckState:
    """All cursors by stream name. `serial` grows with each of them that moves: the larger one is the newer state."""

    streams: Mapping[str, StreamCursor] = field(default_factory=dict)
    serial: int = 0

    def cursor(self, stream: str) -> StreamCursor | None:
        """The cursor of `stream`; None before its first check."""
        return self.streams.get(stream)

    def advanced(self, stream: str, cursor: StreamCursor) -> CheckState:
        """This state with the cursor of one stream replaced."""
        return CheckState({**self.streams, stream: cursor}, self.serial + 1)

    def dumps(self) -> str:
        streams = ','.join(f'{json.dumps(name)}:{cursor.document}' for name, cursor in self.streams.items())
        return f'{{"version":{VERSION},"serial":{self.serial},"streams":{{{streams}}}}}'

    @classmethod
    def loads(cls, text: str) -> CheckState:
        """The state that `dumps` wrote; an empty state for an empty text; StateError for anything else."""
        if not text:
            return cls()
        try:
            document = json.loads(text)
            version = document['version']
            if version != VERSION:
                raise StateError(f'version {version!r:.20} is not {VERSION}')
            serial = document['serial']
            if type(serial) is not int:
                raise StateError('"serial" is not a number')
            return cls({str(name): _load_cursor(row) for name, row in document['streams'].items()}, serial)
        except StateError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise StateError(f'not readable: {type(error).__name__}') from error


def _load_cursor(row: Mapping[str, object]) -> StreamCursor:
    seen = row['seen']
    if not isinstance(seen, dict):
        raise StateError('"seen" does not map seconds to identities')
    reached = row.get('reached')
    return StreamCursor(
        floor=parse_time(str(row['floor'])),
        until=parse_time(str(row['until'])),
        seen={digest: int(second) for second, digests in seen.items() for digest in digests.split()},
        reached=None if reached is None else parse_time(str(reached)),
    )
