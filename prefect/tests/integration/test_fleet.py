"""Leaked slots and schedules without runs, each provoked on a real server."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from datadog_checks.prefect.collectors import freshness
from lab.agent import CheckRunner
from lab.api import PrefectApiDriver
from lab.prefect_server import FlowScript, PrefectServer
from lab.waiting import wait_until

TAGGED = """
import time
from prefect import flow, task

@task(tags=['gpu'])
def train():
    time.sleep(600)

@flow(name='training')
def training():
    train()

training()
"""


def test_slot_of_a_global_limit_is_leaked_while_nothing_runs(api: PrefectApiDriver, runner: CheckRunner) -> None:
    api.create_concurrency_limit('database', 4)
    limit = {'concurrency_limit_name': 'database', 'concurrency_limit_type': 'global'}
    api.take_slot('database')
    results = [runner.run() for _ in range(2)]
    assert [result.value('concurrency_limit.leaked_slots', **limit) for result in results] == [0, 1]
    assert results[1].value('concurrency_limit.in_use', **limit) == 25
    assert results[1].value('concurrency_limit.active_slots', **limit) == 1
    assert results[1].value('concurrency_limit.limit', **limit) == 4
    assert results[1].value('concurrency_limit.is_active', **limit) == 1
    api.give_slot_back('database')
    assert runner.run().value('concurrency_limit.leaked_slots', **limit) == 0


def test_slot_of_a_deployment_is_leaked_when_it_has_no_run(api: PrefectApiDriver, runner: CheckRunner) -> None:
    api.create_work_pool('limited', concurrency_limit=8)
    deployment_id = api.create_deployment(
        flow_name='limited',
        name='limited',
        entrypoint='outcomes.py:succeeds',
        work_pool_name='limited',
        concurrency_limit=2,
    )
    names = {'deployment_id': deployment_id}
    flow_run_id = api.create_flow_run(deployment_id)
    api.set_flow_run_state(flow_run_id, 'PENDING')
    # The slots of the pool are counted from the runs, those of the deployment by the server.
    results = [runner.run() for _ in range(2)]
    for result in results:
        assert result.value('deployment.concurrency.leaked_slots', **names) == 0
        assert result.value('deployment.concurrency.active_slots', **names) == 1
        assert result.value('deployment.concurrency.in_use', **names) == 50
        assert result.value('work_pool.concurrency.in_use', work_pool_name='limited') == 12.5
    api.take_slot(f'deployment:{deployment_id}')
    results = [runner.run() for _ in range(2)]
    assert [result.value('deployment.concurrency.leaked_slots', **names) for result in results] == [0, 1]
    # A run that waits for the slot does not hide that.
    waiting = api.create_flow_run(deployment_id)
    with pytest.raises(RuntimeError, match='REJECT'):
        api.set_flow_run_state(waiting, 'PENDING')
    assert api.flow_run(waiting)['state_name'] == 'AwaitingConcurrencySlot'
    assert runner.run().value('deployment.concurrency.leaked_slots', **names) == 1
    api.give_slot_back(f'deployment:{deployment_id}')
    assert runner.run().value('deployment.concurrency.leaked_slots', **names) == 0


def test_slot_of_a_tag_is_leaked_when_its_process_is_killed(
    server: PrefectServer, api: PrefectApiDriver, runner: CheckRunner, tmp_path: Path
) -> None:
    """Until the lease of the slot has expired, 60 s after the kill (3.8.8)."""
    api.create_concurrency_limit('tag:gpu', 2)
    limit = {'concurrency_limit_name': 'gpu', 'concurrency_limit_type': 'tag'}
    (tmp_path / 'training.py').write_text(TAGGED)

    def holders() -> list[Any]:
        return [
            holder for row in api.request('POST', 'concurrency_limits/filter', {}) for holder in row['active_slots']
        ]

    with FlowScript(server.api_url, str(tmp_path / 'training.py')) as script:
        wait_until(holders, 'the task run to hold its slot')
        # It is written down a moment later, and until then it counts as alive.
        wait_until(lambda: api.count_task_runs(task_runs={'id': {'any_': holders()}}), 'the task run to be recorded')
        results = [runner.run() for _ in range(2)]
        assert [result.value('concurrency_limit.leaked_slots', **limit) for result in results] == [0, 0]
        assert results[1].value('concurrency_limit.in_use', **limit) == 50
        os.kill(script.pid, signal.SIGKILL)
    # Nobody watched the script; somebody tells the server what became of its flow run, as a worker does.
    for flow_run in api.read_all('flow_runs/filter', {'flows': {'name': {'any_': ['training']}}}):
        api.set_flow_run_state(flow_run['id'], 'CRASHED', force=True)
    results = [runner.run() for _ in range(2)]
    assert [result.value('concurrency_limit.leaked_slots', **limit) for result in results] == [0, 1]


def test_schedule_that_has_ended_is_without_a_run_until_it_is_switched_off(
    api: PrefectApiDriver, runner: CheckRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To switch a schedule off is no edit of its deployment (3.8.8), and yet noticed at once."""
    monkeypatch.setattr(freshness, '_SCHEDULING', timedelta(seconds=2))
    api.create_work_pool('scheduled')
    schedules = {'ended': {'rrule': 'FREQ=DAILY;UNTIL=20200101T000000Z'}, 'hourly': {'cron': '0 * * * *'}}
    ids = {
        name: api.create_deployment(
            flow_name=name,
            name=name,
            entrypoint='outcomes.py:succeeds',
            work_pool_name='scheduled',
            schedules=[schedule],
        )
        for name, schedule in schedules.items()
    }
    hourly = {'flow_runs': {'deployment_id': {'any_': [ids['hourly']]}}}
    wait_until(lambda: api.request('POST', 'flow_runs/count', hourly), 'the scheduler')

    def judged(name: str) -> tuple[float, ...]:
        result = runner.run()
        names = {'deployment_id': ids[name]}
        return tuple(result.value(f'deployment.schedules.{key}', **names) for key in ('active', 'is_without_run'))

    assert [judged('ended'), judged('hourly')] == [(1, 0), (1, 0)]
    wait_until(lambda: judged('ended') == (1, 1), 'the schedule that has ended to be without a run')
    assert judged('hourly') == (1, 0)
    before = api.request('GET', f'deployments/{ids["ended"]}')
    api.request('PATCH', f'deployments/{ids["ended"]}/schedules/{before["schedules"][0]["id"]}', {'active': False})
    assert api.request('GET', f'deployments/{ids["ended"]}')['updated'] == before['updated']
    assert judged('ended') == (0, 0)
