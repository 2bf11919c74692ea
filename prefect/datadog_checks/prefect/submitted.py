"""The series that one run of the check sends: how many there are, and which options and filters would save most."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from datadog_checks.prefect import tags
from datadog_checks.prefect.metrics import MetricSpec
from datadog_checks.prefect.tags import Tags

# What each filter selects, by the tag that has its name.
_FILTERS = {
    'deployment_names': tags.DEPLOYMENT_NAME,
    'flow_names': tags.FLOW_NAME,
    'work_pool_names': tags.WORK_POOL_NAME,
    'work_queue_names': tags.WORK_QUEUE_NAME,
}
# Options and filters that a warning names.
_NAMED = 2


@dataclass(frozen=True)
class Governed:
    """What a filter can leave out: so many series of so many objects, `most` of them with the tag value `largest`."""

    option: str
    series: int
    objects: int
    largest: str
    most: int


class SubmittedSeries:
    """A series and one of its tag sets count once, however often a value is sent."""

    def __init__(self, is_sent: Callable[[str], bool] = lambda name: True) -> None:
        """`is_sent` tells by its full name whether a series passes the option `metric_patterns`."""
        self._is_sent = is_sent
        self._tag_sets: defaultdict[MetricSpec, set[Tags]] = defaultdict(set)

    def add(self, spec: MetricSpec, tag_set: Tags) -> None:
        self._tag_sets[spec].add(tag_set)

    def by_family(self) -> Counter[str]:
        """How many series there are, by the first word of their names."""
        return self._count(lambda spec: spec.family)

    @property
    def total(self) -> int:
        return self.by_family().total()

    def by_option(self, idle: int) -> dict[str, int]:
        """How many series each option would save, the largest number first; `idle` is what `report_idle` would."""
        saved = Counter(
            {f'collect: {{{group}: false}}': number for group, number in self._count(lambda spec: spec.group).items()}
        )
        # Of no group.
        saved.pop('collect: {: false}', None)
        saved['report_idle: false'] = idle
        return {option: number for option, number in saved.most_common() if number}

    def by_filter(self) -> list[Governed]:
        """What each filter governs, the largest number of series first."""
        found: dict[str, Counter[str]] = {f'{key}:': Counter() for key in _FILTERS.values()}
        for spec, tag_sets in self.tag_sets():
            keys = [f'{key}:' for key in _FILTERS.values() if key in spec.tag_keys]
            for tag_set in tag_sets if keys else ():
                for tag in tag_set:
                    key, _, value = tag.partition(':')
                    if f'{key}:' in keys:
                        found[f'{key}:'][value] += 1
        governed = []
        for option, key in _FILTERS.items():
            for largest, most in found[f'{key}:'].most_common(1):
                values = found[f'{key}:']
                governed.append(Governed(option, values.total(), len(values), largest, most))
        return sorted(governed, key=lambda item: -item.series)

    def advice(self, idle: int) -> str:
        """Which options and filters would save most, in words without any name that the server gave."""
        options = [
            f'`{option}` would save {number:,}' for option, number in list(self.by_option(idle).items())[:_NAMED]
        ]
        filters = [
            f'`{item.option}` could leave out up to {item.series:,}, which have {item.objects:,} different names'
            for item in [item for item in self.by_filter() if item.objects > 1][:_NAMED]
        ]
        return '; '.join([*options, *filters])

    def tag_sets(self) -> list[tuple[MetricSpec, set[Tags]]]:
        """The series that pass `metric_patterns`, each with its tag sets, without those of the instance."""
        return [(spec, tag_sets) for spec, tag_sets in self._tag_sets.items() if self._is_sent(spec.full_name)]

    def _count(self, key: Callable[[MetricSpec], str]) -> Counter[str]:
        numbers: Counter[str] = Counter()
        for spec, tag_sets in self.tag_sets():
            numbers[key(spec)] += len(tag_sets)
        return numbers
