"""Each background service of a real server is told apart as dead or alive by what it leaves undone.

The same happens on two servers: one has all of them, the other none. Their intervals are set to a second, and the check
has less patience than it has in an Agent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from datadog_checks.prefect.collectors import background_services
from lab.agent import CheckResult, CheckRunner
from lab.api import PrefectApiDriver
from lab.prefect_server import FlowScript, PrefectServer

# Services by their value of the tag, and by their name in the settings.
SERVICES = {
    'scheduler': 'SCHEDULER',
    'late_run_marker': 'LATE_RUNS',
    'foreman': 'FOREMAN',
    'cancellation_cleanup': 'CANCELLATION_CLEANUP',
    'task_run_recorder': 'TASK_RUN_RECORDER',
}
QUICK = {
    **{
        f'PREFECT_SERVER_SERVICES_{name}_LOOP_SECONDS': '1' for name in SERVICES.values() if name != 'TASK_RUN_RECORDER'
    },
    'PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS': '1',
}
ALL_OFF = {f'PREFECT_SERVER_SERVICES_{name}_ENABLED': 'false' for name in SERVICES.values()}
PATIENCE_SECONDS = 10
LIMIT_SECONDS = 90
WELL = dict.fromkeys(SERVICES, 1.0)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_services, '_PATIENCE', timedelta(seconds=PATIENCE_SECONDS))


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[PrefectServer]:
    with PrefectServer(settings=QUICK | request.param) as server:
        yield server


def of_services(result: CheckResult, series: str) -> dict[str, float]:
    assert result.error is None, result.error
    found = {}
    for point in result.points:
        if point.name == f'prefect.server.{series}':
            (service,) = (tag.partition(':')[2] for tag in point.tags if tag.startswith('background_service:'))
            found[service] = point.value
    return found


def give_work_to_all(api: PrefectApiDriver) -> None:
    """Something to do for each of them but the recorder: a schedule, a late run, a lost worker, an orphan."""
    api.create_work_pool('lost')
    deployment = api.create_deployment(
        flow_name='plan',
        name='hourly',
        entrypoint='outcomes.py:succeeds',
        work_pool_name='lost',
        work_queue_name='default',
        schedules=[{'interval': 3600}],
        paused=False,
    )
    api.create_flow_run(deployment)
    api.request('POST', 'work_pools/lost/workers/heartbeat', {'name': 'gone', 'heartbeat_interval_seconds': 1})
    flow = api.request('POST', 'flows/', {'name': 'family'})['id']
    running = {'type': 'RUNNING', 'name': 'Running'}
    parent = api.request('POST', 'flow_runs/', {'flow_id': flow, 'state': running})['id']
    task_run = {'flow_run_id': parent, 'task_key': 'child', 'dynamic_key': '0'}
    dummy = api.request('POST', 'task_runs/', task_run)['id']
    api.request('POST', 'flow_runs/', {'flow_id': flow, 'state': running, 'parent_task_run_id': dummy})
    api.set_flow_run_state(parent, 'CANCELLED', force=True)


def run_tasks(server: PrefectServer) -> None:
    with FlowScript(server.api_url, 'script.py') as script:
        assert script.wait(60) == 0


@pytest.mark.parametrize('server', [ALL_OFF], indirect=True, ids=['all services off'])
def test_dead_services_are_unhealthy(server: PrefectServer) -> None:
    runner = CheckRunner({'prefect_url': server.api_url, 'collect_events': True})
    assert of_services(runner.run(), 'service.is_healthy') == WELL
    with PrefectApiDriver(server.api_url) as api:
        give_work_to_all(api)
    run_tasks(server)
    deadline = time.monotonic() + LIMIT_SECONDS
    health, result = WELL, None
    while any(health.values()) and time.monotonic() < deadline:
        result = runner.run()
        health = of_services(result, 'service.is_healthy')
        time.sleep(1)
    assert result is not None
    assert health == dict.fromkeys(SERVICES, 0.0)
    lags = of_services(result, 'service.lag_seconds')
    assert all(lag >= PATIENCE_SECONDS - 1 for lag in lags.values()), lags


@pytest.mark.parametrize('server', [{}], indirect=True, ids=['all services on'])
def test_services_that_work_are_healthy_whether_idle_or_busy(server: PrefectServer) -> None:
    runner = CheckRunner({'prefect_url': server.api_url, 'collect_events': True})
    assert of_services(runner.run(), 'service.is_healthy') == WELL
    with PrefectApiDriver(server.api_url) as api:
        give_work_to_all(api)
    run_tasks(server)
    # As long as the dead ones need to be found out, and the newest event to be looked at.
    deadline = time.monotonic() + 3 * PATIENCE_SECONDS
    while time.monotonic() < deadline:
        result = runner.run()
        assert of_services(result, 'service.is_healthy') == WELL
        time.sleep(1)
    assert of_services(result, 'service.lag_seconds') == dict.fromkeys(SERVICES, 0.0)
