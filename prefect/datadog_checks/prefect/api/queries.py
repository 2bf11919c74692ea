"""The body of each request, as a function named after what it asks for: to requests what `models` is to answers.

The words of the API's filters (`any_`, `after_`, `is_null_` ...) stand nowhere else. Sort, offset and limit are added
by `client` and `paging`.

Each docstring ends with the index by which SQLite finds the rows, as EXPLAIN QUERY PLAN tells on a database of Prefect
3.8.8, which holds no statistics (`tests/integration/test_queries.py` compares). Of two that begin with the same column
SQLite takes the one or the other, by the order in which the migrations made them.

That is so without filters of the instance. With one on deployments SQLite goes by `ix_flow_run__deployment_id` for the
flow runs that are live, due, started, ended or to come: it reads the past of those deployments, and with an exclusion
all runs that have none (1.7 s for a count of those that ended, instead of 2 ms, with 200,000 flow runs of 20
deployments). With one on work queues or flows it counts so, by `ix_flow_run__work_queue_id` and `ix_flow_run__flow_id`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from datadog_checks.prefect.api.models import (
    AWAITING_CONCURRENCY_SLOT,
    AWAITING_RETRY,
    LIVE_STATE_TYPES,
    SLOT_STATE_TYPES,
    TERMINAL_STATE_TYPES,
)
from datadog_checks.prefect.api.time_range import TimeRange
from datadog_checks.prefect.api.times import RESOLUTION, format_time

Body = dict[str, Any]
Criteria = dict[str, Any]
Table = Literal['deployments', 'flows', 'flow_runs', 'task_runs', 'logs', 'work_queues']

_TERMINAL = tuple(sorted(TERMINAL_STATE_TYPES))
_ALL_STATE_TYPES = ('SCHEDULED', *LIVE_STATE_TYPES, *_TERMINAL)
# SCHEDULED states that a run can be in after it has started.
_RESTARTING_STATE_NAMES = (AWAITING_RETRY, AWAITING_CONCURRENCY_SLOT, 'Resuming')
# A flow run in one of these may be in the midst of code that took a slot of a global limit.
GLOBAL_SLOT_STATE_TYPES = ('RUNNING', 'PAUSED', 'CANCELLING')
# The server takes an end that is still to come; without one it ends the period now, by its own clock.
END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ServerFilter:
    """The part of an instance's filters that the server can apply, by ids and names; None leaves a kind open.

    `keep_undeployed` lets runs without a deployment pass `deployment_ids`, `keep_parentless` says whether task runs
    without a flow run pass. `work_pool_names` and `work_queue_ids` narrow flow runs only: the endpoints of task runs
    ignore them (3.0 to 3.9).
    """

    deployment_ids: Collection[str] | None = None
    keep_undeployed: bool = True
    work_pool_names: Collection[str] | None = None
    work_queue_ids: Collection[str] | None = None
    flow_ids: Collection[str] | None = None
    keep_parentless: bool = True

    @property
    def of_flow_runs(self) -> Criteria:
        """The criteria in the object `flow_runs` of a request for flow runs or task runs."""
        if self.deployment_ids is None:
            return {}
        ids = _any_of(self.deployment_ids)
        return {'deployment_id': ids | {'is_null_': True, 'operator': 'or_'} if self.keep_undeployed else ids}

    @property
    def flows(self) -> Body:
        """The key beside it, in requests for either. Every run has a flow, so the join loses none."""
        return {} if self.flow_ids is None else {'flows': {'id': _any_of(self.flow_ids)}}

    @property
    def work(self) -> Body:
        """The keys beside it in a request for flow runs."""
        joins: Body = {}
        if self.work_pool_names is not None:
            joins['work_pools'] = {'name': _any_of(self.work_pool_names)}
        if self.work_queue_ids is not None:
            joins['work_pool_queues'] = {'id': _any_of(self.work_queue_ids)}
        return joins


NO_FILTER = ServerFilter()


def page_limit() -> Body:
    """No flow run at all: the answer of `/flow_runs/paginate` tells the largest page of the server.

    Index: the primary key.
    """
    return by_ids('flow_runs', ())


def by_ids(table: Table, ids: Iterable[str]) -> Body:
    """The objects of these ids.

    Index: the primary key.
    """
    return {table: {'id': _any_of(ids)}}


def deployments(work_pool_names: Collection[str] | None = None, flow_ids: Collection[str] | None = None) -> Body:
    """The deployments of these work pools and flows, None for those of all.

    Index: ix_deployment__updated, in the order of the last edit; work pools and flows are looked up by row.
    """
    where = ServerFilter(work_pool_names=work_pool_names, flow_ids=flow_ids)
    return where.flows | where.work


def deployments_among(body: Body, ids: Iterable[str]) -> Body:
    """Those of `body` that have one of these ids.

    Index: the primary key.
    """
    return body | by_ids('deployments', ids)


def live_flow_runs(where: ServerFilter) -> Body:
    """The flow runs that are PENDING, RUNNING, PAUSED or CANCELLING.

    Index: ix_flow_run__state_type.
    """
    return _flow_runs(where, _in_state(LIVE_STATE_TYPES))


def due_flow_runs(where: ServerFilter, now: datetime) -> Body:
    """The flow runs in a SCHEDULED state whose time has come. That time is only set in such a state.

    Index: ix_flow_run__next_scheduled_start_time_asc. With the state SQLite would read all that are scheduled.
    """
    return _flow_runs(where, {'next_scheduled_start_time': {'before_': format_time(now)}})


def restarting_flow_runs(where: ServerFilter) -> Body:
    """The flow runs that have run and wait to run again.

    Index: ix_flow_run__state_name.
    """
    return _flow_runs(where, {'state': {'name': _any_of(_RESTARTING_STATE_NAMES)}})


def ended_flow_runs(where: ServerFilter, time_range: TimeRange) -> Body:
    """The flow runs that ended in a time range and are still ended.

    Index: ix_flow_run__end_time_desc.
    """
    return _flow_runs(where, {'end_time': _within(time_range)})


def started_flow_runs(where: ServerFilter, time_range: TimeRange) -> Body:
    """The flow runs that started in a time range.

    The server filters coalesce(start_time, expected_start_time), but looks for null in the column itself.

    Index: ix_flow_run__state_type_coalesce_start_time, if the state types are named, all of them; without, SQLite reads
    all that ever ran.
    """
    criteria = {'start_time': _within(time_range) | {'is_null_': False}} | _in_state(_ALL_STATE_TYPES)
    return _flow_runs(where, criteria)


def started_flow_runs_among(where: ServerFilter, time_range: TimeRange, ids: Iterable[str]) -> Body:
    """Those of them that have one of these ids.

    Index: the primary key.
    """
    criteria = {'start_time': _within(time_range) | {'is_null_': False}, 'id': _any_of(ids)}
    return _flow_runs(where, criteria | _in_state(_ALL_STATE_TYPES))


def flow_runs_ended_unstarted(where: ServerFilter, due_since: datetime) -> Body:
    """The flow runs that ended without a start and were due since a time.

    Index: ix_flow_run__start_time, of those that have none: all that ended so, and all that are scheduled.
    """
    criteria: Criteria = {'start_time': {'is_null_': True}, 'expected_start_time': _since(due_since)}
    return _flow_runs(where, criteria | _in_state(_TERMINAL))


def future_flow_runs(where: ServerFilter, time_range: TimeRange) -> Body:
    """The flow runs in a SCHEDULED state whose time comes in a time range.

    Index: ix_flow_run__next_scheduled_start_time_asc, a count reads nothing else. With the state SQLite would read all
    that are scheduled, and sort them.
    """
    return _flow_runs(where, {'next_scheduled_start_time': _within(time_range)})


def future_flow_runs_of(where: ServerFilter, time_range: TimeRange, deployment_ids: Iterable[str]) -> Body:
    """Those of them that belong to these deployments.

    Index: ix_flow_run__state_type_coalesce_start_time. Without the state SQLite goes by the deployments and reads their
    past.
    """
    criteria = {'next_scheduled_start_time': _within(time_range), 'deployment_id': _any_of(deployment_ids)}
    return _flow_runs(where, criteria | _in_state(['SCHEDULED']))


def flow_runs_ended_of(
    where: ServerFilter, deployment_ids: Iterable[str], state_types: Iterable[str], until: datetime | None = None
) -> Body:
    """The flow runs of these deployments that ended in such a state, up to a time with it.

    Without the criterion on the end PostgreSQL sorts those that have none first (3.8.8).

    Index: ix_flow_run__deployment_id, with at least as many states as deployments and more than one: the past of these
    is read, and sorted; else ix_flow_run__state_type_coalesce_start_time: all that ever ended so (0.5 s of 200,000).
    """
    end: Criteria = {'is_null_': False} | ({} if until is None else {'before_': format_time(until)})
    return _flow_runs(
        where, {'deployment_id': _any_of(deployment_ids), 'end_time': end} | _in_state(tuple(state_types))
    )


def planned_flow_runs_of(deployment_id: str, since: datetime) -> Body:
    """The flow runs of a deployment that the scheduler made and that were expected to start since a time, in any state.

    Index: ix_flow_run__deployment_id: the past of the deployment is read, and sorted.
    """
    criteria = {
        'deployment_id': _any_of([deployment_id]),
        'expected_start_time': _since(since),
        'tags': {'all_': ['auto-scheduled']},
    }
    return {'flow_runs': criteria}


def successes_of(where: ServerFilter, deployment_id: str) -> Body:
    """The flow runs of a deployment that succeeded.

    Index: ix_flow_run__deployment_id: the past of the deployment is read, and sorted. With one state, named once,
    SQLite goes by ix_flow_run__state_type_coalesce_start_time, and reads all that ever succeeded.
    """
    return flow_runs_ended_of(where, [deployment_id], ('COMPLETED', 'COMPLETED'))


def ended_flow_runs_of_all() -> Body:
    """The flow runs that have ended, including those that the filters leave out.

    Index: ix_flow_run__expected_start_time_desc, in the order of the expected start.
    """
    return {'flow_runs': {'end_time': {'is_null_': False}}}


def slots_of_work_pool(work_pool_id: str) -> Body:
    """The flow runs that take a slot of this work pool, including those that the filters leave out.

    Index: ix_flow_run__state_type_coalesce_start_time.
    """
    return {'flow_runs': _in_state(SLOT_STATE_TYPES), 'work_pools': {'id': _any_of([work_pool_id])}}


def slots_of_work_queue(work_queue_id: str) -> Body:
    """The flow runs that take a slot of this work queue, including those that the filters leave out.

    Index: ix_flow_run__work_queue_id: the past of the work queue is read.
    """
    return {'flow_runs': _in_state(SLOT_STATE_TYPES), 'work_pool_queues': {'id': _any_of([work_queue_id])}}


def flow_runs_that_may_hold_slots() -> Body:
    """The flow runs that may be inside code that took a slot of a global limit, with any filters.

    Index: ix_flow_run__state_type_coalesce_start_time.
    """
    return {'flow_runs': _in_state(GLOBAL_SLOT_STATE_TYPES)}


def live_task_runs(where: ServerFilter) -> list[Body]:
    """The task runs that are PENDING, RUNNING, PAUSED or wait for a retry, as far as their flow run is RUNNING.

    A killed process leaves its task runs RUNNING on the server forever, and a task run whose upstream failed stays
    NotReady (3.8.8). SCHEDULED are also all background task runs that wait for a worker.

    Index: ix_task_run__state_type_start_time and ix_task_run__state_name.
    """
    state = {
        'type': _any_of(['PENDING', 'RUNNING', 'PAUSED']),
        'name': _any_of([AWAITING_RETRY]),
        'operator': 'or_',
    }
    return _task_runs(where, {'state': state} | _no_dummies(), _in_state(['RUNNING']))


def scheduled_task_runs() -> Body:
    """The task runs that are SCHEDULED: they wait for a task worker, or in their own process for a retry.

    Index: ix_task_run__state_type_start_time.
    """
    return {'task_runs': _in_state(['SCHEDULED'])}


def live_runs_among(body: Body, table: Table, ids: Iterable[str], state: str | None = None) -> Body:
    """Those of `body`, live runs, that have one of these ids, and are in such a state.

    That is a type, or the name of the state of those that wait for another attempt.

    Index: the primary key.
    """
    criteria: Criteria = {'id': _any_of(ids)}
    if state is not None:
        criteria['state'] = {'name' if state == AWAITING_RETRY else 'type': _any_of([state])}
    return body | {table: body[table] | criteria}


def ended_task_runs(where: ServerFilter, time_range: TimeRange) -> list[Body]:
    """The task runs that ended in a time range. Only for a server that has `versions.TASK_RUN_END_FILTER`.

    Index: ix_task_run__end_time_desc.
    """
    return _task_runs(where, {'end_time': _within(time_range)} | _no_dummies())


def ended_task_runs_among(where: ServerFilter, time_range: TimeRange, ids: Iterable[str]) -> list[Body]:
    """Those of them that have one of these ids.

    Index: the primary key.
    """
    return _task_runs(where, {'end_time': _within(time_range), 'id': _any_of(ids)} | _no_dummies())


def terminal_task_runs(where: ServerFilter) -> list[Body]:
    """The task runs that have ended: read the newest first on a server that has no filter on their end.

    Index: ix_task_run__state_type_start_time: all of them are read, and sorted.
    """
    return _task_runs(where, _in_state(_TERMINAL) | _no_dummies())


def started_task_runs(where: ServerFilter, time_range: TimeRange) -> list[Body]:
    """The task runs that started in a time range.

    Index: ix_task_run__start_time.
    """
    return _task_runs(where, {'start_time': _within(time_range)} | _no_dummies())


def started_task_runs_among(where: ServerFilter, time_range: TimeRange, ids: Iterable[str]) -> list[Body]:
    """Those of them that have one of these ids.

    Index: the primary key.
    """
    return _task_runs(where, {'start_time': _within(time_range), 'id': _any_of(ids)} | _no_dummies())


def open_task_runs(where: ServerFilter, time_range: TimeRange) -> list[Body]:
    """Those of them that have not ended.

    Index: ix_task_run__state_type_start_time.
    """
    criteria = {'start_time': _within(time_range)} | _in_state(('SCHEDULED', *LIVE_STATE_TYPES))
    return _task_runs(where, criteria | _no_dummies())


def background_task_runs_that_take_slots() -> Body:
    """The task runs of no flow run that may hold slots: those of its tags it takes while it is PENDING.

    Index: ix_task_run__flow_run_id: all that belong to no flow run are read.
    """
    return {'task_runs': _in_state(SLOT_STATE_TYPES) | _background()}


def task_runs_that_take_slots_of(tag: str) -> Body:
    """The task runs with this tag that may hold slots of it, if their flow run is alive.

    Index: ix_task_run__state_type_start_time.
    """
    tagged = _in_state(SLOT_STATE_TYPES) | {'tags': {'all_': [tag]}}
    return {'task_runs': tagged, 'flow_runs': _in_state(LIVE_STATE_TYPES)}


def background_task_runs_that_take_slots_of(tag: str) -> Body:
    """The same of no flow run.

    Index: ix_task_run__flow_run_id: all that belong to no flow run are read.
    """
    return {'task_runs': _in_state(SLOT_STATE_TYPES) | {'tags': {'all_': [tag]}} | _background()}


def events(names: dict[str, list[str]], time_range: TimeRange, order: Literal['ASC', 'DESC'] = 'ASC') -> Body:
    """The events of a time range with such names: `names` is the `event` object of the filter.

    Index: ix_events__occurred; ix_events__event_occurred_id with whole names.
    """
    # Both bounds are inclusive.
    until = END_OF_TIME if time_range.until is None else time_range.until - RESOLUTION
    occurred = {'since': format_time(time_range.since), 'until': format_time(until)}
    return {'filter': {'event': names, 'order': order, 'occurred': occurred}}


def logs(level: int, time_range: TimeRange, flow_run_ids: Collection[str] | None = None) -> Body:
    """The log records of a time range from a level up, of these flow runs only if they are given.

    Index: ix_log__timestamp; ix_log__flow_run_id_timestamp with flow runs.
    """
    criteria: Criteria = {'level': {'ge_': level}, 'timestamp': _within(time_range)}
    return {'logs': criteria | ({} if flow_run_ids is None else {'flow_run_id': _any_of(flow_run_ids)})}


def events_of_ids(ids: Iterable[str], time_range: TimeRange) -> Body:
    """Those of a time range that have one of these ids.

    Index: the primary key.
    """
    body = events({}, time_range, 'DESC')
    return {'filter': body['filter'] | {'id': {'id': list(ids)}}}


def narrowed(
    body: Body, table: Table, time: str, *, since: datetime | None = None, until: datetime | None = None
) -> Body:
    """The same as `body`, but only the rows of `table` with that time from `since` to `until`, both with them.

    Index: that of the body.
    """
    limits = {'after_': since, 'before_': until}
    bounds = {word: format_time(limit) for word, limit in limits.items() if limit is not None}
    if not bounds:
        return body
    criteria = body.get(table, {})
    return body | {table: criteria | {time: criteria.get(time, {}) | bounds}}


def _flow_runs(where: ServerFilter, criteria: Criteria) -> Body:
    """The flow runs that meet the criteria, as far as the filter lets them pass."""
    return {'flow_runs': where.of_flow_runs | criteria, **where.work, **where.flows}


def _task_runs(where: ServerFilter, criteria: Criteria, of_flow_runs: Criteria | None = None) -> list[Body]:
    """The bodies that together ask for the task runs that meet the criteria, as far as the filter lets them pass.

    With `of_flow_runs` only those whose flow run meets them, and those of no flow run: any criterion on flow runs is an
    inner join for the server, so the latter take a request of their own.
    """
    parents = where.of_flow_runs | (of_flow_runs or {})
    if not parents and not where.flows:
        return [{'task_runs': criteria}]
    joined: Body = {'task_runs': criteria, **({'flow_runs': parents} if parents else {}), **where.flows}
    return [joined, {'task_runs': criteria | _background()}] if where.keep_parentless else [joined]


def _any_of(values: Iterable[str]) -> Criteria:
    return {'any_': list(values)}


def _in_state(types: Iterable[str]) -> Criteria:
    return {'state': {'type': _any_of(types)}}


def _no_dummies() -> Criteria:
    """Among task runs: those that stand for a subflow in its parent are none."""
    return {'subflow_runs': {'exists_': False}}


def _background() -> Criteria:
    """Among task runs: those that belong to no flow run."""
    return {'flow_run_id': {'is_null_': True}}


def _since(time: datetime) -> Criteria:
    return {'after_': format_time(time)}


def _within(time_range: TimeRange) -> Criteria:
    """The time range as the API filters a time: both its bounds are inclusive."""
    criteria = _since(time_range.since)
    if time_range.until is not None:
        criteria['before_'] = format_time(time_range.until - RESOLUTION)
    return criteria
