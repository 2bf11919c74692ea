"""What is expected of deployments, on a real server with real schedules: against the runs that it planned."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from lab.agent import CheckResult, CheckRunner
from lab.api import PrefectApiDriver
from lab.prefect_server import PrefectServer
from lab.waiting import wait_until
from tests.integration.ages import age_in

Schedule = dict[str, Any]
SCHEDULES: dict[str, list[Schedule]] = {
    'hourly': [{'cron': '7 * * * *'}],
    'weekly': [{'cron': '30 4 * * 2'}],
    'monthly': [{'cron': '0 5 1 * *'}],
    'by the clock of Berlin': [{'cron': '30 2 * * *', 'timezone': 'Europe/Berlin'}],
    'every nine days': [{'interval': 9 * 86400}],
    'last Friday': [{'rrule': 'FREQ=MONTHLY;BYDAY=-1FR'}],
    'two schedules': [{'cron': '0 3 * * *'}, {'interval': 5 * 3600}],
}


def made(
    api: PrefectApiDriver, name: str, *schedules: Schedule, tags: tuple[str, ...] = (), paused: bool = False
) -> str:
    body = {
        'name': name,
        'flow_id': api.create_flow(f'flow of {name}'),
        'schedules': [{'schedule': {'timezone': 'UTC', **schedule}, 'active': True} for schedule in schedules],
        'tags': list(tags),
        'paused': paused,
    }
    deployment = str(api.request('POST', 'deployments/', body)['id'])
    if schedules and not paused:
        planned(api, deployment)
    return deployment


def planned(api: PrefectApiDriver, deployment: str) -> list[dict[str, Any]]:
    """The runs that the scheduler made, as soon as there are any, the first to come first."""
    api.request('POST', f'deployments/{deployment}/schedule', {})
    criteria = {'deployment_id': {'any_': [deployment]}, 'tags': {'all_': ['auto-scheduled']}}

    def runs() -> list[dict[str, Any]]:
        found = api.read_all('flow_runs/filter', {'flow_runs': criteria})
        return sorted(found, key=lambda run: str(run['expected_start_time']))

    wait_until(runs, 'the scheduler')
    return runs()


def go_through(api: PrefectApiDriver, run: str, state_type: str = 'COMPLETED', seconds: float = 0) -> datetime:
    """When it ended."""
    api.set_flow_run_state(run, 'RUNNING', force=True)
    time.sleep(seconds)
    api.set_flow_run_state(run, state_type, force=True)
    return moment(api.flow_run(run)['end_time'])


def seconds_to_end(api: PrefectApiDriver, run: str, since: str) -> float:
    """Since it was due (`expected_start_time`) or its `start_time`: a busy server takes its time for either."""
    row = api.flow_run(run)
    return (moment(row['end_time']) - moment(row[since])).total_seconds()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def ratio(result: CheckResult, name: str, series: str = 'max_age') -> tuple[float, float, str] | None:
    """Seconds, what is expected, and the source; None where nothing is told. What ended in zeros is not told."""
    assert result.error is None, result.error
    found: dict[str, tuple[float, str]] = {}
    for point in result.points:
        by_key = dict(tag.partition(':')[::2] for tag in point.tags)
        prefix, _, what = point.name.rpartition('_')
        is_wanted = prefix == f'prefect.server.deployment.expectation.{series}' and point.value
        if is_wanted and by_key['deployment_name'] == name:
            found[what] = (point.value, by_key['expectation_source'])
    if not found:
        return None
    return found['seconds'][0], found['seconds'][0] / found['ratio'][0], found['ratio'][1]


@pytest.mark.parametrize('name', SCHEDULES)
def test_success_is_expected_after_the_first_run_that_the_server_planned(
    api: PrefectApiDriver, runner: CheckRunner, name: str
) -> None:
    deployment = made(api, name, *SCHEDULES[name])
    run = api.create_flow_run(deployment)
    end = go_through(api, run)
    runs = planned(api, deployment)
    result = runner.run()
    found = ratio(result, name)
    assert found is not None
    seconds, expected, source = found
    assert source == 'schedule'
    assert seconds == age_in(result, end)
    until_due = (moment(runs[0]['expected_start_time']) - end).total_seconds()
    assert expected == pytest.approx(until_due + seconds_to_end(api, run, 'expected_start_time') + 60)
    # The first planned run fails long before its time, or nobody sees to it: the later ones do not count.
    go_through(api, runs[0]['id'], 'FAILED')
    again = ratio(runner.run(), name)
    assert again is not None
    assert again[1] == pytest.approx(expected)


def test_schedule_that_nobody_serves_goes_above_one_and_a_success_below(
    api: PrefectApiDriver, runner: CheckRunner
) -> None:
    deployment = made(api, 'every 10 s', {'interval': 10})
    run = api.create_flow_run(deployment)
    end = go_through(api, run, seconds=4)
    margin = seconds_to_end(api, run, 'expected_start_time') + 60
    first = min(due for run in planned(api, deployment) if (due := moment(run['expected_start_time'])) > end)
    last = 0.0
    while (now := datetime.now(UTC)).timestamp() < first.timestamp() + margin + 5:
        found = ratio(runner.run(), 'every 10 s')
        assert found is not None
        last = found[0] / found[1]
        # The server's clock is known to a second, and the check took its time.
        overdue = [(when - first).total_seconds() - margin for when in (now, datetime.now(UTC))]
        assert (last > 1) is (overdue[0] > 0) or (overdue[0] < 2 and overdue[1] > -2)
        time.sleep(2)
    assert last > 1
    late = [run for run in planned(api, deployment) if moment(run['expected_start_time']) < datetime.now(UTC)]
    go_through(api, late[-1]['id'])
    found = ratio(runner.run(), 'every 10 s')
    assert found is not None
    assert found[0] < found[1]


def test_pause_resume_and_a_schedule_that_is_switched_on(api: PrefectApiDriver, runner: CheckRunner) -> None:
    deployment = made(api, 'paused', {'cron': '0 3 * * *'}, tags=('expect:max_age=1h',))
    end = go_through(api, api.create_flow_run(deployment))
    found = ratio(runner.run(), 'paused')
    assert found is not None
    assert found[1:] == (pytest.approx(3600), 'tag')
    api.pause_deployment(deployment)
    assert ratio(runner.run(), 'paused') is None
    time.sleep(2)
    api.resume_deployment(deployment)
    assert (datetime.now(UTC) - end).total_seconds() > 2
    resumed = datetime.now(UTC)
    runner.run()
    time.sleep(1)
    found = ratio(runner.run(), 'paused')
    assert found is not None
    # The server's clock is known to a second.
    assert 0 < found[0] <= (datetime.now(UTC) - resumed).total_seconds() + 1

    (schedule,) = api.request('GET', f'deployments/{deployment}/schedules')
    path = f'deployments/{deployment}/schedules/{schedule["id"]}'
    for is_active in (False, True):
        api.request('PATCH', path, {'active': is_active})
        # A schedule is no edit of its deployment: its planned runs are gone, or there again.
        api.request('POST', f'deployments/{deployment}/schedule', {})
        switched = datetime.now(UTC)
        runner.run()
        time.sleep(1)
        found = ratio(runner.run(), 'paused')
    assert found is not None
    assert 0 < found[0] <= (datetime.now(UTC) - switched).total_seconds() + 1


def test_deployments_without_an_expectation_have_none(api: PrefectApiDriver, runner: CheckRunner) -> None:
    go_through(api, api.create_flow_run(made(api, 'on demand')))
    made(api, 'made paused', {'cron': '0 3 * * *'}, paused=True)
    # Prefect plans 100 days ahead.
    far = made(api, 'once in a lifetime')
    year = datetime.now(UTC).year + 2
    schedule = {'schedule': {'rrule': f'DTSTART:{year}0101T000000Z\nFREQ=YEARLY'}, 'active': True}
    api.request('POST', f'deployments/{far}/schedules', [schedule])
    made(api, 'expected', tags=('expect:max_age=1m', 'expect:max_run_time=off'))
    result = runner.run()
    for name in ('on demand', 'made paused', 'once in a lifetime'):
        assert ratio(result, name) is None
    found = ratio(result, 'expected')
    assert found is not None
    assert found[1:] == (pytest.approx(60), 'tag')


def test_run_time_is_judged_by_the_last_successes(server: PrefectServer, api: PrefectApiDriver) -> None:
    deployment = made(api, 'steady')
    ended = [api.create_flow_run(deployment) for _ in range(5)]
    for number, run in enumerate(ended):
        go_through(api, run, seconds=1.5 if number == 2 else 0)
    longest = max(seconds_to_end(api, run, 'start_time') for run in ended)
    assert longest >= 1.5
    # A person says so: it never ran.
    api.set_flow_run_state(api.create_flow_run(deployment), 'COMPLETED', force=True)
    run = api.create_flow_run(deployment)
    api.set_flow_run_state(run, 'RUNNING', force=True)
    started = moment(api.flow_run(run)['start_time'])
    options = [{'deployment_names': {'include': ['steady']}, 'max_run_time': 30}]
    for expectations, expected, source in (([], 60 + 2 * longest, 'history'), (options, 30, 'option')):
        check = CheckRunner({'prefect_url': server.api_url, 'expectations': expectations})
        result = check.run()
        check.cancel()
        found = ratio(result, 'steady', 'max_run_time')
        assert found is not None
        assert found[0] == age_in(result, started)
        assert found[1:] == (pytest.approx(expected, abs=0.1), source)
