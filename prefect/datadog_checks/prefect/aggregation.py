"""Sums, maxima and percentile gauges by tags, and which tags to report as 0.

Percentiles follow the nearest-rank rule of the Agent's own histogram.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain

from datadog_checks.prefect.metrics import MetricSpec, PercentileGauges
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.tags import Tags

# What comes and goes with the runs, and had a value, is reported as 0 for so long.
LINGER = timedelta(minutes=5)


class Tally:
    """How many runs there are of each tag set, for a few series that are reported together."""

    def __init__(self, *specs: MetricSpec) -> None:
        self._counts: dict[MetricSpec, Counter[Tags]] = {spec: Counter() for spec in specs}

    def add(self, spec: MetricSpec, tags: Tags, amount: int = 1) -> None:
        self._counts[spec][tags] += amount

    def tag_sets(self) -> set[Tags]:
        """The tag sets of which there are any."""
        return {tags for counts in self._counts.values() for tags, count in counts.items() if count}

    def series(self) -> Iterator[tuple[MetricSpec, Mapping[Tags, int]]]:
        """Each series with its counts."""
        return iter(self._counts.items())

    def samples(self, tag_sets: Iterable[Tags]) -> Iterator[Sample]:
        """One sample of each series for each of `tag_sets`, 0 included."""
        for tags in tag_sets:
            for spec, counts in self._counts.items():
                yield Sample(spec, counts.get(tags, 0), tags)


class Maxima:
    """The largest value of each tag set, for a few series that are reported together."""

    def __init__(self, *specs: MetricSpec) -> None:
        self._values: dict[MetricSpec, dict[Tags, float]] = {spec: {} for spec in specs}

    def add(self, spec: MetricSpec, tags: Tags, value: float) -> None:
        values = self._values[spec]
        values[tags] = max(value, values.get(tags, value))

    def series(self) -> Iterator[tuple[MetricSpec, Mapping[Tags, float]]]:
        """Each series with its values."""
        return iter(self._values.items())


class Durations:
    """The durations, in seconds, of each tag set."""

    def __init__(self, gauges: PercentileGauges) -> None:
        self._gauges = gauges
        self._values: defaultdict[Tags, list[float]] = defaultdict(list)

    def add(self, tags: Tags, duration: timedelta | float) -> None:
        """A duration below 0 is one of 0: clocks of two machines may differ."""
        seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
        self._values[tags].append(max(0.0, seconds))

    def samples(self) -> Iterator[Sample]:
        for tags, values in self._values.items():
            yield from summarize(self._gauges, values, tags)


@dataclass(frozen=True, slots=True)
class ReportedTagSets:
    """Remembers when tag sets last had a value, so that they are reported as 0 afterwards and monitors recover."""

    last_active: Mapping[Tags, datetime] = field(default_factory=dict)

    def with_active(
        self, now: datetime, active: Iterable[Tags], linger: timedelta = timedelta()
    ) -> tuple[set[Tags], ReportedTagSets]:
        """The tag sets to report now, the active ones and those that lately were, and what to remember.

        `linger` is for how long they are reported; at least one 0 is in any case.
        """
        last_active = {**self.last_active, **dict.fromkeys(active, now)}
        kept = {tags: last for tags, last in last_active.items() if last == now or now - last < linger}
        return set(last_active), ReportedTagSets(kept)


@dataclass(frozen=True, slots=True)
class LingeringSeries:
    """Reports values whose tag sets come and go: afterwards each series goes on, as 0, for a while.

    Only where it had a value: all series of all task keys of the last minutes, or of all deployments, would be most of
    what a large server sends, and each is a metric that its owner pays for.
    """

    by_series: Mapping[MetricSpec, ReportedTagSets] = field(default_factory=dict)

    def samples(
        self, now: datetime, *values: Tally | Maxima, tag_sets: Collection[Tags] = (), linger: timedelta = LINGER
    ) -> tuple[list[Sample], LingeringSeries]:
        """The values, what goes on as 0, and each series for each of `tag_sets`, 0 where there is no value.

        With it what to remember.
        """
        samples: list[Sample] = []
        remembered: dict[MetricSpec, ReportedTagSets] = {}
        for spec, by_tags in chain.from_iterable(one.series() for one in values):
            reported = self.by_series.get(spec, ReportedTagSets())
            to_report, remembered[spec] = reported.with_active(now, by_tags, linger)
            samples += (Sample(spec, by_tags.get(tags, 0), tags) for tags in {*tag_sets, *to_report})
        return samples, LingeringSeries(remembered)


def nearest_rank(ordered: Sequence[float], percent: int) -> float:
    """The value of `ordered` (ascending, not empty) that `percent` per cent of the values do not exceed.

    The index is that of the Agent (pkg/metrics/histogram.go): integer division, no interpolation.
    """
    return ordered[(percent * len(ordered) - 1) // 100]


def summarize(gauges: PercentileGauges, values: Sequence[float], tags: Tags) -> Iterator[Sample]:
    """The five samples of `values`; none when there are no values."""
    if not values:
        return
    ordered = sorted(values)
    yield Sample(gauges.average, sum(ordered) / len(ordered), tags)
    yield Sample(gauges.median, nearest_rank(ordered, 50), tags)
    yield Sample(gauges.percentile_95, nearest_rank(ordered, 95), tags)
    yield Sample(gauges.maximum, ordered[-1], tags)
    yield Sample(gauges.count, len(ordered), tags)
