from __future__ import annotations

from datetime import timedelta

import pytest

from datadog_checks.prefect.aggregation import Durations, LingeringSeries, Maxima, ReportedTagSets, Tally
from datadog_checks.prefect.metrics import (
    FLOW_RUNS_EXECUTION_DURATION,
    FLOW_RUNS_PENDING,
    FLOW_RUNS_PENDING_MAX_AGE,
    FLOW_RUNS_RUNNING,
)
from datadog_checks.prefect.tags import Tags
from tests.unit.harness import at, five, values

MINUTE = timedelta(seconds=60)
A, B, C = ('x:a',), ('x:b',), ('x:c',)


def test_tally_reports_each_series_for_each_tag_set() -> None:
    tally = Tally(FLOW_RUNS_PENDING, FLOW_RUNS_RUNNING)
    tally.add(FLOW_RUNS_PENDING, A)
    tally.add(FLOW_RUNS_PENDING, A)
    tally.add(FLOW_RUNS_RUNNING, B, 5)
    assert values(tally.samples([A, B, C])) == {
        ('flow_runs.pending', A): 2,
        ('flow_runs.running', A): 0,
        ('flow_runs.pending', B): 0,
        ('flow_runs.running', B): 5,
        ('flow_runs.pending', C): 0,
        ('flow_runs.running', C): 0,
    }


def test_reporting_a_tag_set_as_0_does_not_make_it_one_of_those_with_a_value() -> None:
    tally = Tally(FLOW_RUNS_PENDING)
    tally.add(FLOW_RUNS_PENDING, A)
    tally.add(FLOW_RUNS_PENDING, B, 0)
    list(tally.samples([C]))
    assert tally.tag_sets() == {A}


def test_maxima_are_the_largest_values_those_of_0_included() -> None:
    maxima = Maxima(FLOW_RUNS_PENDING_MAX_AGE)
    for value in (3.0, 7.5, 5.0):
        maxima.add(FLOW_RUNS_PENDING_MAX_AGE, A, value)
    maxima.add(FLOW_RUNS_PENDING_MAX_AGE, B, 0.0)
    assert dict(maxima.series()) == {FLOW_RUNS_PENDING_MAX_AGE: {A: 7.5, B: 0.0}}


def test_series_lingers_only_where_it_had_a_value() -> None:
    first, later = Tally(FLOW_RUNS_PENDING, FLOW_RUNS_RUNNING), Tally(FLOW_RUNS_PENDING, FLOW_RUNS_RUNNING)
    first.add(FLOW_RUNS_PENDING, A, 3)
    later.add(FLOW_RUNS_RUNNING, B)
    samples, reported = LingeringSeries().samples(at(0), first, linger=MINUTE)
    assert values(samples) == {('flow_runs.pending', A): 3}
    samples, reported = reported.samples(at(59), later, tag_sets=[C], linger=MINUTE)
    assert values(samples) == {
        ('flow_runs.pending', A): 0,
        ('flow_runs.running', B): 1,
        ('flow_runs.pending', C): 0,
        ('flow_runs.running', C): 0,
    }
    none = Tally(FLOW_RUNS_PENDING, FLOW_RUNS_RUNNING)
    _, reported = reported.samples(at(61), none, linger=MINUTE)
    assert values(reported.samples(at(76), none, linger=MINUTE)[0]) == {('flow_runs.running', B): 0}


def test_durations_are_summed_up_per_tag_set() -> None:
    durations = Durations(FLOW_RUNS_EXECUTION_DURATION)
    durations.add(A, 2.5)
    durations.add(B, timedelta(seconds=90))
    durations.add(A, timedelta(milliseconds=500))
    assert values(durations.samples()) == {
        **five('flow_runs.execution_duration', A, 0.5, 2.5),
        **five('flow_runs.execution_duration', B, 90),
    }


@pytest.mark.parametrize('duration', [-3.0, timedelta(seconds=-3)])
def test_negative_duration_is_one_of_0(duration: timedelta | float) -> None:
    durations = Durations(FLOW_RUNS_EXECUTION_DURATION)
    durations.add(A, duration)
    assert values(durations.samples()) == five('flow_runs.execution_duration', A, 0)


def reports(*runs: tuple[float, set[Tags]], linger: timedelta = timedelta()) -> list[set[Tags]]:
    """The tag sets that each run of the check reports: the second at which it runs, and those that have a value."""
    memory = ReportedTagSets()
    found = []
    for seconds, active in runs:
        reported, memory = memory.with_active(at(seconds), active, linger)
        found.append(reported)
    return found


class TestReportedTagSets:
    def test_tag_set_is_reported_once_more(self) -> None:
        assert reports((0, {A, B}), (15, {B}), (30, {B})) == [{A, B}, {A, B}, {B}]

    def test_tag_set_is_reported_once_more_however_long_that_takes(self) -> None:
        assert reports((0, {A}), (86400, set()), (86415, set())) == [{A}, {A}, set()]

    def test_tag_set_lingers(self) -> None:
        later = [(seconds, set[Tags]()) for seconds in (15, 45, 59, 75, 90)]
        assert reports((0, {A}), *later, linger=MINUTE) == [{A}, {A}, {A}, {A}, {A}, set()]

    def test_tag_set_that_is_active_again_starts_anew(self) -> None:
        assert reports((0, {A}), (59, {A}), (118, set()), linger=MINUTE)[-1] == {A}

    def test_clock_that_steps_back_keeps_it(self) -> None:
        assert reports((1000, {A}), (0, set()), linger=MINUTE)[-1] == {A}

    def test_memory_that_is_not_taken_over_says_the_same_again(self) -> None:
        _, memory = ReportedTagSets().with_active(at(0), {A})
        assert memory.with_active(at(15), set())[0] == memory.with_active(at(30), set())[0] == {A}
