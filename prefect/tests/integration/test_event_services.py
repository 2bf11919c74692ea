"""Background services that are judged by events or pauses, dead and alive: recorder, persister, expirations, vacuum."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from datadog_checks.prefect.api.client import PrefectClient
from datadog_checks.prefect.api.models import ServiceSettings
from lab.agent import CheckRunner
from lab.api import PrefectApiDriver
from lab.prefect_server import PrefectServer
from tests.integration.following_services import LIMIT_SECONDS, PATIENCE_SECONDS, follow, impatient, run_tasks

__all__ = ['impatient']

NEW = ('EVENT_PERSISTER', 'PAUSE_EXPIRATIONS')
OF_EVENTS_AND_PAUSES = {'event_persister', 'pause_expirations', 'db_vacuum'}
# The vacuum deletes no events without a persister.
SHORT = {
    'PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL': '1',
    'PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS': '1',
    'PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS': '4',
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
        vacuum_loop=4 * second,
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
