"""Which rows a request selects, and in which order: joins, sorts, limits of Prefect 3.8.8."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

from . import filters
from .filters import Group, InvalidFilter, Predicate, compile_filter
from .tables import Row, View
from .times import to_moment
from .world import TERMINAL_STATE_TYPES


@dataclass(frozen=True)
class Join:
    """A row matches when its `column` is in `other_column` of the rows of `table` that the named filters select."""

    filter_keys: frozenset[str]
    column: str
    table: str
    other_column: str


def _join(filter_keys: str, column: str, table: str, other_column: str = 'id') -> Join:
    return Join(frozenset(filter_keys.split()), column, table, other_column)


# Which key of a request filters the rows of a table themselves.
OWN_KEYS = {'work_queues': 'work_pool_queues'}
# All joins are inner ones: a run whose deployment or queue is null or deleted matches no filter on it.
JOINS: Mapping[str, tuple[Join, ...]] = {
    'work_pools': (),
    'work_queues': (_join('work_pools', 'work_pool_id', 'work_pools'),),
    'flows': (
        _join('flow_runs task_runs', 'id', 'flow_runs', 'flow_id'),
        _join('deployments work_pools', 'id', 'deployments', 'flow_id'),
    ),
    'deployments': (
        _join('flows', 'flow_id', 'flows'),
        _join('flow_runs task_runs', 'id', 'flow_runs', 'deployment_id'),
        _join('work_pools work_pool_queues', 'work_queue_id', 'work_queues'),
    ),
    'flow_runs': (
        _join('flows', 'flow_id', 'flows'),
        _join('deployments', 'deployment_id', 'deployments'),
        _join('work_pools work_pool_queues', 'work_queue_id', 'work_queues'),
        _join('task_runs', 'id', 'task_runs', 'flow_run_id'),
    ),
    'task_runs': (_join('flow_runs flows deployments', 'flow_run_id', 'flow_runs'),),
    'logs': (),
}
GROUPS: Mapping[str, Group] = {
    'flows': filters.FLOWS,
    'flow_runs': filters.FLOW_RUNS,
    'task_runs': filters.TASK_RUNS,
    'deployments': filters.DEPLOYMENTS,
    'work_pools': filters.WORK_POOLS,
    'work_pool_queues': filters.WORK_QUEUES,
    'work_queues': filters.WORK_QUEUES,
    'workers': filters.WORKERS,
    'logs': filters.LOGS,
}


def compile_filters(body: Mapping[str, Any], keys: frozenset[str], view: View) -> dict[str, Predicate]:
    """Return a predicate per filter of a request's body; null is no filter. Raises InvalidFilter."""
    return {
        key: compile_filter(GROUPS[key], body[key], view, (key,)) for key in sorted(keys) if body.get(key) is not None
    }


def select(table: str, predicates: Mapping[str, Predicate], view: View) -> list[Row]:
    """Return the rows of a table that match the filters on itself and on what it is joined with."""
    own_key = OWN_KEYS.get(table, table)
    conditions = [predicates[own_key]] if own_key in predicates else []
    for join in JOINS[table]:
        if wanted := {key: predicate for key, predicate in predicates.items() if key in join.filter_keys}:
            conditions.append(_joined(join, wanted, view))
    return [row for row in view.rows(table) if all(condition(row) for condition in conditions)]


def _joined(join: Join, predicates: Mapping[str, Predicate], view: View) -> Predicate:
    matches = {row[join.other_column] for row in select(join.table, predicates, view)} - {None}
    return lambda row: row[join.column] in matches


# The value to sort by and whether descending.
Sort = tuple[Callable[[Row], Any], bool]


def _by(column: str, descending: bool) -> Sort:
    return (lambda row: row[column]), descending


def _by_time(descending: bool, *columns: str) -> Sort:
    """Sort by the first of the columns that is not null."""

    def moment(row: Row) -> datetime | None:
        text = next((row[column] for column in columns if row[column] is not None), None)
        return to_moment(text) if text is not None else None

    return moment, descending


_RUN_SORTS: Mapping[str, Sort] = {
    'ID_DESC': _by('id', True),
    'EXPECTED_START_TIME_ASC': _by_time(False, 'expected_start_time'),
    'EXPECTED_START_TIME_DESC': _by_time(True, 'expected_start_time'),
    'NAME_ASC': _by('name', False),
    'NAME_DESC': _by('name', True),
    'NEXT_SCHEDULED_START_TIME_ASC': _by_time(False, 'next_scheduled_start_time'),
    'END_TIME_DESC': _by_time(True, 'end_time'),
}
_OBJECT_SORTS: Mapping[str, Sort] = {
    'NAME_ASC': _by('name', False),
    'NAME_DESC': _by('name', True),
    'CREATED_DESC': _by_time(True, 'created'),
    'UPDATED_DESC': _by_time(True, 'updated'),
}
# The first one is the default.
SORTS: Mapping[str, Mapping[str, Sort]] = {
    'flow_runs': {
        **_RUN_SORTS,
        'START_TIME_ASC': _by_time(False, 'start_time', 'expected_start_time'),
        'START_TIME_DESC': _by_time(True, 'start_time', 'expected_start_time'),
    },
    'task_runs': _RUN_SORTS,
    'flows': _OBJECT_SORTS,
    'deployments': _OBJECT_SORTS,
    'logs': {'TIMESTAMP_ASC': _by_time(False, 'timestamp'), 'TIMESTAMP_DESC': _by_time(True, 'timestamp')},
}
BY_NAME = _by('name', False)
BY_TAG = _by('tag', False)
BY_PRIORITY = _by('priority', False)
BY_HEARTBEAT = _by_time(True, 'last_heartbeat_time')
BY_TIMESTAMP = _by_time(False, 'timestamp')


def sort_of(table: str, body: Mapping[str, Any]) -> Sort:
    """Return the sort that a request asks for, or the default one. Raises InvalidFilter."""
    known = SORTS[table]
    name = body.get('sort', next(iter(known)))
    if name not in known:
        raise InvalidFilter('enum', f'Input should be one of {", ".join(known)}', ('sort',), name)
    return known[name]


def in_order(rows: list[Row], sort: Sort, *, nulls_are_smallest: bool, random: Random) -> list[Row]:
    """Sort rows as a database does: no order within ties (here: a new one each time), nulls at one end."""
    value, descending = sort
    shuffled = random.sample(rows, len(rows))
    nulls = [row for row in shuffled if value(row) is None]
    others = sorted((row for row in shuffled if value(row) is not None), key=value, reverse=descending)
    return nulls + others if nulls_are_smallest is not descending else others + nulls


# What the server works out for each answer


def with_estimates(run: Row, now: datetime) -> Row:
    """Return a flow run or task run with its estimates at `now` (`Run` in `database/orm_models.py`)."""
    run_time = run['total_run_time']
    if run['state_type'] == 'RUNNING':
        run_time += max(0.0, (now - to_moment(run['state']['timestamp'])).total_seconds())
    return run | {'estimated_run_time': run_time, 'estimated_start_time_delta': _lateness(run, now)}


def _lateness(run: Row, now: datetime) -> float:
    expected, started = run['expected_start_time'], run['start_time']
    if expected is None or (started is None and run['state_type'] in TERMINAL_STATE_TYPES):
        return 0.0
    return max(0.0, ((to_moment(started) if started else now) - to_moment(expected)).total_seconds())


def with_active_slots(rows: list[Row], column: str, state_types: Collection[str], view: View) -> list[Row]:
    """Return work pools or work queues with `active_slots`: of those with a limit, their runs in these states."""
    taken: Counter[str] = Counter()
    if any(row['concurrency_limit'] is not None for row in rows):
        taken.update(run[column] for run in view.rows('flow_runs') if run['state_type'] in state_types)
    return [row | {'active_slots': None if row['concurrency_limit'] is None else taken[row['id']]} for row in rows]
