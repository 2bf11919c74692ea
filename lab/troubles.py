"""The troubles that the monitors are there for, provoked on a real server, and mended again.

    python -m lab.troubles PATH

Records what the check sends meanwhile, once a second for about four minutes, as a timeline (see `timeline.py`) from
which tests tell when each monitor would have alerted and recovered. Runs are driven over the REST API; workers are
heartbeats and polls over the same: no flow is run. The server asks for credentials, and does not mark late runs.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lab.agent import CheckRunner
from lab.api import PrefectApiDriver
from lab.prefect_server import PrefectServer
from lab.recording import Recording
from lab.timeline import Timeline

AUTH_STRING = 'agent:sesame'
SETTINGS = {
    'PREFECT_SERVER_API_AUTH_STRING': AUTH_STRING,
    # So that one background service is dead.
    'PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED': 'false',
}
INTERVAL_SECONDS = 1.0
TIMEOUT_SECONDS = 2
LATE_START_THRESHOLD_SECONDS = 2
# How long all is well before, how long the troubles last, and how long all is well again.
QUIET_SECONDS = 25.0
TROUBLED_SECONDS = 50.0
MENDED_SECONDS = 35.0
# The same for the troubles of the server itself, which come one after the other.
SHORT_SECONDS = 10.0
LEAK_SECONDS = 25.0

ATTENDED, LONELY, FORGOTTEN = 'attended', 'lonely', 'forgotten'
ORDERS, REPORTS = 'orders', 'reports'
LIMIT = 'database'


class Stage:
    """A server with work pools and deployments, and the check in front of it."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / 'prefect.db'
        self.server = self._new_server()
        self.recording = Recording()
        # The pools and queues that a worker polls now.
        self.attended = {ATTENDED: [ORDERS, REPORTS]}
        self.overdue = ''
        self._runner = self._new_runner(AUTH_STRING)

    def __enter__(self) -> Stage:
        self.server.start()
        self.api = PrefectApiDriver(self.server.api_url, auth_string=AUTH_STRING)
        for pool in (ATTENDED, LONELY, FORGOTTEN):
            self.api.create_work_pool(pool)
        self.api.create_work_queue(ATTENDED, ORDERS, concurrency_limit=2)
        self.api.create_work_queue(ATTENDED, REPORTS)
        self._deployments = {
            name: self.api.create_deployment(
                flow_name=name, name='hourly', entrypoint='none.py:none', work_pool_name=pool, work_queue_name=queue
            )
            for name, pool, queue in (
                ('orders', ATTENDED, ORDERS),
                ('report', ATTENDED, REPORTS),
                ('flaky', ATTENDED, 'default'),
                ('image-import', ATTENDED, 'default'),
                ('backfill', ATTENDED, 'default'),
                ('stuck', ATTENDED, 'default'),
                ('stale', ATTENDED, 'default'),
                ('nightly', LONELY, 'default'),
                ('archive', FORGOTTEN, 'default'),
            )
        }
        return self

    def __exit__(self, *error: object) -> None:
        self.api.close()
        self.server.stop()

    def observe(self, seconds: float, until: Future[Any] | None = None, *, is_up: bool = True) -> None:
        """Run the check at its interval for so long, and longer until something else is done."""
        end = time.monotonic() + seconds
        while time.monotonic() < end or (until and not until.done()):
            began = time.monotonic()
            if is_up:
                self._work()
            self.recording.add(self._runner.run())
            time.sleep(max(0.0, began + INTERVAL_SECONDS - time.monotonic()))

    def run(self, flow_name: str, *states: str) -> str:
        """Ask for a run and lead it through these states."""
        flow_run = self.api.create_flow_run(self._deployments[flow_name])
        self.lead(flow_run, *states)
        return flow_run

    def lead(self, flow_run: str, *states: str) -> None:
        for state in states:
            self.api.set_flow_run_state(flow_run, state, force=True)

    def run_that_is_overdue(self, flow_name: str, since: timedelta) -> str:
        """A run that nobody has marked late."""
        scheduled = (datetime.now(UTC) - since).isoformat()
        state = {'type': 'SCHEDULED', 'name': 'Scheduled', 'state_details': {'scheduled_time': scheduled}}
        path = f'deployments/{self._deployments[flow_name]}/create_flow_run'
        return str(self.api.request('POST', path, {'state': state})['id'])

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The server is gone meanwhile, and started again with its database afterwards."""
        port = self.server.port
        self.server.stop()
        yield
        self.server = self._new_server()
        self.server.port = port
        with ThreadPoolExecutor(1) as executor:
            self.observe(0, executor.submit(self.server.start), is_up=False)

    @contextmanager
    def wrong_credentials(self) -> Iterator[None]:
        self._runner = self._new_runner('agent:forgotten')
        yield
        self._runner = self._new_runner(AUTH_STRING)

    @contextmanager
    def broken_workers(self) -> Iterator[None]:
        """The server fails on one of its tables: it answers 500 to every request for workers."""
        self._execute('ALTER TABLE worker RENAME TO worker_aside')
        try:
            yield
        finally:
            self._execute('ALTER TABLE worker_aside RENAME TO worker')

    def _work(self) -> None:
        """What workers do without a flow run: send heartbeats and poll."""
        for pool, queues in self.attended.items():
            self.api.send_heartbeat(pool, 'worker', interval_seconds=30)
            body = {'work_queue_names': [*queues, 'default']}
            self.api.request('POST', f'work_pools/{pool}/get_scheduled_flow_runs', body)

    def _new_server(self) -> PrefectServer:
        return PrefectServer(settings=SETTINGS, database_url=f'sqlite+aiosqlite:///{self.database}')

    def _new_runner(self, auth_string: str) -> CheckRunner:
        return CheckRunner(
            {
                'prefect_url': self.server.api_url,
                'auth_string': auth_string,
                'timeout': TIMEOUT_SECONDS,
                'late_start_threshold': LATE_START_THRESHOLD_SECONDS,
            }
        )

    def _execute(self, statement: str) -> None:
        with closing(sqlite3.connect(self.database, timeout=30)) as connection:
            connection.execute(statement)


def record() -> Timeline:
    """Provoke every trouble and mend it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='prefect-lab-troubles-')))
        stage = stack.enter_context(Stage(folder))
        _all_is_well(stage)
        _runs_have_troubles(stage)
        _server_has_troubles(stage)
        _slots_leak(stage)
        return Timeline.of_recording(stage.recording)


def _all_is_well(stage: Stage) -> None:
    """Every flow completes now and then, within a second. But one run is overdue: after a minute that is a trouble."""
    stage.observe(0.5)
    stage.overdue = stage.run_that_is_overdue('archive', timedelta(hours=1))
    until = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < until:
        running = [stage.run(name, 'RUNNING') for name in ('flaky', 'image-import', 'backfill', 'stale', 'orders')]
        stage.observe(1.0)
        for flow_run in running:
            stage.lead(flow_run, 'COMPLETED')
        stage.observe(1.0)


def _runs_have_troubles(stage: Stage) -> None:
    stage.attended[ATTENDED] = [ORDERS]
    late = [stage.run('nightly') for _ in range(12)]
    waiting = [stage.run('report') for _ in range(2)]
    for _ in range(4):
        stage.run('flaky', 'RUNNING', 'FAILED')
    for _ in range(3):
        stage.run('image-import', 'RUNNING', 'CRASHED')
    long = stage.run('backfill', 'RUNNING')
    pending = stage.run('stuck', 'PENDING')
    holders = [stage.run('orders', 'RUNNING') for _ in range(2)]
    stage.observe(TROUBLED_SECONDS)

    stage.attended = {ATTENDED: [ORDERS, REPORTS], LONELY: []}
    for flow_run in (*late, stage.overdue, *waiting):
        stage.lead(flow_run, 'RUNNING', 'COMPLETED')
    for flow_run in (long, *holders):
        stage.lead(flow_run, 'COMPLETED')
    stage.lead(pending, 'CANCELLED')
    for name in ('stale', 'image-import', *['flaky'] * 8):
        stage.run(name, 'RUNNING', 'COMPLETED')
    stage.observe(MENDED_SECONDS)


def _server_has_troubles(stage: Stage) -> None:
    for trouble, is_up in ((stage.stopped, False), (stage.wrong_credentials, True), (stage.broken_workers, False)):
        with trouble():
            stage.observe(SHORT_SECONDS, is_up=is_up)
        stage.observe(SHORT_SECONDS)


def _slots_leak(stage: Stage) -> None:
    stage.api.create_concurrency_limit(LIMIT, 3)
    stage.api.take_slot(LIMIT)
    stage.observe(LEAK_SECONDS)
    stage.api.give_slot_back(LIMIT)
    stage.observe(LEAK_SECONDS)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print('usage: python -m lab.troubles PATH', file=sys.stderr)
        return 2
    record().save(Path(arguments[0]))
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
