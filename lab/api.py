"""A small driver of the Prefect REST API: what the lab and the integration tests do to a server.

It writes (creates pools, runs, states) and it reads the truth that a check's numbers are compared with. The check has a
client of its own and shares no code with this one, so that the two cannot be wrong in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import requests

from lab.prefect_server import FLOWS_FOLDER
from lab.waiting import PATIENCE_SECONDS, wait_until

# A server with SQLite answers 503 to a write that another write got in the way of (SQLITE_BUSY_SNAPSHOT); Prefect's own
# client tries again, too.
# Of a minute and more: so long a server with SQLite may stand still on a busy machine, "database is locked".
RETRY_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 15.0, 15.0, 15.0, 15.0)
TERMINAL_STATE_TYPES = frozenset({'COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED'})
NOT_A_SUBFLOW = {'subflow_runs': {'exists_': False}}


@dataclass(frozen=True)
class Answer:
    """What a server answered: the body is decoded JSON, or text where it is none, or None where it is empty."""

    status: int
    headers: Mapping[str, str]
    body: Any


class PrefectApiDriver:
    """Every method is one or a few requests; an answer of 400 or more raises RuntimeError with its body.

    `auth_string` is 'user:password', for a server that asks for it.
    """

    def __init__(self, api_url: str, *, auth_string: str | None = None) -> None:
        self.url = api_url
        self._session = requests.Session()
        self._session.trust_env = False
        if auth_string:
            user, _, password = auth_string.partition(':')
            self._session.auth = (user, password)

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def call(
        self, method: str, path: str, body: object | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request to `path` (below /api); return the answer, with any status."""
        body = {} if body is None and method == 'POST' else body
        url = f'{self.url}/{path.removeprefix("/")}'
        response = self._session.request(method, url, json=body, headers=headers, timeout=PATIENCE_SECONDS)
        try:
            decoded = response.json() if response.content else None
        except requests.JSONDecodeError:
            decoded = response.text
        return Answer(response.status_code, response.headers, decoded)

    def request(self, method: str, path: str, body: object | None = None) -> Any:
        """Send one request, again while the server is busy; return the body of its answer."""
        for pause in RETRY_PAUSES_SECONDS:
            answer = self.call(method, path, body)
            if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
                break
            time.sleep(pause)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise self._unexpected(method, path, answer)
        return answer.body

    def accepts(self, path: str, **body: object) -> bool:
        """Whether the server knows the filters of a request that reads."""
        answer = self.call('POST', path, body)
        if answer.status not in (HTTPStatus.OK, HTTPStatus.UNPROCESSABLE_ENTITY):
            raise self._unexpected('POST', path, answer)
        return answer.status == HTTPStatus.OK

    def _unexpected(self, method: str, path: str, answer: Answer) -> RuntimeError:
        return RuntimeError(f'{method} {self.url}/{path} answered {answer.status}: {str(answer.body)[:500]}')

    def read_all(self, path: str, body: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Read every page of a `/filter` endpoint; the page size is the server's own.

        Rows that are equal by the sort may come in another order on each page, so that one appears twice and another
        never. Then all is read again in smaller pages.
        """
        found: dict[str, dict[str, Any]] = {}
        for limit in ({}, {'limit': 150}, {'limit': 110}, {'limit': 70}):
            counted = 0
            while page := self.request('POST', path, {**(body or {}), **limit, 'offset': counted}):
                found.update((item['id'], item) for item in page)
                counted += len(page)
            if len(found) >= counted:
                break
        return list(found.values())

    def send_flow_run_heartbeat(self, flow_run_id: str) -> None:
        """Send the event that the process of a flow run sends now and then."""
        resource = {'prefect.resource.id': f'prefect.flow-run.{flow_run_id}', 'prefect.resource.name': 'by hand'}
        occurred = datetime.now(UTC).isoformat()
        event = {'id': str(uuid4()), 'occurred': occurred, 'event': 'prefect.flow-run.heartbeat'}
        self.request('POST', 'events', [event | {'resource': resource}])

    def count_events(self, names: Sequence[str]) -> int:
        """The number of events of these names today."""
        body = {'filter': {'event': {'name': list(names)}}, 'limit': 0}
        return int(self.request('POST', 'events/filter', body)['total'])

    def events(self, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """Read all events that occurred from `since` to `until`, both included."""
        occurred = {'since': since.isoformat(), 'until': until.isoformat()}
        page = self.request('POST', 'events/filter', {'filter': {'occurred': occurred, 'order': 'ASC'}})
        found = {event['id']: event for event in page['events']}
        while page['next_page']:
            page = self.request('GET', page['next_page'].removeprefix(f'{self.url}/'))
            found.update((event['id'], event) for event in page['events'])
        return list(found.values())

    def logs(self, level: int, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """Read all log records from a level up, with a timestamp from `since` to `until`, both included."""
        timestamp = {'after_': since.isoformat(), 'before_': until.isoformat()}
        return self.read_all('logs/filter', {'logs': {'level': {'ge_': level}, 'timestamp': timestamp}})

    def flow_run_logs(self, level: int, flow_run_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Read all log records of these flow runs and their task runs from a level up."""
        criteria = {'level': {'ge_': level}, 'flow_run_id': {'any_': list(flow_run_ids)}}
        return self.read_all('logs/filter', {'logs': criteria})

    def create_logs(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Send log records as a client does: several in one request, each with a time of its own."""
        self.request('POST', 'logs/', list(records))

    def wait_for_events(self) -> None:
        """Wait until the server shows all events that it has taken: it writes them down in order, every 5 s."""
        identity = str(uuid4())
        occurred = datetime.now(UTC).isoformat()
        resource = {'prefect.resource.id': f'lab.{identity}'}
        marker = {'id': identity, 'event': 'lab.marker', 'occurred': occurred, 'resource': resource}
        self.request('POST', 'events', [marker])
        criteria = {'filter': {'resource': {'id': [f'lab.{identity}']}}, 'limit': 1}
        wait_until(lambda: self.request('POST', 'events/filter', criteria)['events'], 'the server to show an event')

    # What the lab makes

    def create_work_pool(self, name: str, *, concurrency_limit: int | None = None, is_paused: bool = False) -> None:
        body = {'name': name, 'type': 'process', 'concurrency_limit': concurrency_limit, 'is_paused': is_paused}
        self.request('POST', 'work_pools/', body)

    def update_work_pool(self, name: str, **changes: Any) -> None:
        self.request('PATCH', f'work_pools/{name}', changes)

    def delete_work_pool(self, name: str) -> None:
        self.request('DELETE', f'work_pools/{name}')

    def create_work_queue(
        self,
        work_pool_name: str,
        name: str,
        *,
        concurrency_limit: int | None = None,
        priority: int | None = None,
    ) -> None:
        body: dict[str, Any] = {'name': name, 'concurrency_limit': concurrency_limit}
        if priority is not None:
            body['priority'] = priority
        self.request('POST', f'work_pools/{work_pool_name}/queues', body)

    def update_work_queue(self, work_pool_name: str, name: str, **changes: Any) -> None:
        """Change a queue. To pause one, pause it after it was made: a queue made with `is_paused` gets status READY."""
        self.request('PATCH', f'work_pools/{work_pool_name}/queues/{name}', changes)

    def send_heartbeat(self, work_pool_name: str, name: str, *, interval_seconds: int) -> None:
        """Be a worker that is OFFLINE, unless it sends more, once it has missed three intervals."""
        body = {'name': name, 'heartbeat_interval_seconds': interval_seconds}
        self.request('POST', f'work_pools/{work_pool_name}/workers/heartbeat', body)

    def create_concurrency_limit(self, name: str, limit: int) -> None:
        """Create a global limit. (One that is named `tag:<tag>` is that of a tag since 3.4.)"""
        self.request('POST', 'v2/concurrency_limits/', {'name': name, 'limit': limit})

    def take_slot(self, name: str) -> None:
        """Take a slot of a limit for good, as a process does that is killed before it gives it back."""
        self.request('POST', 'v2/concurrency_limits/increment', {'names': [name], 'slots': 1})

    def give_slot_back(self, name: str) -> None:
        self.request('POST', 'v2/concurrency_limits/decrement', {'names': [name], 'slots': 1})

    def create_tag_limit(self, tag: str, limit: int) -> None:
        self.request('POST', 'concurrency_limits/', {'tag': tag, 'concurrency_limit': limit})

    def take_tag_slot(self, tag: str, task_run_id: str) -> None:
        """Take a slot of a tag for a task run, which does not give it back."""
        self.request('POST', 'concurrency_limits/increment', {'names': [tag], 'task_run_id': task_run_id})

    def create_flow(self, name: str) -> str:
        """Return the id of the flow of that name, which is made if there is none."""
        return str(self.request('POST', 'flows/', {'name': name})['id'])

    def create_deployment(
        self,
        *,
        flow_name: str,
        name: str,
        entrypoint: str,
        work_pool_name: str,
        work_queue_name: str = 'default',
        folder: Path = FLOWS_FOLDER,
        parameters: Mapping[str, Any] | None = None,
        schedules: Sequence[Mapping[str, Any]] = (),
        paused: bool = False,
        concurrency_limit: int | None = None,
        tags: Sequence[str] = (),
    ) -> str:
        """Return the id of a deployment whose flow a process worker loads from `folder`.

        `entrypoint` is `file.py:function`; a schedule is `{'interval': seconds}` or `{'cron': text}`.
        """
        body = {
            'flow_id': self.create_flow(flow_name),
            'name': name,
            'entrypoint': entrypoint,
            'path': str(folder),
            'pull_steps': [{'prefect.deployments.steps.set_working_directory': {'directory': str(folder)}}],
            'work_pool_name': work_pool_name,
            'work_queue_name': work_queue_name,
            'parameters': dict(parameters or {}),
            'enforce_parameter_schema': False,
            'schedules': [{'schedule': {'timezone': 'UTC', **schedule}, 'active': True} for schedule in schedules],
            'paused': paused,
            'concurrency_limit': concurrency_limit,
            'tags': list(tags),
        }
        return str(self.request('POST', 'deployments/', body)['id'])

    def pause_deployment(self, deployment_id: str) -> None:
        """Pause the schedules; the server deletes the runs that it had scheduled, Late ones too."""
        self.request('POST', f'deployments/{deployment_id}/pause_deployment')

    def resume_deployment(self, deployment_id: str) -> None:
        self.request('POST', f'deployments/{deployment_id}/resume_deployment')

    def create_flow_run(
        self, deployment_id: str, *, name: str | None = None, parameters: Mapping[str, Any] | None = None
    ) -> str:
        """Ask for one run of the deployment, due now; return its id."""
        body: dict[str, Any] = {'parameters': dict(parameters or {})}
        if name is not None:
            body['name'] = name
        return str(self.request('POST', f'deployments/{deployment_id}/create_flow_run', body)['id'])

    def complete_flow_run(self, flow_id: str) -> None:
        """A flow run without a deployment that starts and ends at this moment."""
        flow_run = self.request('POST', 'flow_runs/', {'flow_id': flow_id, 'state': None})
        for state_type in ('RUNNING', 'COMPLETED'):
            self.set_flow_run_state(flow_run['id'], state_type, force=True)

    def set_flow_run_state(
        self, flow_run_id: str, state_type: str, *, name: str | None = None, force: bool = False
    ) -> None:
        """Propose a state; raises RuntimeError if the server's orchestration does not accept it."""
        state: dict[str, Any] = {'type': state_type}
        if name is not None:
            state['name'] = name
        answer = self.request('POST', f'flow_runs/{flow_run_id}/set_state', {'state': state, 'force': force})
        if answer['status'] != 'ACCEPT':
            raise RuntimeError(f'{state_type} was not accepted for flow run {flow_run_id}: {answer}')

    def create_task_run(
        self,
        flow_run_id: str,
        task_key: str,
        *,
        dynamic_key: str = '0',
        inputs: Sequence[Mapping[str, str]] = (),
    ) -> str:
        """A PENDING task run of a flow run; `inputs` are what it waits for."""
        body = {
            'flow_run_id': flow_run_id,
            'task_key': task_key,
            'dynamic_key': dynamic_key,
            'task_inputs': {'rows': list(inputs)},
            'state': {'type': 'PENDING'},
        }
        return str(self.request('POST', 'task_runs/', body)['id'])

    def set_task_run_state(self, task_run_id: str, state_type: str, *, name: str | None = None) -> None:
        """Force a state on a task run."""
        state = {'type': state_type} | ({} if name is None else {'name': name})
        self.request('POST', f'task_runs/{task_run_id}/set_state', {'state': state, 'force': True})

    def cancel_flow_run(self, flow_run_id: str) -> None:
        """Ask for cancellation, as the UI does: a run that runs is CANCELLING until its worker has killed it."""
        self.set_flow_run_state(flow_run_id, 'CANCELLING')

    def retry_flow_run(self, flow_run_id: str) -> None:
        """Send a failed run back to its queue, as the Retry button of the UI does."""
        self.set_flow_run_state(flow_run_id, 'SCHEDULED', name='AwaitingRetry', force=True)

    def resume_flow_run(self, flow_run_id: str) -> None:
        answer = self.request('POST', f'flow_runs/{flow_run_id}/resume')
        if answer['status'] != 'ACCEPT':
            raise RuntimeError(f'flow run {flow_run_id} was not resumed: {answer}')

    def delete_flow_run(self, flow_run_id: str) -> None:
        self.request('DELETE', f'flow_runs/{flow_run_id}')

    # What the lab asks

    def version(self) -> str:
        return str(self.request('GET', 'admin/version'))

    def flow_run(self, flow_run_id: str) -> dict[str, Any]:
        flow_run: dict[str, Any] = self.request('GET', f'flow_runs/{flow_run_id}')
        return flow_run

    def flow_run_state_types(self, flow_run_ids: Collection[str]) -> dict[str, str]:
        """Return the state type now of each of these runs by id; a run that was deleted is absent."""
        if not flow_run_ids:
            return {}
        body = {'flow_runs': {'id': {'any_': sorted(flow_run_ids)}}}
        return {run['id']: run['state_type'] for run in self.read_all('flow_runs/filter', body)}

    def flow_run_states(self, flow_run_id: str) -> list[dict[str, Any]]:
        """Return every state that the run went through, oldest first."""
        states: list[dict[str, Any]] = self.request('GET', f'flow_run_states/?flow_run_id={flow_run_id}')
        return states

    def count_flow_runs(self, **filters: Any) -> int:
        """Count flow runs; `filters` are top-level keys of the API's filter body (`flow_runs={...}`)."""
        return int(self.request('POST', 'flow_runs/count', filters))

    def count_task_runs(self, **filters: Any) -> int:
        return int(self.request('POST', 'task_runs/count', filters))
