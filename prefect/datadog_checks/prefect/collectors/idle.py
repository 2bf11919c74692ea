"""What need not be reported of a deployment without work: the option `report_idle`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from datadog_checks.prefect.aggregation import LINGER
from datadog_checks.prefect.api.errors import PrefectError
from datadog_checks.prefect.collectors.base import RunContext
from datadog_checks.prefect.metrics import (
    DEPLOYMENT_CONSECUTIVE_FAILURES,
    DEPLOYMENT_EXPECTATION_MAX_AGE_RATIO,
    DEPLOYMENT_IS_READY,
    DEPLOYMENT_SCHEDULES_IS_WITHOUT_RUN,
    FLOW_RUNS_CANCELLED,
    FLOW_RUNS_COMPLETED,
    FLOW_RUNS_CRASHED,
    FLOW_RUNS_FAILED,
    FLOW_RUNS_LATE_START,
    FLOW_RUNS_PAUSED,
    FLOW_RUNS_PENDING,
    FLOW_RUNS_RUNNING,
    FLOW_RUNS_SCHEDULED,
    FLOW_RUNS_THROUGHPUT,
    MetricSpec,
)
from datadog_checks.prefect.sample import Sample
from datadog_checks.prefect.submitted import SubmittedSeries
from datadog_checks.prefect.tags import DEPLOYMENT_ID, Tags

# The series of flow runs that every deployment has; the others are there while they have something to tell.
_OF_FLOW_RUNS = frozenset(
    {
        FLOW_RUNS_SCHEDULED,
        FLOW_RUNS_PENDING,
        FLOW_RUNS_RUNNING,
        FLOW_RUNS_PAUSED,
        FLOW_RUNS_COMPLETED,
        FLOW_RUNS_FAILED,
        FLOW_RUNS_CRASHED,
        FLOW_RUNS_CANCELLED,
        FLOW_RUNS_THROUGHPUT,
        FLOW_RUNS_LATE_START,
    }
)
# Of the family `deployment`: what is always reported, and what is while it is not 0, and as 0 for a while.
_ALWAYS = frozenset({DEPLOYMENT_IS_READY, DEPLOYMENT_EXPECTATION_MAX_AGE_RATIO})
_WHILE_NOT_ZERO = frozenset({DEPLOYMENT_CONSECUTIVE_FAILURES, DEPLOYMENT_SCHEDULES_IS_WITHOUT_RUN})


class IdleDeployments:
    """Tells the series of deployments without work from all others, over the runs of the check."""

    def __init__(self, interval: timedelta = timedelta(), *, report_idle: bool = True) -> None:
        """`interval` is the time between two runs of the check: each series ends with one 0 at least."""
        self._linger = max(LINGER, 2 * interval)
        self._report_idle = report_idle
        self._is_refreshed = False
        # The tags `deployment_id` of the deployments without work.
        self._tags: frozenset[str] = frozenset()
        self._not_zero: dict[tuple[MetricSpec, Tags], datetime] = {}

    def start_run(self) -> None:
        """Another run of the check begins."""
        self._is_refreshed = False

    def refresh(self, run: RunContext) -> None:
        """Look at which deployments work, once in each run of the check, by what the collectors read anyway."""
        if self._is_refreshed:
            return
        self._is_refreshed = True
        self._not_zero = {key: last for key, last in self._not_zero.items() if run.now - last < self._linger}
        try:
            idle = run.inventory.idle_deployments(self._linger, reads_back=not self._report_idle)
        except PrefectError as error:
            # What the runs of the check before have found has to do.
            run.log.debug('Which deployments work is not known anew: %s', error)
        else:
            self._tags = frozenset(f'{DEPLOYMENT_ID}:{key}' for key in idle)

    def needed(self, run: RunContext, samples: Iterable[Sample]) -> Iterable[Sample]:
        """The samples that are to be reported: all of them, if `report_idle` is true."""
        if self._report_idle:
            return samples
        self.refresh(run)
        return [sample for sample in samples if self._tags.isdisjoint(sample.tags) or self._is_needed(sample, run.now)]

    def count(self, submitted: SubmittedSeries) -> int:
        """How many of the series `report_idle: false` would save; a few less if deployments fail."""
        return sum(
            not self._tags.isdisjoint(tag_set)
            for spec, tag_sets in submitted.tag_sets()
            if spec in _OF_FLOW_RUNS or _is_spared(spec)
            for tag_set in tag_sets
        )

    def _is_needed(self, sample: Sample, now: datetime) -> bool:
        """Whether a sample of a deployment without work is reported in any case."""
        spec, value, tags = sample
        if spec in _OF_FLOW_RUNS:
            # What happened is reported whenever it shows.
            return spec.type == 'count' and value != 0
        if spec in _WHILE_NOT_ZERO:
            if value:
                self._not_zero[spec, tags] = now
            return (spec, tags) in self._not_zero
        return not _is_spared(spec)


def _is_spared(spec: MetricSpec) -> bool:
    return spec.family == 'deployment' and spec not in _ALWAYS
