"""What people do to objects that the check remembers: it follows at its next run."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.agent import CheckResult, CheckRunner
from lab.api import PrefectApiDriver
from lab.prefect_server import PrefectServer
from lab.waiting import wait_until
from tests.integration.ages import age_in

RUNNING = {'type': 'RUNNING', 'name': 'Running'}


def served(api: PrefectApiDriver, name: str) -> str:
    flow = api.create_flow(name)
    deployment: str = api.request('POST', 'deployments/', {'name': name, 'flow_id': flow})['id']
    return deployment


def ended(api: PrefectApiDriver, deployment: str, state_type: str) -> str:
    run: str = api.create_flow_run(deployment)
    api.set_flow_run_state(run, 'RUNNING', force=True)
    api.set_flow_run_state(run, state_type, force=True)
    return run


def test_failures_that_a_person_silences_are_none(
    server: PrefectServer, api: PrefectApiDriver, runner: CheckRunner
) -> None:
    deployment = served(api, 'silenced')
    ended(api, deployment, 'COMPLETED')
    first, second, third = (ended(api, deployment, state) for state in ('FAILED', 'FAILED', 'CRASHED'))
    series, tags = 'deployment.consecutive_failures', {'deployment_name': 'silenced'}
    assert runner.run().value(series, **tags) == 3
    api.delete_flow_run(third)
    assert runner.run().value(series, **tags) == 2
    end = api.flow_run(first)['end_time']
    api.set_flow_run_state(first, 'COMPLETED', force=True)
    assert api.flow_run(first)['end_time'] == end
    result = runner.run()
    assert result.value(series, **tags) == 1
    api.set_flow_run_state(second, 'COMPLETED', force=True)
    result = runner.run()
    assert result.value(series, **tags) == 0
    fresh = CheckRunner({'prefect_url': server.api_url, 'tags': ['agent:fresh']}).run()
    assert fresh.value(series, **tags) == 0
    ages = [found.value('deployment.seconds_since_success', **tags) for found in (result, fresh)]
    assert abs(ages[0] - ages[1]) < 5


@pytest.mark.parametrize('by_then', ['COMPLETED', 'delete'])
def test_cancelled_run_that_a_person_completes_is_a_success(
    server: PrefectServer, api: PrefectApiDriver, runner: CheckRunner, by_then: str
) -> None:
    name = f'cancelled, {by_then}'
    deployment = served(api, name)
    success = ended(api, deployment, 'COMPLETED')
    ended(api, deployment, 'FAILED')
    time.sleep(3)
    cancelled = ended(api, deployment, 'CANCELLED')
    first = runner.run()
    assert first.value('deployment.consecutive_failures', deployment_name=name) == 1
    end = api.flow_run(cancelled)['end_time']
    if by_then == 'delete':
        api.delete_flow_run(cancelled)
    else:
        api.set_flow_run_state(cancelled, by_then, force=True)
        assert api.flow_run(cancelled)['end_time'] == end
    last = datetime.fromisoformat(api.flow_run(success if by_then == 'delete' else cancelled)['end_time'])
    for check in (runner, CheckRunner({'prefect_url': server.api_url, 'tags': ['agent:fresh']})):
        found = check.run()
        assert found.value('deployment.seconds_since_success', deployment_name=name) == age_in(found, last)
        failures = found.value('deployment.consecutive_failures', deployment_name=name)
        assert failures == (1 if by_then == 'delete' else 0)


def test_pool_of_agents_has_the_state_of_its_queues(api: PrefectApiDriver, runner: CheckRunner) -> None:
    pool = api.request('POST', 'work_pools/', {'name': 'agents', 'type': 'prefect-agent'})
    assert pool['status'] is None

    def states() -> list[float]:
        result = runner.run()
        names = ('is_ready', 'is_not_ready', 'is_paused')
        return [result.value(f'work_pool.{name}', work_pool_name='agents') for name in names]

    assert states() == [0, 1, 0]
    api.request('POST', 'work_pools/agents/get_scheduled_flow_runs', {'work_queue_names': ['default']})
    # The server answers first, and marks what was polled a moment later.
    queue = 'work_pools/agents/queues/default'
    wait_until(lambda: api.request('GET', queue)['status'] == 'READY', 'the work queue to be READY')
    assert states() == [1, 0, 0]
    api.update_work_pool('agents', is_paused=True)
    assert states() == [0, 0, 1]


def test_renamed_work_queue_has_its_new_name(server: PrefectServer, api: PrefectApiDriver, runner: CheckRunner) -> None:
    api.create_work_pool('renaming')
    api.request('POST', 'work_pools/renaming/queues/', {'name': 'old'})
    deployment = api.create_deployment(
        flow_name='renamed',
        name='renamed',
        entrypoint='outcomes.py:succeeds',
        work_pool_name='renaming',
        work_queue_name='old',
    )
    run = api.create_flow_run(deployment)
    api.set_flow_run_state(run, 'RUNNING', force=True)
    by_filter = CheckRunner({'prefect_url': server.api_url, 'work_queue_names': {'include': ['^new$']}})
    series = ('deployment.is_ready', 'flow_runs.running', 'work_queue.backlog.size')
    result = runner.run()
    assert all(result.values(name, work_queue_name='old') for name in series)
    assert not by_filter.run().values('flow_runs.running', work_pool_name='renaming')
    api.request('PATCH', 'work_pools/renaming/queues/old', {'name': 'new'})
    for instance in (runner, by_filter):
        result = instance.run()
        # What ran under the old name ends as 0.
        assert not any(sum(result.values(name, work_queue_name='old').values()) for name in series)
        assert not result.values('deployment.is_ready', work_queue_name='old')
        assert all(result.values(name, work_queue_name='new') for name in series)
        assert result.value('flow_runs.running', work_queue_name='new') == 1


def test_served_deployments_have_the_status_of_now(api: PrefectApiDriver, runner: CheckRunner) -> None:
    deployments = [served(api, f'served-{number}') for number in range(30)]
    assert not any(runner.run().values('deployment.is_ready', deployment_id=item) is None for item in deployments)
    api.request('POST', 'deployments/get_scheduled_flow_runs', {'deployment_ids': deployments})

    def statuses() -> list[str]:
        criteria = {'id': {'any_': deployments}}
        return [row['status'] for row in api.read_all('deployments/filter', {'deployments': criteria})]

    wait_until(lambda: statuses() == ['READY'] * 30, 'all deployments to be READY')
    result = runner.run()
    assert [result.value('deployment.is_ready', deployment_id=item) for item in deployments] == [1] * 30


def test_reason_of_a_run_whose_work_queue_is_gone(api: PrefectApiDriver, server: PrefectServer) -> None:
    runner = CheckRunner({'prefect_url': server.api_url, 'late_start_threshold': 0})
    api.create_work_pool('here')
    api.create_work_pool('gone')
    deployment = api.create_deployment(
        flow_name='stranded',
        name='stranded',
        entrypoint='outcomes.py:succeeds',
        work_pool_name='gone',
        work_queue_name='default',
    )
    api.create_flow_run(deployment)
    time.sleep(0.1)
    stranded = {'deployment_name': 'stranded'}
    (tags,) = (tags for tags, late in runner.run().values('flow_runs.late', **stranded).items() if late)
    assert 'late_reason:no_worker' in tags
    api.delete_work_pool('gone')
    api.request('PATCH', f'deployments/{deployment}', {'work_pool_name': 'here', 'work_queue_name': 'default'})
    (tags,) = (tags for tags, late in runner.run().values('flow_runs.late', **stranded).items() if late)
    assert 'late_reason:queue_deleted' in tags


@pytest.mark.parametrize('filters', [{}, {'deployment_names': {'include': ['^(stays|goes|comes)$']}}], ids=str)
def test_database_that_is_restored_is_what_counts(tmp_path: Path, filters: dict[str, dict[str, list[str]]]) -> None:
    """The copy has a deployment that was deleted afterwards, and lacks one that was made instead."""
    # SQLite keeps what was written last in a file beside.
    folder, copy = tmp_path / 'database', tmp_path / 'copy'
    folder.mkdir()
    database_url = f'sqlite+aiosqlite:///{folder}/prefect.db'
    server = PrefectServer(database_url=database_url)
    names = 'stays', 'goes', 'comes'
    with server, PrefectApiDriver(server.api_url) as api:
        port = server.port
        runner = CheckRunner({'prefect_url': server.api_url, **filters})
        deployments = {name: served(api, name) for name in names[:2]}
        at_work(api, deployments['goes'])
        assert runner.run().error is None
    shutil.copytree(folder, copy)
    server = PrefectServer(database_url=database_url)
    server.port = port
    with server, PrefectApiDriver(server.api_url) as api:
        api.request('DELETE', f'deployments/{deployments["goes"]}')
        at_work(api, served(api, 'comes'))
        assert running(runner.run()) == {'comes': 1}
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    server = PrefectServer(database_url=database_url)
    server.port = port
    with server, PrefectApiDriver(server.api_url) as api:
        # What it said of the other one ends as 0.
        assert running(runner.run()) == {'goes': 1}
        for name in names[:2]:
            ended(api, deployments[name], 'COMPLETED')
        result = runner.run()
        assert running(result) == {'goes': 1}
        assert listed(result) == set(names[:2])
        series = 'flow_runs.completed.count'
        assert [sum(result.values(series, deployment_name=name).values()) for name in names] == [1, 1, 0]
        # Runs that are due much later are as they were up to 60 s ago.
        wait_until(
            lambda: by_deployment(runner.run(), 'flow_runs.scheduled') == {'goes': 1},
            'the runs that are due much later',
            75,
            pause=2,
        )


def at_work(api: PrefectApiDriver, deployment: str) -> None:
    """It has a live run and one to come."""
    api.set_flow_run_state(api.create_flow_run(deployment), 'RUNNING', force=True)
    due = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    state = {'type': 'SCHEDULED', 'state_details': {'scheduled_time': due}}
    api.request('POST', f'deployments/{deployment}/create_flow_run', {'state': state})


def running(result: CheckResult) -> dict[str, float]:
    return by_deployment(result, 'flow_runs.running')


def by_deployment(result: CheckResult, series: str) -> dict[str, float]:
    """What is not 0."""
    values = {name: sum(result.values(series, deployment_name=name).values()) for name in ('stays', 'goes', 'comes')}
    return {name: value for name, value in values.items() if value}


def listed(result: CheckResult) -> set[str]:
    tags = {tag for tags in result.values('deployment.is_ready') for tag in tags}
    return {tag.partition(':')[2] for tag in tags if tag.startswith('deployment_name:')}
