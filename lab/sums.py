"""What a check counted, added up over all its runs, beside what happened: by series and tag set."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

# (series without its namespace, the tags that tell tag sets apart)
Key = tuple[str, tuple[str, ...]]

TAG_KEYS = ('deployment_name', 'flow_name', 'task_key', 'log_id')
LOG_RECORDS = 'log records'
AVERAGE, COUNT = '.avg', '.count'
DURATION_GAUGES = (f'_duration{AVERAGE}', f'_duration{COUNT}')
FAMILIES = ('flow_runs.', 'task_runs.')
# Of the sum of many durations.
TOLERANCE_SECONDS = 0.01


def key_of(series: str, tags: Mapping[str, str | None]) -> Key:
    """The key of a sum; tags without a value are left out, as the check does."""
    return series, tuple(f'{name}:{tags[name]}' for name in TAG_KEYS if tags.get(name))


def adds_up(series: str, *, is_count: bool) -> bool:
    """Whether the values of a series have a sum that means something: counts, the mean and the number of durations."""
    return is_count or series.endswith(DURATION_GAUGES)


@dataclass
class Sums:
    """Counts, numbers of durations, and seconds of durations, by series and tag set.

    `counts` holds the sums of the count series, of the `.count` gauges of durations, of events by name, and of log
    records by id; `seconds` the sums of the durations, by the same keys.
    """

    counts: Counter[Key] = field(default_factory=Counter)
    seconds: defaultdict[Key, float] = field(default_factory=lambda: defaultdict(float))

    def add_duration(self, key: Key, seconds: float) -> None:
        self.counts[key] += 1
        self.seconds[key] += seconds

    def add_samples(self, samples: Mapping[tuple[str, tuple[str, ...]], float]) -> None:
        """Add the values that one run of the check submitted, by series and all tags."""
        for (series, tags), value in samples.items():
            pairs = dict(tag.partition(':')[::2] for tag in tags)
            if series.endswith(AVERAGE):
                count = series.removesuffix(AVERAGE) + COUNT
                self.seconds[key_of(count, pairs)] += value * samples[count, tags]
            else:
                self.counts[key_of(series, pairs)] += int(value)


@dataclass(frozen=True)
class Comparison:
    """One series: the sum over all checks and tag sets beside the truth, and the tag sets for which they differ."""

    series: str
    counted: float
    happened: float
    differences: tuple[tuple[str, float, float], ...]

    @property
    def lines(self) -> list[str]:
        """What differs, for a person."""
        return [
            f'{self.series} {tags}: counted {counted:g}, happened {happened:g}'
            for tags, counted, happened in self.differences
        ]


def compare(counted: Sums, happened: Sums, flow_names: Sequence[str] | None = None) -> Iterable[Comparison]:
    """Compare tag set by tag set, both numbers and seconds: all that is of flows of these names, or all of runs."""
    flow_tags = {f'flow_name:{name}' for name in flow_names or ()}
    parts = (
        ('', counted.counts, happened.counts, 0.0),
        (' seconds', counted.seconds, happened.seconds, TOLERANCE_SECONDS),
    )
    for suffix, by_check, by_server, tolerance in parts:
        keys = sorted(
            key
            for key in by_check.keys() | by_server.keys()
            if (key[0].startswith(FAMILIES) if flow_names is None else flow_tags & set(key[1]))
        )
        for series in dict.fromkeys(series for series, _ in keys):
            own = [key for key in keys if key[0] == series]
            yield Comparison(
                series=series.removesuffix(COUNT) + suffix if suffix else series,
                counted=sum(by_check[key] for key in own),
                happened=sum(by_server[key] for key in own),
                differences=tuple(
                    (' '.join(key[1]), by_check[key], by_server[key])
                    for key in own
                    if not math.isclose(by_check[key], by_server[key], rel_tol=0, abs_tol=tolerance)
                ),
            )
