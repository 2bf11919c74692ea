"""Each monitor alerts when its trouble comes and recovers when it is mended, over a recording from a real server.

The recording is made by `make record-troubles` (`lab/troubles.py`); `tools/monitor_evaluation.py` plays it in fast
motion, at a speed at which window and threshold of the monitor fit into it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from lab.timeline import TimedSeries, Timeline
from tools.monitor_evaluation import Status, courses

FOLDER = Path(__file__).parents[2]
MONITORS = {path.stem: json.loads(path.read_text()) for path in (FOLDER / 'assets' / 'monitors').glob('*.json')}
# The group that has the trouble, without the server, and the seconds that a second of the recording stands for.
TROUBLES: dict[str, tuple[tuple[str, ...], float]] = {
    'background_service_dead': (('late_run_marker',), 120),
    'backlog_age': (('attended', 'reports'), 120),
    'collection_failing': (('workers',), 120),
    'concurrency_saturated': (('attended', 'orders'), 120),
    'crashed_runs': (('hourly', 'image-import'), 60),
    'failing_in_a_row': (('hourly', 'flaky'), 60),
    'failure_rate': (('hourly', 'flaky'), 360),
    'freshness_missed': (('hourly', 'stale'), 7200),
    'late_runs': (('lonely', 'default', 'no_worker'), 60),
    'late_runs_served': (('hourly', 'nightly', 'no_worker'), 60),
    'leaked_slots': (('database',), 60),
    'not_authorized': ((), 60),
    'pending_stuck': (('hourly', 'stuck'), 60),
    'pool_without_worker': (('lonely',), 60),
    'queue_not_polled': (('attended', 'reports'), 60),
    'run_running_long': (('hourly', 'backfill'), 720),
    'server_down': ((), 60),
}


@pytest.fixture(scope='module')
def timeline() -> Timeline:
    """The recording, with its late runs also as those of served deployments and of flows without a deployment."""
    recorded = Timeline.load(FOLDER / 'tests' / 'fixtures' / 'series' / 'troubles.json.gz')
    late = [series for series in recorded.series if series.name == 'prefect.server.flow_runs.late']
    served = [replace(series, tags=_without(series.tags, 'work_')) for series in late]
    local = [replace(series, tags=_without(series.tags, 'deployment_')) for series in served]
    return replace(recorded, series=(*recorded.series, *served, *local))


def _without(tags: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith(prefix)}


def turns(name: str, timeline: Timeline) -> dict[tuple[str, ...], list[Status]]:
    """The statuses of each group, without repetitions; the groups without their first tag, the server."""
    found = courses(MONITORS[name], timeline, TROUBLES[name][1])
    return {group[1:]: [status for status, _ in groupby(line)] for group, line in found.items()}


def test_every_monitor_has_its_trouble() -> None:
    assert TROUBLES.keys() == MONITORS.keys()


@pytest.mark.parametrize('name', sorted(TROUBLES))
def test_monitor_alerts_and_recovers(name: str, timeline: Timeline) -> None:
    course = [status for status in turns(name, timeline)[TROUBLES[name][0]] if status is not Status.WARN]

    assert [status for status, _ in groupby(course)][:3] == [Status.OK, Status.ALERT, Status.OK]


def test_what_has_no_trouble_stays_quiet(timeline: Timeline) -> None:
    assert turns('failing_in_a_row', timeline)['hourly', 'orders'] == [Status.OK]
    assert turns('pending_stuck', timeline).keys() == {('hourly', 'stuck')}
    assert turns('background_service_dead', timeline)['foreman',] == [Status.OK]
    assert turns('concurrency_saturated', timeline).keys() == {('attended', 'orders')}


def ended_in_trouble(timeline: Timeline, metric: str, deployment: tuple[str, str]) -> Timeline:
    """The timeline with a series of a deployment ending at its last value above 0, as when somebody deletes it."""

    def end(series: TimedSeries) -> TimedSeries:
        name, flow = deployment
        is_it = series.name == metric and (series.tags['deployment_name'], series.tags['flow_name']) == (name, flow)
        if not is_it:
            return series
        last = max(check for check, value in series.points if value)
        return replace(series, points=tuple(point for point in series.points if point[0] <= last))

    return replace(timeline, series=tuple(map(end, timeline.series)))


@pytest.mark.parametrize(
    ('name', 'metric', 'deployment'),
    [
        ('failing_in_a_row', 'prefect.server.deployment.consecutive_failures', ('hourly', 'flaky')),
        ('crashed_runs', 'prefect.server.flow_runs.crashed.count', ('hourly', 'image-import')),
    ],
    ids=['a gauge resolves', 'the sum of a count is 0'],
)
def test_alert_ends_when_its_series_ends(
    name: str, metric: str, deployment: tuple[str, str], timeline: Timeline
) -> None:
    course = turns(name, ended_in_trouble(timeline, metric, deployment))[deployment]

    assert Status.ALERT in course
    assert course[-1] is Status.OK


def test_series_without_a_tag_that_a_monitor_groups_by_is_in_no_group(timeline: Timeline) -> None:
    served = ('hourly', 'nightly', 'no_worker')

    assert served in turns('late_runs_served', timeline)
    assert not [group for group in turns('late_runs', timeline) if 'N/A' in group]
    assert not [group for group in turns('late_runs_served', timeline) if 'N/A' in group]


def test_monitor_does_not_alert_without_the_trouble(timeline: Timeline) -> None:
    """So that it is the value that alerts, and not the evaluation."""
    calm = Timeline(
        timeline.times,
        tuple(
            TimedSeries(series.name, series.type, series.tags, tuple((check, 1.0) for check, _ in series.points))
            for series in timeline.series
        ),
    )

    assert turns('server_down', calm)[()] == [Status.OK]
