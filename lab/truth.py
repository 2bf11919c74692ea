"""What a check should have counted, from the server's own records of runs, of the states that they went through, of
events, and of what was logged.

It is computed when nothing changes any more, from the whole history of every run: no window, no cursor, and no code of
the check.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lab.api import NOT_A_SUBFLOW, TERMINAL_STATE_TYPES, PrefectApiDriver
from lab.sums import LOG_RECORDS, Sums, key_of

Row = Mapping[str, Any]
Tags = Mapping[str, str | None]

# The logger that `log_names` excludes.
EXCLUDED_LOGGER = 'noisy'
# Flow runs whose log records are asked for in one request.
RUNS_PER_REQUEST = 20


class Truth:
    """Adds up the runs of the flows of these names, or of all. `flow_runs` and `task_runs` are how many that were."""

    def __init__(
        self, api: PrefectApiDriver, flow_names: Sequence[str] | None = None, *, late_start_threshold: float
    ) -> None:
        self.flow_names = flow_names
        self._criteria = {} if flow_names is None else {'flows': {'name': {'any_': list(flow_names)}}}
        self._api = api
        self._late_start_threshold = late_start_threshold
        # A task run that its task left PAUSED has an end, too. A server without a filter on it does not list that one.
        self._filters_task_runs_by_end = api.accepts('task_runs/count', task_runs={'end_time': {'is_null_': True}})
        self.sums = Sums()
        self.flow_runs = 0
        self.task_runs = 0

    def add_run(self, flow_run_id: str) -> None:
        """Add one flow run, its task runs and log records, before they are deleted."""
        self._add({'flow_runs': {'id': {'any_': [flow_run_id]}}})

    def add_all(self) -> None:
        """Add every flow run that the server has, its task runs and log records."""
        self._add({})

    def add_events(self, since: datetime, until: datetime) -> None:
        """Add the events of runs of the flows, by name, flow and task."""
        for event in self._api.events(since, until):
            name = event['event']
            if name.startswith(('prefect.flow-run.', 'prefect.task-run.')) and not name.endswith('.heartbeat'):
                flows = [item for item in event['related'] if item['prefect.resource.role'] == 'flow']
                task_run = event['payload'].get('task_run') or {}
                for flow in flows:
                    tags = {'flow_name': flow['prefect.resource.name'], 'task_key': task_run.get('task_key')}
                    self.sums.counts[key_of(name, tags)] += 1

    def _add(self, criteria: Row) -> None:
        criteria = {**criteria, **self._criteria}
        tags_by_id: dict[str, Tags] = {}
        names = _Names(self._api)
        for flow_run in self._api.read_all('flow_runs/filter', criteria):
            tags = {
                'flow_name': names.get('flows', flow_run['flow_id']),
                'deployment_name': names.get('deployments', flow_run['deployment_id']),
            }
            tags_by_id[flow_run['id']] = tags
            self._add_flow_run(flow_run, self._api.flow_run_states(flow_run['id']), tags)
        body = {**criteria, 'task_runs': NOT_A_SUBFLOW}
        task_runs = {task_run['id']: task_run for task_run in self._api.read_all('task_runs/filter', body)}
        for task_run in task_runs.values():
            # That of a background task has no flow run.
            tags = {**tags_by_id.get(task_run['flow_run_id'], {}), 'task_key': task_run['task_key']}
            self._add_task_run(task_run, task_runs, tags)
        ids = list(tags_by_id)
        for start in range(0, len(ids), RUNS_PER_REQUEST):
            for record in self._api.flow_run_logs(logging.INFO, ids[start : start + RUNS_PER_REQUEST]):
                if record['name'] != EXCLUDED_LOGGER:
                    tags = {**tags_by_id[record['flow_run_id']], 'log_id': record['id']}
                    self.sums.counts[key_of(LOG_RECORDS, tags)] += 1

    def _add_flow_run(self, flow_run: Row, states: Sequence[Row], tags: Tags) -> None:
        self.flow_runs += 1
        started: datetime | None = None
        running_seconds = 0.0
        waiting_since: datetime | None = None
        # A run that begins in a state has come from none.
        for before, state in zip((None, *states), states, strict=False):
            at = _time(state['timestamp'])
            if before is not None and before['type'] == 'RUNNING':
                running_seconds += (at - _time(before['timestamp'])).total_seconds()
            was_terminal = before is not None and before['type'] in TERMINAL_STATE_TYPES
            if state['type'] in TERMINAL_STATE_TYPES and not was_terminal:
                self._add_end('flow_runs', state['type'], tags)
                if started:
                    self.sums.add_duration(key_of('flow_runs.execution_duration.count', tags), running_seconds)
            if state['type'] == 'RUNNING':
                if started is None:
                    started = at
                    wait = (at - _time(flow_run['expected_start_time'])).total_seconds()
                    self._add_start('flow_runs', wait, tags)
                    self.sums.add_duration(key_of('flow_runs.queue_wait_duration.count', tags), max(0.0, wait))
                if waiting_since is not None:
                    gap = (at - waiting_since).total_seconds()
                    self.sums.add_duration(key_of('flow_runs.retry_gaps_duration.count', tags), gap)
            if state['name'] == 'AwaitingRetry':
                waiting_since = waiting_since or at
            elif state['type'] == 'RUNNING' or state['type'] in TERMINAL_STATE_TYPES:
                waiting_since = None

    def _add_task_run(self, task_run: Row, task_runs: Mapping[str, Row], tags: Tags) -> None:
        self.task_runs += 1
        has_ended = task_run['state_type'] in TERMINAL_STATE_TYPES
        if task_run['end_time'] and (has_ended or self._filters_task_runs_by_end):
            if has_ended:
                self._add_end('task_runs', task_run['state_type'], tags)
            if task_run['run_count']:
                duration = key_of('task_runs.execution_duration.count', tags)
                self.sums.add_duration(duration, task_run['total_run_time'])
        if not task_run['run_count']:
            return
        start = _time(task_run['start_time'])
        self._add_start('task_runs', (start - _time(task_run['expected_start_time'])).total_seconds(), tags)
        upstream_ends = [
            ended_at
            for parameter, entries in task_run['task_inputs'].items()
            if parameter != '__parents__'
            for entry in entries
            if entry['input_type'] == 'task_run' and (ended_at := _ended_at(task_runs.get(entry['id'])))
        ]
        if upstream_ends:
            wait = (start - max(upstream_ends)).total_seconds()
            self.sums.add_duration(key_of('task_runs.dependency_wait_duration.count', tags), max(0.0, wait))

    def _add_end(self, family: str, state_type: str, tags: Tags) -> None:
        self.sums.counts[key_of(f'{family}.{state_type.lower()}.count', tags)] += 1
        if state_type in ('FAILED', 'CRASHED'):
            self.sums.counts[key_of(f'{family}.failures.count', tags)] += 1

    def _add_start(self, family: str, wait: float, tags: Tags) -> None:
        self.sums.counts[key_of(f'{family}.throughput', tags)] += 1
        if wait > self._late_start_threshold:
            self.sums.counts[key_of(f'{family}.late_start.count', tags)] += 1


class _Names:
    """The names of flows and deployments by id."""

    def __init__(self, api: PrefectApiDriver) -> None:
        self._api = api
        self._names: dict[str, str] = {}

    def get(self, collection: str, identity: str | None) -> str | None:
        if identity is None:
            return None
        if identity not in self._names:
            self._names[identity] = self._api.request('GET', f'{collection}/{identity}')['name']
        return self._names[identity]


def _ended_at(task_run: Row | None) -> datetime | None:
    """When it ended. A server may give no end to one that never started: then it is the time of its terminal state."""
    if task_run is None:
        return None
    if task_run['end_time'] is None and task_run['state_type'] in TERMINAL_STATE_TYPES:
        return _time(task_run['state']['timestamp'])
    return _time(task_run['end_time']) if task_run['end_time'] else None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
