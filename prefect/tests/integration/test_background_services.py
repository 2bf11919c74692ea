"""Each background service of a real server is told apart as dead, alive, or switched off, by what it leaves undone.

The intervals of the servers are some seconds. `test_event_services.py` has the others.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.agent import CheckRunner
from lab.api import PrefectApiDriver
from lab.prefect_server import PrefectServer, Services
from tests.integration.following_services import (
    LIMIT_SECONDS,
    PATIENCE_SECONDS,
    PATIENCE_WITHOUT_PROOF_SECONDS,
    follow,
    impatient,
    run_tasks,
    verdicts,
)

__all__ = ['impatient']

# Services by their value of the tag, and by their name in the settings.
SERVICES = {
    'scheduler': 'SCHEDULER',
    'late_run_marker': 'LATE_RUNS',
    'foreman': 'FOREMAN',
    'cancellation_cleanup': 'CANCELLATION_CLEANUP',
    'task_run_recorder': 'TASK_RUN_RECORDER',
}
# Those that need no events of clients, which reach the services of the same process only.
OF_DATABASE = set(SERVICES) - {'task_run_recorder'}
LOOPS = {
    f'PREFECT_SERVER_SERVICES_{name}_LOOP_SECONDS': '1' for name in SERVICES.values() if name != 'TASK_RUN_RECORDER'
}
QUICK = LOOPS | {
    # Its work shows only to a check that sees an orphan between its parent's end and its own: checks come each second.
    'PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS': '5',
    'PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS': '1',
    'PREFECT_SERVER_SERVICES_FOREMAN_WORK_QUEUE_LAST_POLLED_TIMEOUT_SECONDS': '5',
}
SLOW_TO_MARK = {'PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS': '25'}
ALL_OFF = {
    f'PREFECT_SERVER_SERVICES_{name}_ENABLED': 'false'
    for name in (*SERVICES.values(), 'EVENT_PERSISTER', 'PAUSE_EXPIRATIONS')
}


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[PrefectServer]:
    with PrefectServer(settings=QUICK | request.param) as server:
        yield server


class Work:
    """Something to do for each service that needs no events: a schedule, late runs, a lost worker, an orphan."""

    def __init__(self, api: PrefectApiDriver) -> None:
        self._api = api
        api.create_work_pool('lost')
        self._deployment = api.create_deployment(
            flow_name='plan',
            name='each minute',
            entrypoint='outcomes.py:succeeds',
            work_pool_name='lost',
            work_queue_name='default',
            schedules=[{'interval': 60}],
            paused=False,
        )
        self._flow = api.request('POST', 'flows/', {'name': 'family'})['id']
        self._number = 0

    def give(self) -> None:
        self._number += 1
        self._api.create_flow_run(self._deployment)
        self._api.request('POST', 'work_pools/lost/get_scheduled_flow_runs', {'work_queue_names': ['default']})
        running = {'type': 'RUNNING', 'name': 'Running'}
        parent = self._api.request('POST', 'flow_runs/', {'flow_id': self._flow, 'state': running})['id']
        task_run = {'flow_run_id': parent, 'task_key': 'child', 'dynamic_key': str(self._number)}
        dummy = self._api.request('POST', 'task_runs/', task_run)['id']
        child = {'flow_id': self._flow, 'state': running, 'parent_task_run_id': dummy}
        self._api.request('POST', 'flow_runs/', child)
        # A check sees it before its parent is cancelled.
        self._orphans = [parent]

    def cancel_parents(self) -> None:
        for parent in self._orphans:
            self._api.set_flow_run_state(parent, 'CANCELLED', force=True)
        self._orphans = []


def test_services_of_a_process_of_their_own_are_judged_by_what_they_do() -> None:
    """The API's process has other settings, and says that all services are switched on."""
    with PrefectServer(settings=QUICK, with_services=False) as server, PrefectApiDriver(server.api_url) as api:
        runner = CheckRunner({'prefect_url': server.api_url})
        work = Work(api)
        with Services(server.database_url, settings=QUICK | SLOW_TO_MARK):
            found = follow(runner, 10)
            for _ in range(3):
                work.give()
                found += follow(runner, 2)
                work.cancel_parents()
                found += follow(runner, 20)
            alive = follow(runner, LIMIT_SECONDS, until=dict.fromkeys(OF_DATABASE, 1.0))
            assert dict.fromkeys(OF_DATABASE, 1.0).items() <= alive[-1].items()
            found += alive
            accused = {service for seen in found for service, value in seen.items() if not value}
            assert accused == set()
        work.give()
        follow(runner, 2)
        work.cancel_parents()
        dead = follow(runner, LIMIT_SECONDS, until=dict.fromkeys(OF_DATABASE, 0.0))
        assert dict.fromkeys(OF_DATABASE, 0.0).items() <= dead[-1].items()


@pytest.mark.parametrize('server', [ALL_OFF], indirect=True, ids=['all services off'])
def test_services_that_are_switched_off_are_not_accused(server: PrefectServer) -> None:
    runner = CheckRunner({'prefect_url': server.api_url})
    with PrefectApiDriver(server.api_url) as api:
        work = Work(api)
        work.give()
        work.cancel_parents()
    run_tasks(server)
    assert follow(runner, PATIENCE_WITHOUT_PROOF_SECONDS + 15)[-1] == {}


@pytest.mark.parametrize('server', [{}], indirect=True, ids=['all services on'])
def test_services_that_work_are_healthy(server: PrefectServer) -> None:
    runner = CheckRunner({'prefect_url': server.api_url})
    assert verdicts(runner.run()) == {}
    with PrefectApiDriver(server.api_url) as api:
        work = Work(api)
        run_tasks(server)
        work.give()
        found = follow(runner, 2)
        work.cancel_parents()
        found += follow(runner, LIMIT_SECONDS, until=dict.fromkeys(SERVICES, 1.0))
        assert dict.fromkeys(SERVICES, 1.0).items() <= found[-1].items()
        found += follow(runner, 2 * PATIENCE_SECONDS)
    assert {value for seen in found for value in seen.values()} == {1.0}
