"""How many SCHEDULED flow runs are not due yet, and when the next one is.

A scheduler keeps up to 100 runs per schedule ahead, and they hardly change. So they are remembered with their times:
the passing of time takes out what becomes due, one count tells whether anything else has changed, counts over halves
of the time find where, and only that is read again. 100,000 such runs take 25 s and 200 MB to download, and 10 ms to
count.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from math import ceil, inf
from random import Random

from datadog_checks.prefect.api import queries
from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.errors import TooManyToRemember
from datadog_checks.prefect.api.log import Log
from datadog_checks.prefect.api.models import Deployment, FlowRun
from datadog_checks.prefect.api.paging import FLOW_RUNS_BY_NEXT_START
from datadog_checks.prefect.api.queries import Body
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.api.times import RESOLUTION
from datadog_checks.prefect.inventory import reading_time
from datadog_checks.prefect.inventory.selection import Selection
from datadog_checks.prefect.inventory.tagging import Tagging
from datadog_checks.prefect.tags import Tags

# A run added here and another deleted there leave the total as it was. Within so many seconds that is found, too.
_VERIFICATION_SECONDS = 45.0
# Deployments whose runs are read by one request; and counted: of 300,000 future runs SQLite looks at each, in 0.2 s for
# 500 deployments and in 0.3 s for 5,000 (3.8.8).
_DEPLOYMENTS_PER_REQUEST = 500
_DEPLOYMENTS_PER_COUNT = 5_000
# What is more than this is not remembered, and not read: 8 bytes for each.
_CAPACITY = 2_000_000
# So few are read rather than halved.
_FEW_DEPLOYMENTS = 3


@dataclass(frozen=True, slots=True)
class Future:
    """The flow runs that are due later: how many of each tag set, and when the next one of each deployment is due."""

    counts: Counter[Tags]
    next_times: Mapping[str, datetime]


class FutureRuns:
    """The SCHEDULED flow runs that are due later, remembered between the runs of the check."""

    def __init__(self) -> None:
        self._known = _KnownTimes()
        self._versions: dict[str, _Version] = {}
        self._verification = _Verification()
        # All was read once; and the time ran out before all was read that has changed since.
        self._is_complete = False
        self._has_more = False

    def refresh(
        self, client: PrefectClient, selection: Selection, tagging: Tagging, now: datetime, log: Log
    ) -> Future | None:
        """What is to come, as the server has it; None until all was read once, over several runs on a large server.

        It begins when all deployments are listed: the runs are remembered by their tags.
        """
        if not selection.are_deployments_listed():
            return None
        reader = _Reader(client, selection, tagging, now, log, self._known)
        self._known.forget_until(now)
        changed = self._changed(selection.deployments().values())
        if self._is_complete and changed:
            reader.read_deployments(changed)
        agrees = reader.agrees_in_total()
        self._has_more = not agrees and not reader.reconcile(reader.future)
        self._is_complete = self._is_complete or not self._has_more
        if agrees:
            self._verification.go_on(now, reader, {*selection.deployments(), *self._known.deployment_ids()})
        return Future(self._known.count(), self._known.next_times()) if self._is_complete else None

    def read_on(self, client: PrefectClient, selection: Selection, tagging: Tagging, now: datetime, log: Log) -> None:
        """Read on, at the end of a run of the check, where `refresh` ran out of time."""
        if self._has_more:
            reader = _Reader(client, selection, tagging, now, log, self._known, reading_time.END_OF_RUN)
            self._has_more = not reader.reconcile(reader.future)
            self._is_complete = self._is_complete or not self._has_more

    def _changed(self, deployments: Collection[Deployment]) -> list[str]:
        """The deployments that were edited, paused or resumed: then their runs are deleted or made at once."""
        versions = {item.id: _Version(item.updated, item.is_paused) for item in deployments}
        changed = [key for key, version in versions.items() if self._versions.get(key, version) != version]
        self._versions = versions
        return changed


@dataclass(frozen=True, slots=True)
class _Version:
    updated: datetime | None
    is_paused: bool


class _KnownTimes:
    """When each run is due, in seconds since the epoch, ascending, by deployment and tags.

    The tags are None for a run that the server's part of the filters lets through and the filters do not.
    """

    def __init__(self) -> None:
        self._times: defaultdict[str | None, dict[Tags | None, array[float]]] = defaultdict(dict)
        # No run is due later than this: what is read for the first time, page after page, takes the place of nothing.
        self._last = -inf

    def count(self) -> Counter[Tags]:
        counts: Counter[Tags] = Counter()
        for by_tags in self._times.values():
            for tags, times in by_tags.items():
                if tags is not None:
                    counts[tags] += len(times)
        return counts

    def next_times(self) -> dict[str, datetime]:
        """When the next run of each deployment is due, those left out that the filters do not let through."""
        times = {
            key: [times[0] for tags, times in by_tags.items() if tags is not None and times]
            for key, by_tags in self._times.items()
        }
        return {key: _datetime(min(first)) for key, first in times.items() if key is not None and first}

    def size(self) -> int:
        return sum(len(times) for times in self._all())

    def size_of(self, deployment_ids: Collection[str]) -> int:
        return sum(len(times) for key in deployment_ids if key in self._times for times in self._times[key].values())

    def deployment_ids(self) -> list[str]:
        return [key for key in self._times if key is not None]

    def between(self, begin: float, end: float) -> list[float]:
        """The times from `begin` on, up to but without `end`, ascending."""
        parts = (times[bisect_left(times, begin) : bisect_left(times, end)] for times in self._all())
        return sorted(chain.from_iterable(parts))

    def forget_until(self, now: datetime) -> None:
        self._cut(-inf, (now + RESOLUTION).timestamp())

    def replace(self, begin: float, end: float, runs: list[tuple[FlowRun, Tags | None]]) -> None:
        """Put these runs in the place of all that is known of a stretch of time."""
        self._cut(begin, end)
        self._add(runs)

    def replace_deployments(self, deployment_ids: Collection[str], runs: list[tuple[FlowRun, Tags | None]]) -> None:
        for key in deployment_ids:
            self._times.pop(key, None)
        self._add(runs)

    def _all(self) -> Iterator[array[float]]:
        for by_tags in self._times.values():
            yield from by_tags.values()

    def _cut(self, begin: float, end: float) -> None:
        if begin > self._last:
            return
        for key, by_tags in list(self._times.items()):
            for tags, times in list(by_tags.items()):
                del times[bisect_left(times, begin) : bisect_left(times, end)]
                if not times:
                    del by_tags[tags]
            if not by_tags:
                del self._times[key]

    def _add(self, runs: list[tuple[FlowRun, Tags | None]]) -> None:
        added: defaultdict[tuple[str | None, Tags | None], list[float]] = defaultdict(list)
        for flow_run, tags in runs:
            added[flow_run.deployment_id, tags].append(_due(flow_run))
            self._last = max(self._last, _due(flow_run))
        for (key, tags), times in added.items():
            self._times[key][tags] = array('d', sorted([*self._times[key].get(tags, ()), *times]))


class _Reader:
    """Compares what is known with the server, and reads what differs, for one run of the check."""

    def __init__(
        self,
        client: PrefectClient,
        selection: Selection,
        tagging: Tagging,
        now: datetime,
        log: Log,
        known: _KnownTimes,
        part: float = reading_time.FUTURE_RUNS,
    ) -> None:
        self._client = client
        self._selection = selection
        self._tagging = tagging
        self._log = log
        self._known = known
        self._deadline = client.deadline(part)
        # Known runs that were read again since a stretch of time was found unchanged.
        self._changed_in_a_row = 0
        self.future = TimeRange(now + RESOLUTION)

    def agrees_in_total(self) -> bool:
        counted = self._client.count_flow_runs(self._body(self.future))
        if counted > _CAPACITY:
            raise TooManyToRemember('flow_runs', counted, 'flow runs are scheduled', _CAPACITY)
        return counted == self._known.size()

    def agrees_on(self, deployment_ids: Collection[str]) -> bool:
        """Whether as many runs of these deployments, taken together, are on the server as are known."""
        counted = self._client.count_flow_runs(self._body(self.future, deployment_ids))
        return counted == self._known.size_of(deployment_ids)

    def is_late(self) -> bool:
        """Whether the time for reading has run out."""
        return time.monotonic() > self._deadline

    def reconcile(self, time_range: TimeRange) -> bool:
        """Read again what differs in a stretch of time. False if the time for reading ran out before its end."""
        if self.is_late():
            return False
        begin, end = time_range.since.timestamp(), _timestamp(time_range.until)
        known = self._known.between(begin, end)
        counted = self._client.count_flow_runs(self._body(time_range))
        if counted == len(known):
            self._changed_in_a_row = 0
            return True
        if counted == 0:
            self._known.replace(begin, end, [])
            return True
        page_size = self._client.page_size()
        middle = time_range.since
        # After many changed stretches the next will hardly be unchanged: so much is read without more counts.
        if len(known) > max(page_size, self._changed_in_a_row):
            middle = _datetime(known[len(known) // 2])
        elif known and counted > len(known) + page_size:
            # Much is missing: most likely all after what was read so far.
            middle = _datetime(known[-1])
        if middle == time_range.since:
            self._changed_in_a_row += len(known)
            return self._read(time_range)
        return self.reconcile(TimeRange(time_range.since, middle)) and self.reconcile(
            TimeRange(middle, time_range.until)
        )

    def read_deployments(self, deployment_ids: list[str]) -> None:
        for start in range(0, len(deployment_ids), _DEPLOYMENTS_PER_REQUEST):
            chunk = deployment_ids[start : start + _DEPLOYMENTS_PER_REQUEST]
            runs = list(self._client.flow_runs(self._body(self.future, chunk), FLOW_RUNS_BY_NEXT_START))
            self._known.replace_deployments(chunk, self._tagged(runs))

    def reconcile_deployments(self, deployment_ids: list[str]) -> None:
        """Read again the runs of those of these deployments that differ."""
        if not deployment_ids or self.agrees_on(deployment_ids):
            return
        if len(deployment_ids) <= _FEW_DEPLOYMENTS:
            self.read_deployments(deployment_ids)
            return
        middle = len(deployment_ids) // 2
        self.reconcile_deployments(deployment_ids[:middle])
        self.reconcile_deployments(deployment_ids[middle:])

    def _read(self, time_range: TimeRange) -> bool:
        """Read a stretch of time, and remember each page as it comes: what was read is not read again."""
        begin = time_range.since.timestamp()
        # Runs due at the same moment may go on over the end of a page.
        open_end: list[FlowRun] = []
        pages = self._client.flow_run_pages(self._body(time_range), FLOW_RUNS_BY_NEXT_START)
        for number, page in enumerate(pages, 1):
            runs = [*open_end, *(item for item in page if item.next_scheduled_start_time is not None)]
            last = max((_due(item) for item in runs), default=begin)
            self._known.replace(begin, last, self._tagged([item for item in runs if _due(item) < last]))
            open_end = [item for item in runs if _due(item) == last]
            begin = last
            # The first page may hold nothing new.
            if number > 1 and self.is_late():
                self._log.debug('Scheduled flow runs are read up to %s, the rest follows', _datetime(last))
                self._known.replace(last, last + RESOLUTION.total_seconds(), self._tagged(open_end))
                return False
        self._known.replace(begin, _timestamp(time_range.until), self._tagged(open_end))
        return True

    def _tagged(self, runs: list[FlowRun]) -> list[tuple[FlowRun, Tags | None]]:
        tags = {item.id: item_tags for item, item_tags in self._tagging.tag(self._selection.allowed(runs))}
        return [(item, tags.get(item.id)) for item in runs]

    def _body(self, time_range: TimeRange, deployment_ids: Collection[str] | None = None) -> Body:
        server_filter = self._selection.server_filter()
        if deployment_ids is None:
            return queries.future_flow_runs(server_filter, time_range)
        return queries.future_flow_runs_of(server_filter, time_range, sorted(deployment_ids))


class _Verification:
    """Compares groups of deployments in turn, so that changes are found which leave the total as it was.

    The groups are the deployments whose number, in an order of chance, has a certain bit set: any two deployments are
    told apart by one of them.
    """

    def __init__(self) -> None:
        self._random = Random(0)
        self._groups: list[list[str]] = []
        self._groups_per_round = 0
        self._went_on_at: datetime | None = None

    def go_on(self, now: datetime, reader: _Reader, deployment_ids: Collection[str]) -> None:
        """Compare as many groups as are due for a round within `_VERIFICATION_SECONDS`."""
        seconds = (now - self._went_on_at).total_seconds() if self._went_on_at else _VERIFICATION_SECONDS
        self._went_on_at = now
        if not self._groups:
            self._groups = self._make_groups(sorted(deployment_ids))
            self._groups_per_round = len(self._groups)
        due = ceil(self._groups_per_round * max(0.0, seconds) / _VERIFICATION_SECONDS)
        for _ in range(min(due, len(self._groups))):
            reader.reconcile_deployments(self._groups.pop())
            if reader.is_late():
                break

    def _make_groups(self, deployment_ids: list[str]) -> list[list[str]]:
        self._random.shuffle(deployment_ids)
        groups = []
        for bit in range(len(deployment_ids).bit_length()):
            chosen = [key for number, key in enumerate(deployment_ids, 1) if number >> bit & 1]
            for start in range(0, len(chosen), _DEPLOYMENTS_PER_COUNT):
                groups.append(chosen[start : start + _DEPLOYMENTS_PER_COUNT])
        return groups


def _due(flow_run: FlowRun) -> float:
    """When the run is due, in seconds since the epoch."""
    return flow_run.next_scheduled_start_time.timestamp() if flow_run.next_scheduled_start_time else 0.0


def _datetime(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)


def _timestamp(time: datetime | None) -> float:
    return time.timestamp() if time is not None else inf
