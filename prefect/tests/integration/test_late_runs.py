"""Late runs with each reason, and the ages of runs, provoked on a real server and compared with its own records.

The server's own answers to a worker that polls tell whether a run is held back. The workers and the process that serves
a deployment are played over the API, so that nothing takes up a run by chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from lab.agent import CheckResult, CheckRunner
from lab.api import PrefectApiDriver
from lab.prefect_server import PrefectServer
from lab.waiting import wait_until
from tests.integration.ages import age_in

Row = dict[str, Any]
# How soon the server calls workers OFFLINE and deployments NOT_READY: by default after one or two minutes.
SETTINGS = {
    'PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS': '1',
    'PREFECT_SERVER_SERVICES_FOREMAN_DEPLOYMENT_LAST_POLLED_TIMEOUT_SECONDS': '15',
}


@pytest.fixture(scope='module')
def server() -> Iterator[PrefectServer]:
    with PrefectServer(settings=SETTINGS) as server:
        yield server


@dataclass(frozen=True)
class Shop:
    """A deployment of its own, in a work pool and a work queue of its own unless it is served by a process."""

    api: PrefectApiDriver
    url: str
    name: str
    deployment_id: str

    def ask_for_run(self, **columns: Any) -> str:
        path = f'deployments/{self.deployment_id}/create_flow_run'
        return str(self.api.request('POST', path, columns)['id'])

    def heartbeat(self, interval_seconds: int = 600) -> None:
        body = {'name': 'w1', 'heartbeat_interval_seconds': interval_seconds}
        self.api.request('POST', f'work_pools/{self.name}/workers/heartbeat', body)

    def poll(self) -> set[str]:
        """The runs that the server would give to a worker now."""
        body = {'scheduled_before': datetime.now(UTC).isoformat()}
        rows = self.api.request('POST', f'work_pools/{self.name}/get_scheduled_flow_runs', body)
        return {row['flow_run']['id'] for row in rows}

    def poll_as_serving_process(self) -> set[str]:
        body = {'deployment_ids': [self.deployment_id], 'scheduled_before': datetime.now(UTC).isoformat()}
        return {row['id'] for row in self.api.request('POST', 'deployments/get_scheduled_flow_runs', body)}

    def deployment(self) -> Row:
        row: Row = self.api.request('GET', f'deployments/{self.deployment_id}')
        return row

    def slots(self) -> int:
        """How many slots of the deployment the server thinks are taken."""
        return int(self.deployment()['global_concurrency_limit']['active_slots'])

    def late(self) -> dict[str | None, float]:
        """What a new check says: the number of late runs by reason."""
        return {reason: value for (_, reason), value in self.values('flow_runs.late').items()}

    def check(self) -> CheckResult:
        """What a new check says."""
        check = CheckRunner({'prefect_url': self.url, 'late_start_threshold': 0})
        result = check.run()
        check.cancel()
        assert result.error is None, result.error
        return result

    def values(self, *series: str, result: CheckResult | None = None) -> dict[tuple[str, str | None], float]:
        """What a check, by default a new one, says of these series: the values by series and reason."""
        found: dict[tuple[str, str | None], float] = {}
        result = result or self.check()
        for point in result.points:
            tags = dict(tag.split(':', 1) for tag in point.tags)
            name = point.name.removeprefix('prefect.server.')
            if name in series and tags.get('deployment_id') == self.deployment_id:
                key = name, tags.get('late_reason') or tags.get('task_key')
                assert key not in found
                found[key] = point.value
        return found


@pytest.fixture
def shop(server: PrefectServer, api: PrefectApiDriver) -> Shop:
    """A shop with a worker that is online, and without a limit."""
    shop = open_shop(server, api)
    shop.heartbeat()
    return shop


def open_shop(server: PrefectServer, api: PrefectApiDriver, **deployment: Any) -> Shop:
    name = f'shop-{uuid4().hex[:6]}'
    api.create_work_pool(name)
    api.create_work_queue(name, 'counter')
    deployment_id = api.create_deployment(
        flow_name=name, name=name, entrypoint='a.py:a', work_pool_name=name, work_queue_name='counter', **deployment
    )
    return Shop(api, server.api_url, name, deployment_id)


def served_shop(server: PrefectServer, api: PrefectApiDriver) -> Shop:
    """One without a work pool, as `Flow.serve` makes it."""
    name = f'served-{uuid4().hex[:6]}'
    flow_id = api.create_flow(name)
    deployment_id = api.request('POST', 'deployments/', {'flow_id': flow_id, 'name': name})['id']
    return Shop(api, server.api_url, name, str(deployment_id))


def test_run_that_is_handed_out_and_left_is_not_picked_up(shop: Shop) -> None:
    assert shop.late() == {}
    run = shop.ask_for_run()
    assert shop.poll() == {run}
    assert shop.late() == {'work_not_picked_up': 1}


def test_paused_pool_holds_runs_back(shop: Shop) -> None:
    run = shop.ask_for_run()
    shop.api.update_work_pool(shop.name, is_paused=True)
    assert shop.poll() == set()
    assert shop.late() == {'pool_paused': 1}
    shop.api.update_work_pool(shop.name, is_paused=False)
    assert shop.poll() == {run}
    assert shop.late() == {'work_not_picked_up': 1}


def test_paused_queue_holds_runs_back(shop: Shop) -> None:
    run = shop.ask_for_run()
    shop.api.update_work_queue(shop.name, 'counter', is_paused=True)
    assert shop.poll() == set()
    assert shop.late() == {'queue_paused': 1}
    shop.api.update_work_queue(shop.name, 'counter', is_paused=False)
    assert shop.poll() == {run}


def test_without_an_online_worker_nobody_asks(server: PrefectServer, api: PrefectApiDriver) -> None:
    shop = open_shop(server, api)
    shop.ask_for_run()
    assert shop.late() == {'no_worker': 1}
    shop.heartbeat(interval_seconds=1)
    workers = f'work_pools/{shop.name}/workers/filter'
    wait_until(lambda: [row['status'] for row in api.read_all(workers)] == ['OFFLINE'], 'the worker to be OFFLINE')
    assert shop.late() == {'no_worker': 1}
    shop.heartbeat()
    assert shop.late() == {'work_not_picked_up': 1}


@pytest.mark.parametrize('state_type', ['PENDING', 'RUNNING', 'CANCELLING'])
@pytest.mark.parametrize('reason', ['pool_limit', 'queue_limit'])
def test_slots_of_pool_and_queue_are_those_of_pending_and_running_runs(
    shop: Shop, reason: str, state_type: str
) -> None:
    first, second = shop.ask_for_run(), shop.ask_for_run()
    if reason == 'pool_limit':
        shop.api.update_work_pool(shop.name, concurrency_limit=1)
    else:
        shop.api.update_work_queue(shop.name, 'counter', concurrency_limit=1)
    shop.api.set_flow_run_state(first, 'RUNNING')
    shop.api.set_flow_run_state(first, state_type, force=True)
    is_held_back = state_type != 'CANCELLING'
    assert shop.poll() == (set() if is_held_back else {second})
    assert shop.late() == {reason if is_held_back else 'work_not_picked_up': 1}


def test_full_deployment_takes_back_what_was_handed_out(server: PrefectServer, api: PrefectApiDriver) -> None:
    shop = open_shop(server, api, concurrency_limit=1)
    shop.heartbeat()
    first, second = shop.ask_for_run(), shop.ask_for_run()
    api.set_flow_run_state(first, 'PENDING')
    assert shop.slots() == 1
    assert shop.poll() == {second}
    assert shop.late() == {'deployment_limit': 1}

    answer = api.request('POST', f'flow_runs/{second}/set_state', {'state': {'type': 'PENDING'}})
    assert answer['state']['name'] == 'AwaitingConcurrencySlot'
    assert shop.poll() == set()
    result = shop.check()
    ages = shop.values('flow_runs.late', 'flow_runs.late.max_age', 'flow_runs.awaiting_concurrency', result=result)
    assert ages['flow_runs.late', 'deployment_limit'] == 1
    assert ages['flow_runs.awaiting_concurrency', None] == 1
    # It would be tried again in the future: the age is that of the wait.
    expected = datetime.fromisoformat(api.flow_run(second)['expected_start_time'])
    assert ages['flow_runs.late.max_age', 'deployment_limit'] == age_in(result, expected, 0.0)


def test_slot_of_a_deployment_is_kept_while_a_run_is_cancelled(server: PrefectServer, api: PrefectApiDriver) -> None:
    shop = open_shop(server, api, concurrency_limit=1)
    shop.heartbeat()
    run, _ = shop.ask_for_run(), shop.ask_for_run()
    for state_type in ('PENDING', 'RUNNING', 'CANCELLING'):
        api.set_flow_run_state(run, state_type)
    assert shop.slots() == 1
    assert shop.late() == {'deployment_limit': 1}
    api.set_flow_run_state(run, 'CANCELLED')
    assert shop.slots() == 0
    assert shop.late() == {'work_not_picked_up': 1}


def test_slot_of_a_deployment_is_kept_while_a_run_waits_in_its_process_for_a_retry(
    server: PrefectServer, api: PrefectApiDriver
) -> None:
    shop = open_shop(server, api, concurrency_limit=1)
    shop.heartbeat()
    run = shop.ask_for_run(empirical_policy={'retries': 1, 'retry_delay': 0})
    api.set_flow_run_state(run, 'PENDING')
    api.set_flow_run_state(run, 'RUNNING')
    answer = api.request('POST', f'flow_runs/{run}/set_state', {'state': {'type': 'FAILED'}})
    assert answer['state']['name'] == 'AwaitingRetry'
    # It is due, but given to no worker, and so not late.
    assert shop.poll() == set()
    assert shop.late() == {}
    assert shop.slots() == 1
    second = shop.ask_for_run()
    assert shop.poll() == {second}
    assert shop.late() == {'deployment_limit': 1}


def test_run_that_is_retried_by_hand_is_late(shop: Shop) -> None:
    run = shop.ask_for_run()
    for state_type in ('PENDING', 'RUNNING', 'FAILED'):
        shop.api.set_flow_run_state(run, state_type)
    shop.api.set_flow_run_state(run, 'SCHEDULED', name='AwaitingRetry')
    assert shop.api.flow_run(run)['empirical_policy']['retry_type'] == 'reschedule'
    assert shop.poll() == {run}
    assert shop.values('flow_runs.late', 'flow_runs.awaiting_retry') == {
        ('flow_runs.late', 'work_not_picked_up'): 1,
        ('flow_runs.awaiting_retry', None): 1,
    }


def test_paused_deployment_holds_no_run_back(shop: Shop) -> None:
    run = shop.ask_for_run()
    shop.api.pause_deployment(shop.deployment_id)
    assert shop.poll() == {run}
    assert shop.late() == {'work_not_picked_up': 1}


def test_run_of_a_served_deployment_waits_for_its_process(server: PrefectServer, api: PrefectApiDriver) -> None:
    shop = served_shop(server, api)
    run = shop.ask_for_run()
    assert shop.late() == {'no_worker': 1}

    def is_ready() -> bool:
        assert shop.poll_as_serving_process() == {run}
        return bool(shop.deployment()['status'] == 'READY')

    wait_until(is_ready, 'the deployment to be READY')
    assert shop.late() == {'work_not_picked_up': 1}

    # As the process does when it stops. The pause itself keeps nothing from being handed out.
    api.pause_deployment(shop.deployment_id)
    assert shop.poll_as_serving_process() == {run}
    assert shop.late() == {'deployment_paused': 1}

    api.resume_deployment(shop.deployment_id)
    wait_until(lambda: shop.deployment()['status'] == 'NOT_READY', 'the deployment to be NOT_READY')
    assert shop.late() == {'no_worker': 1}


def test_ages_are_those_of_the_states_that_the_server_recorded(shop: Shop) -> None:
    runs = {}
    lives = {
        'pending': ('PENDING',),
        'running': ('PENDING', 'RUNNING'),
        'paused': ('PENDING', 'RUNNING', 'PAUSED'),
        'cancelling': ('PENDING', 'RUNNING', 'CANCELLING'),
    }
    for name, state_types in lives.items():
        runs[name] = shop.ask_for_run()
        for state_type in state_types:
            shop.api.set_flow_run_state(runs[name], state_type)
    result = shop.check()
    found = shop.values('flow_runs.cancelling', *(f'flow_runs.{name}.max_age' for name in lives), result=result)
    assert found.pop(('flow_runs.cancelling', None)) == 1
    assert len(found) == len(lives)
    for name, state_types in lives.items():
        state = shop.api.flow_run_states(runs[name])[-1]
        assert state['type'] == state_types[-1]
        entered = datetime.fromisoformat(state['timestamp'])
        age = found[f'flow_runs.{name}.max_age', None]
        assert age == age_in(result, entered, 0.0)
