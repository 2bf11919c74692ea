"""The results of several runs of the check, put together per series and tag set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from datadog_checks.prefect.metrics import METRICS, NAMESPACE, MetricSpec
from lab.agent import CheckResult
from lab.sums import Sums, adds_up

# The series in three parts: those that are always on, those of the groups of the option `collect`, and those of the
# check about itself.
OWN_FAMILIES = ('collector', 'api', 'check', 'events', 'logs')
OWN = {spec.full_name: spec for spec in METRICS.values() if spec.family in OWN_FAMILIES}
DOCUMENTED = {spec.full_name: spec for spec in METRICS.values() if not spec.group and spec.full_name not in OWN}
FURTHER = {spec.full_name: spec for spec in METRICS.values() if spec.group and spec.full_name not in OWN}
DECLARED = DOCUMENTED | FURTHER | OWN
# Series that stay at 0 while all is well, and why nothing of the demo changes that.
ZERO_IF_WELL = {
    'prefect.server.service.lag_seconds': 'the background services of the demo do their work in time',
}


@dataclass
class Track:
    """The values that one series had for one tag set, over the runs of the check."""

    tags: tuple[str, ...]
    last: float = 0.0
    total: float = 0.0
    peak: float = 0.0
    points: int = 0

    def add(self, value: float) -> None:
        self.last = value
        self.total += value
        self.peak = value if self.points == 0 else max(self.peak, value)
        self.points += 1


@dataclass
class Series:
    """One series with all its tag sets. `spec` is None for a name that the integration does not declare."""

    name: str
    type: str
    spec: MetricSpec | None
    tracks: dict[tuple[str, ...], Track] = field(default_factory=dict)

    @property
    def is_count(self) -> bool:
        return self.type == 'count'

    @property
    def total(self) -> float:
        """The sum over all runs and tag sets: of use for a count only."""
        return sum(track.total for track in self.tracks.values())

    @property
    def peak(self) -> float:
        return max(track.peak for track in self.tracks.values())

    def value(self, track: Track) -> float:
        """What a person wants to know of one tag set: the sum of a count, the last value of a gauge."""
        return track.total if self.is_count else track.last

    def by_interest(self) -> list[Track]:
        """The tag sets, those with the largest values first."""
        return sorted(self.tracks.values(), key=lambda track: (-self.value(track), -track.peak, track.tags))


class Recording:
    """Every run of one instance of the check so far. All `names` are full series names."""

    def __init__(self) -> None:
        self.results: list[CheckResult] = []
        self._series: dict[str, Series] = {}

    def add(self, result: CheckResult) -> None:
        self.results.append(result)
        for point in result.points:
            series = self._series.setdefault(point.name, Series(point.name, point.type, DECLARED.get(point.name)))
            series.tracks.setdefault(point.tags, Track(point.tags)).add(point.value)

    @property
    def series(self) -> list[Series]:
        """The series seen: declared ones in the order of their parts, then the rest by name."""
        order = {name: position for position, name in enumerate(DECLARED)}
        return sorted(self._series.values(), key=lambda one: (order.get(one.name, len(order)), one.name))

    def get(self, name: str) -> Series | None:
        return self._series.get(name)

    @property
    def seen(self) -> list[str]:
        """The documented series that were seen."""
        return self.seen_of(DOCUMENTED)

    def seen_of(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self._series]

    @property
    def missing(self) -> list[str]:
        """The declared series that were not seen."""
        return [name for name in DECLARED if name not in self._series]

    @property
    def always_zero(self) -> list[str]:
        """The declared series that were seen, but never with a value above zero, and that do not mean trouble."""
        return [
            name
            for name in DECLARED
            if name in self._series and name not in ZERO_IF_WELL and self._series[name].peak <= 0
        ]

    @property
    def undeclared(self) -> list[str]:
        return [name for name in self._series if name not in DECLARED]

    @property
    def sums(self) -> Sums:
        """What has a sum that means something, added up over all runs."""
        sums = Sums()
        for result in self.results:
            sums.add_samples(
                {
                    (point.name.removeprefix(f'{NAMESPACE}.'), point.tags): point.value
                    for point in result.points
                    if point.value and adds_up(point.name, is_count=point.type == 'count')
                }
            )
        return sums

    @property
    def events(self) -> list[Mapping[str, Any]]:
        return [event for result in self.results for event in result.events]

    @property
    def logs(self) -> list[Mapping[str, Any]]:
        return [log for result in self.results for log in result.logs]

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.results[-1].metadata if self.results else {}

    @property
    def errors(self) -> Counter[str]:
        return Counter(result.error for result in self.results if result.error is not None)

    @property
    def warnings(self) -> Counter[str]:
        return Counter(self._lines_of_results())

    def _lines_of_results(self) -> Iterator[str]:
        for result in self.results:
            # A warning for `agent status` is logged too; it is told once.
            logged = [line for line in result.log if line.partition(' ')[2] not in result.warnings]
            yield from (*result.warnings, *logged)

    @property
    def largest(self) -> CheckResult:
        """The run that sent most series, the last of them."""
        return max(reversed(self.results), key=lambda result: result.submitted.total)

    @property
    def seconds(self) -> tuple[float, float, float]:
        """The shortest, the median and the longest time of a run."""
        times = [result.seconds for result in self.results]
        return (min(times), median(times), max(times)) if times else (0.0, 0.0, 0.0)
