"""Percentile gauges of a list of values, by the nearest-rank rule of the Agent's own histogram."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from datadog_checks.prefect.metrics import PercentileGauges
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.tags import Tags


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
