"""Prefect's objects as the collectors see them, and the only place that knows the keys of its JSON.

Each class keeps the fields that are used and has `from_api(row)`, which raises MalformedObject, with the name of the
field, for a row that does not hold what Prefect 3.0 to 3.9 send. Times are aware datetimes in UTC; durations are
seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

from datadog_checks.prefect.api.times import parse_time

Row = Mapping[str, Any]

_UUID = re.compile('[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}')
# What Prefect 3.0 to 3.9 append to the name of a function (`_generate_task_key`).
_CODE_HASH = re.compile('-([0-9a-f]{8}|unknown)$')
# The integers of the server's databases; of larger ones Python cannot always make a float.
_MAX_INTEGER = 2**63
# Times and durations of a run are made of the same time stamps, so they agree to the microsecond unless there was a
# further state, for which it takes two requests, 14 ms at the least (3.8.8).
_LEAST_WAIT_SECONDS = 0.005

# The states of a run that is on its way: it neither waits for its time nor has it ended.
LIVE_STATE_TYPES = ('PENDING', 'RUNNING', 'PAUSED', 'CANCELLING')
TERMINAL_STATE_TYPES = frozenset(['COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED'])
# What the server takes for a slot of a work pool and of a work queue (all versions from 2.20 to 3.9).
SLOT_STATE_TYPES = ('PENDING', 'RUNNING')
# And for one of a deployment: taken on the way to PENDING, and given back when a run leaves these (3.8.8).
DEPLOYMENT_SLOT_STATE_TYPES = (*SLOT_STATE_TYPES, 'CANCELLING')
# How the names of limits begin that are no global ones.
DEPLOYMENT_LIMIT_PREFIX = 'deployment:'
TAG_LIMIT_PREFIX = 'tag:'
# Names of SCHEDULED states. Names are free text, but these are the server's own.
AWAITING_RETRY = 'AwaitingRetry'
AWAITING_CONCURRENCY_SLOT = 'AwaitingConcurrencySlot'


class MalformedObject(ValueError):
    """A JSON object that is not what the endpoint promises."""


@dataclass(frozen=True, slots=True)
class WorkPool:
    """`POST /work_pools/filter`. `status` is READY, NOT_READY or PAUSED, null for the type `prefect-agent` (3.8.8)."""

    id: str
    name: str
    type: str | None
    status: str | None
    is_paused: bool
    concurrency_limit: int | None

    @classmethod
    def from_api(cls, row: Row) -> WorkPool:
        return cls(
            id=_text(row, 'id'),
            name=_text(row, 'name'),
            type=_optional_text(row, 'type'),
            status=_optional_text(row, 'status'),
            is_paused=row.get('is_paused') is True,
            concurrency_limit=_optional_integer(row, 'concurrency_limit'),
        )

    @property
    def is_polled_by_agents(self) -> bool:
        return self.type == 'prefect-agent'

    @property
    def needs_workers(self) -> bool:
        """Whether workers take up its runs: those of push and managed pools are started by Prefect Cloud itself."""
        return not (self.type or '').endswith((':push', ':managed'))


@dataclass(frozen=True, slots=True)
class Worker:
    """`POST /work_pools/{name}/workers/filter`. `status` is ONLINE or OFFLINE."""

    id: str
    name: str
    status: str | None
    last_heartbeat_time: datetime | None
    heartbeat_interval_seconds: int | None

    @classmethod
    def from_api(cls, row: Row) -> Worker:
        return cls(
            id=_text(row, 'id'),
            name=_text(row, 'name'),
            status=_optional_text(row, 'status'),
            last_heartbeat_time=_optional_time(row, 'last_heartbeat_time'),
            heartbeat_interval_seconds=_optional_integer(row, 'heartbeat_interval_seconds'),
        )

    @property
    def is_online(self) -> bool:
        return self.status == 'ONLINE'


@dataclass(frozen=True, slots=True)
class WorkQueue:
    """`POST /work_queues/filter`. `status` is READY, NOT_READY or PAUSED; `priority` 1 is the highest."""

    id: str
    name: str
    status: str | None
    is_paused: bool
    priority: int | None
    last_polled: datetime | None
    concurrency_limit: int | None
    work_pool_id: str | None
    work_pool_name: str | None

    @classmethod
    def from_api(cls, row: Row) -> WorkQueue:
        return cls(
            id=_text(row, 'id'),
            name=_text(row, 'name'),
            status=_optional_text(row, 'status'),
            is_paused=row.get('is_paused') is True,
            priority=_optional_integer(row, 'priority'),
            last_polled=_optional_time(row, 'last_polled'),
            concurrency_limit=_optional_integer(row, 'concurrency_limit'),
            work_pool_id=_optional_text(row, 'work_pool_id'),
            work_pool_name=_optional_text(row, 'work_pool_name'),
        )


@dataclass(frozen=True, slots=True)
class Deployment:
    """`POST /deployments/filter`. `status` is READY or NOT_READY; `concurrency_limit` is that of its runs (3.0.3).

    `longest_rest` is the longest time between two runs that one of its active schedules asks for, None where they may
    end, or rest for longer than a week. Up to 3.6.1 there is no `work_queue_id`.
    """

    id: str
    name: str
    flow_id: str
    is_paused: bool
    status: str | None
    active_schedules: int
    updated: datetime | None
    concurrency_limit: int | None
    work_pool_name: str | None
    work_queue_id: str | None
    work_queue_name: str | None
    tags: tuple[str, ...]
    longest_rest: timedelta | None

    @classmethod
    def from_api(cls, row: Row) -> Deployment:
        limit = row.get('global_concurrency_limit')
        return cls(
            id=_identifier(row, 'id'),
            name=_text(row, 'name'),
            flow_id=_identifier(row, 'flow_id'),
            is_paused=row.get('paused') is True,
            status=_optional_text(row, 'status'),
            active_schedules=_active_schedules(row.get('schedules')),
            updated=_optional_time(row, 'updated'),
            concurrency_limit=_optional_integer(limit, 'limit') if isinstance(limit, dict) else None,
            work_pool_name=_optional_text(row, 'work_pool_name'),
            work_queue_id=_optional_text(row, 'work_queue_id'),
            work_queue_name=_optional_text(row, 'work_queue_name'),
            tags=_texts(row, 'tags'),
            longest_rest=_longest_rest(row.get('schedules')),
        )

    @property
    def work_queue_key(self) -> str | tuple[str | None, str] | None:
        """What identifies its queue: the id, or the names of pool and queue; None without a queue."""
        if self.work_queue_id is None and self.work_queue_name is not None:
            return self.work_pool_name, self.work_queue_name
        return self.work_queue_id


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """`POST /v2/concurrency_limits/filter`: the limits of deployments (`deployment:<id>`), of tags, and global ones.

    Limits of tags are named `tag:<tag>` where the server keeps them with the others (3.8.8). `slot_decay` is how many
    slots become free by themselves per second: not 0 for a rate limit.
    """

    id: str
    name: str
    limit: int
    active_slots: int
    is_active: bool
    slot_decay: float

    @classmethod
    def from_api(cls, row: Row) -> ConcurrencyLimit:
        return cls(
            id=_text(row, 'id'),
            name=_text(row, 'name'),
            limit=_optional_integer(row, 'limit') or 0,
            active_slots=_optional_integer(row, 'active_slots') or 0,
            is_active=row.get('active') is not False,
            slot_decay=_seconds(row, 'slot_decay_per_second'),
        )


@dataclass(frozen=True, slots=True)
class TagLimit:
    """`POST /concurrency_limits/filter`. `holder_ids` are the task runs that hold its slots."""

    id: str
    tag: str
    limit: int
    holder_ids: tuple[str, ...]

    @classmethod
    def from_api(cls, row: Row) -> TagLimit:
        holders = row.get('active_slots')
        if not isinstance(holders, list):
            raise MalformedObject(f'active_slots is {_kind(holders)}, not a list')
        return cls(
            id=_text(row, 'id'),
            tag=_text(row, 'tag'),
            limit=_optional_integer(row, 'concurrency_limit') or 0,
            holder_ids=tuple(item for item in holders if isinstance(item, str)),
        )


@dataclass(frozen=True, slots=True)
class Flow:
    """`POST /flows/filter`."""

    id: str
    name: str

    @classmethod
    def from_api(cls, row: Row) -> Flow:
        return cls(id=_text(row, 'id'), name=_text(row, 'name'))


@dataclass(frozen=True, slots=True)
class FlowRun:
    """`POST /flow_runs/filter`.

    `start_time` is the first RUNNING and is kept over retries; `end_time` is null again once an ended run is retried by
    hand. Since 3.6.14 a run that ends without having run carries `start_time` = `end_time`, with `run_count` 0; before,
    both are null.
    `state_time` is when the run entered its present state.
    """

    id: str
    created: datetime | None
    flow_id: str
    deployment_id: str | None
    state_id: str | None
    state_type: str | None
    state_name: str | None
    state_time: datetime | None
    state_message: str | None
    run_count: int
    expected_start_time: datetime | None
    next_scheduled_start_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    total_run_time: float
    retries_in_process: bool
    parent_task_run_id: str | None
    work_pool_id: str | None
    work_pool_name: str | None
    work_queue_id: str | None
    work_queue_name: str | None

    @classmethod
    def from_api(cls, row: Row) -> FlowRun:
        state = row.get('state')
        policy = row.get('empirical_policy')
        return cls(
            id=_identifier(row, 'id'),
            created=_optional_time(row, 'created'),
            flow_id=_text(row, 'flow_id'),
            deployment_id=_optional_text(row, 'deployment_id'),
            state_id=_optional_text(row, 'state_id'),
            state_type=_optional_text(row, 'state_type'),
            state_name=_optional_text(row, 'state_name'),
            state_time=_optional_time(state, 'timestamp') if isinstance(state, dict) else None,
            state_message=_optional_text(state, 'message') if isinstance(state, dict) else None,
            run_count=_optional_integer(row, 'run_count') or 0,
            expected_start_time=_optional_time(row, 'expected_start_time'),
            next_scheduled_start_time=_optional_time(row, 'next_scheduled_start_time'),
            start_time=_optional_time(row, 'start_time'),
            end_time=_optional_time(row, 'end_time'),
            total_run_time=_seconds(row, 'total_run_time'),
            retries_in_process=isinstance(policy, dict) and policy.get('retry_type') == 'in_process',
            parent_task_run_id=_optional_text(row, 'parent_task_run_id'),
            work_pool_id=_optional_text(row, 'work_pool_id'),
            work_pool_name=_optional_text(row, 'work_pool_name'),
            work_queue_id=_optional_text(row, 'work_queue_id'),
            work_queue_name=_optional_text(row, 'work_queue_name'),
        )

    @property
    def ended_at(self) -> datetime | None:
        """`end_time`, or the time of the terminal state of a run that ended unstarted on a server before 3.6.14."""
        ended_unstarted = self.start_time is None and self.state_type in TERMINAL_STATE_TYPES
        return self.state_time if ended_unstarted and self.end_time is None else self.end_time

    @property
    def waits_in_process(self) -> bool:
        """Whether its own process waits for the next attempt: no worker is given the run then."""
        return self.state_name == AWAITING_RETRY and self.retries_in_process

    @property
    def was_interrupted(self) -> bool:
        """Whether its row may hide a state that it left: a failed attempt, an end before a retry by hand, a pause."""
        if self.start_time is None:
            return False
        if self.state_type == 'RUNNING':
            return self.state_time != self.start_time
        if self.end_time is not None:
            waited = (self.end_time - self.start_time).total_seconds() - self.total_run_time
            return self.run_count > 1 or waited > _LEAST_WAIT_SECONDS
        return self.run_count > 1 or self.state_type in ('SCHEDULED', 'PENDING')


@dataclass(frozen=True, slots=True)
class FlowRunState:
    """`GET /flow_run_states/?flow_run_id=`, ascending by `timestamp`."""

    id: str
    type: str
    name: str
    timestamp: datetime

    @classmethod
    def from_api(cls, row: Row) -> FlowRunState:
        return cls(
            id=_text(row, 'id'), type=_text(row, 'type'), name=_text(row, 'name'), timestamp=_time(row, 'timestamp')
        )


@dataclass(frozen=True, slots=True)
class TaskRun:
    """`POST /task_runs/filter`. Its times come from the clock of the process that runs the task.

    `flow_run_id` is null for a background task; `upstream_ids` are the task runs whose results it takes or waits for.
    `state_time` is when it entered its present state; for some milliseconds the server may not know that (3.8.8).
    """

    id: str
    task_key: str | None
    flow_run_id: str | None
    state_type: str | None
    state_name: str | None
    state_time: datetime | None
    run_count: int
    expected_start_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    total_run_time: float
    upstream_ids: tuple[str, ...]

    @classmethod
    def from_api(cls, row: Row) -> TaskRun:
        state = row.get('state')
        return cls(
            id=_text(row, 'id'),
            task_key=_optional_text(row, 'task_key'),
            flow_run_id=_optional_text(row, 'flow_run_id'),
            state_type=_optional_text(row, 'state_type'),
            state_name=_optional_text(row, 'state_name'),
            state_time=_optional_time(state, 'timestamp') if isinstance(state, dict) else None,
            run_count=_optional_integer(row, 'run_count') or 0,
            expected_start_time=_optional_time(row, 'expected_start_time'),
            start_time=_optional_time(row, 'start_time'),
            end_time=_optional_time(row, 'end_time'),
            total_run_time=_seconds(row, 'total_run_time'),
            upstream_ids=_upstream_ids(row.get('task_inputs')),
        )


@dataclass(frozen=True, slots=True)
class Resource:
    """What an event is about, or related to, in the `role` of a work pool, a flow run and so on.

    `id` is `prefect.<kind>.<id>`, `object_id` the last part of it.
    """

    id: str
    role: str | None
    name: str | None
    work_pool_type: str | None

    @classmethod
    def from_api(cls, row: Row) -> Resource:
        return cls(
            id=_text(row, 'prefect.resource.id'),
            role=_optional_text(row, 'prefect.resource.role'),
            name=_optional_text(row, 'prefect.resource.name'),
            work_pool_type=_optional_text(row, 'prefect.work-pool.type'),
        )

    @property
    def object_id(self) -> str:
        return self.id.rpartition('.')[2]


@dataclass(frozen=True, slots=True)
class Event:
    """`POST /events/filter`. `occurred` comes from the clock of the process that sent it.

    `kind` is what it is about ('flow-run', 'work-pool'), `action` what happened to it: for a run the name of its new
    state. `state_type` and what follows it are those of a run. `related` has one resource for each role.
    """

    id: str
    name: str
    kind: str
    action: str
    occurred: datetime
    resource: Resource
    related: Mapping[str, Resource]
    state_type: str | None
    state_name: str | None
    state_message: str | None
    previous_state_name: str | None
    run_count: str | None
    task_key: str | None

    @classmethod
    def from_api(cls, row: Row) -> Event:
        name = _text(row, 'event')
        kind, _, action = name.removeprefix('prefect.').partition('.')
        resource = _object(row, 'resource')
        payload = _object(row, 'payload')
        related = [Resource.from_api(item) for item in _objects(row, 'related')]
        return cls(
            id=_text(row, 'id'),
            name=name,
            kind=kind,
            action=action,
            occurred=_time(row, 'occurred'),
            resource=Resource.from_api(resource),
            related={item.role: item for item in related if item.role is not None},
            state_type=_optional_text(resource, 'prefect.state-type'),
            state_name=_optional_text(resource, 'prefect.state-name'),
            state_message=_optional_text(resource, 'prefect.state-message'),
            previous_state_name=_optional_text(_object(payload, 'initial_state'), 'name'),
            run_count=_optional_text(resource, 'prefect.run-count'),
            task_key=_optional_text(_object(payload, 'task_run'), 'task_key'),
        )


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The settings of the background services in `GET /admin/settings`, by default those of 3.8.8.

    Whatever is missing or not understood, as before 3.1, is the default. `cancelling_timeout` is None for a server that
    does not end a cancellation by itself. `enabled` tells of each service, by its key there, whether it is switched on;
    a service that is missing there is unknown. The settings are those of the process that answers, and the services
    may run in another one, with others.
    """

    enabled: Mapping[str, bool] = field(default_factory=dict)

    scheduler_loop: timedelta = timedelta(seconds=60)
    scheduled_ahead: timedelta = timedelta(hours=1)
    late_runs_loop: timedelta = timedelta(seconds=5)
    late_after: timedelta = timedelta(seconds=15)
    foreman_loop: timedelta = timedelta(seconds=15)
    queue_polled_within: timedelta = timedelta(seconds=60)
    cancellation_loop: timedelta = timedelta(seconds=20)
    cancelling_timeout: timedelta | None = None
    recorder_flush: timedelta = timedelta(seconds=5)

    @classmethod
    def from_api(cls, row: Row) -> ServiceSettings:
        services = _object(_object(row, 'server'), 'services')
        told = {name: _duration(_object(services, service).get(key)) for name, service, key in _SERVICE_SETTINGS}
        enabled = {
            service: is_on
            for service in services
            if isinstance(is_on := _object(services, service).get('enabled'), bool)
        }
        return cls(enabled=enabled, **{name: value for name, value in told.items() if value is not None})


_SERVICE_SETTINGS = (
    ('scheduler_loop', 'scheduler', 'loop_seconds'),
    ('scheduled_ahead', 'scheduler', 'min_scheduled_time'),
    ('late_runs_loop', 'late_runs', 'loop_seconds'),
    ('late_after', 'late_runs', 'after_seconds'),
    ('foreman_loop', 'foreman', 'loop_seconds'),
    ('queue_polled_within', 'foreman', 'work_queue_last_polled_timeout_seconds'),
    ('cancellation_loop', 'cancellation_cleanup', 'loop_seconds'),
    ('cancelling_timeout', 'cancellation_cleanup', 'cancelling_timeout_seconds'),
    ('recorder_flush', 'task_run_recorder', 'flush_interval'),
)
_DURATION = TypeAdapter(timedelta)


def _duration(value: object) -> timedelta | None:
    """A number of seconds, or a text of ISO 8601 ('PT15S'); None for anything else, and for what makes no sense."""
    try:
        duration = _DURATION.validate_python(value)
    except ValidationError:
        return None
    return duration if timedelta() <= duration <= timedelta(days=365) else None


# Intervals of schedules that are judged. The scheduler plans no more than 100 runs ahead.
_INTERVALS = (timedelta(minutes=1), timedelta(days=7))


def _longest_rest(schedules: object) -> timedelta | None:
    """The shortest of the longest rests of the active schedules of a deployment, None if none of them has a bound."""
    rests = map(_rest_of, schedules) if isinstance(schedules, list) else ()
    return min((rest for rest in rests if rest is not None), default=None)


def _rest_of(schedule: object) -> timedelta | None:
    """The longest time between two runs of an active schedule without an end, None beyond a week.

    Of those that recur by a rule (`rrule`) that cannot be told, and a cron of days in a month may rest for a quarter.
    """
    if not isinstance(schedule, dict) or schedule.get('active') is not True:
        return None
    timing = schedule.get('schedule')
    if not isinstance(timing, dict) or schedule.get('max_scheduled_runs') is not None:
        return None
    interval, cron = timing.get('interval'), timing.get('cron')
    if isinstance(interval, (int, float)):
        rest = _duration(interval)
        return rest if rest is not None and _INTERVALS[0] <= rest <= _INTERVALS[1] else None
    if not isinstance(cron, str) or len(fields := cron.split()) != 5 or fields[2:4] != ['*', '*']:
        return None
    if fields[4] != '*':
        return timedelta(days=7)
    # A day of 25 hours, when the clocks are put back.
    return timedelta(hours=1) if fields[1] == '*' else timedelta(hours=25)


def task_name(task_key: str | None) -> str | None:
    """The name of the task's function, out of the `task_key`, which is that name and a hash of its code.

    Not what `@task(name=...)` says: that is only in the name of the task run, which a user may choose for each run, so
    that no bounded number of tag values would come of it. A task that is an object has the path of its class.
    """
    return _CODE_HASH.sub('', task_key).rpartition('.')[2] if task_key else None


def _active_schedules(schedules: object) -> int:
    if not isinstance(schedules, list):
        return 0
    return sum(isinstance(item, dict) and item.get('active') is True for item in schedules)


def _upstream_ids(task_inputs: object) -> tuple[str, ...]:
    """The ids of the `task_run` inputs. `__parents__` names the task that called this one: no dependency."""
    if not isinstance(task_inputs, dict):
        return ()
    ids = {
        entry['id']
        for parameter, entries in task_inputs.items()
        if parameter != '__parents__' and isinstance(entries, list)
        for entry in entries
        if isinstance(entry, dict) and entry.get('input_type') == 'task_run' and isinstance(entry.get('id'), str)
    }
    return tuple(sorted(ids))


def _object(row: Row, key: str) -> Row:
    """The object at `key`; an empty one if there is none, for not every event says as much."""
    value = row.get(key)
    return value if isinstance(value, dict) else {}


def _objects(row: Row, key: str) -> list[Row]:
    value = row.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise MalformedObject(f'{key} is {_kind(value)}, not a text')
    return value


def _identifier(row: Row, key: str) -> str:
    """An id that is remembered and asked for again: the server refuses any request with one that is no UUID."""
    value = _text(row, key)
    if not _UUID.fullmatch(value):
        raise MalformedObject(f'{key} is not a UUID')
    return value


def _optional_text(row: Row, key: str) -> str | None:
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise MalformedObject(f'{key} is {_kind(value)}, not a text')
    return value


def _texts(row: Row, key: str) -> tuple[str, ...]:
    """A list of texts; none when it is absent."""
    value = row.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise MalformedObject(f'{key} is not a list of texts')
    return tuple(value)


def _optional_integer(row: Row, key: str) -> int | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise MalformedObject(f'{key} is {_kind(value)}, not an integer')
    if abs(value) > _MAX_INTEGER:
        raise MalformedObject(f'{key} is out of range')
    return value


def _seconds(row: Row, key: str) -> float:
    """A duration; 0 when it is absent. No duration is negative, whatever the clocks of the server did."""
    value = row.get(key)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MalformedObject(f'{key} is {_kind(value)}, not a number')
    try:
        seconds = float(value)
    except OverflowError:
        raise MalformedObject(f'{key} is out of range') from None
    if not math.isfinite(seconds):
        raise MalformedObject(f'{key} is out of range')
    return max(0.0, seconds)


def _time(row: Row, key: str) -> datetime:
    value = row.get(key)
    if not isinstance(value, str):
        raise MalformedObject(f'{key} is {_kind(value)}, not a time')
    try:
        return parse_time(value)
    except (ValueError, OverflowError):
        raise MalformedObject(f'{key} is not a time') from None


def _optional_time(row: Row, key: str) -> datetime | None:
    return None if row.get(key) is None else _time(row, key)


def _kind(value: object) -> str:
    """The JSON type of a value, and never the value: it may be the user's data."""
    names = {type(None): 'null', bool: 'a boolean', int: 'a number', float: 'a number', str: 'an empty text'}
    return names.get(type(value), 'a list' if isinstance(value, list) else 'an object')
