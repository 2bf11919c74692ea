"""Whether a background service lives, judged by what it did and by what it left undone; see `background_services`.

The settings that the server tells are those of the process that answers. Services may run in another one (`prefect
server services start`), with other settings, or be switched off there. So the settings alone accuse nobody: what a
service does shows that it lives, and how long it takes shows its settings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Generic, TypeVar

from datadog_checks.prefect.api.errors import PrefectApiError
from datadog_checks.prefect.api.models import Event, ServiceSettings
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.collectors.base import RunContext

# A piece of work must stay undone for so long, and for so many intervals of its service, until that is a symptom.
PATIENCE = timedelta(seconds=60)
_INTERVALS = 4
# And for as long as it once paused, up to this: it may be set to work less often. For as long as this until so many of
# its loops were seen.
PATIENCE_WITHOUT_PROOF = timedelta(minutes=15)
RHYTHM = 3
# Loops that are remembered: a delay that an outage made long is forgotten after so many others.
_LOOPS = 20
# What is done within so long counts as one loop.
_LOOP = timedelta(seconds=5)

# How long the server keeps events (3.8.8), and how many are looked at after a start.
EVENT_RETENTION = timedelta(days=7)
_PAST_EVENTS = 20

EARLIEST = datetime.min.replace(tzinfo=UTC)

M = TypeVar('M')


@dataclass(frozen=True, slots=True)
class Overdue:
    """A piece of work that is not done: for how long it is overdue by the settings of the process that answers.

    `kind` are the pieces whose delays are alike. `slack` is for how much longer it may rightly stay undone with any
    settings, as far as its delays are not known.
    """

    kind: str
    lateness: timedelta
    slack: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of work that was done at a time, and how long it was overdue then; None if that is unknown."""

    kind: str
    at: datetime
    delay: timedelta | None


@dataclass
class Evidence:
    """What one run of the check sees of a service: pieces of work that are overdue, by a key, and what was done."""

    overdue: dict[str, Overdue] = field(default_factory=dict)
    works: list[Work] = field(default_factory=list)

    def add_if_overdue(self, key: str, item: Overdue) -> None:
        if item.lateness > timedelta():
            self.overdue[key] = item


class Service(ABC, Generic[M]):
    """How one background service is looked at. `name` is the value of its tag."""

    name: str
    initial_memory: M

    @abstractmethod
    def interval(self, settings: ServiceSettings) -> timedelta:
        """How often it works."""

    def is_enabled(self, settings: ServiceSettings) -> bool | None:
        """Whether the server's settings switch it on; None if they do not say."""
        return settings.enabled.get(self.name)

    @abstractmethod
    def look(self, run: RunContext, settings: ServiceSettings, memory: M) -> tuple[Evidence, M]:
        """What is seen of it now, and what to remember."""

    def past(self, run: RunContext, settings: ServiceSettings) -> list[Work]:
        """What it did before the first run of the check, where anything shows that."""
        return []


def newest_events(run: RunContext, names: dict[str, list[str]], time_range: TimeRange, number: int) -> list[Event]:
    """The newest events of a time range, the newest first; none from a server that gives no events.

    The collectors that count and send events report that failure.
    """
    try:
        return run.inventory.newest_events(names, time_range, number)
    except PrefectApiError as error:
        run.log.debug('Without events a background service cannot be judged by them: %s', error)
        return []


def past_events(run: RunContext, name: str) -> list[Event]:
    """The last events of a name, the newest last."""
    time_range = TimeRange(run.now - EVENT_RETENTION, run.now)
    return newest_events(run, {'name': [name]}, time_range, _PAST_EVENTS)[::-1]


@dataclass(frozen=True, slots=True)
class Loop:
    """What was done of one kind of work in one loop of a service: since when, and its longest delay."""

    began: datetime
    longest_delay: timedelta


@dataclass(frozen=True)
class ServiceRecord:
    """What is known of a service from the runs of the check before.

    `undone` has the time since when a piece of work is seen undone, without a break. `loops` are the last of the
    service by the kind of work. Work done up to `off_since`, when
    its settings were first seen to switch it off, proves nothing any more.
    """

    undone: Mapping[str, datetime] = field(default_factory=dict)
    loops: Mapping[str, tuple[Loop, ...]] = field(default_factory=dict)
    last_work: datetime | None = None
    off_since: datetime | None = None
    looked_at: datetime | None = None
    pause: timedelta = timedelta()

    def after(
        self,
        now: datetime,
        overdue: Mapping[str, Overdue],
        works: Iterable[Work],
        interval: timedelta,
        *,
        is_enabled: bool | None,
    ) -> ServiceRecord:
        """The record with what is seen now. `is_enabled` is what the settings say, None where they are unknown."""
        pause = now - self.looked_at if self.looked_at is not None else timedelta()
        # While the server was down nothing was looked at, nor could anything be done.
        has_looked = pause <= 2 * self.pause + _patience(interval)
        known = self.undone if has_looked else {}
        new = [work for work in works if self.last_work is None or work.at > self.last_work]
        return replace(
            self,
            undone={key: known.get(key, now) for key in overdue},
            loops=_with_loops(self.loops, new),
            last_work=max((work.at for work in new), default=self.last_work),
            off_since=(self.off_since or now) if is_enabled is False else None,
            looked_at=now,
            pause=pause,
        )

    @property
    def is_proven(self) -> bool:
        """Whether the service has shown work that counts."""
        return self.last_work is not None and (self.off_since is None or self.last_work > self.off_since)

    def is_healthy(
        self, now: datetime, overdue: Mapping[str, Overdue], interval: timedelta, *, is_enabled: bool | None
    ) -> bool | None:
        """Of the record with what is seen now; None where nothing can be said of the service."""
        if not self.is_proven and not (is_enabled and overdue):
            return None
        if any(self._is_symptom(now, key, item, interval) for key, item in overdue.items()):
            return False
        return True if self.is_proven else None

    def _is_symptom(self, now: datetime, key: str, item: Overdue, interval: timedelta) -> bool:
        # Whoever did something meanwhile lives, and does not take this for its work, or not yet.
        since = max(self.undone[key], self.last_work or EARLIEST)
        loops = self.loops.get(item.kind, ()) if self.is_proven else ()
        pauses = [after.began - before.began for before, after in pairwise(loops)]
        seen = max(pauses, default=timedelta()) if len(loops) >= RHYTHM else PATIENCE_WITHOUT_PROOF
        patience = max(_patience(interval), min(seen, PATIENCE_WITHOUT_PROOF))
        allowed = max((loop.longest_delay for loop in loops), default=item.slack)
        return now - since >= patience and item.lateness > allowed + patience


def _patience(interval: timedelta) -> timedelta:
    return max(PATIENCE, _INTERVALS * interval)


def _with_loops(loops: Mapping[str, tuple[Loop, ...]], works: Sequence[Work]) -> dict[str, tuple[Loop, ...]]:
    """The last loops by kind of work, with new work added; work that was not overdue has a delay of 0."""
    result = dict(loops)
    for work in sorted(works, key=lambda item: item.at):
        if work.delay is None:
            continue
        known, new = result.get(work.kind, ()), Loop(work.at, max(timedelta(), work.delay))
        if known and work.at - known[-1].began < _LOOP:
            known, new = known[:-1], Loop(known[-1].began, max(new.longest_delay, known[-1].longest_delay))
        result[work.kind] = (*known, new)[-_LOOPS:]
    return result
