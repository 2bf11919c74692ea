"""Every series of the integration, declared once.

`metadata.csv`, the tables of the README and the tests are made from `METRICS` or checked against it; collectors name a
series by its constant, so that a misspelt series is a NameError and not a lost point.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from datadog_checks.prefect import tags

NAMESPACE = 'prefect.server'

# The keys of the option `collect`.
LATE_RUNS = 'late_runs'
RUN_AGES = 'run_ages'
FRESHNESS = 'freshness'
EXPECTATIONS = 'expectations'
CONCURRENCY = 'concurrency'
WORKER_COUNTS = 'worker_counts'
BACKGROUND_SERVICES = 'background_services'
BACKGROUND_TASKS = 'background_tasks'
FAILURE_REASONS = 'failure_reasons'
WORKER_RUNS = 'worker_runs'
CHECK_COST = 'check_cost'
AUTOMATIONS = 'automations'
HEARTBEATS = 'heartbeats'


# Compared and hashed by identity: each series is declared once, and tallies look it up for every run.
@dataclass(frozen=True, eq=False)
class MetricSpec:
    """One series as the Agent receives it.

    `name` is without the namespace; `unit` is one of Datadog's unit names, or '' for a state that is 0 or 1; `tag_keys`
    are the keys that a sample may carry (a key whose value is unknown is left out), beside `prefect_url` and the
    instance's own tags; `orientation` is 1 where more is better, -1 where less is better, else 0; `group` is the key of
    the option `collect` that switches the series, '' for one that is always on.
    """

    name: str
    type: Literal['gauge', 'count']
    unit: str
    description: str
    tag_keys: tuple[str, ...]
    orientation: int = 0
    group: str = ''

    @cached_property
    def full_name(self) -> str:
        """With the namespace."""
        return f'{NAMESPACE}.{self.name}'

    @property
    def family(self) -> str:
        return self.name.split('.')[0]


@dataclass(frozen=True)
class PercentileGauges:
    """The five gauges that describe a set of values; see `distribution.py` for how each is computed."""

    average: MetricSpec
    median: MetricSpec
    percentile_95: MetricSpec
    maximum: MetricSpec
    count: MetricSpec


METRICS: dict[str, MetricSpec] = {}


def _declare(spec: MetricSpec) -> MetricSpec:
    if spec.name in METRICS:
        raise ValueError(f'{spec.name} is declared twice')
    METRICS[spec.name] = spec
    return spec


def _gauge(
    name: str, unit: str, description: str, tag_keys: tuple[str, ...], orientation: int = 0, *, group: str = ''
) -> MetricSpec:
    return _declare(MetricSpec(name, 'gauge', unit, description, tag_keys, orientation, group))


def _count(
    name: str, unit: str, description: str, tag_keys: tuple[str, ...], orientation: int = 0, *, group: str = ''
) -> MetricSpec:
    return _declare(MetricSpec(name, 'count', unit, description, tag_keys, orientation, group))


def _percentile_gauges(name: str, counted: str, what: str, tag_keys: tuple[str, ...]) -> PercentileGauges:
    """Declare the five gauges below `name`; `counted` is the unit of their number of samples."""
    caution = 'Percentiles of different tag sets cannot be averaged.'
    return PercentileGauges(
        average=_gauge(f'{name}.avg', 'second', f'Mean {what}, for the runs since the last check.', tag_keys, -1),
        median=_gauge(
            f'{name}.median', 'second', f'Median {what}, for the runs since the last check. {caution}', tag_keys, -1
        ),
        percentile_95=_gauge(
            f'{name}.95percentile',
            'second',
            f'95th percentile of the {what}, for the runs since the last check. {caution}',
            tag_keys,
            -1,
        ),
        maximum=_gauge(f'{name}.max', 'second', f'Longest {what}, for the runs since the last check.', tag_keys, -1),
        count=_gauge(f'{name}.count', counted, f'Number of samples of the {what} since the last check.', tag_keys),
    )


HEALTH = _gauge('health', '', '1 if GET /health answers true, otherwise 0. Always sent.', (), 1)
READY = _gauge(
    'ready', '', '1 if GET /ready says that the server reaches its database, otherwise 0. Always sent.', (), 1
)

COLLECTOR_SUCCESS = _gauge(
    'collector.success',
    '',
    '1 if this part of the check collected everything in this run, 0 if it failed or was skipped.',
    (tags.COLLECTOR,),
    1,
)

COLLECTOR_DURATION = _gauge(
    'collector.duration_seconds',
    'second',
    'Time that this part of the check took in this run, including the answers of the server.',
    (tags.COLLECTOR,),
    -1,
    group=CHECK_COST,
)

API_AUTHORIZED = _gauge(
    'api.authorized',
    '',
    '1 if the server accepts the credentials of the check, 0 if it answered 401 or 403. Health cannot show this: '
    '/health needs no credentials. Absent if the check sent no request that needs them.',
    (),
    1,
)
API_REQUESTS = _count(
    'api.requests',
    'request',
    'HTTP requests that the check sent to the server in this run.',
    (tags.ENDPOINT_FAMILY,),
    group=CHECK_COST,
)
API_RESPONSE_BYTES = _count(
    'api.response_bytes',
    'byte',
    'Size of the answers in this run, as they came over the network.',
    (tags.ENDPOINT_FAMILY,),
    group=CHECK_COST,
)
API_DURATION = _gauge(
    'api.duration_seconds',
    'second',
    'Time that the check waited for answers of the server in this run.',
    (tags.ENDPOINT_FAMILY,),
    -1,
    group=CHECK_COST,
)

CHECK_SERIES = _gauge(
    'check.series',
    'item',
    'Number of series that the check sent in this run, by the first word of their names. Each set of tags is a series.',
    (tags.FAMILY,),
    -1,
    group=CHECK_COST,
)

EVENTS_PENDING = _gauge(
    'events.pending',
    'event',
    'Events left for the next run of the check, because this run has read as many as one run may. Absent unless '
    'collect_events is true.',
    (),
    -1,
)

LOGS_PENDING = _gauge(
    'logs.pending',
    'second',
    'Age of the oldest log record left for the next run of the check, because this run has read as many as one '
    'run may. 0 if none is left. Absent unless collect_logs is true.',
    (),
    -1,
)

SERVICE_IS_HEALTHY = _gauge(
    'service.is_healthy',
    '',
    '1 while the background service keeps up, 0 when its work is overdue. The health of the server cannot show '
    'this. Absent if the service has done no work yet, or is switched off.',
    (tags.BACKGROUND_SERVICE,),
    1,
    group=BACKGROUND_SERVICES,
)
SERVICE_LAG = _gauge(
    'service.lag_seconds',
    'second',
    'How long the oldest work of the background service has been overdue, 0 if none is.',
    (tags.BACKGROUND_SERVICE,),
    -1,
    group=BACKGROUND_SERVICES,
)

AUTOMATION_IS_ENABLED = _gauge(
    'automation.is_enabled',
    '',
    '1 if the automation is enabled, otherwise 0.',
    tags.AUTOMATION_KEYS,
    group=AUTOMATIONS,
)
AUTOMATION_TRIGGERED = _count(
    'automation.triggered.count',
    'event',
    'How often the trigger of the automation fired since the last check, without the tag action_type. Sent as 0 '
    'for five minutes after the last time.',
    tags.AUTOMATION_KEYS,
    group=AUTOMATIONS,
)
AUTOMATION_ACTION_EXECUTED = _count(
    'automation.action.executed.count',
    'event',
    'Actions of the automation that succeeded since the last check. Sent as 0 for five minutes after the last one.',
    tags.AUTOMATION_ACTION_KEYS,
    1,
    group=AUTOMATIONS,
)
AUTOMATION_ACTION_FAILED = _count(
    'automation.action.failed.count',
    'event',
    'Actions of the automation that failed since the last check: nobody was told, nothing was started. Sent as 0 '
    'for five minutes after the last one.',
    tags.AUTOMATION_ACTION_KEYS,
    -1,
    group=AUTOMATIONS,
)

WORK_POOL_IS_READY = _gauge(
    'work_pool.is_ready',
    '',
    '1 if the status is READY, otherwise 0. A pool of the type prefect-agent is ready if one of its queues is.',
    tags.WORK_POOL_KEYS,
    1,
)
WORK_POOL_IS_NOT_READY = _gauge(
    'work_pool.is_not_ready',
    '',
    '1 if the status is NOT_READY (no worker of the pool is online), otherwise 0.',
    tags.WORK_POOL_KEYS,
    -1,
)
WORK_POOL_IS_PAUSED = _gauge('work_pool.is_paused', '', '1 if the status is PAUSED, otherwise 0.', tags.WORK_POOL_KEYS)

WORK_POOL_CONCURRENCY_IN_USE = _gauge(
    'work_pool.concurrency.in_use',
    'percent',
    'Share of the concurrency limit of the work pool that is taken, 0 to 100 or more. Absent without a limit; 100 '
    'if the limit is 0.',
    tags.WORK_POOL_KEYS,
    -1,
    group=CONCURRENCY,
)
WORK_POOL_CONCURRENCY_ACTIVE_SLOTS = _gauge(
    'work_pool.concurrency.active_slots',
    'run',
    'PENDING and RUNNING flow runs of the work pool: each takes one of its slots. Absent without a limit.',
    tags.WORK_POOL_KEYS,
    group=CONCURRENCY,
)
WORK_POOL_CONCURRENCY_LIMIT = _gauge(
    'work_pool.concurrency.limit',
    'run',
    'Concurrency limit of the work pool. Absent without a limit.',
    tags.WORK_POOL_KEYS,
    group=CONCURRENCY,
)

WORKER_IS_ONLINE = _gauge(
    'work_pool.worker.is_online',
    '',
    '1 if the status of the worker is ONLINE, otherwise 0. With more than 50 pools this is the last value read; '
    'with 500 pools it is up to four minutes old.',
    tags.WORKER_KEYS,
    1,
)
WORKER_HEARTBEAT_AGE = _gauge(
    'work_pool.worker.heartbeat_age_seconds',
    'second',
    'Time since the last heartbeat of the worker. With more than 50 pools it is sent only when the workers of the '
    'pool are read; with 500 pools that is every four minutes.',
    tags.WORKER_KEYS,
    -1,
)
WORK_POOL_WORKERS_ONLINE = _gauge(
    'work_pool.workers.online',
    'worker',
    'ONLINE workers of the pool.',
    tags.WORK_POOL_KEYS,
    1,
    group=WORKER_COUNTS,
)
WORK_POOL_WORKERS_OFFLINE = _gauge(
    'work_pool.workers.offline',
    'worker',
    'OFFLINE workers of the pool whose last heartbeat is newer than worker_retention. Older ones are not counted, '
    'because Prefect keeps every worker that ever ran.',
    tags.WORK_POOL_KEYS,
    -1,
    group=WORKER_COUNTS,
)

WORK_POOL_FLOW_RUNS_SUBMITTED = _count(
    'work_pool.flow_runs.submitted.count',
    'run',
    'Flow runs that a worker of the pool began to start (a process, a container or a job) since the last check. '
    'Sent as 0 for five minutes after the last one.',
    tags.WORK_POOL_KEYS,
    group=WORKER_RUNS,
)
WORK_POOL_FLOW_RUNS_EXITED = _count(
    'work_pool.flow_runs.exited.count',
    'run',
    'Flow runs that a worker saw end since the last check, by the exit code of their process, container or job. '
    '137 and -9 usually mean too little memory. Sent as 0 for five minutes after the last one.',
    tags.WORK_POOL_EXIT_KEYS,
    group=WORKER_RUNS,
)

WORK_QUEUE_IS_READY = _gauge(
    'work_queue.is_ready', '', '1 if the status is READY, otherwise 0.', tags.WORK_QUEUE_KEYS, 1
)
WORK_QUEUE_IS_NOT_READY = _gauge(
    'work_queue.is_not_ready',
    '',
    '1 if the status is NOT_READY (no worker has polled the queue lately), otherwise 0.',
    tags.WORK_QUEUE_KEYS,
    -1,
)
WORK_QUEUE_IS_PAUSED = _gauge(
    'work_queue.is_paused', '', '1 if the status is PAUSED, otherwise 0.', tags.WORK_QUEUE_KEYS
)
WORK_QUEUE_LAST_POLLED_AGE = _gauge(
    'work_queue.last_polled_age_seconds',
    'second',
    'Time since a worker last polled the queue. Absent if none ever did.',
    tags.WORK_QUEUE_STATUS_KEYS,
    -1,
)
WORK_QUEUE_BACKLOG_SIZE = _gauge(
    'work_queue.backlog.size',
    'run',
    'Flow runs of the queue that are due and still SCHEDULED, however old. Runs that are due later are not counted.',
    tags.WORK_QUEUE_STATUS_KEYS,
    -1,
)
WORK_QUEUE_BACKLOG_AGE = _gauge(
    'work_queue.backlog.age',
    'second',
    'Time since the oldest flow run of the backlog became due. 0 if the backlog is empty.',
    tags.WORK_QUEUE_STATUS_KEYS,
    -1,
)
WORK_QUEUE_CONCURRENCY_IN_USE = _gauge(
    'work_queue.concurrency.in_use',
    'percent',
    'Share of the concurrency limit of the queue that PENDING and RUNNING flow runs take, 0 to 100 or more. '
    'Absent without a limit; 100 if the limit is 0.',
    tags.WORK_QUEUE_STATUS_KEYS,
    -1,
)

WORK_QUEUE_CONCURRENCY_ACTIVE_SLOTS = _gauge(
    'work_queue.concurrency.active_slots',
    'run',
    'PENDING and RUNNING flow runs of the queue: each takes one of its slots. Absent without a limit.',
    tags.WORK_QUEUE_STATUS_KEYS,
    group=CONCURRENCY,
)
WORK_QUEUE_CONCURRENCY_LIMIT = _gauge(
    'work_queue.concurrency.limit',
    'run',
    'Concurrency limit of the queue. Absent without a limit.',
    tags.WORK_QUEUE_STATUS_KEYS,
    group=CONCURRENCY,
)

DEPLOYMENT_IS_READY = _gauge(
    'deployment.is_ready',
    '',
    '1 if the status of the deployment is READY, otherwise 0. Of more than 50 deployments without a work pool, '
    'each check reads 50 again, and those that have an event about it.',
    tags.DEPLOYMENT_KEYS,
    1,
)

DEPLOYMENT_CONCURRENCY_IN_USE = _gauge(
    'deployment.concurrency.in_use',
    'percent',
    'Share of the concurrency limit of the deployment that is taken, 0 to 100 or more. Absent without a limit; '
    '100 if the limit is 0.',
    tags.DEPLOYMENT_KEYS,
    -1,
    group=CONCURRENCY,
)
DEPLOYMENT_CONCURRENCY_ACTIVE_SLOTS = _gauge(
    'deployment.concurrency.active_slots',
    'run',
    'Slots of the deployment that the server counts as taken. Absent without a limit.',
    tags.DEPLOYMENT_KEYS,
    group=CONCURRENCY,
)
DEPLOYMENT_CONCURRENCY_LIMIT = _gauge(
    'deployment.concurrency.limit',
    'run',
    'Concurrency limit of the deployment. Absent without a limit.',
    tags.DEPLOYMENT_KEYS,
    group=CONCURRENCY,
)
DEPLOYMENT_CONCURRENCY_LEAKED_SLOTS = _gauge(
    'deployment.concurrency.leaked_slots',
    'run',
    'Slots of the deployment that are taken although no live run can hold them, in this check and in the one '
    'before. Absent without a limit.',
    tags.DEPLOYMENT_KEYS,
    -1,
    group=CONCURRENCY,
)

CONCURRENCY_LIMIT_IN_USE = _gauge(
    'concurrency_limit.in_use',
    'percent',
    'Share of the slots of a global or tag limit that is taken; 100 if the limit is 0.',
    tags.CONCURRENCY_LIMIT_KEYS,
    -1,
    group=CONCURRENCY,
)
CONCURRENCY_LIMIT_ACTIVE_SLOTS = _gauge(
    'concurrency_limit.active_slots',
    'item',
    'Slots of a global or tag limit that the server counts as taken.',
    tags.CONCURRENCY_LIMIT_KEYS,
    group=CONCURRENCY,
)
CONCURRENCY_LIMIT_LIMIT = _gauge(
    'concurrency_limit.limit',
    'item',
    'Slots of a global or tag limit.',
    tags.CONCURRENCY_LIMIT_KEYS,
    group=CONCURRENCY,
)
CONCURRENCY_LIMIT_IS_ACTIVE = _gauge(
    'concurrency_limit.is_active',
    '',
    '1 if a global or tag limit is enforced, 0 if it is switched off.',
    tags.CONCURRENCY_LIMIT_KEYS,
    group=CONCURRENCY,
)
CONCURRENCY_LIMIT_LEAKED_SLOTS = _gauge(
    'concurrency_limit.leaked_slots',
    'item',
    'Slots of a global or tag limit that are taken although no live run can hold them, in this check and in the '
    'one before. A script that takes slots outside of a run looks the same. Absent for a limit with slot decay.',
    tags.CONCURRENCY_LIMIT_KEYS,
    -1,
    group=CONCURRENCY,
)

DEPLOYMENT_SECONDS_SINCE_SUCCESS = _gauge(
    'deployment.seconds_since_success',
    'second',
    'Time since the last flow run of the deployment that COMPLETED. Absent if none did.',
    tags.DEPLOYMENT_KEYS,
    -1,
    group=FRESHNESS,
)
DEPLOYMENT_CONSECUTIVE_FAILURES = _gauge(
    'deployment.consecutive_failures',
    'run',
    'Flow runs of the deployment that FAILED or CRASHED after its last success; 100 means 100 or more. A failed '
    'run that is retried no longer counts. Absent until the past of the deployment is read.',
    tags.DEPLOYMENT_KEYS,
    -1,
    group=FRESHNESS,
)
DEPLOYMENT_SECONDS_UNTIL_NEXT_RUN = _gauge(
    'deployment.seconds_until_next_run',
    'second',
    'Time until the next scheduled flow run of the deployment that is not yet due. Absent if there is none.',
    tags.DEPLOYMENT_KEYS,
    group=FRESHNESS,
)
DEPLOYMENT_SCHEDULES_ACTIVE = _gauge(
    'deployment.schedules.active',
    'item',
    'Active schedules of the deployment, whether it is paused or not.',
    tags.DEPLOYMENT_KEYS,
    group=FRESHNESS,
)
DEPLOYMENT_SCHEDULES_IS_WITHOUT_RUN = _gauge(
    'deployment.schedules.is_without_run',
    '',
    '1 if the deployment is not paused and has an active schedule, but has had no future flow run for two '
    'minutes, otherwise 0. It is also 1 if the schedule has ended, or comes next in more than 100 days.',
    tags.DEPLOYMENT_KEYS,
    -1,
    group=FRESHNESS,
)
DEPLOYMENT_EXPECTATION_MAX_AGE = _gauge(
    'deployment.expectation.max_age_seconds',
    'second',
    'Time since the last success of the deployment, or since it was created, resumed or got a schedule. Sent '
    'while the deployment is not paused and has an expectation or a schedule with a planned run. Sent as 0 for '
    'five minutes afterwards.',
    tags.EXPECTATION_KEYS,
    -1,
    group=EXPECTATIONS,
)
DEPLOYMENT_EXPECTATION_MAX_AGE_RATIO = _gauge(
    'deployment.expectation.max_age_ratio',
    'fraction',
    'That time, divided by what is expected: above 1 a success is missing. Expected is max_age, from an option or '
    'from a tag in Prefect; without it, the time to the next planned run plus as long as the last runs took.',
    tags.EXPECTATION_KEYS,
    -1,
    group=EXPECTATIONS,
)
DEPLOYMENT_EXPECTATION_MAX_RUN_TIME = _gauge(
    'deployment.expectation.max_run_time_seconds',
    'second',
    'How long the oldest RUNNING flow run of the deployment has been running. Sent if there is an expectation. '
    'Sent as 0 for five minutes afterwards.',
    tags.EXPECTATION_KEYS,
    -1,
    group=EXPECTATIONS,
)
DEPLOYMENT_EXPECTATION_MAX_RUN_TIME_RATIO = _gauge(
    'deployment.expectation.max_run_time_ratio',
    'fraction',
    'That time, divided by what is expected: above 1 the run takes too long. Expected is max_run_time, from an '
    'option or from a tag in Prefect; without it, one minute plus twice the longest of the last 20 successes, if '
    'there are five.',
    tags.EXPECTATION_KEYS,
    -1,
    group=EXPECTATIONS,
)

FLOW_RUNS_SCHEDULED = _gauge(
    'flow_runs.scheduled',
    'run',
    'Flow runs in a SCHEDULED state now, due or not. The number of those not yet due is at most 60 seconds old.',
    tags.FLOW_RUN_KEYS,
)
FLOW_RUNS_PENDING = _gauge('flow_runs.pending', 'run', 'Flow runs in a PENDING state now.', tags.FLOW_RUN_KEYS)
FLOW_RUNS_RUNNING = _gauge('flow_runs.running', 'run', 'Flow runs in a RUNNING state now.', tags.FLOW_RUN_KEYS)
FLOW_RUNS_PAUSED = _gauge(
    'flow_runs.paused', 'run', 'Flow runs in a PAUSED state now, including suspended ones.', tags.FLOW_RUN_KEYS
)
FLOW_RUNS_COMPLETED = _count(
    'flow_runs.completed.count', 'run', 'Flow runs that ended COMPLETED since the last check.', tags.FLOW_RUN_KEYS, 1
)
FLOW_RUNS_FAILED = _count(
    'flow_runs.failed.count',
    'run',
    'Flow runs that ended FAILED since the last check, including those that timed out.',
    tags.FLOW_RUN_KEYS,
    -1,
)
FLOW_RUNS_CRASHED = _count(
    'flow_runs.crashed.count', 'run', 'Flow runs that ended CRASHED since the last check.', tags.FLOW_RUN_KEYS, -1
)
FLOW_RUNS_CANCELLED = _count(
    'flow_runs.cancelled.count', 'run', 'Flow runs that ended CANCELLED since the last check.', tags.FLOW_RUN_KEYS, -1
)
FLOW_RUNS_THROUGHPUT = _count(
    'flow_runs.throughput', 'run', 'Flow runs that started (first RUNNING) since the last check.', tags.FLOW_RUN_KEYS
)
FLOW_RUNS_LATE_START = _count(
    'flow_runs.late_start.count',
    'run',
    'Flow runs that started later than expected by more than late_start_threshold since the last check.',
    tags.FLOW_RUN_KEYS,
    -1,
)
FLOW_RUNS_EXECUTION_DURATION = _percentile_gauges(
    'flow_runs.execution_duration',
    'run',
    'time in RUNNING of the flow runs that ended, without pauses and waits between retries',
    tags.FLOW_RUN_KEYS,
)
FLOW_RUNS_QUEUE_WAIT_DURATION = _percentile_gauges(
    'flow_runs.queue_wait_duration',
    'run',
    'time from the expected to the real start of the flow runs that started',
    tags.FLOW_RUN_KEYS,
)
FLOW_RUNS_RETRY_GAPS_DURATION = _percentile_gauges(
    'flow_runs.retry_gaps_duration',
    'occurrence',
    'time from AwaitingRetry to the RUNNING state that follows it',
    tags.FLOW_RUN_KEYS,
)

FLOW_RUNS_FAILURES = _count(
    'flow_runs.failures.count',
    'run',
    'Flow runs that ended FAILED or CRASHED since the last check, by the name of the state and by the reason. '
    'Sent as 0 for five minutes after the last one.',
    tags.FAILED_FLOW_RUN_KEYS,
    -1,
    group=FAILURE_REASONS,
)

FLOW_RUNS_LATE = _gauge(
    'flow_runs.late',
    'run',
    'Flow runs that should have started more than late_start_threshold ago and are still waiting, by the reason. '
    'Sent as 0 for five minutes after the last one.',
    tags.LATE_RUN_KEYS,
    -1,
    group=LATE_RUNS,
)
FLOW_RUNS_LATE_MAX_AGE = _gauge(
    'flow_runs.late.max_age',
    'second',
    'How long the most overdue of these flow runs has been due. Sent as 0 for five minutes after the last one.',
    tags.LATE_RUN_KEYS,
    -1,
    group=LATE_RUNS,
)

FLOW_RUNS_PENDING_MAX_AGE = _gauge(
    'flow_runs.pending.max_age',
    'second',
    'How long the oldest PENDING flow run has been PENDING. Sent as 0 for five minutes after the last one.',
    tags.FLOW_RUN_KEYS,
    -1,
    group=RUN_AGES,
)
FLOW_RUNS_RUNNING_MAX_AGE = _gauge(
    'flow_runs.running.max_age',
    'second',
    'How long the oldest RUNNING flow run has been RUNNING since its last pause or retry. Sent as 0 for five '
    'minutes after the last one.',
    tags.FLOW_RUN_KEYS,
    -1,
    group=RUN_AGES,
)
FLOW_RUNS_PAUSED_MAX_AGE = _gauge(
    'flow_runs.paused.max_age',
    'second',
    'How long the oldest PAUSED flow run has been paused or suspended. Sent as 0 for five minutes after the last one.',
    tags.FLOW_RUN_KEYS,
    -1,
    group=RUN_AGES,
)
FLOW_RUNS_CANCELLING = _gauge(
    'flow_runs.cancelling',
    'run',
    'Flow runs in a CANCELLING state now, whose process has yet to stop. Sent as 0 for five minutes after the '
    'last one.',
    tags.FLOW_RUN_KEYS,
    -1,
    group=RUN_AGES,
)
FLOW_RUNS_CANCELLING_MAX_AGE = _gauge(
    'flow_runs.cancelling.max_age',
    'second',
    'How long the oldest CANCELLING flow run has been CANCELLING. Sent as 0 for five minutes after the last one.',
    tags.FLOW_RUN_KEYS,
    -1,
    group=RUN_AGES,
)
FLOW_RUNS_AWAITING_RETRY = _gauge(
    'flow_runs.awaiting_retry',
    'run',
    'Flow runs in the state AwaitingRetry now. They wait in their own process, or for a worker if a person asked '
    'for the retry. Sent as 0 for five minutes after the last one.',
    tags.FLOW_RUN_KEYS,
    -1,
    group=RUN_AGES,
)
FLOW_RUNS_AWAITING_CONCURRENCY = _gauge(
    'flow_runs.awaiting_concurrency',
    'run',
    'Flow runs in the state AwaitingConcurrencySlot now: their deployment has reached its concurrency limit. Sent '
    'as 0 for five minutes after the last one.',
    tags.FLOW_RUN_KEYS,
    -1,
    group=RUN_AGES,
)

FLOW_RUNS_HEARTBEAT_LOST = _gauge(
    'flow_runs.heartbeat_lost',
    'run',
    'RUNNING flow runs that stopped sending heartbeats: none for three intervals, so their process is gone. Runs '
    'that never sent one are not judged. Sent as 0 for five minutes after the last run that sends heartbeats.',
    tags.FLOW_RUN_KEYS,
    -1,
    group=HEARTBEATS,
)
FLOW_RUNS_HEARTBEAT_MAX_AGE = _gauge(
    'flow_runs.heartbeat.max_age',
    'second',
    'Time since the last heartbeat of the RUNNING flow run that has been silent longest. Sent as 0 for five '
    'minutes after the last one.',
    tags.FLOW_RUN_KEYS,
    -1,
    group=HEARTBEATS,
)

TASK_RUNS_PENDING = _gauge(
    'task_runs.pending',
    'run',
    'Task runs in a PENDING state now, if their flow run is RUNNING or they have none.',
    tags.TASK_RUN_KEYS,
)
TASK_RUNS_RUNNING = _gauge(
    'task_runs.running',
    'run',
    'Task runs in a RUNNING state now, if their flow run is RUNNING or they have none.',
    tags.TASK_RUN_KEYS,
)
TASK_RUNS_PAUSED = _gauge(
    'task_runs.paused',
    'run',
    'Task runs in a PAUSED state now, if their flow run is RUNNING or they have none.',
    tags.TASK_RUN_KEYS,
)
TASK_RUNS_COMPLETED = _count(
    'task_runs.completed.count', 'run', 'Task runs that ended COMPLETED since the last check.', tags.TASK_RUN_KEYS, 1
)
TASK_RUNS_FAILED = _count(
    'task_runs.failed.count',
    'run',
    'Task runs that ended FAILED since the last check, including those that timed out.',
    tags.TASK_RUN_KEYS,
    -1,
)
TASK_RUNS_CRASHED = _count(
    'task_runs.crashed.count', 'run', 'Task runs that ended CRASHED since the last check.', tags.TASK_RUN_KEYS, -1
)
TASK_RUNS_CANCELLED = _count(
    'task_runs.cancelled.count', 'run', 'Task runs that ended CANCELLED since the last check.', tags.TASK_RUN_KEYS, -1
)
TASK_RUNS_THROUGHPUT = _count(
    'task_runs.throughput', 'run', 'Task runs that started (first RUNNING) since the last check.', tags.TASK_RUN_KEYS
)
TASK_RUNS_LATE_START = _count(
    'task_runs.late_start.count',
    'run',
    'Task runs that started later than expected by more than late_start_threshold since the last check.',
    tags.TASK_RUN_KEYS,
    -1,
)
TASK_RUNS_EXECUTION_DURATION = _percentile_gauges(
    'task_runs.execution_duration',
    'run',
    'time in RUNNING of the task runs that ended, without waits between retries',
    tags.TASK_RUN_KEYS,
)
TASK_RUNS_DEPENDENCY_WAIT_DURATION = _percentile_gauges(
    'task_runs.dependency_wait_duration',
    'occurrence',
    'time from the end of the last upstream task run to the start of the task runs that started',
    tags.TASK_RUN_KEYS,
)

TASK_RUNS_PENDING_MAX_AGE = _gauge(
    'task_runs.pending.max_age',
    'second',
    'How long the oldest task run of task_runs.pending has been PENDING. Sent as 0 for five minutes after the '
    'last one.',
    tags.TASK_RUN_KEYS,
    -1,
    group=RUN_AGES,
)
TASK_RUNS_RUNNING_MAX_AGE = _gauge(
    'task_runs.running.max_age',
    'second',
    'How long the oldest task run of task_runs.running has been RUNNING since its last retry. Sent as 0 for five '
    'minutes after the last one.',
    tags.TASK_RUN_KEYS,
    -1,
    group=RUN_AGES,
)
TASK_RUNS_AWAITING_RETRY = _gauge(
    'task_runs.awaiting_retry',
    'run',
    'Task runs in the state AwaitingRetry now, if their flow run is RUNNING or they have none. Sent as 0 for five '
    'minutes after the last one.',
    tags.TASK_RUN_KEYS,
    -1,
    group=RUN_AGES,
)

TASK_RUNS_FAILURES = _count(
    'task_runs.failures.count',
    'run',
    'Task runs that ended FAILED or CRASHED since the last check, by the name of the state and by the reason. '
    'Sent as 0 for five minutes after the last one.',
    tags.FAILED_TASK_RUN_KEYS,
    -1,
    group=FAILURE_REASONS,
)

TASK_RUNS_SCHEDULED = _gauge(
    'task_runs.scheduled',
    'run',
    'Background task runs (`.delay()`) that wait for a task worker now. Sent as 0 for five minutes after the last one.',
    tags.TASK_KEYS,
    -1,
    group=BACKGROUND_TASKS,
)
TASK_RUNS_SCHEDULED_MAX_AGE = _gauge(
    'task_runs.scheduled.max_age',
    'second',
    'How long the oldest of these task runs has been waiting. Sent as 0 for five minutes after the last one.',
    tags.TASK_KEYS,
    -1,
    group=BACKGROUND_TASKS,
)
TASK_WORKERS_ONLINE = _gauge(
    'task_workers.online',
    'worker',
    'Task workers that asked for this task within the last minute. 0 while task runs wait and no worker asks. '
    'Sent as 0 for five minutes after the last one.',
    (tags.TASK_KEY,),
    1,
    group=BACKGROUND_TASKS,
)
