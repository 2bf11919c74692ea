"""Record what a real Prefect server answers, as fixtures of the unit tests.

    .envs/dev/bin/python -m tools.record [--folder prefect/tests/fixtures]

It starts Prefect servers of the version that the lab pins, builds the world of `recorded_world.py`, runs
`recorded_flows.py` for task runs and events of a real engine, asks for each object by itself, and writes request,
status and body to `<folder>/<version>/<endpoint>/<case>.json`. Bodies are written as they came, except that
`base_job_template` is emptied and folders of this machine are replaced.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import urllib.parse
from base64 import b64encode
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lab.api import Answer, PrefectApiDriver
from lab.prefect_server import PREFECT_VERSION, ROOT, FlowScript, PrefectServer, Worker
from lab.waiting import PATIENCE_SECONDS, wait_until
from tools.recorded_world import QUICK_SERVICES, Row, World, build_world

FIXTURES = Path(__file__).resolve().parent.parent / 'prefect' / 'tests' / 'fixtures'
CREDENTIALS = 'recorder:secret'
NO_DEPLOYMENT = '11111111-1111-4111-8111-111111111111'

# Method, path below `/api`, body.
Request = tuple[str, str, object | None]


class Recorder:
    """Sends requests and writes each with its answer to `<folder>/<endpoint>/<case>.json`."""

    def __init__(self, api: PrefectApiDriver, folder: Path) -> None:
        self._api = api
        self._folder = folder
        self.count = 0

    def record(
        self,
        endpoint: str,
        case: str,
        request: Request,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send (method, path, body), write the answer and return its body. Raises when the status is another one."""
        method, path, body = request
        answer = self._api.call(method, path, body, headers)
        if answer.status != status:
            raise RuntimeError(f'{method} {path} was answered {answer.status}, not {status}: {answer.body}')
        self.write(endpoint, case, request, answer)
        return answer.body

    def write(self, endpoint: str, case: str, request: Request, answer: Answer) -> None:
        method, path, body = request
        exchange = {
            'request': {'method': method, 'path': path, 'body': body},
            'status': answer.status,
            'content_type': answer.headers.get('content-type'),
            'body': without_job_templates(answer.body),
        }
        file = self._folder / endpoint / f'{case}.json'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(without_folders(json.dumps(exchange, indent=2, ensure_ascii=False)) + '\n')
        self.count += 1


def without_folders(text: str) -> str:
    """Put fixed folders in the place of those of this machine: of the recorded server, this tree, and its Python."""
    temporary = re.escape(tempfile.gettempdir())
    text = re.sub(rf'({temporary}/prefect-lab-[\w-]+|{re.escape(str(ROOT))})', '/srv/prefect', text)
    return text.replace(sys.base_prefix, '/usr/local')


def without_job_templates(value: Any) -> Any:
    """Empty each `base_job_template`: 1.4 kB of JSON schema per work pool that no test reads."""
    if isinstance(value, dict):
        return {key: {} if key == 'base_job_template' else without_job_templates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_job_templates(item) for item in value]
    return value


def record_objects(recorder: Recorder, world: World) -> None:
    """Record one answer per object, by its id or name."""
    for case, name in world.work_pools.items():
        recorder.record('work_pools_filter', case, by('/work_pools/filter', 'work_pools', name=name))
    for case, (work_pool, _) in world.workers.items():
        filters = {'workers': {'status': {'any_': [case.upper()]}}}
        recorder.record('workers_filter', case, ('POST', f'/work_pools/{work_pool}/workers/filter', filters))
    for case, identity in world.work_queues.items():
        recorder.record('work_queues_filter', case, by('/work_queues/filter', 'work_queues', id=identity))
    for collection in ('flows', 'deployments', 'flow_runs', 'task_runs'):
        for case, identity in getattr(world, collection).items():
            recorder.record(f'{collection}_filter', case, by(f'/{collection}/filter', collection, id=identity))
    for path in ('/v2/concurrency_limits/filter', '/concurrency_limits/filter'):
        recorder.record(path.strip('/').replace('/', '_'), 'all', ('POST', path, {}))
    auto_scheduled = {'flow_runs': {'tags': {'all_': ['auto-scheduled']}}, 'limit': 1}
    recorder.record('flow_runs_filter', 'scheduled_by_schedule', ('POST', '/flow_runs/filter', auto_scheduled))
    for case in ('completed_after_retry', 'retried_by_hand', 'cancelled_never_started'):
        path = f'/flow_run_states/?flow_run_id={world.flow_runs[case]}'
        recorder.record('flow_run_states', case, ('GET', path, None))


def record_log(recorder: Recorder, api: PrefectApiDriver, world: World) -> None:
    """Record one log record, as a client sends it."""
    flow_run_id, time = world.flow_runs['running'], '2026-11-23T08:00:00.123456Z'
    record = {'name': 'prefect.flow_runs', 'level': 20, 'message': 'recorded', 'timestamp': time}
    api.request('POST', '/logs/', [record | {'flow_run_id': flow_run_id}])
    of_the_run = {'logs': {'flow_run_id': {'any_': [flow_run_id]}}}
    recorder.record('logs_filter', 'of_a_flow_run', ('POST', '/logs/filter', of_the_run))


def by(path: str, collection: str, **criterion: str) -> Request:
    return 'POST', path, {collection: {key: {'any_': [value]} for key, value in criterion.items()}}


def record_automation(recorder: Recorder, api: PrefectApiDriver, world: World) -> None:
    """Record an automation, of which one action works and two fail: its events are recorded with those of the engine.

    The failing ones run a deployment that is not there, and call a web hook where nobody listens.
    """
    automation = api.request('POST', '/automations/', new_automation(api, world.flow_runs['scheduled']))
    recorder.record('automations_filter', 'three_actions', ('POST', '/automations/filter', {}))
    for state in ('PENDING', 'RUNNING', 'COMPLETED'):
        api.request(
            'POST', f'/flow_runs/{world.flow_runs["scheduled"]}/set_state', {'state': {'type': state}, 'force': True}
        )
    wanted = {'prefect.automation.action.executed', 'prefect.automation.action.failed'}
    wait_until(lambda: wanted <= names_of_events(api), 'the events of the automation')
    api.call('DELETE', f'/automations/{automation["id"]}')


def new_automation(api: PrefectApiDriver, flow_run_id: str) -> Row:
    """An automation that reacts when a flow run completes."""
    slug = {'block_types': {'slug': {'any_': ['webhook']}}}
    (block_type,) = api.request('POST', '/block_types/filter', slug)
    of_type = {'block_schemas': {'block_type_id': {'any_': [block_type['id']]}}}
    schema = api.request('POST', '/block_schemas/filter', of_type)[0]
    hook = {'name': 'recorded-hook', 'block_type_id': block_type['id'], 'block_schema_id': schema['id']}
    url = {'method': 'POST', 'url': 'http://127.0.0.1:9/nobody', 'allow_private_urls': True}
    block = api.request('POST', '/block_documents/', hook | {'data': url})
    trigger = {
        'type': 'event',
        'posture': 'Reactive',
        'expect': ['prefect.flow-run.Completed'],
        'match': {'prefect.resource.id': f'prefect.flow-run.{flow_run_id}'},
        'threshold': 1,
        'within': 0,
    }
    actions = [
        {'type': 'do-nothing'},
        {'type': 'run-deployment', 'source': 'selected', 'deployment_id': NO_DEPLOYMENT},
        {'type': 'call-webhook', 'block_document_id': block['id'], 'payload': 'completed'},
    ]
    return {'name': 'recorded-automation', 'enabled': True, 'trigger': trigger, 'actions': actions}


def record_task_worker(recorder: Recorder, api: PrefectApiDriver, server: PrefectServer) -> None:
    """Record a task worker while it listens."""
    path = 'task_workers/filter'
    with FlowScript(server.api_url, 'thumbnail_worker.py'):
        wait_until(lambda: bool(api.request('POST', path, {})), 'a task worker')
        recorder.record('task_workers_filter', 'online', ('POST', f'/{path}', {}))


def run_worker(api: PrefectApiDriver, server: PrefectServer) -> None:
    """Let a worker start a flow run that exits with 3: its events are recorded with those of the engine."""
    api.create_work_pool('recorded-with-worker')
    deployment_id = api.create_deployment(
        flow_name='recorded-exit',
        name='recorded-exit',
        entrypoint='failures.py:exits',
        work_pool_name='recorded-with-worker',
    )
    api.create_flow_run(deployment_id)
    with Worker(server.api_url, 'recorded-with-worker'):
        wait_until(lambda: 'prefect.worker.executed-flow-run' in names_of_events(api), 'the events of the worker')


def record_engine_runs(recorder: Recorder, api: PrefectApiDriver, server: PrefectServer) -> None:
    """Run the recorded flows and record their task runs and one event of each name."""
    with FlowScript(server.api_url, str(FIXTURES / 'recorded_flows.py')) as script:
        if script.wait(PATIENCE_SECONDS) != 0:
            raise RuntimeError(f'the recorded flows ended with an error:\n{script.process.log_tail()}')
    wait_until(lambda: 'prefect.flow-run.Failed' in names_of_events(api, 'recorded-parent'), 'the events of the flows')
    flows = {'name': {'any_': ['recorded-parent']}}
    task_runs = recorder.record('task_runs_filter', 'of_an_engine', ('POST', '/task_runs/filter', {'flows': flows}))
    for task_run in task_runs:
        case = f'engine_{task_run["name"].rsplit("-", 1)[0]}'.replace('-', '_')
        recorder.record('task_runs_filter', case, by('/task_runs/filter', 'task_runs', id=task_run['id']))
    for name in sorted(names_of_events(api)):
        body = {'filter': {'event': {'name': [name]}}, 'limit': 1}
        recorder.record('events_filter', name, ('POST', '/events/filter', body))
    beats = {'filter': {'event': {'name': ['prefect.flow-run.heartbeat']}}}
    recorder.record('events_count-by_resource', 'heartbeats', ('POST', '/events/count-by/resource', beats))
    page = recorder.record('events_filter', 'page', ('POST', '/events/filter', {'limit': 2}))
    token = urllib.parse.parse_qs(urllib.parse.urlsplit(page['next_page']).query)['page-token'][0]
    recorder.record('events_filter_next', 'page', ('GET', next_path(token), None))


def next_path(token: str) -> str:
    return f'/events/filter/next?page-token={urllib.parse.quote(token)}'


def names_of_events(api: PrefectApiDriver, flow_name: str | None = None) -> set[str]:
    """Return the names of all events, or of those that are about runs of a flow."""
    events = [event for page in event_pages(api) for event in page]
    if flow_name is not None:
        named = {'prefect.resource.role': 'flow', 'prefect.resource.name': flow_name}
        events = [event for event in events if any(named.items() <= related.items() for related in event['related'])]
    return {event['event'] for event in events}


def event_pages(api: PrefectApiDriver) -> Iterator[list[Row]]:
    page = api.request('POST', '/events/filter', {})
    yield page['events']
    while page['next_page']:
        token = urllib.parse.parse_qs(urllib.parse.urlsplit(page['next_page']).query)['page-token'][0]
        page = api.request('GET', next_path(token))
        yield page['events']


def record_server(recorder: Recorder) -> None:
    """Record the endpoints that tell of the server, the counts and a page."""
    for endpoint in ('health', 'ready', 'version', 'admin/version', 'admin/settings'):
        recorder.record(endpoint.replace('/', '_'), 'ok', ('GET', f'/{endpoint}', None))
    for collection in ('flows', 'deployments', 'flow_runs', 'task_runs', 'work_pools'):
        recorder.record(f'{collection}_count', 'all', ('POST', f'/{collection}/count', {}))
    recorder.record('flow_runs_paginate', 'first_page', ('POST', '/flow_runs/paginate', {'limit': 2}))


def record_refusals(recorder: Recorder) -> None:
    """Record the errors of an open server."""
    refusals: dict[str, tuple[int, Request]] = {
        '404_path': (404, ('GET', '/nothing', None)),
        '404_work_pool': (404, ('POST', '/work_pools/nothing/workers/filter', {})),
        '422_limit': (422, ('POST', '/flow_runs/filter', {'limit': 201})),
        '422_negative_limit': (422, ('POST', '/flow_runs/filter', {'limit': -1})),
        '422_negative_offset': (422, ('POST', '/flow_runs/filter', {'offset': -1})),
        '422_extra_forbidden': (422, ('POST', '/flow_runs/filter', {'flow_runs': {'nothing': {'any_': ['x']}}})),
        '422_extra_forbidden_operator': (422, ('POST', '/task_runs/filter', {'task_runs': {'id': {'not_any_': []}}})),
        '422_sort': (422, ('POST', '/flow_runs/filter', {'sort': 'CREATED_DESC'})),
        '422_uuid': (422, ('POST', '/flow_runs/filter', {'flow_runs': {'id': {'any_': ['x']}}})),
        '422_event_limit': (422, ('POST', '/events/filter', {'limit': 51})),
        '422_csrf_disabled': (422, ('GET', '/csrf-token?client=recorder', None)),
        '403_page_token': (403, ('GET', '/events/filter/next?page-token=nonsense', None)),
    }
    for case, (status, request) in refusals.items():
        recorder.record('errors', case, request, status=status)


def record_guarded_server(recorder: Recorder, api: PrefectApiDriver) -> None:
    """Record the errors of a server with credentials and CSRF protection, and its token."""
    basic = {'Authorization': f'Basic {b64encode(CREDENTIALS.encode()).decode()}'}
    runs: Request = ('POST', '/flow_runs/filter', {})
    recorder.record('errors', '401', ('GET', '/admin/version', None), status=401)
    recorder.record('errors', '403_csrf_token_missing', runs, status=403, headers=basic)
    token = {'Prefect-Csrf-Token': 'wrong'}
    recorder.record('errors', '403_csrf_client_missing', runs, status=403, headers={**basic, **token})
    stranger = {'Prefect-Csrf-Client': 'recorder'}
    recorder.record('errors', '403_csrf_token_invalid', runs, status=403, headers={**basic, **token, **stranger})
    recorder.record('csrf-token', 'ok', ('GET', '/csrf-token?client=recorder', None), headers=basic)


def lose_database(api: PrefectApiDriver, server: PrefectServer) -> Answer:
    """Take the server's database away, so that it cannot open a connection, and return how it says so."""
    for file in server.folder.glob('prefect.db*'):
        file.unlink()
    (server.folder / 'prefect.db').mkdir()
    refusals: list[Answer] = []

    # Connections that are open stay good: many readers at once make the server open new ones.
    def is_lost() -> bool:
        answers = readers.map(lambda _: api.call('GET', '/ready'), range(20))
        refusals.extend(answer for answer in answers if answer.status == 503)
        return bool(refusals)

    with ThreadPoolExecutor(20) as readers:
        wait_until(is_lost, 'the server to miss its database')
    return refusals[0]


def main() -> int:
    parser = argparse.ArgumentParser(description='Record fixtures from real Prefect servers.')
    parser.add_argument(
        '--folder', type=Path, default=FIXTURES, help='where <version>/<endpoint>/<case>.json are written'
    )
    folder = parser.parse_args().folder / PREFECT_VERSION
    shutil.rmtree(folder, ignore_errors=True)
    with PrefectServer(settings=QUICK_SERVICES) as server:
        api = PrefectApiDriver(server.api_url)
        recorder = Recorder(api, folder)
        record_refusals(recorder)
        world = build_world(api)
        record_objects(recorder, world)
        record_log(recorder, api, world)
        record_automation(recorder, api, world)
        record_task_worker(recorder, api, server)
        run_worker(api, server)
        record_engine_runs(recorder, api, server)
        record_server(recorder)
        count = recorder.count
    guarded = {
        'PREFECT_SERVER_API_AUTH_STRING': CREDENTIALS,
        'PREFECT_SERVER_CSRF_PROTECTION_ENABLED': 'true',
    }
    with PrefectServer(settings=guarded) as server:
        api = PrefectApiDriver(server.api_url)
        recorder = Recorder(api, folder)
        record_guarded_server(recorder, api)
        recorder.write('ready', 'database_lost', ('GET', '/ready', None), lose_database(api, server))
        count += recorder.count
    print(f'{count} answers of Prefect {PREFECT_VERSION} written to {folder}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
