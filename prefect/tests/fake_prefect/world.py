"""The objects of a Prefect server: every row starts from a recorded one, so that its shape is real."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from . import recorded
from .tables import Row, Table, View
from .times import to_moment, to_text

TERMINAL_STATE_TYPES = frozenset(['COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED'])
SLOT_STATE_TYPES = frozenset(['PENDING', 'RUNNING'])
TABLES = (
    'work_pools',
    'work_queues',
    'workers',
    'concurrency_limits',
    'tag_limits',
    'flows',
    'deployments',
    'flow_runs',
    'task_runs',
    'flow_run_states',
    'events',
    'automations',
    'logs',
    'task_workers',
)
Moment = datetime | str


class World:
    """Tables, a clock and the bookkeeping that the server does when a run changes its state.

    `now` is the server's time. `version` decides what differs between versions. All `add_*` return the row itself:
    change it as you like. Overrides may be any column of the row; moments may be datetimes. `visible_from` is the time
    of the server from which on the row, or its change, shows in answers (None: at once).
    """

    def __init__(self, *, now: datetime = datetime(2026, 11, 23, 8, 0, tzinfo=UTC), seed: int = 0) -> None:
        self.now = now
        self.version = recorded.RECORDED_VERSION
        self.random = Random(seed)
        self.tables = {name: Table() for name in TABLES}
        self._histories: dict[str, list[Row]] = {}

    def view(self) -> View:
        return View(self.tables, self.now)

    # Infrastructure

    def add_work_pool(self, name: str = 'pool', *, visible_from: datetime | None = None, **overrides: Any) -> Row:
        """Add a READY process pool and, as the server does, its queue `default`."""
        pool = self._new('work_pools_filter', 'ready', name=name, concurrency_limit=None, active_slots=None)
        self._add('work_pools', pool, overrides, visible_from)
        default = self.add_work_queue(pool, 'default', visible_from=visible_from)
        pool['default_queue_id'] = overrides.get('default_queue_id', default['id'])
        return pool

    def add_work_queue(
        self, work_pool: Row, name: str = 'queue', *, visible_from: datetime | None = None, **overrides: Any
    ) -> Row:
        """Add a READY queue, polled just now, of the lowest priority of its pool."""
        siblings = [row for row in self.tables['work_queues'].newest() if row['work_pool_id'] == work_pool['id']]
        queue = self._new(
            'work_queues_filter',
            'limited',
            name=name,
            description='',
            priority=len(siblings) + 1,
            concurrency_limit=None,
            active_slots=None,
            last_polled=to_text(self.now),
            work_pool_id=work_pool['id'],
            work_pool_name=work_pool['name'],
        )
        return self._add('work_queues', queue, overrides, visible_from)

    def default_queue(self, work_pool: Row) -> Row:
        """Return the queue that the server made with the pool."""
        return self.tables['work_queues'].get(work_pool['default_queue_id'])

    def add_worker(
        self, work_pool: Row, name: str = 'worker', *, visible_from: datetime | None = None, **overrides: Any
    ) -> Row:
        """Add an ONLINE worker whose last heartbeat is just now."""
        worker = self._new('workers_filter', 'online', name=name, work_pool_id=work_pool['id'])
        worker |= {'last_heartbeat_time': to_text(self.now), 'heartbeat_interval_seconds': 30}
        return self._add('workers', worker, overrides, visible_from)

    def add_concurrency_limit(
        self, name: str, limit: int, active_slots: int = 0, *, visible_from: datetime | None = None, **overrides: Any
    ) -> Row:
        """Add a limit: a global one, or that of a deployment ('deployment:<id>') or of a tag ('tag:<tag>')."""
        row = recorded.row_named('v2_concurrency_limits_filter', 'all', name='recorded-global')
        row |= {'id': self._random_id(), 'name': name, 'limit': limit, 'active_slots': active_slots}
        return self._add('concurrency_limits', row, overrides, visible_from)

    def add_tag_limit(
        self, tag: str, limit: int, holders: list[Row] | None = None, *, visible_from: datetime | None = None
    ) -> Row:
        """Add what the server tells of the holders of a tag's slots; with `add_concurrency_limit` for the slots."""
        row = recorded.row_named('concurrency_limits_filter', 'all', tag='gpu')
        row |= {'id': self._random_id(), 'tag': tag, 'concurrency_limit': limit}
        row['active_slots'] = [holder['id'] for holder in holders or []]
        return self._add('tag_limits', row, {}, visible_from)

    def add_flow(self, name: str = 'flow', *, visible_from: datetime | None = None, **overrides: Any) -> Row:
        return self._add('flows', self._new('flows_filter', 'plain', name=name), overrides, visible_from)

    def add_deployment(
        self,
        *,
        name: str = 'deployment',
        flow: Row | None = None,
        work_queue: Row | None = None,
        visible_from: datetime | None = None,
        **overrides: Any,
    ) -> Row:
        """Add a READY deployment without schedule, tags and limit, of a flow of its own unless one is given.

        Without `work_queue` it belongs to no work pool, like one that is served by a process.
        """
        flow = flow or self.add_flow(f'flow of {name}', visible_from=visible_from)
        deployment = self._new(
            'deployments_filter',
            'limited',
            name=name,
            flow_id=flow['id'],
            labels={'prefect.flow.id': flow['id']},
            tags=[],
            global_concurrency_limit=None,
            last_polled=to_text(self.now),
            **self._queue_columns(work_queue, 'work_queue_id', 'work_queue_name', 'work_pool_name'),
        )
        return self._add('deployments', deployment, overrides, visible_from)

    # Runs

    def add_flow_run(
        self,
        *,
        deployment: Row | None = None,
        flow: Row | None = None,
        parent: Row | None = None,
        state: tuple[str, str] | None = ('SCHEDULED', 'Scheduled'),
        at: Moment | None = None,
        scheduled_time: Moment | None = None,
        auto_scheduled: bool = False,
        visible_from: datetime | None = None,
        **overrides: Any,
    ) -> Row:
        """Add a flow run that enters its first state (None: it has none) at `at`.

        It belongs to the deployment, with its flow and its queue, or to the flow, else to a flow of its own. With
        `parent`, a flow run, it is a subflow: the task run that stands for it in the parent is added too. Overrides
        count last, so that they win over the bookkeeping.
        """
        moment = self._moment(at)
        flow_id = deployment['flow_id'] if deployment else (flow or self.add_flow(visible_from=visible_from))['id']
        dummy = parent and self.add_task_run(
            flow_run=parent, state=None, at=at, visible_from=visible_from, id=self._random_id(), name='subflow-0'
        )
        run = self._new(
            'flow_runs_filter',
            'scheduled_by_schedule' if auto_scheduled else 'scheduled',
            id=self._timed_id(moment) if auto_scheduled else self._random_id(),
            created=to_text(moment),
            flow_id=flow_id,
            deployment_id=deployment['id'] if deployment else None,
            parent_task_run_id=dummy['id'] if dummy else None,
            labels={'prefect.flow.id': flow_id} | ({'prefect.deployment.id': deployment['id']} if deployment else {}),
            **self._queue_columns(
                self._queue_of(deployment), 'work_queue_id', 'work_queue_name', 'work_pool_id', 'work_pool_name'
            ),
        )
        run |= {'name': f'run-{run["id"][:8]}', 'tags': ['auto-scheduled'] if auto_scheduled else []}
        self._forget_states(run)
        self._add('flow_runs', run, {}, visible_from)
        if state:
            self.set_flow_run_state(run, *state, at=at, scheduled_time=scheduled_time, visible_from=visible_from)
        return self._override(run, overrides)

    def add_task_run(
        self,
        *,
        flow_run: Row | None = None,
        task_key: str = 'task',
        upstream: list[Row] | None = None,
        state: tuple[str, str] | None = ('PENDING', 'Pending'),
        at: Moment | None = None,
        scheduled_time: Moment | None = None,
        visible_from: datetime | None = None,
        **overrides: Any,
    ) -> Row:
        """Add a task run that enters its first state (None: it has none) at `at`.

        `upstream` are the task runs that it waits for. Without `flow_run` it is a background task run.
        """
        moment = self._moment(at)
        run = self._new(
            'task_runs_filter',
            'engine_extract',
            id=self._timed_id(moment),
            created=to_text(moment),
            flow_run_id=flow_run['id'] if flow_run else None,
            task_key=task_key,
            task_inputs={'wait_for': [{'input_type': 'task_run', 'id': row['id']} for row in upstream or []]},
        )
        run |= {'name': f'{task_key}-{run["id"][-3:]}', 'dynamic_key': self._random_id()}
        if 'id' in overrides:
            run['id'] = overrides['id']
        self._forget_states(run)
        self._add('task_runs', run, {}, visible_from)
        if state:
            self.set_task_run_state(run, *state, at=at, scheduled_time=scheduled_time)
        return self._override(run, overrides)

    def set_flow_run_state(
        self,
        run: Row,
        state_type: str,
        name: str | None = None,
        *,
        at: Moment | None = None,
        scheduled_time: Moment | None = None,
        message: str | None = None,
        visible_from: datetime | None = None,
    ) -> Row:
        """Let the run enter a state at `at` (now), with the server's bookkeeping, and return the state.

        `name` is by default that of the type ('Running'). The scheduled time of a SCHEDULED state is by default `at`.
        The task run that stands for a subflow follows its flow run.
        """
        moment = self._moment(at)
        taken = {state['timestamp'] for state in self.flow_run_states(run)}
        while to_text(moment) in taken:
            moment += timedelta(microseconds=1)
        self.tables['flow_runs'].before_change(run, visible_from)
        left_type = run['state_type']
        state = self._enter_state(run, state_type, name, moment, scheduled_time, message, 'flow_run_id')
        policy = run['empirical_policy']
        if state_type == 'RUNNING' and not policy['resuming']:
            run['run_count'] += 1
        if state_type == 'RUNNING' or state_type in TERMINAL_STATE_TYPES:
            policy['resuming'] = False
        if left_type == 'PAUSED':
            policy['resuming'] = True
        self._add_state(run, state, visible_from)
        if run['parent_task_run_id'] in self.tables['task_runs']:
            dummy = self.tables['task_runs'].get(run['parent_task_run_id'])
            self.set_task_run_state(
                dummy, state_type, name, at=moment, scheduled_time=scheduled_time, visible_from=visible_from
            )
        return state

    def set_task_run_state(
        self,
        run: Row,
        state_type: str,
        name: str | None = None,
        *,
        at: Moment | None = None,
        scheduled_time: Moment | None = None,
        message: str | None = None,
        visible_from: datetime | None = None,
    ) -> Row:
        """Let the task run enter a state at `at` (now), with the bookkeeping of the server, and return the state."""
        self.tables['task_runs'].before_change(run, visible_from)
        state = self._enter_state(run, state_type, name, self._moment(at), scheduled_time, message, 'task_run_id')
        if state_type == 'RUNNING':
            run['run_count'] += 1
        return state

    def add_flow_run_state(
        self,
        run: Row,
        state_type: str,
        name: str | None = None,
        *,
        at: Moment | None = None,
        visible_from: datetime | None = None,
        **overrides: Any,
    ) -> Row:
        """Add a state to the run's history without any bookkeeping on the run."""
        state = self._new_state(run, state_type, name, self._moment(at), None, None, 'flow_run_id')
        self._add_state(run, self._override(state, overrides), visible_from)
        return state

    def flow_run_states(self, run: Row) -> list[Row]:
        """Return the history of a flow run in the order in which it was added, also what does not show yet."""
        return self._histories.get(run['id'], [])

    def add_event(
        self,
        name: str = 'prefect.flow-run.Completed',
        *,
        occurred: Moment | None = None,
        visible_from: datetime | None = None,
        **overrides: Any,
    ) -> Row:
        """Add an event, received when it occurred; its resource, related and payload are those recorded for the name.

        A name that was not recorded gets those of `prefect.flow-run.Completed`.
        """
        known = name if name in recorded.cases('events_filter') else 'prefect.flow-run.Completed'
        event: Row = recorded.body('events_filter', known)['events'][0]
        moment = self._moment(occurred)
        event |= {'id': self._timed_id(moment), 'event': name, 'follows': None}
        event |= {'occurred': to_text(moment), 'received': to_text(moment)}
        return self._add('events', event, overrides, visible_from)

    def add_log(
        self,
        flow_run: Row | None = None,
        *,
        task_run: Row | None = None,
        at: Moment | None = None,
        visible_from: datetime | None = None,
        **overrides: Any,
    ) -> Row:
        """Add a log record of a run at INFO; `at` is its timestamp."""
        moment = self._moment(at)
        record = self._new('logs_filter', 'of_a_flow_run', timestamp=to_text(moment))
        record |= {'flow_run_id': flow_run and flow_run['id'], 'task_run_id': task_run and task_run['id']}
        return self._add('logs', record, overrides, visible_from)

    def add_heartbeat(self, flow_run: Row, *, occurred: Moment | None = None) -> Row:
        resource = {
            'prefect.resource.id': f'prefect.flow-run.{flow_run["id"]}',
            'prefect.resource.name': flow_run['name'],
        }
        return self.add_event('prefect.flow-run.heartbeat', occurred=occurred, resource=resource)

    def add_automation(self, name: str = 'automation', *, enabled: bool = True, **overrides: Any) -> Row:
        """Add an automation that reacts on each flow run that completed with three actions."""
        (row,) = recorded.body('automations_filter', 'three_actions')
        row |= {'id': self._random_id(), 'name': name, 'enabled': enabled}
        return self._add('automations', row, overrides, None)

    def add_task_worker(self, *task_keys: str, identifier: str = 'host-1', seen: Moment | None = None) -> Row:
        """Add a task worker that listens for these tasks, and did so just now."""
        row = recorded.row('task_workers_filter', 'online')
        row |= {'identifier': identifier, 'task_keys': list(task_keys), 'timestamp': to_text(self._moment(seen))}
        # Tables know their rows by an id, which the answer has not.
        row['id'] = identifier
        return self._add('task_workers', row, {}, None)

    def remove(self, row: Row) -> None:
        """Delete an object as the server does: runs keep the id of a deleted deployment and lose a deleted queue."""
        table = next(table for table in self.tables.values() if row['id'] in table)
        table.remove(row)
        parts = [('work_queues', 'work_pool_id'), ('workers', 'work_pool_id'), ('task_runs', 'flow_run_id')]
        for name, column in parts:
            for part in self._children(name, column, row):
                self.remove(part)
        for name in ('flow_runs', 'deployments'):
            for orphan in self._children(name, 'work_queue_id', row):
                orphan.update({key: None for key in orphan if key.startswith(('work_queue_', 'work_pool_'))})

    def load(self, table: str, rows: list[Row]) -> None:
        """Take over rows as a server gave them."""
        for row in rows:
            self.tables[table].add(row)

    # Bookkeeping

    def _enter_state(
        self,
        run: Row,
        state_type: str,
        name: str | None,
        moment: datetime,
        scheduled_time: Moment | None,
        message: str | None,
        owner: str,
    ) -> Row:
        """Do what `prefect/server/orchestration/global_policy.py` does to flow runs and task runs alike."""
        state = self._new_state(run, state_type, name, moment, scheduled_time, message, owner)
        timestamp = state['timestamp']
        due = state['state_details']['scheduled_time']
        is_terminal = state_type in TERMINAL_STATE_TYPES
        if run['state_type'] == 'RUNNING':
            run['total_run_time'] += (moment - to_moment(run['state']['timestamp'])).total_seconds()
        if state_type == 'RUNNING':
            run['start_time'] = run['start_time'] or timestamp
        if run['state_type'] in TERMINAL_STATE_TYPES and not is_terminal:
            run['end_time'] = None
        if self.release >= (3, 6, 14) and is_terminal and run['end_time'] is None:
            run['start_time'] = run['start_time'] or timestamp
        if is_terminal and run['end_time'] is None and run['start_time'] is not None:
            run['end_time'] = timestamp
        run['expected_start_time'] = run['expected_start_time'] or due or timestamp
        run['next_scheduled_start_time'] = due
        run |= {'state': state, 'state_id': state['id'], 'state_type': state_type, 'state_name': state['name']}
        run['updated'] = timestamp
        return state

    def _add_state(self, run: Row, state: Row, visible_from: datetime | None) -> None:
        self._histories.setdefault(run['id'], []).append(state)
        self.tables['flow_run_states'].add(state, visible_from)

    @property
    def release(self) -> tuple[int, ...]:
        """The version as numbers."""
        return tuple(int(part) for part in self.version.split('.'))

    def _new_state(
        self,
        run: Row,
        state_type: str,
        name: str | None,
        moment: datetime,
        scheduled_time: Moment | None,
        message: str | None,
        owner: str,
    ) -> Row:
        due = to_text(self._moment(scheduled_time or moment)) if state_type == 'SCHEDULED' else None
        state: Row = recorded.row('flow_runs_filter', 'completed')['state']
        state['state_details'] |= {'flow_run_id': None, owner: run['id'], 'scheduled_time': due}
        return state | {
            'id': self._timed_id(moment),
            'type': state_type,
            'name': name or state_type.capitalize(),
            'timestamp': to_text(moment),
            'message': message,
        }

    @staticmethod
    def _forget_states(run: Row) -> None:
        for column in ('state', 'state_id', 'state_type', 'state_name', 'start_time', 'end_time'):
            run[column] = None
        run |= {'expected_start_time': None, 'next_scheduled_start_time': None, 'run_count': 0, 'total_run_time': 0.0}

    # Rows

    def _new(self, endpoint: str, case: str, **columns: Any) -> Row:
        moment = to_text(self.now)
        return recorded.row(endpoint, case) | {'id': self._random_id(), 'created': moment, 'updated': moment} | columns

    def _add(self, table: str, row: Row, overrides: Row, visible_from: datetime | None) -> Row:
        self._override(row, overrides)
        self.tables[table].add(row, visible_from)
        return row

    @staticmethod
    def _override(row: Row, overrides: Row) -> Row:
        for column, value in overrides.items():
            if column not in row:
                raise TypeError(f'{column} is no column of this object; it has {", ".join(row)}')
            row[column] = to_text(value) if isinstance(value, datetime) else value
        return row

    def _children(self, table: str, column: str, parent: Row) -> list[Row]:
        return [row for row in self.tables[table].newest() if row[column] == parent['id']]

    def _queue_of(self, deployment: Row | None) -> Row | None:
        if deployment is None or deployment['work_queue_id'] is None:
            return None
        return self.tables['work_queues'].get(deployment['work_queue_id'])

    @staticmethod
    def _queue_columns(work_queue: Row | None, *columns: str) -> Row:
        names = {'work_queue_id': 'id', 'work_queue_name': 'name'}
        return {column: work_queue and work_queue[names.get(column, column)] for column in columns}

    def _moment(self, moment: Moment | None) -> datetime:
        return to_moment(moment) if isinstance(moment, str) else moment or self.now

    def _random_id(self) -> str:
        """An id of version 4: flow runs that a person made, task runs of subflows, all that is no run."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def _timed_id(self, moment: datetime) -> str:
        """An id of version 7, which begins with its time: scheduled flow runs, task runs, states, events."""
        milliseconds = int(moment.timestamp() * 1000)
        return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | self.random.getrandbits(76) & ~(3 << 62) | 2 << 62))
