"""Each background service of a real server is told apart as dead, alive, or switched off, by what it leaves undone.

The intervals of the servers are a second, and the check has less patience than it has in an Agent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.models import ServiceSettings
from datadog_checks.prefect.collectors import service_verdict
from lab.agent import CheckResult, CheckRunner
from lab.api import PrefectApiDriver
from lab.prefect_server import FlowScript, PrefectServer, Services

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
    'PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS': '1',
    'PREFECT_SERVER_SERVICES_FOREMAN_WORK_QUEUE_LAST_POLLED_TIMEOUT_SECONDS': '5',
}
SLOW_TO_MARK = {'PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS': '25'}
ALL_OFF = {
    f'PREFECT_SERVER_SERVICES_{name}_ENABLED': 'false'
    for name in (*SERVICES.values(), 'EVENT_PERSISTER', 'PAUSE_EXPIRATIONS')
}
PATIENCE_SECONDS = 8
PATIENCE_WITHOUT_PROOF_SECONDS = 40
LIMIT_SECONDS = 150


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_verdict, 'PATIENCE', timedelta(seconds=PATIENCE_SECONDS))
    monkeypatch.setattr(service_verdict, 'PATIENCE_WITHOUT_PROOF', timedelta(seconds=PATIENCE_WITHOUT_PROOF_SECONDS))


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[PrefectServer]:
    with PrefectServer(settings=QUICK | request.param) as server:
        yield server


def verdicts(result: CheckResult) -> dict[str, float]:
    assert result.error is None, result.error
    found = {}
    for point in result.points:
        if point.name == 'prefect.server.service.is_healthy':
            (service,) = (tag.partition(':')[2] for tag in point.tags if tag.startswith('background_service:'))
            found[service] = point.value
    return found


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


def run_tasks(server: PrefectServer) -> None:
    with FlowScript(server.api_url, 'script.py') as script:
        assert script.wait(60) == 0


def follow(runner: CheckRunner, seconds: float, *, until: dict[str, float] | None = None) -> list[dict[str, float]]:
    """The verdicts of the checks of some seconds, one each second, or until they are these."""
    found = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found.append(verdicts(runner.run()))
        if until is not None and until.items() <= found[-1].items():
            break
        time.sleep(1)
    return found


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


def test_dead_recorder_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    enabled = dict.fromkeys(['task_run_recorder'], True)
    monkeypatch.setattr(PrefectClient, 'service_settings', lambda self: ServiceSettings(enabled=enabled))
    monkeypatch.setattr('datadog_checks.prefect.collectors.event_services._EVENTS_INTERVAL', timedelta(seconds=1))
    database_url = f'sqlite+aiosqlite:///{tmp_path_factory.mktemp("database")}/prefect.db'
    with PrefectServer(database_url=database_url) as server:
        runner = CheckRunner({'prefect_url': server.api_url})
        run_tasks(server)
        alive = follow(runner, LIMIT_SECONDS, until={'task_run_recorder': 1.0})
        assert alive[-1]['task_run_recorder'] == 1
    off = {'PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_ENABLED': 'false'}
    with PrefectServer(database_url=database_url, settings=off) as server:
        runner = CheckRunner({'prefect_url': server.api_url})
        run_tasks(server)
        dead = follow(runner, LIMIT_SECONDS, until={'task_run_recorder': 0.0})
        assert dead[-1]['task_run_recorder'] == 0


NEW = ('EVENT_PERSISTER', 'PAUSE_EXPIRATIONS')
OF_EVENTS_AND_PAUSES = {'event_persister', 'pause_expirations', 'db_vacuum'}
# The vacuum deletes no events without a persister.
SHORT = {
    'PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL': '1',
    'PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS': '1',
    'PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS': '2',
    'PREFECT_SERVER_EVENTS_RETENTION_PERIOD': 'PT1H',
}


class Pauses:
    """Runs that are paused for some seconds, and events that are nearly as old as the server keeps them."""

    def __init__(self, api: PrefectApiDriver) -> None:
        self._api = api
        self._deployment = api.create_deployment(
            flow_name='pauses',
            name='once',
            entrypoint='outcomes.py:succeeds',
            work_pool_name='lost',
            work_queue_name='default',
        )

    def give(self) -> None:
        flow_run = self._api.create_flow_run(self._deployment)
        for state in ('PENDING', 'RUNNING'):
            self._api.set_flow_run_state(flow_run, state, force=True)
        now = datetime.now(UTC)
        details = {'pause_timeout': (now + timedelta(seconds=8)).isoformat(), 'pause_reschedule': True}
        state = {'type': 'PAUSED', 'name': 'Suspended', 'state_details': details}
        self._api.request('POST', f'flow_runs/{flow_run}/set_state', {'state': state, 'force': True})
        event = {'id': str(uuid4()), 'occurred': (now - timedelta(seconds=3600 - 12)).isoformat(), 'event': 'mine'}
        self._api.request('POST', 'events', [event | {'resource': {'prefect.resource.id': 'mine.1'}}])


def test_dead_services_of_events_and_pauses_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The server with dead services says that they are switched on."""
    monkeypatch.setattr('datadog_checks.prefect.collectors.event_services._EVENTS_INTERVAL', timedelta(seconds=1))
    second = timedelta(seconds=1)
    settings = ServiceSettings(
        enabled=dict.fromkeys(['event_persister', 'pause_expirations'], True),
        persister_flush=second,
        pause_loop=second,
        vacuum_loop=2 * second,
        vacuums_events=True,
        event_retention=timedelta(hours=1),
    )
    monkeypatch.setattr(PrefectClient, 'service_settings', lambda self: settings)
    database_url = f'sqlite+aiosqlite:///{tmp_path_factory.mktemp("database")}/prefect.db'
    good, bad = (dict.fromkeys(OF_EVENTS_AND_PAUSES, value) for value in (1.0, 0.0))
    with PrefectServer(database_url=database_url, settings=SHORT) as server, PrefectApiDriver(server.api_url) as api:
        port = server.port
        runner = CheckRunner({'prefect_url': server.api_url})
        api.create_work_pool('lost')
        pauses, found = Pauses(api), []
        for _ in range(8):
            pauses.give()
            found += follow(runner, 5)
        found += follow(runner, LIMIT_SECONDS, until=good)
        assert good.items() <= found[-1].items()
        found += follow(runner, 2 * PATIENCE_SECONDS)
        assert all(value for seen in found for service, value in seen.items() if service in OF_EVENTS_AND_PAUSES)
        pauses.give()
        follow(runner, 3)
    off = {f'PREFECT_SERVER_SERVICES_{name}_ENABLED': 'false' for name in NEW}
    server = PrefectServer(database_url=database_url, settings=SHORT | off)
    server.port = port
    with server, PrefectApiDriver(server.api_url) as api:
        pauses = Pauses(api)
        for _ in range(3):
            pauses.give()
            follow(runner, 5)
        dead = follow(runner, LIMIT_SECONDS, until=bad)
        assert bad.items() <= dead[-1].items()
