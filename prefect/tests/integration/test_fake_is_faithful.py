"""The fake server and a real one give the same answers about the same world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from datadog_checks.prefect.api import queries
from datadog_checks.prefect.api.time_range import TimeRange
from lab.api import Answer, PrefectApiDriver
from lab.prefect_server import FlowScript, PrefectServer
from tests.fake_prefect import FakePrefect
from tools.record import new_automation
from tools.recorded_world import FLOW_RUN_PATHS, QUICK_SERVICES, TASK_RUN_PATHS, World, build_world, wait_until

Row = dict[str, Any]
# What the bookkeeping of the server sets when a run enters a state.
BOOKKEEPING = (
    'state_type',
    'state_name',
    'start_time',
    'end_time',
    'run_count',
    'total_run_time',
    'expected_start_time',
    'next_scheduled_start_time',
)


@dataclass(frozen=True)
class Pair:
    """A real server and a fake one that holds the rows of the real one. `rows`: by table and case of the world."""

    api: PrefectApiDriver
    fake: FakePrefect
    world: World
    rows: dict[str, dict[str, Row]]

    def ask(self, method: str, path: str, body: object = None) -> tuple[Answer, Answer]:
        """Return the answers of the real server and of the fake one."""
        with self.fake.install() as url:
            fake_answer = PrefectApiDriver(url).call(method, path, body)
        return self.api.call(method, path, body), fake_answer


@pytest.fixture(scope='module')
def pair() -> Iterator[Pair]:
    with PrefectServer(settings=QUICK_SERVICES) as server:
        api = PrefectApiDriver(server.api_url)
        world = build_world(api)
        fake = FakePrefect()
        fake.now = datetime.now(UTC)
        rows = {table: {row['id']: row for row in everything(api, table)} for table in ('flows', 'deployments')}
        rows |= {table: {row['id']: row for row in everything(api, table)} for table in ('flow_runs', 'task_runs')}
        rows |= {table: {row['id']: row for row in everything(api, table)} for table in ('work_pools', 'work_queues')}
        workers = [api.request('POST', f'/work_pools/{name}/workers/filter') for name in world.work_pools.values()]
        states = [api.request('GET', f'/flow_run_states/?flow_run_id={identity}') for identity in rows['flow_runs']]
        for table, by_id in rows.items():
            fake.load(table, list(by_id.values()))
        api.create_logs([*log_records(world)])
        fake.load('logs', list(everything(api, 'logs')))
        fake.load('concurrency_limits', list(everything(api, 'v2/concurrency_limits')))
        api.request('POST', '/automations/', new_automation(api, world.flow_runs['scheduled']))
        fake.load('automations', list(everything(api, 'automations')))
        fake.load('tag_limits', list(everything(api, 'concurrency_limits')))
        fake.load('workers', [row for part in workers for row in part])
        fake.load('flow_run_states', [row for part in states for row in part])
        fake.load('events', list(every_event(api)))
        yield Pair(api, fake, world, {table: by_case(world, table, by_id) for table, by_id in rows.items()})


def everything(api: PrefectApiDriver, table: str) -> Iterator[Row]:
    offset = 0
    while page := api.request('POST', f'/{table}/filter', {'offset': offset}):
        yield from page
        offset += len(page)


def log_records(world: World) -> Iterator[Row]:
    """Records of two flow runs, a task run and none, of all levels, three of each moment."""
    runs: list[Row] = [
        {'flow_run_id': world.flow_runs['running']},
        {'flow_run_id': world.flow_runs['failed'], 'task_run_id': world.task_runs['completed']},
        {},
    ]
    for number, level in enumerate((10, 20, 30, 40, 50)):
        for run in runs:
            at = f'2026-11-23T08:00:0{number}Z'
            yield {'name': 'prefect.recorded', 'level': level, 'message': 'recorded', 'timestamp': at, **run}


def every_event(api: PrefectApiDriver) -> Iterator[Row]:
    page = api.request('POST', '/events/filter', {})
    yield from page['events']
    while page['next_page']:
        page = api.request('GET', f'/events/filter/next?page-token={quote(token_of(page))}')
        yield from page['events']


def token_of(page: Row) -> str:
    return parse_qs(urlsplit(page['next_page']).query)['page-token'][0]


def by_case(world: World, table: str, rows: dict[str, Row]) -> dict[str, Row]:
    """Name rows by the case that the world gave to their id, or their name for work pools."""
    keys = {row['name']: row for row in rows.values()} if table == 'work_pools' else rows
    return {case: keys[key] for case, key in getattr(world, table).items() if key in keys}


# Path, body. Texts are formatted with the rows by table and case.
ENDED = '{flow_runs[failed][end_time]}'
TASK_ENDED = '{task_runs[completed][end_time]}'
DUE = '{flow_runs[scheduled][next_scheduled_start_time]}'
ALWAYS = TimeRange(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
TERMINAL = ['COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED']
FLOW_RUN_FILTERS: list[Row] = [
    {},
    {'flow_runs': None},
    {'flow_runs': {}},
    {'flow_runs': {'id': {'any_': ['{flow_runs[running][id]}', '{flow_runs[late][id]}']}}},
    {'flow_runs': {'id': {'any_': []}}},
    {'flow_runs': {'id': {'not_any_': ['{flow_runs[running][id]}']}}},
    {'flow_runs': {'id': {'not_any_': []}}},
    {'flow_runs': {'name': {'any_': ['run-failed', 'run-paused']}}},
    {'flow_runs': {'name': {'like_': 'RUN-C_MPL'}}},
    {'flow_runs': {'tags': {'all_': ['etl', 'nightly']}}},
    {'flow_runs': {'tags': {'any_': ['etl', 'auto-scheduled']}}},
    {'flow_runs': {'tags': {'any_': []}}},
    {'flow_runs': {'tags': {'is_null_': True}}},
    {'flow_runs': {'tags': {'operator': 'or_', 'is_null_': True, 'all_': ['etl']}}},
    {'flow_runs': {'deployment_id': {'any_': ['{deployments[ready][id]}']}}},
    {'flow_runs': {'deployment_id': {'is_null_': True}}},
    {'flow_runs': {'deployment_id': {'operator': 'or_', 'is_null_': True, 'any_': ['{deployments[ready][id]}']}}},
    {'flow_runs': {'work_queue_name': {'any_': ['high']}}},
    {'flow_runs': {'work_queue_name': {'any_': ['default']}}},
    {'flow_runs': {'work_queue_name': {'is_null_': True}}},
    {'flow_runs': {'state': {'type': {'any_': ['SCHEDULED', 'PENDING']}}}},
    {'flow_runs': {'state': {'type': {'any_': []}}}},
    {'flow_runs': {'state': {'type': {'not_any_': TERMINAL}}}},
    {'flow_runs': {'state': {'type': {'any_': ['SCHEDULED'], 'not_any_': ['PENDING']}}}},
    {'flow_runs': {'state': {'name': {'any_': ['Late'], 'not_any_': ['Running']}}}},
    {'flow_runs': {'state': {'name': {'not_any_': ['Scheduled']}, 'type': {'any_': ['SCHEDULED']}}}},
    {'flow_runs': {'state': {'operator': 'or_', 'name': {'any_': ['Late']}, 'type': {'any_': ['PAUSED']}}}},
    {'flow_runs': {'state': {'type': {}}}},
    {'flow_runs': {'start_time': {'after_': '{flow_runs[running][start_time]}'}}},
    {'flow_runs': {'start_time': {'before_': '{flow_runs[running][start_time]}'}}},
    {'flow_runs': {'start_time': {'is_null_': True}}},
    {'flow_runs': {'start_time': {'is_null_': False, 'before_': ENDED}}},
    queries.started_flow_runs_among(queries.NO_FILTER, ALWAYS, ['{flow_runs[running][id]}', '{flow_runs[late][id]}']),
    {'flow_runs': {'end_time': {'after_': ENDED}}},
    {'flow_runs': {'end_time': {'before_': ENDED}}},
    {'flow_runs': {'end_time': {'is_null_': True}}},
    {'flow_runs': {'end_time': {'is_null_': False}}},
    {
        'flow_runs': {
            'deployment_id': {'any_': ['{deployments[ready][id]}']},
            'end_time': {'is_null_': False},
            'state': {'type': {'any_': ['COMPLETED', 'COMPLETED']}},
        }
    },
    {'flow_runs': {'end_time': {'after_': ENDED, 'before_': '{flow_runs[crashed][end_time]}'}}},
    {'flow_runs': {'expected_start_time': {'before_': DUE}}},
    {'flow_runs': {'expected_start_time': {'after_': DUE}}},
    {
        'flow_runs': {
            'deployment_id': {'any_': ['{deployments[ready][id]}']},
            'expected_start_time': {'after_': ENDED},
            'tags': {'all_': ['auto-scheduled']},
        }
    },
    {'flow_runs': {'next_scheduled_start_time': {'before_': DUE}}},
    {'flow_runs': {'next_scheduled_start_time': {'after_': DUE}}},
    {'flow_runs': {'parent_flow_run_id': {'any_': ['{flow_runs[running][id]}']}}},
    {'flow_runs': {'parent_task_run_id': {'any_': ['{task_runs[subflow_dummy][id]}']}}},
    {'flow_runs': {'parent_task_run_id': {'is_null_': False}}},
    {'flow_runs': {'idempotency_key': {'any_': ['recorded']}}},
    {'flow_runs': {'created_by': {'type_': ['SCHEDULE']}}},
    {'flow_runs': {'created_by': {'is_null_': True}}},
    {'flow_runs': {'flow_version': {'any_': ['1']}}},
    {'flow_runs': {'operator': 'or_', 'name': {'any_': ['run-late']}, 'state': {'type': {'any_': ['CRASHED']}}}},
    {'flow_runs': {'operator': 'or_', 'name': {}, 'state': {'type': {'any_': ['CRASHED']}}}},
    {'flows': {'name': {'any_': ['recorded-flow']}}},
    {'flows': {'tags': {'all_': ['etl']}}},
    {'flows': {'id': {'any_': ['{flows[plain][id]}', '{flows[never_run][id]}']}}},
    {'flows': {'id': {'any_': []}}},
    {'flows': {'id': {'any_': ['{flows[plain][id]}']}}, 'flow_runs': {'state': {'type': {'any_': TERMINAL}}}},
    {'deployments': {}},
    {'deployments': {'name': {'like_': 'served'}}},
    {'work_pools': {}},
    {'work_pools': {'type': {'any_': ['process']}}},
    {'work_pool_queues': {'name': {'startswith_': ['HI']}}},
    {'work_pools': {'name': {'any_': ['recorded-limited']}}, 'work_pool_queues': {'name': {'any_': ['default']}}},
    {'task_runs': {}},
    {'task_runs': {'state': {'type': {'any_': ['FAILED']}}}},
    {'flows': {'name': {'any_': ['recorded-flow']}}, 'task_runs': {'name': {'like_': 'task'}}},
    {'flow_runs': {'state': {'type': {'any_': ['RUNNING']}}}, 'deployments': {'tags': {'any_': ['nightly']}}},
    {'nothing': 1},
]
TASK_RUN_FILTERS: list[Row] = [
    {},
    {'task_runs': {'id': {'any_': ['{task_runs[failed][id]}']}}},
    {'task_runs': {'name': {'like_': 'task-r'}}},
    {'task_runs': {'tags': {'all_': ['db', 'slow']}}},
    {'task_runs': {'tags': {'is_null_': True}}},
    {'task_runs': {'state': {'type': {'any_': ['PENDING', 'RUNNING']}}}},
    {'task_runs': {'state': {'type': {'any_': ['SCHEDULED']}}}},
    {'task_runs': {'state': {'name': {'any_': ['NotReady', 'Cached']}}}},
    {'task_runs': {'state': {'operator': 'or_', 'name': {'any_': ['AwaitingRetry']}, 'type': {'any_': ['PAUSED']}}}},
    {'task_runs': {'start_time': {'after_': '{task_runs[failed][start_time]}'}}},
    {'task_runs': {'start_time': {'is_null_': True}}},
    {'task_runs': {'end_time': {'after_': TASK_ENDED}}},
    {'task_runs': {'end_time': {'before_': TASK_ENDED}}},
    {'task_runs': {'end_time': {'is_null_': False}}},
    {
        'task_runs': {
            'start_time': {'after_': '{task_runs[failed][start_time]}'},
            'state': {'type': {'any_': ['SCHEDULED', 'PENDING', 'RUNNING', 'PAUSED', 'CANCELLING']}},
            'subflow_runs': {'exists_': False},
        }
    },
    {'task_runs': {'end_time': {'after_': TASK_ENDED}, 'id': {'any_': []}, 'subflow_runs': {'exists_': False}}},
    {
        'task_runs': {
            'end_time': {'after_': TASK_ENDED},
            'id': {'any_': ['{task_runs[failed][id]}', '{task_runs[completed][id]}']},
            'subflow_runs': {'exists_': False},
        }
    },
    {'task_runs': {'expected_start_time': {'before_': '{task_runs[failed][expected_start_time]}'}}},
    {'task_runs': {'subflow_runs': {'exists_': True}}},
    {'task_runs': {'subflow_runs': {'exists_': False}}},
    {'task_runs': {'flow_run_id': {'any_': ['{flow_runs[running][id]}']}}},
    {'task_runs': {'flow_run_id': {'is_null_': True}}},
    {'task_runs': {'flow_run_id': {'is_null_': True, 'any_': ['{flow_runs[running][id]}']}}},
    {'task_runs': {'flow_run_id': {'is_null_': None}}},
    {'task_runs': {'flow_run_id': {}}},
    {'task_runs': {'operator': 'or_', 'flow_run_id': {}, 'name': {'any_': ['task-background']}}},
    {'flow_runs': {}},
    {'flow_runs': {'state': {'type': {'any_': ['RUNNING']}}}},
    {
        'flow_runs': {'id': {'any_': ['{flow_runs[crashed][id]}']}},
        'task_runs': {'state': {'type': {'any_': ['RUNNING']}}},
    },
    {'flows': {'name': {'any_': ['recorded-flow']}}},
    {'flows': {'id': {'any_': ['{flows[plain][id]}']}}},
    {
        'flows': {'id': {'any_': ['{flows[plain][id]}']}},
        'flow_runs': {'deployment_id': {'is_null_': False}},
        'task_runs': {'subflow_runs': {'exists_': False}},
    },
    {'deployments': {'id': {'any_': ['{deployments[limited][id]}', '{deployments[without_work_pool][id]}']}}},
]
DEPLOYMENT_FILTERS: list[Row] = [
    {},
    {'deployments': {'id': {'any_': ['{deployments[paused][id]}']}}},
    {'deployments': {'id': {'not_any_': ['{deployments[paused][id]}']}}},
    {'deployments': {'name': {'any_': ['recorded-limited', 'recorded-served']}}},
    {'deployments': {'paused': {'eq_': True}}},
    {'deployments': {'tags': {'all_': ['nightly', 'etl']}}},
    {'deployments': {'tags': {'is_null_': True}}},
    {'deployments': {'work_queue_name': {'any_': ['high']}}},
    {'deployments': {'flow_or_deployment_name': {'like_': 'tagged'}}},
    {'flows': {'name': {'any_': ['recorded-flow']}}},
    {'flows': {'id': {'any_': ['{flows[plain][id]}', '{flows[tagged][id]}']}}},
    {'flows': {'id': {'any_': ['{flows[tagged][id]}']}}, 'work_pools': {'name': {'any_': ['recorded-limited']}}},
    {'flow_runs': {'state': {'type': {'any_': ['CRASHED']}}}},
    {'flow_runs': {'state': {'type': {'any_': ['RUNNING']}}}, 'task_runs': {}},
    {'work_pools': {'name': {'any_': ['recorded-without-worker']}}},
    {'work_pool_queues': {'name': {'any_': ['default']}}},
]
FLOW_FILTERS: list[Row] = [
    {},
    {'flows': {'deployment': {'is_null_': True}}},
    {'flows': {'name': {'like_': 'TAGGED'}}},
    {'deployments': {'paused': {'eq_': True}}},
    {'work_pools': {}},
    {'flow_runs': {'state': {'type': {'any_': ['PAUSED']}}}},
]
WORK_POOL_FILTERS: list[Row] = [
    {},
    {'work_pools': {'name': {'any_': ['recorded-paused']}}},
    {'work_pools': {'type': {'any_': ['process']}}},
    {'work_pools': {'id': {'any_': ['{work_pools[ready][id]}']}}},
]
LOGGED = '2026-11-23T08:00:02Z'
LOG_FILTERS: list[Row] = [
    {},
    {'logs': None},
    {'logs': {}},
    {'logs': {'level': {'ge_': 20}}},
    {'logs': {'level': {'ge_': 20, 'le_': 40}}},
    {'logs': {'timestamp': {'after_': LOGGED}}},
    {'logs': {'timestamp': {'before_': LOGGED}}},
    {'logs': {'timestamp': {'after_': LOGGED, 'before_': LOGGED}, 'level': {'ge_': 20}}},
    {'logs': {'flow_run_id': {'any_': ['{flow_runs[running][id]}', '{flow_runs[failed][id]}']}}},
    {'logs': {'flow_run_id': {'any_': ['{flow_runs[running][id]}']}, 'level': {'ge_': 40}}},
    {'logs': {'flow_run_id': {'any_': []}}},
    {'logs': {'task_run_id': {'any_': ['{task_runs[completed][id]}']}}},
    {'logs': {'task_run_id': {'is_null_': True}}},
    {'logs': {'operator': 'or_', 'level': {'ge_': 50}, 'task_run_id': {'is_null_': False}}},
]
COLLECTIONS = {
    'flow_runs': FLOW_RUN_FILTERS,
    'task_runs': TASK_RUN_FILTERS,
    'deployments': DEPLOYMENT_FILTERS,
    'flows': FLOW_FILTERS,
    'work_pools': WORK_POOL_FILTERS,
}
FILTER_REQUESTS = [(collection, body) for collection, bodies in COLLECTIONS.items() for body in bodies]
OTHER_FILTER_REQUESTS: list[tuple[str, Row]] = [
    ('work_queues', {}),
    ('work_queues', {'work_queues': {'name': {'any_': ['default']}}}),
    ('work_queues', {'work_queues': {'id': {'any_': ['{work_queues[limited][id]}']}}}),
    ('work_queues', {'work_queues': {'name': {'startswith_': ['HI', 'id']}}}),
    ('work_pools/recorded-limited/queues', {}),
    ('work_pools/recorded-limited/workers', {}),
    ('work_pools/recorded-limited/workers', {'workers': {'status': {'any_': ['ONLINE']}}}),
    ('work_pools/recorded-limited/workers', {'workers': {'status': {'not_any_': ['ONLINE']}}}),
    *(('logs', body) for body in LOG_FILTERS),
]
SORTS: list[tuple[str, str, Callable[[Row], Any]]] = [
    ('flow_runs', 'ID_DESC', lambda row: row['id']),
    ('flow_runs', 'START_TIME_ASC', lambda row: row['start_time'] or row['expected_start_time']),
    ('flow_runs', 'START_TIME_DESC', lambda row: row['start_time'] or row['expected_start_time']),
    ('flow_runs', 'EXPECTED_START_TIME_ASC', lambda row: row['expected_start_time']),
    ('flow_runs', 'EXPECTED_START_TIME_DESC', lambda row: row['expected_start_time']),
    ('flow_runs', 'NAME_ASC', lambda row: row['name']),
    ('flow_runs', 'NAME_DESC', lambda row: row['name']),
    ('flow_runs', 'NEXT_SCHEDULED_START_TIME_ASC', lambda row: row['next_scheduled_start_time']),
    ('flow_runs', 'END_TIME_DESC', lambda row: row['end_time']),
    ('task_runs', 'ID_DESC', lambda row: row['id']),
    ('task_runs', 'EXPECTED_START_TIME_ASC', lambda row: row['expected_start_time']),
    ('task_runs', 'EXPECTED_START_TIME_DESC', lambda row: row['expected_start_time']),
    ('task_runs', 'NAME_ASC', lambda row: row['name']),
    ('task_runs', 'NAME_DESC', lambda row: row['name']),
    ('task_runs', 'NEXT_SCHEDULED_START_TIME_ASC', lambda row: row['next_scheduled_start_time']),
    ('task_runs', 'END_TIME_DESC', lambda row: row['end_time']),
    ('deployments', 'NAME_ASC', lambda row: row['name']),
    ('deployments', 'NAME_DESC', lambda row: row['name']),
    ('deployments', 'CREATED_DESC', lambda row: row['created']),
    ('deployments', 'UPDATED_DESC', lambda row: row['updated']),
    ('flows', 'NAME_ASC', lambda row: row['name']),
    ('flows', 'CREATED_DESC', lambda row: row['created']),
    ('logs', 'TIMESTAMP_ASC', lambda row: row['timestamp']),
    ('logs', 'TIMESTAMP_DESC', lambda row: row['timestamp']),
]
LISTINGS = [
    ('work_pools', 'name'),
    ('work_queues', 'name'),
    ('work_pools/recorded-limited/queues', 'priority'),
    ('work_pools/recorded-limited/workers', 'last_heartbeat_time'),
]
PAGINGS = [{'limit': 0}, {'limit': 5}, {'limit': 5, 'offset': 7}, {'offset': 3}, {'offset': 999}]
FLOW_RUN_EVENTS = {'event': {'prefix': ['prefect.flow-run.']}}
EVENT_FILTERS: list[Row] = [
    {},
    {'order': 'ASC'},
    {'occurred': {'since': ENDED}},
    {'occurred': {'since': ENDED, 'until': '{flow_runs[crashed][end_time]}'}},
    {'event': {'name': ['prefect.flow-run.Failed', 'prefect.flow-run.Late']}},
    {'event': {'name': []}},
    FLOW_RUN_EVENTS,
    {'event': {'prefix': ['prefect.flow-run.'], 'exclude_name': ['prefect.flow-run.Running']}},
    {'event': {'prefix': ['prefect.'], 'exclude_name': ['prefect.flow-run.heartbeat']}, 'order': 'ASC'},
    # Open to the end of time, so of a run that is over: nothing happens to it any more.
    {
        'occurred': {'since': ENDED, 'until': '9999-01-01T00:00:00.000000Z'},
        'resource': {'id': ['prefect.flow-run.{flow_runs[failed][id]}']},
    },
    {'event': {'exclude_prefix': ['prefect.flow-run.', 'prefect.work']}},
    {'resource': {'id': ['prefect.flow-run.{flow_runs[failed][id]}']}},
    {'resource': {'id_prefix': ['prefect.work-pool.', 'prefect.deployment.']}},
    {'related': {'id': ['prefect.deployment.{deployments[ready][id]}']}},
    {'related': {'role': ['work-pool']}},
    {'related': {'id': ['prefect.deployment.{deployments[ready][id]}'], 'role': ['flow']}},
    {'related': {'resources_in_roles': [['prefect.flow.{flows[plain][id]}', 'flow']]}},
    {'related': [{'role': ['work-pool']}, {'id': ['prefect.flow.{flows[tagged][id]}']}]},
    {'any_resource': {'id': ['prefect.deployment.{deployments[ready][id]}']}},
    {'any_resource': {'id_prefix': ['prefect.work-queue.']}},
    {'id': {'id': ['{flow_runs[failed][state_id]}']}},
]
REFUSED: list[tuple[str, str, Any]] = [
    ('POST', '/flow_runs/filter', {'limit': 201}),
    ('POST', '/flow_runs/filter', {'limit': -1}),
    ('POST', '/flow_runs/filter', {'offset': -1}),
    ('POST', '/flow_runs/filter', {'sort': 'CREATED_DESC'}),
    ('POST', '/task_runs/filter', {'sort': 'START_TIME_DESC'}),
    ('POST', '/flow_runs/filter', {'flow_runs': {'nothing': {'any_': ['x']}}}),
    ('POST', '/flow_runs/filter', {'flow_runs': {'state': {'type': {'all_': ['RUNNING']}}}}),
    ('POST', '/flow_runs/filter', {'flow_runs': {'id': {'any_': ['x']}}}),
    ('POST', '/flow_runs/filter', {'flow_runs': {'id': {'operator': 'or_'}}}),
    ('POST', '/flow_runs/filter', {'flow_runs': {'operator': 'xor_'}}),
    ('POST', '/flow_runs/filter', {'flow_runs': {'end_time': {'after_': 'yesterday'}}}),
    ('POST', '/flow_runs/filter', {'flow_runs': {'next_scheduled_start_time': {'is_null_': True}}}),
    ('POST', '/flow_runs/filter', {'flow_runs': {'state': {'type': {'any_': ['DONE']}}}}),
    ('POST', '/flow_runs/filter', {'flow_runs': {'name': {'any_': 'one'}}}),
    ('POST', '/flow_runs/filter', {'flow_runs': []}),
    ('POST', '/flow_runs/filter', []),
    ('POST', '/task_runs/filter', {'task_runs': {'state': {'type': {'not_any_': ['RUNNING']}}}}),
    ('POST', '/task_runs/count', {'task_runs': {'next_scheduled_start_time': {}}}),
    ('POST', '/deployments/filter', {'deployments': {'status': {'any_': ['READY']}}}),
    ('POST', '/work_pools/nothing/workers/filter', {}),
    ('POST', '/work_pools/recorded-limited/workers/filter', {'workers': {'status': {'any_': ['AWAY']}}}),
    ('POST', '/logs/filter', {'limit': 201}),
    ('POST', '/logs/filter', {'offset': -1}),
    ('POST', '/logs/filter', {'sort': 'ID_DESC'}),
    ('POST', '/logs/filter', {'logs': {'name': {'any_': ['prefect.recorded']}}}),
    ('POST', '/logs/filter', {'logs': {'level': {'ge_': 'INFO'}}}),
    ('POST', '/logs/filter', {'logs': {'timestamp': {'after_': 'yesterday'}}}),
    ('POST', '/logs/filter', {'logs': {'flow_run_id': {'any_': ['x']}}}),
    ('POST', '/events/filter', {'limit': 51}),
    ('POST', '/events/filter', {'filter': {'event': {'names': ['x']}}}),
    ('POST', '/events/filter', {'filter': {'order': 'UP'}}),
    ('GET', '/events/filter/next?page-token=nonsense', None),
    ('GET', '/events/filter/next', None),
    ('GET', '/flow_run_states/', None),
    ('GET', '/csrf-token?client=test', None),
    ('GET', '/nothing', None),
]


def formatted(value: Any, rows: dict[str, dict[str, Row]]) -> Any:
    if isinstance(value, dict):
        return {key: formatted(item, rows) for key, item in value.items()}
    if isinstance(value, list):
        return [formatted(item, rows) for item in value]
    return value.format(**rows) if isinstance(value, str) else value


def ids(rows: list[Row]) -> list[str]:
    return sorted(row['id'] for row in rows)


@pytest.mark.parametrize(('collection', 'body'), FILTER_REQUESTS + OTHER_FILTER_REQUESTS, ids=str)
def test_filters_select_the_same_rows(pair: Pair, collection: str, body: Row) -> None:
    real, fake = pair.ask('POST', f'/{collection}/filter', formatted(body, pair.rows))
    assert (real.status, fake.status) == (200, 200)
    assert ids(fake.body) == ids(real.body)


@pytest.mark.parametrize(('collection', 'body'), FILTER_REQUESTS, ids=str)
def test_counts_are_the_same(pair: Pair, collection: str, body: Row) -> None:
    real, fake = pair.ask('POST', f'/{collection}/count', formatted(body, pair.rows))
    assert fake.body == real.body


@pytest.mark.parametrize(
    ('collection', 'sort', 'key'), SORTS, ids=lambda value: value if isinstance(value, str) else ''
)
def test_sorts_give_the_same_order(pair: Pair, collection: str, sort: str, key: Callable[[Row], Any]) -> None:
    real, fake = pair.ask('POST', f'/{collection}/filter', {'sort': sort})
    assert [key(row) for row in fake.body] == [key(row) for row in real.body]


@pytest.mark.parametrize('paging', PAGINGS, ids=str)
def test_pages_hold_the_same_rows(pair: Pair, paging: Row) -> None:
    real, fake = pair.ask('POST', '/flow_runs/filter', paging)
    assert [row['id'] for row in fake.body] == [row['id'] for row in real.body]


@pytest.mark.parametrize('paging', PAGINGS, ids=str)
def test_pages_of_log_records_hold_the_same_times(pair: Pair, paging: Row) -> None:
    """Their sort has no tie-breaker: which of the records of one time a page holds is left to chance."""
    real, fake = pair.ask('POST', '/logs/filter', paging)
    assert [row['timestamp'] for row in fake.body] == [row['timestamp'] for row in real.body]


def test_log_records_have_the_same_columns_and_values(pair: Pair) -> None:
    real, fake = pair.ask('POST', '/logs/filter', {})
    assert sorted(fake.body, key=itemgetter('id')) == sorted(real.body, key=itemgetter('id'))
    assert real.body


@pytest.mark.parametrize('paging', [{}, {'limit': 5, 'page': 2}, {'limit': 5, 'page': 99}, {'limit': 0}], ids=str)
def test_paginate_tells_the_same(pair: Pair, paging: Row) -> None:
    real, fake = pair.ask('POST', '/flow_runs/paginate', paging)
    for answer in (real, fake):
        answer.body['results'] = [row['id'] for row in answer.body['results']]
    assert fake.body == real.body


@pytest.mark.parametrize(
    'collection', ['work_queues', 'work_pools/recorded-limited/queues', 'work_pools/recorded-limited/workers']
)
def test_listings_without_a_sort_have_the_same_order(pair: Pair, collection: str) -> None:
    key = {'queues': 'priority', 'workers': 'last_heartbeat_time'}.get(collection.rsplit('/')[-1], 'name')
    real, fake = pair.ask('POST', f'/{collection}/filter', {})
    assert [row[key] for row in fake.body] == [row[key] for row in real.body]


@pytest.mark.parametrize('collection', ['work_pools', 'work_queues', 'work_pools/recorded-limited/queues'])
def test_active_slots_are_the_same(pair: Pair, collection: str) -> None:
    answers = pair.ask('POST', f'/{collection}/filter', {})
    real, fake = ({row['id']: row['active_slots'] for row in answer.body} for answer in answers)
    assert fake == real
    assert any(real.values())


# A page of the limits of tags is cut from the list of all limits (3.8.8): one that is not full may lack some.
@pytest.mark.parametrize(
    ('collection', 'paging'),
    [
        ('concurrency_limits', {}),
        ('v2/concurrency_limits', {}),
        ('v2/concurrency_limits', {'limit': 2}),
        ('v2/concurrency_limits', {'limit': 2, 'offset': 1}),
    ],
    ids=str,
)
def test_concurrency_limits_are_the_same(pair: Pair, collection: str, paging: Row) -> None:
    real, fake = pair.ask('POST', f'/{collection}/filter', paging)
    assert fake.body == real.body
    assert paging or any(row['active_slots'] for row in real.body)


def test_automations_are_the_same(pair: Pair) -> None:
    real, fake = pair.ask('POST', '/automations/filter', {'limit': 1})
    assert [row['name'] for row in fake.body] == [row['name'] for row in real.body] == ['recorded-automation']
    assert fake.body[0].keys() == real.body[0].keys()


def test_events_are_counted_alike_by_resource(pair: Pair) -> None:
    event_filter = {'occurred': up_to_the_recording(pair), 'event': {'name': ['prefect.flow-run.Running']}}
    real, fake = pair.ask('POST', '/events/count-by/resource', {'filter': event_filter})
    by_resource = [{row.pop('value'): row for row in answer.body} for answer in (real, fake)]
    assert by_resource[0] == by_resource[1]
    assert by_resource[0]


def test_task_workers_are_the_same(pair: Pair) -> None:
    """All of them, for any page; the real server notices within a second that one is gone."""
    path = '/task_workers/filter'
    real, fake = pair.ask('POST', path, {})
    assert fake.body == real.body == []
    with FlowScript(pair.api.url, 'thumbnail_worker.py'):
        wait_until(lambda: bool(pair.api.request('POST', path, {})), 'a task worker')
        row = pair.fake.add_task_worker('recorded')
        real, fake = pair.ask('POST', path, {})
    pair.fake.remove(row)
    assert [row.keys() for row in fake.body] == [row.keys() for row in real.body]
    assert [type(value) for row in fake.body for value in row.values()] == [
        type(value) for row in real.body for value in row.values()
    ]


@pytest.mark.parametrize('collection', ['flow_runs', 'task_runs'])
def test_rows_have_the_same_columns_and_values(pair: Pair, collection: str) -> None:
    terminal = {collection: {'state': {'type': {'any_': TERMINAL}}}}
    real, fake = pair.ask('POST', f'/{collection}/filter', terminal)
    assert sorted(fake.body, key=itemgetter('id')) == sorted(real.body, key=itemgetter('id'))


def up_to_the_recording(pair: Pair) -> Row:
    """When everything that the fake holds occurred, and nothing that has happened on the server since."""
    return {'until': max(event['occurred'] for event in pair.fake.tables['events'].newest())}


@pytest.mark.parametrize('event_filter', EVENT_FILTERS, ids=str)
def test_events_are_the_same(pair: Pair, event_filter: Row) -> None:
    occurred = up_to_the_recording(pair)
    event_filter = formatted(event_filter, pair.rows)
    body = {'filter': event_filter | {'occurred': occurred | event_filter.get('occurred', {})}}
    real, fake = pair.ask('POST', '/events/filter', body)
    assert fake.body['total'] == real.body['total']
    assert (fake.body['next_page'] is None) is (real.body['next_page'] is None)
    assert [event['occurred'] for event in fake.body['events']] == [event['occurred'] for event in real.body['events']]
    if real.body['next_page'] is None:
        assert ids(fake.body['events']) == ids(real.body['events'])


def test_number_of_events_without_any_of_them_is_the_same(pair: Pair) -> None:
    event_filter = FLOW_RUN_EVENTS | {'occurred': up_to_the_recording(pair)}
    real, fake = pair.ask('POST', '/events/filter', {'filter': event_filter, 'limit': 0})
    assert fake.body['total'] == real.body['total'] > 0
    assert fake.body['events'] == real.body['events'] == []


def test_event_pages_continue_alike(pair: Pair) -> None:
    page = {'filter': FLOW_RUN_EVENTS | {'occurred': up_to_the_recording(pair), 'order': 'ASC'}, 'limit': 30}
    real, fake = pair.ask('POST', '/events/filter', page)
    while real.body['next_page']:
        assert fake.body['total'] == real.body['total']
        assert ids(fake.body['events']) == ids(real.body['events'])
        real = pair.api.call('GET', f'/events/filter/next?page-token={quote(token_of(real.body))}')
        _, fake = pair.ask('GET', f'/events/filter/next?page-token={quote(token_of(fake.body))}')
    assert ids(fake.body['events']) == ids(real.body['events'])
    assert fake.body['next_page'] is None


@pytest.mark.parametrize(('method', 'path', 'body'), REFUSED, ids=str)
def test_refusals_are_the_same(pair: Pair, method: str, path: str, body: Any) -> None:
    real, fake = pair.ask(method, path, body)
    assert fake.status == real.status >= 400
    assert fake.body.keys() == real.body.keys()
    assert fake.body.get('detail') == real.body.get('detail')


def test_unknown_filter_keys_are_refused_in_the_same_words(pair: Pair) -> None:
    real, fake = pair.ask('POST', '/flow_runs/filter', {'flow_runs': {'nothing': {'any_': ['x']}}})
    assert fake.body == real.body


@pytest.mark.parametrize('path', ['/health', '/ready', '/version', '/admin/version'])
def test_information_is_the_same(pair: Pair, path: str) -> None:
    real, fake = pair.ask('GET', path)
    assert (fake.status, fake.body) == (real.status, real.body)


def test_settings_tell_the_same_default_limit(pair: Pair) -> None:
    real, fake = pair.ask('GET', '/admin/settings')
    assert fake.body['server']['api']['default_limit'] == real.body['server']['api']['default_limit']


@pytest.mark.parametrize('case', FLOW_RUN_PATHS)
def test_flow_run_states_have_the_same_history_and_effect(pair: Pair, case: str) -> None:
    real_run = pair.rows['flow_runs'][case]
    real, fake = pair.ask('GET', f'/flow_run_states/?flow_run_id={real_run["id"]}')
    assert [state['id'] for state in fake.body] == [state['id'] for state in real.body]
    replayed = FakePrefect()
    run = replayed.add_flow_run(state=None)
    for state in real.body:
        replayed.set_flow_run_state(run, **arguments_of(state))
    assert effect(run) == effect(real_run)


@pytest.mark.parametrize('case', TASK_RUN_PATHS)
def test_task_run_states_have_the_same_effect(pair: Pair, case: str) -> None:
    real_run = pair.rows['task_runs'][case]
    replayed = FakePrefect()
    run = replayed.add_task_run(state=None)
    for state in pair.api.request('GET', f'/task_run_states/?task_run_id={real_run["id"]}'):
        replayed.set_task_run_state(run, **arguments_of(state))
    assert effect(run) == effect(real_run)


def arguments_of(state: Row) -> Row:
    return {
        'state_type': state['type'],
        'name': state['name'],
        'at': state['timestamp'],
        'scheduled_time': state['state_details']['scheduled_time'],
    }


def effect(run: Row) -> Row:
    return {column: run[column] for column in BOOKKEEPING} | {'total_run_time': pytest.approx(run['total_run_time'])}


@pytest.mark.parametrize('pause_reschedule', [False, True], ids=['paused', 'suspended'])
def test_resumed_flow_runs_have_the_same_run_count(pair: Pair, pause_reschedule: bool) -> None:
    """The server orchestrates these states: it does not count a new run after Resuming."""
    deployment = pair.world.deployments['without_work_pool']
    real_run = pair.api.request('POST', f'/deployments/{deployment}/create_flow_run', {})
    path = f'/flow_runs/{real_run["id"]}'
    pause = {'type': 'PAUSED', 'state_details': {'pause_reschedule': pause_reschedule}}
    for state in ({'type': 'PENDING'}, {'type': 'RUNNING'}, pause):
        pair.api.request('POST', f'{path}/set_state', {'state': state})
    pair.api.request('POST', f'{path}/resume')
    if pause_reschedule:
        pair.api.request('POST', f'{path}/set_state', {'state': {'type': 'PENDING'}})
        pair.api.request('POST', f'{path}/set_state', {'state': {'type': 'RUNNING'}})
    replayed = FakePrefect()
    run = replayed.add_flow_run(state=None)
    for state in pair.api.request('GET', f'/flow_run_states/?flow_run_id={real_run["id"]}'):
        replayed.set_flow_run_state(run, **arguments_of(state))
    assert effect(run) == effect(pair.api.request('GET', path))
