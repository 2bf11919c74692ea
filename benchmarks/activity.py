"""Life on a seeded server: flow runs that start and end.

The rows are written into the database beside the server, with statements that SQLite and PostgreSQL take.
Everything else of the server is asleep (`seed.SETTINGS`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, Protocol
from uuid import uuid4

from benchmarks.seed import DEPLOYMENT, FLOW, QUEUE, Row, Samples, python_id
from benchmarks.sizes import FLOW_RUNS_PER_INTERVAL, INTERVAL_SECONDS, TASK_RUNS_PER_FLOW_RUN, Size

# The series of live runs that there are on the servers: each is the number of rows of a table in a state.
LIVE = ('flow_runs.running', 'flow_runs.paused', 'task_runs.pending', 'task_runs.running', 'task_runs.paused')
_HALF_OF_TASK_RUNS = TASK_RUNS_PER_FLOW_RUN // 2


class Rows(Protocol):
    """What a statement found; the columns of a row go by their names."""

    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class Database(Protocol):
    """A connection. Ids and times are text in both directions, durations go in as `timedelta`; `?` is a parameter."""

    def execute(self, sql: str, parameters: tuple[Any, ...] = (), /) -> Rows: ...


# Each use is a transaction.
Connect = Callable[[], AbstractContextManager[Database]]


@dataclass
class _FlowRun:
    """A run that is played. Every other one goes on into the next interval."""

    id: str
    deployment: int
    expected: datetime
    start: datetime
    # Task runs that go on or did not begin yet, the first of them being the one whose end the next one waits for.
    open_task_runs: list[Row] = field(default_factory=list)


class Activity:
    """What happens on one server, an interval at a time."""

    def __init__(self, connect: Connect, samples: Samples, size: Size) -> None:
        self._connect = connect
        self._samples = samples
        self._size = size
        self._running: list[_FlowRun] = []
        self._played = 0
        self._until: datetime | None = None

    def play_back(self, seconds: float) -> None:
        """Write down what happened in the last so many seconds, interval by interval."""
        for number in reversed(range(ceil(seconds / INTERVAL_SECONDS))):
            self.play(datetime.now(UTC) - timedelta(seconds=number * INTERVAL_SECONDS))

    def play(self, now: datetime | None = None) -> None:
        """Write down what happened up to now, or then, since the last time."""
        now = now or datetime.now(UTC)
        began = self._until or now - timedelta(seconds=INTERVAL_SECONDS)
        self._until = now
        with self._connect() as database:
            self._poll(database, now)
            for number, run in enumerate(self._running, 1):
                self._end(database, run, began, began + (now - began) * number / (len(self._running) + 1))
            self._running = []
            for number, run in enumerate(self._start(database, began, now), 1):
                if number % 2:
                    self._end(database, run, began, run.start + (now - run.start) / 2)
                else:
                    self._begin_task_runs(database, run, now)
                    self._running.append(run)

    def begin_anew(self) -> None:
        """Play on where the database is another one now: what was begun in the former one never ends."""
        self._running = []

    def poll(self) -> None:
        """Only this: workers say that they are there, and ask for work."""
        with self._connect() as database:
            self._poll(database, datetime.now(UTC))

    def _poll(self, database: Database, now: datetime) -> None:
        """Workers say that they are there, and ask for work."""
        database.execute('UPDATE worker SET last_heartbeat_time = ?', (stored(now),))
        database.execute('UPDATE work_queue SET last_polled = ?', (stored(now),))
        database.execute('UPDATE deployment SET last_polled = ?', (stored(now),))

    def _start(self, database: Database, began: datetime, now: datetime) -> list[_FlowRun]:
        """Start what was due in the interval, and by hand as many more as there are to be in one."""
        due = database.execute(
            "SELECT id, deployment_id, next_scheduled_start_time FROM flow_run WHERE state_type = 'SCHEDULED' "
            'AND next_scheduled_start_time <= ? ORDER BY next_scheduled_start_time LIMIT ?',
            (stored(now), FLOW_RUNS_PER_INTERVAL),
        ).fetchall()
        runs = []
        for number in range(FLOW_RUNS_PER_INTERVAL):
            start = began + (now - began) * (number + 0.5) / FLOW_RUNS_PER_INTERVAL
            self._played += 1
            if number < len(due):
                deployment = int(due[number]['deployment_id'][-12:], 16)
                expected = _read(due[number]['next_scheduled_start_time'])
                run = _FlowRun(due[number]['id'], deployment, expected, max(start, expected))
            else:
                run = _FlowRun(str(uuid4()), self._played % self._size.deployments, start, start)
                insert(database, 'flow_run', self._flow_run_row(run))
            is_second_attempt = number == 1
            second = run.start + (now - run.start) / 4
            state = self._enter(database, run, 'RUNNING', 'Running', run.start)
            if is_second_attempt:
                self._enter(database, run, 'SCHEDULED', 'AwaitingRetry', run.start + (second - run.start) / 2)
                state = self._enter(database, run, 'RUNNING', 'Running', second)
            start_times = {'start_time': stored(run.start), 'next_scheduled_start_time': None}
            _update(database, 'flow_run', run.id, state | start_times | {'run_count': 1 + is_second_attempt})
            runs.append(run)
        return runs

    def _flow_run_row(self, run: _FlowRun) -> Row:
        pool = run.deployment % self._size.work_pools
        sample = self._samples.finished_run
        ids = {
            sample['flow_id']: python_id(FLOW, run.deployment),
            sample['deployment_id']: python_id(DEPLOYMENT, run.deployment),
            sample['work_queue_id']: python_id(QUEUE, pool),
        }
        times = {'expected_start_time': stored(run.expected), 'created': stored(run.expected), 'end_time': None}
        return _copy(sample, ids) | times | {'id': run.id, 'idempotency_key': None, 'total_run_time': timedelta()}

    def _enter(self, database: Database, run: _FlowRun, type: str, name: str, at: datetime) -> Row:  # noqa: A002
        """A flow run enters a state; what that changes in its row."""
        sample = self._samples.finished_states['COMPLETED']
        state = _copy(sample, {sample['flow_run_id']: run.id})
        state |= {'id': str(uuid4()), 'type': type, 'name': name, 'timestamp': stored(at), 'created': stored(at)}
        insert(database, 'flow_run_state', state)
        return _state_columns(state)

    def _end(self, database: Database, run: _FlowRun, began: datetime, end: datetime) -> None:
        """End a flow run, and those of its task runs that are open, after the interval began."""
        is_failed = self._played % FLOW_RUNS_PER_INTERVAL == 0 and not run.open_task_runs
        type_and_name = ('FAILED', 'Failed') if is_failed else ('COMPLETED', 'Completed')
        if not run.open_task_runs:
            self._begin_task_runs(database, run, end, of_them=TASK_RUNS_PER_FLOW_RUN)
        last_end = began
        step = (end - began) / max(1, len(run.open_task_runs))
        for task_run in run.open_task_runs:
            start = task_run['start_time'] or stored(last_end)
            last_end += step
            state = self._enter_task(database, task_run['id'], run.id, 'COMPLETED', last_end)
            times = {'start_time': start, 'end_time': stored(last_end), 'run_count': 1}
            total = {'total_run_time': last_end - _read(start)}
            _update(database, 'task_run', task_run['id'], state | times | total)
        state = self._enter(database, run, *type_and_name, end)
        times = {'end_time': stored(end), 'total_run_time': end - run.start}
        _update(database, 'flow_run', run.id, state | times)

    def _begin_task_runs(
        self, database: Database, run: _FlowRun, until: datetime, of_them: int = _HALF_OF_TASK_RUNS
    ) -> None:
        """A chain of task runs, some of which ended by then; two of the others are running, the rest waits for them."""
        step = (until - run.start) / (of_them + 1)
        upstream = ''
        for number in range(TASK_RUNS_PER_FLOW_RUN):
            start, end = run.start + step * number, run.start + step * (number + 1)
            row = self._task_run_row(run, number, upstream)
            if number < of_them:
                times = {'start_time': stored(start), 'end_time': stored(end), 'run_count': 1}
                row |= times | {'total_run_time': step}
                row |= self._enter_task(database, row['id'], run.id, 'COMPLETED', end)
            elif number < of_them + 2:
                row |= {'start_time': stored(until - step / 2), 'end_time': None, 'run_count': 1}
                row |= self._enter_task(database, row['id'], run.id, 'RUNNING', until - step / 2)
                run.open_task_runs.append(row)
            else:
                row |= {'start_time': None, 'end_time': None, 'run_count': 0}
                row |= self._enter_task(database, row['id'], run.id, 'PENDING', until - step / 2)
                run.open_task_runs.append(row)
            insert(database, 'task_run', row)
            # The two that are running wait for the same one.
            if number != of_them:
                upstream = row['id']

    def _task_run_row(self, run: _FlowRun, number: int, upstream: str) -> Row:
        sample = self._samples.task_run
        ids = {sample['flow_run_id']: run.id}
        inputs = f'{{"upstream": [{{"input_type": "task_run", "id": "{upstream}"}}]}}' if upstream else '{}'
        return _copy(sample, ids) | {
            'id': str(uuid4()),
            'task_key': f'step-{number}',
            'dynamic_key': str(number),
            'task_inputs': inputs,
            'expected_start_time': stored(run.start),
            'total_run_time': timedelta(),
        }

    def _enter_task(self, database: Database, task_run_id: str, run_id: str, type: str, at: datetime) -> Row:  # noqa: A002
        sample = self._samples.task_run_state
        ids = {sample['task_run_id']: task_run_id, self._samples.task_run['flow_run_id']: run_id}
        state = _copy(sample, ids) | {'id': str(uuid4()), 'type': type, 'name': type.title(), 'timestamp': stored(at)}
        insert(database, 'task_run_state', state)
        return _state_columns(state)

    def scheduled_by_deployment(self) -> dict[str, int]:
        """The truth that `flow_runs.scheduled` is to tell, 0 left out."""
        with self._connect() as database:
            rows = database.execute(
                "SELECT deployment_id, count(*) AS runs FROM flow_run WHERE state_type = 'SCHEDULED' GROUP BY 1"
            ).fetchall()
        return {row['deployment_id']: row['runs'] for row in rows}

    def live(self) -> dict[str, int]:
        """The truth that the series of LIVE are to tell, 0 left out. Task runs of a flow run that ended are dead."""
        with self._connect() as database:
            flow_runs = database.execute(
                "SELECT 'flow_runs' AS kind, state_type, count(*) AS runs FROM flow_run "
                "WHERE state_type IN ('RUNNING', 'PAUSED') GROUP BY 2"
            ).fetchall()
            task_runs = database.execute(
                "SELECT 'task_runs' AS kind, task_run.state_type, count(*) AS runs FROM task_run "
                "JOIN flow_run ON flow_run.id = flow_run_id WHERE flow_run.state_type = 'RUNNING' "
                "AND task_run.state_type IN ('PENDING', 'RUNNING', 'PAUSED') GROUP BY 2"
            ).fetchall()
        return {f'{row["kind"]}.{row["state_type"].lower()}': row['runs'] for row in (*flow_runs, *task_runs)}

    def ended(self) -> Counter[str]:
        """How many flow runs and task runs there are that have ended."""
        with self._connect() as database:
            tables = {'flow_runs': 'flow_run', 'task_runs': 'task_run'}
            ended = 'SELECT count(*) AS runs FROM {} WHERE end_time IS NOT NULL'
            return Counter(
                {kind: database.execute(ended.format(table)).fetchone()['runs'] for kind, table in tables.items()}
            )


def _copy(sample: Row, ids: dict[str, str]) -> Row:
    """The row with other ids, wherever they stand in it."""
    row: Row = {}
    for column, value in sample.items():
        if isinstance(value, str):
            for old, new in ids.items():
                value = value.replace(old, new)
        row[column] = value
    return row


def _state_columns(state: Row) -> Row:
    return {
        'state_id': state['id'],
        'state_type': state['type'],
        'state_name': state['name'],
        'state_timestamp': state['timestamp'],
    }


def insert(database: Database, table: str, row: Row) -> None:
    """Insert a row, whose keys are the columns."""
    database.execute(
        f'INSERT INTO {table} ({", ".join(row)}) VALUES ({", ".join("?" * len(row))})', tuple(row.values())
    )


def _update(database: Database, table: str, key: str, changes: dict[str, Any]) -> None:
    assignments = ', '.join(f'{column} = ?' for column in changes)
    database.execute(f'UPDATE {table} SET {assignments} WHERE id = ?', (*changes.values(), key))


def stored(time: datetime) -> str:
    """A time as the server stores it."""
    return time.strftime('%Y-%m-%d %H:%M:%S.%f')


def _read(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
