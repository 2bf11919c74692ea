"""An example of each request that the check may send, and how a real database looks up what it asks for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

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
TIMEOUT_SECONDS = 300.0
PAGE = 200
# How far a stream is read back, and how far ahead future runs are counted.
PAST, FUTURE = timedelta(minutes=2), timedelta(days=100)


class Request(NamedTuple):
    path: str
    body: Body


@dataclass(frozen=True)
class Objects:
    """The ids of objects that the examples ask for."""

    work_pool: str
    work_queue: str
    flow: str
    deployments: Sequence[str]
    flow_runs: Sequence[str]
    task_runs: Sequence[str]


@dataclass(frozen=True)
class Plan:
    """How a database looks up what one statement of a request asks for, and how long that takes."""

    steps: Sequence[str]
    milliseconds: float


def listed(table: str, bodies: Body | list[Body], order: TimeOrder) -> list[Request]:
    return [
        Request(f'/{table}/filter', body | {'sort': order.sort, 'limit': PAGE})
        for body in (bodies if isinstance(bodies, list) else [bodies])
    ]


def counted(table: str, bodies: Body | list[Body]) -> list[Request]:
    return [Request(f'/{table}/count', body) for body in (bodies if isinstance(bodies, list) else [bodies])]


def of_flow_runs(objects: Objects, now: datetime, where: ServerFilter = NO_FILTER) -> Mapping[str, list[Request]]:
    """What takes a filter of the instance, by the name of the function of `api.queries`."""
    past, ahead = TimeRange(now - PAST, now), TimeRange(now, now + FUTURE)
    ended, started = queries.ended_flow_runs(where, past), queries.started_flow_runs(where, past)
    future = queries.future_flow_runs(where, ahead)
    future_of = queries.future_flow_runs_of(where, ahead, objects.deployments)
    states = ['COMPLETED', 'FAILED', 'CRASHED']
    ended_of = [queries.flow_runs_ended_of(where, objects.deployments[:1], states, until) for until in (None, now)]
    ended_unstarted = queries.flow_runs_ended_unstarted(where, now)
    return {
        'live_flow_runs': listed('flow_runs', queries.live_flow_runs(where), FLOW_RUNS_BY_START),
        'due_flow_runs': listed('flow_runs', queries.due_flow_runs(where, now), FLOW_RUNS_BY_NEXT_START),
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
        'successes_of': listed('flow_runs', queries.successes_of(where, objects.deployments[0]), FLOW_RUNS_BY_END),
    }


def of_task_runs(objects: Objects, now: datetime) -> Mapping[str, list[Request]]:
    past = TimeRange(now - PAST, now)
    among = queries.live_runs_among(queries.live_task_runs(NO_FILTER)[0], 'task_runs', objects.task_runs, 'RUNNING')
    ended, started = queries.ended_task_runs(NO_FILTER, past), queries.started_task_runs(NO_FILTER, past)
    return {
        'live_task_runs': listed('task_runs', queries.live_task_runs(NO_FILTER)[:1], TASK_RUNS_BY_EXPECTED_START),
        'live_runs_among': counted('task_runs', among),
        'ended_task_runs': [*listed('task_runs', ended, TASK_RUNS_BY_END), *counted('task_runs', ended)],
        'ended_task_runs_among': counted(
            'task_runs', queries.ended_task_runs_among(NO_FILTER, past, objects.task_runs)
        ),
        'terminal_task_runs': listed('task_runs', queries.terminal_task_runs(NO_FILTER), TASK_RUNS_BY_END),
        'started_task_runs': [
            *listed('task_runs', started, TASK_RUNS_BY_EXPECTED_START),
            *counted('task_runs', started),
        ],
        'started_task_runs_among': counted(
            'task_runs', queries.started_task_runs_among(NO_FILTER, past, objects.task_runs)
        ),
        'scheduled_task_runs': listed('task_runs', queries.scheduled_task_runs(), TASK_RUNS_BY_EXPECTED_START),
        'open_task_runs': listed('task_runs', queries.open_task_runs(NO_FILTER, past), TASK_RUNS_BY_EXPECTED_START),
        'background_task_runs_that_take_slots': counted('task_runs', queries.background_task_runs_that_take_slots()),
        'task_runs_that_take_slots_of': counted('task_runs', queries.task_runs_that_take_slots_of('x')),
        'background_task_runs_that_take_slots_of': counted(
            'task_runs', queries.background_task_runs_that_take_slots_of('x')
        ),
    }


def of_others(objects: Objects, now: datetime) -> Mapping[str, list[Request]]:
    past = TimeRange(now - PAST, now)
    ids: Mapping[queries.Table, Sequence[str]] = {
        'deployments': objects.deployments,
        'flows': [objects.flow],
        'flow_runs': objects.flow_runs,
        'task_runs': objects.task_runs,
    }
    deployment, deployments = objects.deployments[0], objects.deployments
    first_deployment = queries.deployments() | {'sort': 'UPDATED_DESC', 'offset': 0, 'limit': 1}
    narrowed = queries.narrowed(queries.ended_flow_runs(NO_FILTER, past), 'flow_runs', 'end_time', until=now)
    return {
        'page_limit': [Request('/flow_runs/paginate', queries.page_limit())],
        'by_ids': [Request(f'/{table}/filter', queries.by_ids(table, some[:PAGE])) for table, some in ids.items()],
        'deployments': [Request('/deployments/filter', first_deployment)],
        'deployments_among': counted('deployments', queries.deployments_among({}, deployments)),
        'planned_flow_runs_of': listed(
            'flow_runs', queries.planned_flow_runs_of(deployment, now), FLOW_RUNS_FARTHEST_FIRST
        ),
        'started_flow_runs_among': counted(
            'flow_runs', queries.started_flow_runs_among(NO_FILTER, past, objects.flow_runs)
        ),
        'ended_flow_runs_of_all': listed('flow_runs', queries.ended_flow_runs_of_all(), FLOW_RUNS_BY_EXPECTED_START),
        'slots_of_work_pool': counted('flow_runs', queries.slots_of_work_pool(objects.work_pool)),
        'slots_of_work_queue': counted('flow_runs', queries.slots_of_work_queue(objects.work_queue)),
        'flow_runs_that_may_hold_slots': counted('flow_runs', queries.flow_runs_that_may_hold_slots()),
        'events': [Request('/events/filter', queries.events({'prefix': ['prefect.flow-run.']}, past) | {'limit': 50})],
        'logs': [Request('/logs/filter', queries.logs(20, past) | {'sort': 'TIMESTAMP_ASC', 'limit': PAGE})],
        'events_of_ids': [Request('/events/filter', queries.events_of_ids(objects.flow_runs, past) | {'limit': 50})],
        'narrowed': listed('flow_runs', narrowed, FLOW_RUNS_BY_END),
    }


def of_all(objects: Objects, now: datetime) -> Mapping[str, list[Request]]:
    """One or a few requests for each function of `api.queries`, by its name."""
    return {**of_flow_runs(objects, now), **of_task_runs(objects, now), **of_others(objects, now)}


def explain(requests: Iterable[Request], home: Path, database_url: str | None = None) -> list[list[Plan]]:
    """The plans of the statements that the pinned version of Prefect, or that of PREFECT_ENV, sends for each request.

    The database is that of `database_url`, or else `prefect.db` in the folder `home`, a new one if there is none.
    Raises RuntimeError with what Prefect says.
    """
    settings = {
        'PREFECT_HOME': str(home),
        'PREFECT_API_DATABASE_CONNECTION_URL': database_url or f'sqlite+aiosqlite:///{home / "prefect.db"}',
        'HOME': str(home),
        'PATH': '/usr/bin:/bin',
    }
    done = subprocess.run(
        [prefect_environment_folder() / 'bin' / 'python', SCRIPT],
        input=json.dumps([*requests]),
        env=QUIET_SETTINGS | settings,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return [[Plan(**plan) for plan in plans] for plans in json.loads(done.stdout)]
