"""Prefect's objects as the collectors see them, and the only place that knows the keys of its JSON.

A model is a frozen dataclass of the fields that are used, typed as in `rows`. To add one, declare its fields,

    @dataclass(frozen=True, slots=True)
    class Artifact:
        id: Identifier
        created: Time
        kind: Annotated[OptionalText, at('type')] = None
        flow_name: Annotated[OptionalText, at('flow', 'name')] = None

and read it in `client` with `self._read_list('/artifacts/filter', {}, Artifact)`. A field with a default may be absent.
Where a type is not enough, `PlainValidator` takes a function of the JSON value. Times are aware datetimes in UTC;
durations are seconds. Verified on Prefect 3.0 to 3.9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from pydantic import PlainValidator, TypeAdapter
from pydantic_core import PydanticCustomError

from datadog_checks.prefect.api.rows import (
    AnyText,
    Beginning,
    Count,
    Duration,
    Identifier,
    Integer,
    IsNotFalse,
    IsTrue,
    OptionalDuration,
    OptionalInteger,
    OptionalText,
    OptionalTime,
    Rows,
    Seconds,
    Text,
    Texts,
    Time,
    at,
    read,
)

# What Prefect 3.0 to 3.9 append to the name of a function (`_generate_task_key`).
_CODE_HASH = re.compile('-([0-9a-f]{8}|unknown)$')
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


def _active_schedules(schedules: object) -> int:
    if not isinstance(schedules, list):
        return 0
    return sum(isinstance(item, dict) and item.get('active') is True for item in schedules)


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
        is_judged = _INTERVALS[0].total_seconds() <= interval <= _INTERVALS[1].total_seconds()
        return timedelta(seconds=interval) if is_judged else None
    if not isinstance(cron, str) or len(fields := cron.split()) != 5 or fields[2:4] != ['*', '*']:
        return None
    if fields[4] != '*':
        return timedelta(days=7)
    # A day of 25 hours, when the clocks are put back.
    return timedelta(hours=1) if fields[1] == '*' else timedelta(hours=25)


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


def _is_in_process(retry_type: object) -> bool:
    return retry_type == 'in_process'


def _holder_ids(slots: object) -> tuple[str, ...]:
    if not isinstance(slots, list):
        raise PydanticCustomError('list_type', 'not a list')
    return tuple(item for item in slots if isinstance(item, str))


def _by_role(related: object) -> dict[str, Resource]:
    """The resources of a list. What is not an object is left out, for not every event says as much."""
    rows = [item for item in related if isinstance(item, dict)] if isinstance(related, list) else []
    return {item.role: item for item in _RESOURCES.validate_python(rows) if item.role is not None}


def _page_token(next_page: Any) -> str | None:
    """The token in the URL of the next page. The URL itself is never asked for."""
    if next_page is None:
        return None
    try:
        (token,) = parse_qs(urlsplit(next_page).query)['page-token']
    except (ValueError, TypeError, AttributeError, KeyError):
        raise PydanticCustomError('page_token', 'no page-token') from None
    return str(token)


def _setting(service: str, key: str) -> Any:
    return at('server', 'services', service, key)


@dataclass(frozen=True, slots=True)
class WorkPool:
    """`POST /work_pools/filter`. `status` is READY, NOT_READY or PAUSED, null for the type `prefect-agent` (3.8.8)."""

    id: Text
    name: Text
    type: OptionalText = None
    status: OptionalText = None
    is_paused: IsTrue = False
    concurrency_limit: OptionalInteger = None

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

    id: Text
    name: Text
    status: OptionalText = None
    last_heartbeat_time: OptionalTime = None
    heartbeat_interval_seconds: OptionalInteger = None

    @property
    def is_online(self) -> bool:
        return self.status == 'ONLINE'


@dataclass(frozen=True, slots=True)
class WorkQueue:
    """`POST /work_queues/filter`. `status` is READY, NOT_READY or PAUSED; `priority` 1 is the highest."""

    id: Text
    name: Text
    status: OptionalText = None
    is_paused: IsTrue = False
    priority: OptionalInteger = None
    last_polled: OptionalTime = None
    concurrency_limit: OptionalInteger = None
    work_pool_id: OptionalText = None
    work_pool_name: OptionalText = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """`POST /deployments/filter`. `status` is READY or NOT_READY; `concurrency_limit` is that of its runs (3.0.3).

    `longest_rest` is the longest time between two runs that one of its active schedules asks for, None where they may
    end, or rest for longer than a week. Up to 3.6.1 there is no `work_queue_id`.
    """

    id: Identifier
    name: Text
    flow_id: Identifier
    is_paused: Annotated[IsTrue, at('paused')] = False
    status: OptionalText = None
    active_schedules: Annotated[int, at('schedules'), PlainValidator(_active_schedules)] = 0
    updated: OptionalTime = None
    created: OptionalTime = None
    concurrency_limit: Annotated[OptionalInteger, at('global_concurrency_limit', 'limit')] = None
    work_pool_name: OptionalText = None
    work_queue_id: OptionalText = None
    work_queue_name: OptionalText = None
    tags: Texts = ()
    longest_rest: Annotated[timedelta | None, at('schedules'), PlainValidator(_longest_rest)] = None

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

    id: Text
    name: Text
    limit: Integer = 0
    active_slots: Integer = 0
    is_active: Annotated[IsNotFalse, at('active')] = True
    slot_decay: Annotated[Seconds, at('slot_decay_per_second')] = 0.0


@dataclass(frozen=True, slots=True)
class TagLimit:
    """`POST /concurrency_limits/filter`. `holder_ids` are the task runs that hold its slots."""

    id: Text
    tag: Text
    holder_ids: Annotated[tuple[str, ...], at('active_slots'), PlainValidator(_holder_ids)]
    limit: Annotated[Integer, at('concurrency_limit')] = 0


@dataclass(frozen=True, slots=True)
class Automation:
    """`POST /automations/filter`."""

    id: Text
    name: Text
    is_enabled: Annotated[IsNotFalse, at('enabled')] = True


@dataclass(frozen=True, slots=True)
class Flow:
    """`POST /flows/filter`."""

    id: Text
    name: Text


@dataclass(frozen=True, slots=True)
class FlowRun:
    """`POST /flow_runs/filter`.

    `start_time` is the first RUNNING and is kept over retries; `end_time` is null again once an ended run is retried by
    hand. Since 3.6.14 a run that ends without having run carries `start_time` = `end_time`, with `run_count` 0; before,
    both are null.
    `state_time` is when the run entered its present state; `pause_timeout` is until when a paused run may be resumed.
    `is_planned` if the scheduler made it.
    """

    id: Identifier
    flow_id: Text
    name: OptionalText = None
    deployment_id: OptionalText = None
    state_id: OptionalText = None
    state_type: OptionalText = None
    state_name: OptionalText = None
    state_time: Annotated[OptionalTime, at('state', 'timestamp')] = None
    state_message: Annotated[Beginning, at('state', 'message')] = None
    pause_timeout: Annotated[OptionalTime, at('state', 'state_details', 'pause_timeout')] = None
    run_count: Integer = 0
    expected_start_time: OptionalTime = None
    next_scheduled_start_time: OptionalTime = None
    start_time: OptionalTime = None
    end_time: OptionalTime = None
    total_run_time: Seconds = 0.0
    retries_in_process: Annotated[bool, at('empirical_policy', 'retry_type'), PlainValidator(_is_in_process)] = False
    parent_task_run_id: OptionalText = None
    work_pool_id: OptionalText = None
    work_pool_name: OptionalText = None
    work_queue_id: OptionalText = None
    work_queue_name: OptionalText = None
    created: OptionalTime = None
    is_planned: Annotated[IsTrue, at('auto_scheduled')] = False

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

    id: Text
    type: Text
    name: Text
    timestamp: Time
    message: Beginning = None


@dataclass(frozen=True, slots=True)
class TaskRun:
    """`POST /task_runs/filter`. Its times come from the clock of the process that runs the task.

    `flow_run_id` is null for a background task that no flow run asked for; `is_deferred` tells of each of them that it
    waits for a task worker. `upstream_ids` are the task runs whose results it takes or waits for.
    `state_time` is when it entered its present state; for some milliseconds the server may not know that (3.8.8).
    """

    id: Text
    name: OptionalText = None
    task_key: OptionalText = None
    flow_run_id: OptionalText = None
    state_type: OptionalText = None
    state_name: OptionalText = None
    state_time: Annotated[OptionalTime, at('state', 'timestamp')] = None
    state_message: Annotated[Beginning, at('state', 'message')] = None
    is_deferred: Annotated[IsTrue, at('state', 'state_details', 'deferred')] = False
    run_count: Integer = 0
    expected_start_time: OptionalTime = None
    start_time: OptionalTime = None
    end_time: OptionalTime = None
    total_run_time: Seconds = 0.0
    upstream_ids: Annotated[tuple[str, ...], at('task_inputs'), PlainValidator(_upstream_ids)] = ()

    @property
    def ended_at(self) -> datetime | None:
        """`end_time`, or the time of the terminal state: before 3.6.14 if unstarted, before 3.1.0 if timed out."""
        return self.state_time if self.end_time is None and self.state_type in TERMINAL_STATE_TYPES else self.end_time


@dataclass(frozen=True, slots=True)
class LogRecord:
    """`POST /logs/filter`. `timestamp` comes from the clock of the process that logged it.

    Clients send records every two seconds, and after an outage later; the server shows them at once (3.8.8). `logger`
    is the name of the logger, `level` that of Python (20 is INFO). A traceback is in `message`, on lines of its own.
    """

    id: Text
    timestamp: Time
    logger: Annotated[Text, at('name')]
    level: Integer = 0
    message: AnyText = ''
    flow_run_id: OptionalText = None
    task_run_id: OptionalText = None


@dataclass(frozen=True, slots=True)
class TaskWorker:
    """`POST /task_workers/filter`: a process that listens for background tasks.

    `seen_at` is when it listened last, at most 1 s ago while it is connected (3.8.8).
    """

    id: Annotated[Text, at('identifier')]
    seen_at: Annotated[Time, at('timestamp')]
    task_keys: Texts = ()


@dataclass(frozen=True, slots=True)
class Resource:
    """What an event is about, or related to, in the `role` of a work pool, a flow run and so on.

    `id` is `prefect.<kind>.<id>`, `object_id` the last part of it. `status_code` is that with which the infrastructure
    of a flow run ended, where a worker tells of its end.
    """

    id: Annotated[Text, at('prefect.resource.id')]
    role: Annotated[OptionalText, at('prefect.resource.role')] = None
    name: Annotated[OptionalText, at('prefect.resource.name')] = None
    work_pool_type: Annotated[OptionalText, at('prefect.work-pool.type')] = None
    status_code: Annotated[OptionalText, at('prefect.infrastructure.status-code')] = None

    @property
    def object_id(self) -> str:
        return self.id.rpartition('.')[2]


@dataclass(frozen=True, slots=True)
class Event:
    """`POST /events/filter`. `occurred` comes from the clock of the process that sent it.

    `kind` is what it is about ('flow-run', 'work-pool'), `action` what happened to it: for a run the name of its new
    state. `state_type` and what follows it are those of a run, `action_type` and `reason` those of an automation.
    `related` has one resource for each role.
    """

    id: Text
    name: Annotated[Text, at('event')]
    occurred: Time
    resource: Resource
    related: Annotated[Mapping[str, Resource], PlainValidator(_by_role)] = field(default_factory=dict)
    state_type: Annotated[OptionalText, at('resource', 'prefect.state-type')] = None
    state_name: Annotated[OptionalText, at('resource', 'prefect.state-name')] = None
    state_message: Annotated[OptionalText, at('resource', 'prefect.state-message')] = None
    previous_state_name: Annotated[OptionalText, at('payload', 'initial_state', 'name')] = None
    run_count: Annotated[OptionalText, at('resource', 'prefect.run-count')] = None
    task_key: Annotated[OptionalText, at('payload', 'task_run', 'task_key')] = None
    action_type: Annotated[OptionalText, at('payload', 'action_type')] = None
    reason: Annotated[OptionalText, at('payload', 'reason')] = None

    @property
    def kind(self) -> str:
        return self.name.removeprefix('prefect.').partition('.')[0]

    @property
    def action(self) -> str:
        return self.name.removeprefix('prefect.').partition('.')[2]


@dataclass(frozen=True, slots=True)
class EventCount:
    """`POST /events/count-by/resource`: how many events a resource has, and when the first and the last occurred."""

    id: Annotated[Text, at('value')]
    count: Count
    first: Annotated[Time, at('start_time')]
    last: Annotated[Time, at('end_time')]

    @property
    def object_id(self) -> str:
        return self.id.rpartition('.')[2]


@dataclass(frozen=True, slots=True)
class EventPage:
    """`POST /events/filter` and `GET /events/filter/next`: `total` events on all pages, `token` asks for the next."""

    rows: Annotated[Rows[Event], at('events')]
    total: Count
    token: Annotated[str | None, at('next_page'), PlainValidator(_page_token)] = None

    @classmethod
    def read(cls, content: bytes) -> EventPage:
        """Raises UnexpectedAnswer; for what is not JSON ValueError or RecursionError."""
        page: EventPage = read(cls, content, 'a page of events')
        return page


def _vacuums_events(enabled: object) -> bool | None:
    """Whether the vacuum deletes old events: `enabled` lists what it deletes, or is a switch for other things."""
    return 'events' in enabled if isinstance(enabled, list) else isinstance(enabled, bool)


def _switches(services: object) -> Mapping[str, bool]:
    """Of each service whether it is switched on, as far as that is told."""
    if not isinstance(services, dict):
        return {}
    told = {name: item.get('enabled') for name, item in services.items() if isinstance(item, dict)}
    return {name: is_on for name, is_on in told.items() if isinstance(is_on, bool)}


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The settings of the background services in `GET /admin/settings`, by default those of 3.8.8.

    What is missing or not understood, as before 3.1, gets the default. `cancelling_timeout` is None for a server that
    does not end a cancellation by itself, `vacuum_loop` for one that has no such service (before 3.6.19). `enabled`
    tells of each service, by its key there, whether it is switched on; a service that is missing there is unknown. The
    settings are those of the process that answers, and the services may run in another one, with others.
    """

    scheduler_loop: Annotated[Duration, _setting('scheduler', 'loop_seconds')] = timedelta(seconds=60)
    scheduled_ahead: Annotated[Duration, _setting('scheduler', 'min_scheduled_time')] = timedelta(hours=1)
    late_runs_loop: Annotated[Duration, _setting('late_runs', 'loop_seconds')] = timedelta(seconds=5)
    late_after: Annotated[Duration, _setting('late_runs', 'after_seconds')] = timedelta(seconds=15)
    foreman_loop: Annotated[Duration, _setting('foreman', 'loop_seconds')] = timedelta(seconds=15)
    queue_polled_within: Annotated[Duration, _setting('foreman', 'work_queue_last_polled_timeout_seconds')] = timedelta(
        seconds=60
    )
    cancellation_loop: Annotated[Duration, _setting('cancellation_cleanup', 'loop_seconds')] = timedelta(seconds=20)
    cancelling_timeout: Annotated[OptionalDuration, _setting('cancellation_cleanup', 'cancelling_timeout_seconds')] = (
        None
    )
    recorder_flush: Annotated[Duration, _setting('task_run_recorder', 'flush_interval')] = timedelta(seconds=5)
    persister_flush: Annotated[Duration, _setting('event_persister', 'flush_interval')] = timedelta(seconds=5)
    pause_loop: Annotated[Duration, _setting('pause_expirations', 'loop_seconds')] = timedelta(seconds=5)
    vacuum_loop: Annotated[OptionalDuration, _setting('db_vacuum', 'loop_seconds')] = None
    vacuums_events: Annotated[bool | None, _setting('db_vacuum', 'enabled'), PlainValidator(_vacuums_events)] = None
    event_retention: Annotated[OptionalDuration, at('server', 'events', 'retention_period')] = None

    enabled: Annotated[Mapping[str, bool], at('server', 'services'), PlainValidator(_switches)] = field(
        default_factory=dict
    )

    @classmethod
    def of(cls, document: object) -> ServiceSettings:
        return _SERVICE_SETTINGS.validate_python(document if isinstance(document, dict) else {})


_RESOURCES = TypeAdapter(list[Resource])
_SERVICE_SETTINGS = TypeAdapter(ServiceSettings)


def task_name(task_key: str | None) -> str | None:
    """The name of the task's function, out of the `task_key`, which is that name and a hash of its code.

    Not what `@task(name=...)` says: that is only in the name of the task run, which a user may choose for each run, so
    that no bounded number of tag values would come of it. A task that is an object has the path of its class.
    """
    return _CODE_HASH.sub('', task_key).rpartition('.')[2] if task_key else None
