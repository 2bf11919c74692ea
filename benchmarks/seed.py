"""A database of a Prefect server with as much in it as one likes.

A real server makes its schema and one row of each kind, asked over its API. All other rows are copies of these by SQL
with other ids and times, so that they have the server's own format, in any version.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.sizes import Size
from lab.api import PrefectApiDriver
from lab.prefect_server import PrefectServer

# Seconds over which the history is spread; it ended this long ago.
HISTORY_SECONDS = 30 * 86400
HISTORY_AGE_SECONDS = 3600

_SERVICES = (
    'CANCELLATION_CLEANUP',
    'DB_VACUUM',
    'EVENT_LOGGER',
    'EVENT_PERSISTER',
    'FOREMAN',
    'LATE_RUNS',
    'PAUSE_EXPIRATIONS',
    'REPOSSESSOR',
    'SCHEDULER',
    'TASK_RUN_RECORDER',
    'TRIGGERS',
)
# What happens on the server is played from outside, so that it is the same in every measurement.
SETTINGS = {f'PREFECT_SERVER_SERVICES_{name}_ENABLED': 'false' for name in _SERVICES}

Row = dict[str, Any]


@dataclass(frozen=True)
class Samples:
    """One row of each kind, as the server wrote it."""

    work_pool: Row
    work_queue: Row
    worker: Row
    flow: Row
    deployment: Row
    schedule: Row
    scheduled_run: Row
    finished_run: Row
    task_run: Row
    # Of the scheduled run, of the finished run and of its task run, by state type.
    scheduled_state: Row
    finished_states: Mapping[str, Row]
    task_run_state: Row


def sql_id(kind: str, number: str) -> str:
    """The id of the object of a kind with that number, both as an SQL expression gives it; `kind` is 4 hex digits."""
    return f"printf('{kind}0000-0000-4000-8000-%012x', {number})"


def python_id(kind: str, number: int) -> str:
    return f'{kind}0000-0000-4000-8000-{number:012x}'


def sql_time(epoch_seconds: str) -> str:
    """A time as the server stores it."""
    return f"strftime('%Y-%m-%d %H:%M:%f000', {epoch_seconds}, 'unixepoch')"


# The server stores a duration as the time so long after the beginning of 1970.
sqlite3.register_adapter(timedelta, lambda one: f'{datetime(1970, 1, 1, tzinfo=UTC) + one:%Y-%m-%d %H:%M:%S.%f}')

POOL, QUEUE, WORKER, FLOW, DEPLOYMENT, SCHEDULE = 'b001', 'b002', 'b003', 'b004', 'b005', 'b006'
FUTURE, FUTURE_STATE, PAST, PAST_STATE, PAST_TASK = 'b010', 'b011', 'b012', 'b013', 'b014'
LIVE, LIVE_STATE, LIVE_TASK, LIVE_TASK_STATE = 'b015', 'b016', 'b017', 'b018'


def make_template(path: Path) -> None:
    """Have a real server make a database with one row of each kind."""
    database_url = f'sqlite+aiosqlite:///{path}'
    with PrefectServer(settings=SETTINGS, database_url=database_url) as server, PrefectApiDriver(server.api_url) as api:
        api.create_work_pool('pool')
        api.request('POST', 'work_pools/pool/workers/heartbeat', {'name': 'worker', 'heartbeat_interval_seconds': 30})
        schedule = {'active': True, 'schedule': {'interval': 3600}}
        deployment = {
            'name': 'deployment',
            'flow_id': api.create_flow('flow'),
            'work_pool_name': 'pool',
            'work_queue_name': 'default',
            'schedules': [schedule],
        }
        deployment_id = api.request('POST', 'deployments/', deployment)['id']
        api.request('POST', f'deployments/{deployment_id}/schedule', {'max_runs': 1, 'min_runs': 1})
        run_id = api.request('POST', f'deployments/{deployment_id}/create_flow_run', {})['id']
        running = {'state': {'type': 'RUNNING', 'name': 'Running'}, 'force': True}
        ended = {'state': {'type': 'COMPLETED', 'name': 'Completed'}, 'force': True}
        api.request('POST', f'flow_runs/{run_id}/set_state', running)
        task_run = {'flow_run_id': run_id, 'task_key': 'extract-1', 'dynamic_key': '0', 'state': running['state']}
        task_run_id = api.request('POST', 'task_runs/', task_run)['id']
        api.request('POST', f'task_runs/{task_run_id}/set_state', ended)
        api.request('POST', f'flow_runs/{run_id}/set_state', ended)
    with connected(path) as database:
        database.execute('PRAGMA wal_checkpoint(TRUNCATE)')


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that waits for the server's writes; committed at the end."""
    with closing(sqlite3.connect(path, timeout=30)) as database:
        database.row_factory = sqlite3.Row
        with database:
            yield database


def _read_samples(database: sqlite3.Connection) -> Samples:
    def one(table: str, where: str = 'true') -> Row:
        return dict(database.execute(f'SELECT * FROM {table} WHERE {where}').fetchone())

    scheduled = one('flow_run', "state_type = 'SCHEDULED'")
    finished = one('flow_run', "state_type = 'COMPLETED'")
    task_run = one('task_run')
    states = database.execute('SELECT * FROM flow_run_state WHERE flow_run_id = ?', (finished['id'],))
    return Samples(
        work_pool=one('work_pool'),
        work_queue=one('work_queue'),
        worker=one('worker'),
        flow=one('flow'),
        deployment=one('deployment'),
        schedule=one('deployment_schedule'),
        scheduled_run=scheduled,
        finished_run=finished,
        task_run=task_run,
        scheduled_state=one('flow_run_state', f"id = '{scheduled['state_id']}'"),
        finished_states={row['type']: dict(row) for row in states},
        task_run_state=one('task_run_state', f"id = '{task_run['state_id']}'"),
    )


def seed(database: sqlite3.Connection, size: Size) -> Samples:
    """Fill a copy of the template. The result is what was in it."""
    samples = _read_samples(database)
    now = time.time()
    database.execute('PRAGMA foreign_keys = OFF')
    indexes = _drop_indexes(database)
    parents = _Parents(samples, size)
    copies = _Copies(database)
    copies.make('work_pool', samples.work_pool, size.work_pools, parents.ids('n'), {'name': "'pool-' || n"})
    copies.make('work_queue', samples.work_queue, size.work_pools, parents.ids('n'), {'status': "'READY'"})
    for number in range(1, size.queues_per_pool):
        # Work pools know their default queue; the others are nobody's.
        ids = parents.ids('n') | {samples.work_queue['id']: sql_id(f'b00{number + 9:x}', 'n')}
        copies.make(
            'work_queue',
            samples.work_queue,
            size.work_pools,
            ids,
            {'status': "'READY'", 'name': f"'queue-{number}'", 'priority': str(number + 1)},
        )
    copies.make('worker', samples.worker, size.work_pools, parents.ids('n'), {'name': "'worker-' || n"})
    copies.make('flow', samples.flow, size.deployments, parents.ids('n'), {'name': "'flow-' || n"})
    edited = sql_time(f'{now - 86400} + n')
    deployment = {'name': "'deployment-' || n", 'status': "'READY'", 'created': edited, 'updated': edited}
    copies.make('deployment', samples.deployment, size.deployments, parents.ids('n'), deployment)
    copies.make('deployment_schedule', samples.schedule, size.deployments, parents.ids('n'))
    # Deployment after deployment within each period, period after period.
    due = sql_time(f'{now} + {size.schedule_seconds} * ((n + 1.0) / {size.deployments})')
    add_future_runs(database, samples, size, 0, size.future_runs, due)
    _make_history(copies, samples, parents, size, now)
    _make_live(copies, samples, parents, size, now)
    for table in ('work_pool', 'work_queue', 'worker', 'flow', 'deployment', 'deployment_schedule'):
        database.execute(f"DELETE FROM {table} WHERE id NOT LIKE 'b00%'")
    for table in ('flow_run', 'flow_run_state', 'task_run', 'task_run_state'):
        database.execute(f"DELETE FROM {table} WHERE id NOT LIKE 'b01%'")
    for index in indexes:
        database.execute(index)
    return samples


def add_future_runs(
    database: sqlite3.Connection, samples: Samples, size: Size, first: int, number: int, due: str
) -> None:
    """Add scheduled runs, numbered from `first` on, to one deployment after the other; `due` is an SQL time of n."""
    parents = _Parents(samples, size)
    run, state = samples.scheduled_run, samples.scheduled_state
    ids = parents.ids(f'(n % {size.deployments})') | {
        run['id']: sql_id(FUTURE, 'n'),
        state['id']: sql_id(FUTURE_STATE, 'n'),
    }
    copies = _Copies(database, first)
    key = f"'scheduled ' || {first} || n"
    times = {'expected_start_time': due, 'next_scheduled_start_time': due}
    copies.make('flow_run', run, number, ids, {'name': "'future-' || n", 'idempotency_key': key, **times})
    copies.make('flow_run_state', state, number, ids)


def _make_history(copies: _Copies, samples: Samples, parents: _Parents, size: Size, now: float) -> None:
    run, task_run = samples.finished_run, samples.task_run
    state = samples.finished_states['COMPLETED']
    ids = parents.ids(f'(n % {size.deployments})') | {
        run['id']: sql_id(PAST, 'n'),
        state['id']: sql_id(PAST_STATE, 'n'),
        task_run['id']: sql_id(PAST_TASK, 'n'),
    }
    oldest = now - HISTORY_AGE_SECONDS - HISTORY_SECONDS
    ended = f'{oldest} + {HISTORY_SECONDS} * (n * 1.0 / {max(1, size.history)})'
    start, end = sql_time(f'{ended} - 5'), sql_time(ended)
    times = {
        'expected_start_time': start,
        'start_time': start,
        'end_time': end,
        'state_timestamp': end,
        'total_run_time': sql_time('5'),
        'created': start,
        'updated': end,
    }
    copies.make('flow_run', run, size.history, ids, {'name': "'past-' || n", **times})
    copies.make('flow_run_state', state, size.history, ids, {'timestamp': end, 'created': end, 'updated': end})
    copies.make('task_run', task_run, size.history, ids, {'name': "'past-' || n", 'run_count': '1', **times})


def _make_live(copies: _Copies, samples: Samples, parents: _Parents, size: Size, now: float) -> None:
    """Flow runs that have been RUNNING for an hour or more, and their task runs, which are RUNNING too."""
    if not size.live_flow_runs:
        return
    run, state = samples.finished_run, samples.finished_states['RUNNING']
    task_run, task_state = samples.task_run, samples.task_run_state
    start = sql_time(f'{now} - {HISTORY_AGE_SECONDS} - n')
    running = {
        'state_type': "'RUNNING'",
        'state_name': "'Running'",
        'expected_start_time': start,
        'start_time': start,
        'end_time': 'NULL',
        'state_timestamp': start,
        'run_count': '1',
    }
    ids = parents.ids(f'(n % {size.deployments})') | {run['id']: sql_id(LIVE, 'n')}
    of_run = ids | {run['state_id']: sql_id(LIVE_STATE, 'n'), state['id']: sql_id(LIVE_STATE, 'n')}
    copies.make('flow_run', run, size.live_flow_runs, of_run, {'name': "'live-' || n", **running})
    copies.make('flow_run_state', state, size.live_flow_runs, of_run, {'timestamp': start})
    of_task = {
        run['id']: sql_id(LIVE, f'(n % {size.live_flow_runs})'),
        task_run['id']: sql_id(LIVE_TASK, 'n'),
        task_state['id']: sql_id(LIVE_TASK_STATE, 'n'),
    }
    names = {'name': "'live-' || n", 'dynamic_key': 'n'}
    copies.make('task_run', task_run, size.live_task_runs, of_task, {**names, **running})
    state_of_task = {'type': "'RUNNING'", 'name': "'Running'", 'timestamp': start}
    copies.make('task_run_state', task_state, size.live_task_runs, of_task, state_of_task)


class _Parents:
    """The ids of what hangs together with the deployment of a number."""

    def __init__(self, samples: Samples, size: Size) -> None:
        self._samples = samples
        self._work_pools = size.work_pools

    def ids(self, number: str) -> dict[str, str]:
        """For the id of each sample the SQL expression of what takes its place."""
        pool = f'({number} % {self._work_pools})'
        samples = self._samples
        return {
            samples.work_pool['id']: sql_id(POOL, pool),
            samples.work_queue['id']: sql_id(QUEUE, pool),
            samples.worker['id']: sql_id(WORKER, pool),
            samples.flow['id']: sql_id(FLOW, number),
            samples.deployment['id']: sql_id(DEPLOYMENT, number),
            samples.schedule['id']: sql_id(SCHEDULE, number),
        }


class _Copies:
    """Makes copies of rows within the database; `n` counts them, from `first` on."""

    def __init__(self, database: sqlite3.Connection, first: int = 0) -> None:
        self._database = database
        self._first = first

    def make(
        self, table: str, sample: Row, number: int, ids: Mapping[str, str], changes: Mapping[str, str] | None = None
    ) -> None:
        """Copy a row `number` times with other ids, wherever they stand in it, and with the SQL of `changes`."""
        expressions = {**{column: _replaced(column, value, ids) for column, value in sample.items()}, **(changes or {})}
        self._database.execute(
            f'WITH RECURSIVE numbers(n) AS (SELECT ? UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?) '
            f'INSERT INTO {table} ({", ".join(expressions)}) '
            f'SELECT {", ".join(expressions.values())} FROM numbers, (SELECT * FROM {table} WHERE id = ?) WHERE n < ?',
            (self._first, self._first + number, sample['id'], self._first + number),
        )


def _replaced(column: str, value: object, ids: Mapping[str, str]) -> str:
    if not isinstance(value, str):
        return column
    expression = column
    for old, new in ids.items():
        if value == old:
            return new
        if old in value:
            expression = f"replace({expression}, '{old}', {new})"
    return expression


def _drop_indexes(database: sqlite3.Connection) -> list[str]:
    """Drop all indexes that have a statement, and return these: to make them again at the end is much faster."""
    rows = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
    for name, _ in rows:
        database.execute(f'DROP INDEX "{name}"')
    return [re.sub(r'\s+', ' ', sql) for _, sql in rows]
