"""Each request rests on the index that its function in `queries` names, on the database of a real version."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from datadog_checks.prefect.api import queries
from datadog_checks.prefect.api.paging import (
    FLOW_RUNS_BY_END,
    FLOW_RUNS_BY_EXPECTED_START,
    FLOW_RUNS_BY_NEXT_START,
    FLOW_RUNS_BY_START,
    FLOW_RUNS_FARTHEST_FIRST,
    TASK_RUNS_BY_END,
    TASK_RUNS_BY_EXPECTED_START,
    TimeOrder,
)
from datadog_checks.prefect.api.queries import NO_FILTER, Body, ServerFilter
from datadog_checks.prefect.api.time_range import TimeRange
from lab.prefect_server import QUIET_SETTINGS, prefect_environment_folder

SCRIPT = Path(__file__).with_name('explain_queries.py')
IDENTITY = '00000000-0000-4000-8000-000000000000'
NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
RANGE = TimeRange(NOW - timedelta(minutes=2), NOW)
Request = tuple[str, Body]


def listed(table: str, bodies: Body | list[Body], order: TimeOrder) -> list[Request]:
    return [
        (f'/{table}/filter', body | {'sort': order.sort, 'limit': 200})
        for body in (bodies if isinstance(bodies, list) else [bodies])
    ]


def counted(table: str, bodies: Body | list[Body]) -> list[Request]:
    return [(f'/{table}/count', body) for body in (bodies if isinstance(bodies, list) else [bodies])]


def runs(where: ServerFilter) -> Mapping[str, list[Request]]:
    """What takes a filter of the instance, by the name of the function."""
    ended, started = queries.ended_flow_runs(where, RANGE), queries.started_flow_runs(where, RANGE)
    future, future_of = queries.future_flow_runs(where, RANGE), queries.future_flow_runs_of(where, RANGE, [IDENTITY])
    states = ['COMPLETED', 'FAILED', 'CRASHED']
    ended_of = [queries.flow_runs_ended_of(where, [IDENTITY], states, until) for until in (None, NOW)]
    ended_unstarted = queries.flow_runs_ended_unstarted(where, NOW)
    return {
        'live_flow_runs': listed('flow_runs', queries.live_flow_runs(where), FLOW_RUNS_BY_START),
        'due_flow_runs': listed('flow_runs', queries.due_flow_runs(where, NOW), FLOW_RUNS_BY_NEXT_START),
        'restarting_flow_runs': listed('flow_runs', queries.restarting_flow_runs(where), FLOW_RUNS_BY_START),
        'ended_flow_runs': [*listed('flow_runs', ended, FLOW_RUNS_BY_END), *counted('flow_runs', ended)],
        'started_flow_runs': [*listed('flow_runs', started, FLOW_RUNS_BY_START), *counted('flow_runs', started)],
        'flow_runs_ended_unstarted': listed('flow_runs', ended_unstarted, FLOW_RUNS_BY_EXPECTED_START),
        'future_flow_runs': [*listed('flow_runs', future, FLOW_RUNS_BY_NEXT_START), *counted('flow_runs', future)],
        'future_flow_runs_of': [
            *listed('flow_runs', future_of, FLOW_RUNS_BY_NEXT_START),
            *counted('flow_runs', future_of),
        ],
        'flow_runs_ended_of': listed('flow_runs', ended_of, FLOW_RUNS_BY_END),
        'successes_of': listed('flow_runs', queries.successes_of(where, IDENTITY), FLOW_RUNS_BY_END),
    }


TASK_RUNS: Mapping[str, list[Request]] = {
    'live_task_runs': listed('task_runs', queries.live_task_runs(NO_FILTER)[:1], TASK_RUNS_BY_EXPECTED_START),
    'live_runs_among': counted(
        'task_runs', queries.live_runs_among(queries.live_task_runs(NO_FILTER)[0], 'task_runs', [IDENTITY], 'RUNNING')
    ),
    'ended_task_runs': [
        *listed('task_runs', queries.ended_task_runs(NO_FILTER, RANGE), TASK_RUNS_BY_END),
        *counted('task_runs', queries.ended_task_runs(NO_FILTER, RANGE)),
    ],
    'ended_task_runs_among': counted('task_runs', queries.ended_task_runs_among(NO_FILTER, RANGE, [IDENTITY])),
    'terminal_task_runs': listed('task_runs', queries.terminal_task_runs(NO_FILTER), TASK_RUNS_BY_END),
    'started_task_runs': [
        *listed('task_runs', queries.started_task_runs(NO_FILTER, RANGE), TASK_RUNS_BY_EXPECTED_START),
        *counted('task_runs', queries.started_task_runs(NO_FILTER, RANGE)),
    ],
    'started_flow_runs_among': counted('flow_runs', queries.started_flow_runs_among(NO_FILTER, RANGE, [IDENTITY])),
    'started_task_runs_among': counted('task_runs', queries.started_task_runs_among(NO_FILTER, RANGE, [IDENTITY])),
    'scheduled_task_runs': listed('task_runs', queries.scheduled_task_runs(), TASK_RUNS_BY_EXPECTED_START),
    'open_task_runs': listed('task_runs', queries.open_task_runs(NO_FILTER, RANGE), TASK_RUNS_BY_EXPECTED_START),
    'background_task_runs_that_take_slots': counted('task_runs', queries.background_task_runs_that_take_slots()),
    'task_runs_that_take_slots_of': counted('task_runs', queries.task_runs_that_take_slots_of('x')),
    'background_task_runs_that_take_slots_of': counted(
        'task_runs', queries.background_task_runs_that_take_slots_of('x')
    ),
}
OTHERS: Mapping[str, list[Request]] = {
    'page_limit': [('/flow_runs/paginate', queries.page_limit())],
    'by_ids': [
        (f'/{table}/filter', queries.by_ids(table, [IDENTITY]))
        for table in ('deployments', 'flows', 'flow_runs', 'task_runs')
    ],
    'deployments': [('/deployments/filter', queries.deployments() | {'sort': 'UPDATED_DESC', 'offset': 0, 'limit': 1})],
    'deployments_among': counted('deployments', queries.deployments_among({}, [IDENTITY])),
    'planned_flow_runs_of': listed('flow_runs', queries.planned_flow_runs_of(IDENTITY, NOW), FLOW_RUNS_FARTHEST_FIRST),
    'ended_flow_runs_of_all': listed('flow_runs', queries.ended_flow_runs_of_all(), FLOW_RUNS_BY_EXPECTED_START),
    'slots_of_work_pool': counted('flow_runs', queries.slots_of_work_pool(IDENTITY)),
    'slots_of_work_queue': counted('flow_runs', queries.slots_of_work_queue(IDENTITY)),
    'flow_runs_that_may_hold_slots': counted('flow_runs', queries.flow_runs_that_may_hold_slots()),
    'events': [('/events/filter', queries.events({'prefix': ['prefect.flow-run.']}, RANGE) | {'limit': 50})],
    'logs': [('/logs/filter', queries.logs(20, RANGE) | {'sort': 'TIMESTAMP_ASC', 'limit': 200})],
    'events_of_ids': [('/events/filter', queries.events_of_ids([IDENTITY], RANGE) | {'limit': 50})],
    'narrowed': listed(
        'flow_runs',
        queries.narrowed(queries.ended_flow_runs(NO_FILTER, RANGE), 'flow_runs', 'end_time', until=NOW),
        FLOW_RUNS_BY_END,
    ),
}
REQUESTS = {**runs(NO_FILTER), **TASK_RUNS, **OTHERS}
BY_DEPLOYMENT = ServerFilter(deployment_ids=[IDENTITY])
BY_WORK_QUEUE = ServerFilter(work_queue_ids=[IDENTITY])
BY_FLOW = ServerFilter(flow_ids=[IDENTITY])
# Of whom SQLite reads the past with a filter on deployments.
BY_THEIR_DEPLOYMENT = ('live_flow_runs', 'due_flow_runs', 'started_flow_runs', 'ended_flow_runs', 'future_flow_runs')
VARIANTS: Mapping[str, tuple[Request, str]] = {
    'logs of some flow runs': (
        ('/logs/filter', queries.logs(20, RANGE, [IDENTITY]) | {'sort': 'TIMESTAMP_ASC', 'limit': 200}),
        'ix_log__flow_run_id_timestamp',
    ),
    'heartbeats': (
        ('/events/count-by/resource', queries.events({'name': ['prefect.flow-run.heartbeat']}, RANGE)),
        'ix_events__event_occurred_id',
    ),
    'events by whole names': (
        ('/events/filter', queries.events({'name': ['prefect.flow-run.Failed']}, RANGE) | {'limit': 50}),
        'ix_events__event_occurred_id',
    ),
    'one state of some deployments': (
        listed('flow_runs', queries.flow_runs_ended_of(NO_FILTER, [IDENTITY], ['COMPLETED']), FLOW_RUNS_BY_END)[0],
        'ix_flow_run__state_type_coalesce_start_time',
    ),
    **{
        f'number of {what} of some {kind}': (counted('flow_runs', query(where, RANGE))[0], index)
        for kind, where, index in (
            ('work queues', BY_WORK_QUEUE, 'ix_flow_run__work_queue_id'),
            ('flows', BY_FLOW, 'ix_flow_run__flow_id'),
        )
        for what, query in (
            ('started', queries.started_flow_runs),
            ('ended', queries.ended_flow_runs),
            ('future', queries.future_flow_runs),
        )
    },
}


class Plans:
    """How a real database looks up what is asked for."""

    def __init__(self, home: Path) -> None:
        requests = [*self._requests()]
        done = subprocess.run(
            [prefect_environment_folder() / 'bin' / 'python', SCRIPT],
            input=json.dumps(requests),
            env=QUIET_SETTINGS | {'PREFECT_HOME': str(home), 'PATH': '/usr/bin:/bin', 'HOME': str(home)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        self._plans = dict(zip(map(json.dumps, requests), json.loads(done.stdout), strict=True))

    def statements(self, requests: list[Request]) -> list[list[str]]:
        """The steps of each statement."""
        statements = [statement for request in requests for statement in self._plans[json.dumps(request)]]
        assert statements
        return statements

    def indexes(self, requests: list[Request]) -> list[set[str]]:
        """The indexes of each statement."""
        return [
            {index for step in steps for index in re.findall(r'INDEX (\w+_\w+)', step)}
            for steps in self.statements(requests)
        ]

    @staticmethod
    def _requests() -> Iterator[Request]:
        for requests in REQUESTS.values():
            yield from requests
        yield from (request for request, _ in VARIANTS.values())
        for requests in runs(BY_DEPLOYMENT).values():
            yield from requests


@pytest.fixture(scope='module')
def plans(tmp_path_factory: pytest.TempPathFactory) -> Plans:
    return Plans(tmp_path_factory.mktemp('prefect'))


def begins_alike(index: str, named: str) -> bool:
    """Whether an index begins with the column of another one, as `uq_flow_run__flow_id_idempotency_key` does.

    Of such two SQLite takes the one or the other, for the migrations make them in an order of chance.
    """
    return index.partition('_')[2].startswith(named.partition('_')[2])


def named_indexes(name: str) -> list[str]:
    """The indexes that the docstring of a function names before it explains."""
    text = inspect.getdoc(getattr(queries, name)) or ''
    claim = re.split('[.,:;]', text.partition('\nIndex: ')[2])[0]
    names: list[str] = re.findall(r'(?:ix|uq)_\w+|primary key', claim)
    return ['sqlite_autoindex_' if item == 'primary key' else item for item in names]


@pytest.mark.parametrize('name', REQUESTS)
def test_request_rests_on_the_index_that_its_function_names(plans: Plans, name: str) -> None:
    named = named_indexes(name)
    assert named or name == 'narrowed'
    for used in plans.indexes(REQUESTS[name]):
        assert all(any(begins_alike(index, wanted) for index in used) for wanted in named), used


def test_each_function_is_tried() -> None:
    public = {
        name
        for name, function in vars(queries).items()
        if inspect.isfunction(function) and function.__module__ == queries.__name__ and not name.startswith('_')
    }
    assert public == REQUESTS.keys()


@pytest.mark.parametrize(('request_of_it', 'index'), VARIANTS.values(), ids=list(VARIANTS))
def test_request_rests_on_another_index_where_the_docstring_says_so(
    plans: Plans, request_of_it: Request, index: str
) -> None:
    assert all(any(begins_alike(item, index) for item in used) for used in plans.indexes([request_of_it]))


@pytest.mark.parametrize('name', BY_THEIR_DEPLOYMENT)
def test_filter_on_deployments_makes_sqlite_read_their_past(plans: Plans, name: str) -> None:
    assert all('ix_flow_run__deployment_id' in used for used in plans.indexes(runs(BY_DEPLOYMENT)[name]))


def test_a_page_of_log_records_costs_what_it_holds(plans: Plans) -> None:
    """They come in the order of the index, so the server stops after a page, however many are stored."""
    assert not [step for steps in plans.statements(REQUESTS['logs']) for step in steps if 'TEMP B-TREE' in step]
