"""`Prefect overview`: from the question whether anything is wrong down to the cause, for whole servers."""

from __future__ import annotations

from functools import partial

from tools.dashboards.widgets import (
    ACTIVE,
    ANY_IS_BAD,
    ANY_IS_WORTH_A_LOOK,
    BAD,
    BY_DEPLOYMENT,
    BY_POOL,
    BY_QUEUE,
    BY_REASON,
    BY_SERVER,
    BY_TASK,
    ENDING,
    GOOD,
    MINUTES_LATE,
    MUST_BE_ONE,
    MUST_NOT_BE_NONE,
    NEUTRAL,
    NOT_ZERO,
    OR_ZERO,
    PERCENT_TAKEN,
    STARTING,
    TO_DEPLOYMENT,
    TO_FLOW,
    TO_LIMITS,
    TO_POOL,
    TO_QUEUE,
    WAITING,
    WARN,
    Dashboard,
    Formula,
    Limits,
    events,
    graph,
    group,
    logs,
    monitors,
    note,
    number,
    query,
    show,
    starts,
    success_rate,
    table,
    top,
)

MINUTES_UNPOLLED = Limits(60, 300)
HEARTBEAT_AGE = Limits(45, 90)
FAILURES_IN_A_ROW = Limits(0, 2)
SECONDS_OF_LAG = Limits(60, 300)
SECONDS_OF_CHECK = Limits(5, 10)
BY_LIMIT = ('concurrency_limit_name', 'concurrency_limit_type')

# Columns of tables, by what their rows are.
per_deployment = partial(show, by=(*BY_DEPLOYMENT, *BY_SERVER))
per_queue = partial(show, by=(*BY_QUEUE, 'work_queue_priority', *BY_SERVER))
per_task = partial(show, by=(*BY_TASK, *BY_SERVER))
per_limit = partial(show, by=(*BY_LIMIT, *BY_SERVER))
per_cause = partial(show, by=(*BY_QUEUE, *BY_DEPLOYMENT, *BY_REASON, *BY_SERVER), form=NOT_ZERO)

FAILED_OR_CRASHED = Formula(
    'failed + crashed',
    (query('sum', 'flow_runs.failed.count', name='failed'), query('sum', 'flow_runs.crashed.count', name='crashed')),
    unit='run',
    limits=ANY_IS_WORTH_A_LOOK,
)


def outcomes(family: str) -> tuple[Formula, ...]:
    """What ended, in the colours of both dashboards."""
    return (
        show('sum', f'{family}.completed.count', alias='completed', color=GOOD),
        show('sum', f'{family}.failed.count', alias='failed', color=BAD),
        show('sum', f'{family}.crashed.count', alias='crashed', color=WARN),
        show('sum', f'{family}.cancelled.count', alias='cancelled', color=NEUTRAL),
    )


def states_of_flow_runs() -> tuple[Formula, ...]:
    """What flow runs do now, from those that work to those that wait."""
    return (
        show('sum', 'flow_runs.running', alias='running', color=ACTIVE),
        show('sum', 'flow_runs.pending', alias='pending', color=STARTING),
        show('sum', 'flow_runs.late', alias='late', color=BAD),
        show('sum', 'flow_runs.awaiting_retry', alias='awaiting retry', color=WARN),
        show('sum', 'flow_runs.awaiting_concurrency', alias='awaiting a concurrency slot', color=WAITING),
        show('sum', 'flow_runs.paused', alias='paused', color=NEUTRAL),
        show('sum', 'flow_runs.cancelling', alias='cancelling', color=ENDING),
    )


ABOUT = note(
    '**Read from the top**: is anything wrong, what does not start, what fails, and then the parts that may be the '
    'cause. **Green** is good, **yellow** deserves a look, **red** needs somebody; in graphs blue works, purple waits '
    'and gray is neither. The variables above narrow each graph that knows them: pools know no deployment, services '
    'only the server. A click on a row of a table offers a link to the object in Prefect.\n\n'
    '[Prefect deployments](/dashboard/lists?q=Prefect%20deployments) | Runbook: docs/runbook.md | '
    '[Work pools, queues and workers](https://docs.prefect.io/v3/concepts/work-pools) | '
    '[Concurrency limits](https://docs.prefect.io/v3/concepts/global-concurrency-limits) | '
    '[States of a run](https://docs.prefect.io/v3/concepts/states)',
    color='white',
)

NOW = group(
    'Is anything wrong now?',
    note(
        '**Look at** what is not green. **Do**: server or database red: it is down, and all else on this page is old. '
        'Credentials red: the check is refused (401, 403), runs go on. Services red: see *Background services*. Late '
        'runs: the reason says who has to act (*What does not start?*). Failures: see *What fails, and what takes '
        'long?*',
    ),
    number('Server healthy (1 = yes)', show('min', 'health', limits=MUST_BE_ONE)),
    number('Database reached (1 = yes)', show('min', 'ready', limits=MUST_BE_ONE)),
    number('Credentials valid (1 = yes)', show('min', 'api.authorized', limits=MUST_BE_ONE)),
    number('Services healthy (1 = all)', show('min', 'service.is_healthy', limits=MUST_BE_ONE)),
    number('Workers online', show('sum', 'work_pool.workers.online', limits=MUST_NOT_BE_NONE), graph=True),
    number(
        'Due runs nobody polls for',
        show('sum', 'work_queue.backlog.size', where='work_queue_status:not_ready', limits=ANY_IS_BAD),
    ),
    number('Late runs', show('sum', 'flow_runs.late', form=OR_ZERO, limits=ANY_IS_WORTH_A_LOOK), graph=True),
    number('Oldest late run', show('max', 'flow_runs.late.max_age', form=OR_ZERO, limits=MINUTES_LATE), graph=True),
    number('Failed or crashed, last hour', FAILED_OR_CRASHED, span='1h'),
    number('Success rate, last hour', success_rate('flow_runs'), span='1h'),
    number('Series that the check sends', show('sum', 'check.series')),
    number('Fullest concurrency limit', show('max', 'concurrency_limit.in_use', limits=PERCENT_TAKEN)),
    top('Late runs by reason', show('sum', 'flow_runs.late', BY_REASON, form=NOT_ZERO)),
    top(
        'Failures in a row by deployment',
        show('max', 'deployment.consecutive_failures', BY_DEPLOYMENT, form=NOT_ZERO, limits=FAILURES_IN_A_ROW),
    ),
    monitors(height=3),
    events('Warnings and errors among the events', 'status:(error OR warning)', height=3),
    logs('Errors in the logs', 'status:(error OR critical)', height=3),
    color='vivid_blue',
)

LATE = group(
    'What does not start?',
    note(
        '**Look at** the reason, then at the age. **Do**: `no_worker`: start a worker of the pool. `pool_paused`, '
        '`queue_paused`, `deployment_paused`: somebody paused it; resume it, or cancel the runs. `pool_limit`, '
        '`queue_limit`, `deployment_limit`: raise the limit, or find what holds the slots (*Concurrency limits*). '
        '`work_not_picked_up`: the worker is online and does not poll this queue: read its log, restart it.'
    ),
    graph('Late runs by reason', show('sum', 'flow_runs.late', BY_REASON), display='bars'),
    graph(
        'Age of the oldest late run by reason',
        show('max', 'flow_runs.late.max_age', BY_REASON),
        limits=MINUTES_LATE,
    ),
    graph(
        'Wait for a start: slowest 5 % by deployment',
        show('max', 'flow_runs.queue_wait_duration.95percentile', BY_DEPLOYMENT),
    ),
    table(
        'Late runs by queue, deployment and reason',
        per_cause('sum', 'flow_runs.late', alias='late runs'),
        per_cause('max', 'flow_runs.late.max_age', alias='age of the oldest', limits=MINUTES_LATE),
        sort_by=1,
        links=(TO_DEPLOYMENT, TO_QUEUE, TO_POOL),
        height=3,
    ),
    color='vivid_orange',
)

FLOW_RUNS = group(
    'What fails, and what takes long?',
    note(
        '**Look at** the deployments with failures; a *crash* is a process that died (memory, eviction), a '
        '*failure* is an exception or a time-out. **Do**: open the deployment in Prefect from the table, read the '
        'log of its last run. A run that runs far longer than usual may be hung: see *Longest running*. Percentiles '
        'are of the slowest deployment: those of several cannot be averaged.'
    ),
    graph('Flow runs that ended', *outcomes('flow_runs'), display='bars', has_events=True),
    graph('Flow runs now', *states_of_flow_runs(), display='area'),
    graph('Flow runs that started', *starts('flow_runs'), display='bars'),
    top('Most failures by deployment', show('sum', 'flow_runs.failed.count', BY_DEPLOYMENT, form=NOT_ZERO, color=BAD)),
    top('Most crashes by deployment', show('sum', 'flow_runs.crashed.count', BY_DEPLOYMENT, form=NOT_ZERO, color=WARN)),
    top('Lowest success rate by deployment', success_rate('flow_runs', BY_DEPLOYMENT), order='asc'),
    top('Longest running now by deployment', show('max', 'flow_runs.running.max_age', BY_DEPLOYMENT)),
    graph(
        'Execution: slowest 5 % by deployment', show('max', 'flow_runs.execution_duration.95percentile', BY_DEPLOYMENT)
    ),
    graph(
        'Longest in a state that should pass',
        show('max', 'flow_runs.pending.max_age', alias='pending', color=STARTING),
        show('max', 'flow_runs.cancelling.max_age', alias='cancelling', color=ENDING),
        show('max', 'flow_runs.paused.max_age', alias='paused', color=NEUTRAL),
        limits=MINUTES_LATE,
    ),
    table(
        'Flow runs by deployment',
        per_deployment('sum', 'flow_runs.throughput', alias='started'),
        per_deployment('sum', 'flow_runs.completed.count', alias='completed'),
        per_deployment('sum', 'flow_runs.failed.count', alias='failed', limits=ANY_IS_BAD),
        per_deployment('sum', 'flow_runs.crashed.count', alias='crashed', limits=ANY_IS_BAD),
        per_deployment('sum', 'flow_runs.cancelled.count', alias='cancelled'),
        per_deployment('max', 'flow_runs.execution_duration.max', alias='longest run', is_bar=True),
        per_deployment('max', 'flow_runs.retry_gaps_duration.max', alias='longest wait for a retry'),
        sort_by=2,
        links=(TO_DEPLOYMENT, TO_FLOW),
        height=5,
    ),
    color='vivid_purple',
)

FRESHNESS = group(
    'Are deployments up to date?',
    note(
        '**Look at** failures in a row, and at successes older than the schedule allows. **Do**: failures in a row: '
        'the deployment has not worked since; read the log of its last run. A schedule without a run: the scheduler '
        'of the server does not keep up (*Background services*), or the schedule has ended. No success at all is an '
        'empty cell.'
    ),
    table(
        'Freshness by deployment',
        per_deployment('max', 'deployment.consecutive_failures', alias='failures in a row', limits=FAILURES_IN_A_ROW),
        per_deployment('max', 'deployment.seconds_since_success', alias='since the last success'),
        per_deployment('min', 'deployment.seconds_until_next_run', alias='until the next run'),
        per_deployment('sum', 'deployment.schedules.active', alias='active schedules'),
        per_deployment(
            'max', 'deployment.schedules.is_without_run', alias='schedule without run (1 = yes)', limits=ANY_IS_BAD
        ),
        per_deployment('min', 'deployment.is_ready', alias='ready (1 = yes)'),
        links=(TO_DEPLOYMENT, TO_FLOW),
        height=5,
    ),
)

QUEUES = group(
    'Work pools and work queues',
    note(
        '**Look at** queues by pool *and* name: each pool has one called `default`. **Do**: a backlog that ages in '
        'a queue that is polled: the workers or the slots do not suffice. A queue that is not polled: no worker '
        'serves it. Slots at 100 % for long: raise the limit of the queue or pool, or look for runs that hang.'
    ),
    graph('Backlog by queue', show('sum', 'work_queue.backlog.size', BY_QUEUE), display='area'),
    graph('Age of the backlog by queue', show('max', 'work_queue.backlog.age', BY_QUEUE), limits=MINUTES_LATE),
    top(
        'Longest not polled by queue',
        show('max', 'work_queue.last_polled_age_seconds', BY_QUEUE, limits=MINUTES_UNPOLLED),
    ),
    top('Slots in use by queue', show('max', 'work_queue.concurrency.in_use', BY_QUEUE, limits=PERCENT_TAKEN)),
    graph('Slots in use by pool', show('max', 'work_pool.concurrency.in_use', BY_POOL), limits=PERCENT_TAKEN),
    graph(
        'Work pools by status',
        show('sum', 'work_pool.is_ready', alias='ready', color=GOOD),
        show('sum', 'work_pool.is_not_ready', alias='not ready', color=BAD),
        show('sum', 'work_pool.is_paused', alias='paused', color=NEUTRAL),
        display='area',
    ),
    table(
        'Work queues',
        per_queue('max', 'work_queue.backlog.size', alias='due runs', is_bar=True),
        per_queue('max', 'work_queue.backlog.age', alias='the oldest of them', limits=MINUTES_LATE),
        per_queue('max', 'work_queue.last_polled_age_seconds', alias='since the last poll'),
        per_queue('max', 'work_queue.concurrency.active_slots', alias='slots in use'),
        per_queue('max', 'work_queue.concurrency.limit', alias='limit'),
        per_queue('max', 'work_queue.is_not_ready', alias='not ready (1 = yes)'),
        per_queue('max', 'work_queue.is_paused', alias='paused (1 = yes)'),
        links=(TO_QUEUE, TO_POOL),
    ),
)

WORKERS = group(
    'Workers',
    note(
        '**Look at** pools without an online worker, and at heartbeats older than 90 s. **Do**: start or restart '
        'the worker; if many are offline at once, look at what they run on. A worker counts as offline until '
        '`worker_retention` has passed since its last heartbeat, then it is forgotten.'
    ),
    graph('Workers online by pool', show('sum', 'work_pool.workers.online', BY_POOL), display='area'),
    graph('Workers offline by pool', show('sum', 'work_pool.workers.offline', BY_POOL), display='area'),
    top(
        'Oldest heartbeats',
        show('max', 'work_pool.worker.heartbeat_age_seconds', (*BY_POOL, 'worker_name'), limits=HEARTBEAT_AGE),
    ),
)

TASKS = group(
    'Tasks',
    note(
        '**Look at** the task that fails or takes long, then at its flow. **Do**: failures of one task with many '
        'flows point to what it talks to. A long wait for dependencies is a flow that is too narrow, a long wait in '
        'Pending a task runner without free threads. Only tasks of flow runs that run now are counted as running or '
        'pending.'
    ),
    graph('Task runs that ended', *outcomes('task_runs'), display='bars'),
    graph(
        'Task runs now',
        show('sum', 'task_runs.running', alias='running', color=ACTIVE),
        show('sum', 'task_runs.pending', alias='pending', color=STARTING),
        show('sum', 'task_runs.awaiting_retry', alias='awaiting retry', color=WARN),
        show('sum', 'task_runs.paused', alias='paused', color=NEUTRAL),
        display='area',
    ),
    graph('Execution: slowest 5 % by task', show('max', 'task_runs.execution_duration.95percentile', BY_TASK)),
    top('Most failures by task', show('sum', 'task_runs.failed.count', BY_TASK, form=NOT_ZERO, color=BAD)),
    top('Longest running now by task', show('max', 'task_runs.running.max_age', BY_TASK)),
    top('Longest wait for other tasks', show('max', 'task_runs.dependency_wait_duration.max', BY_TASK)),
    table(
        'Task runs by flow and task',
        per_task('sum', 'task_runs.throughput', alias='started'),
        per_task('sum', 'task_runs.completed.count', alias='completed'),
        per_task('sum', 'task_runs.failed.count', alias='failed', limits=ANY_IS_BAD),
        per_task('sum', 'task_runs.crashed.count', alias='crashed', limits=ANY_IS_BAD),
        per_task('sum', 'task_runs.late_start.count', alias='started late'),
        per_task('max', 'task_runs.execution_duration.max', alias='longest run', is_bar=True),
        per_task('max', 'task_runs.dependency_wait_duration.max', alias='longest wait for other tasks'),
        sort_by=2,
        links=(TO_FLOW,),
        height=5,
    ),
)

LIMITS = group(
    'Concurrency limits',
    note(
        '**Look at** limits that are full, and at leaked slots: taken while no run that could hold them is alive. '
        '**Do**: full for long: raise the limit, or find the run that holds it (*Longest running*). Leaked: reset '
        'the limit in Prefect, it does not recover by itself.'
    ),
    top('Slots in use by limit', show('max', 'concurrency_limit.in_use', BY_LIMIT, limits=PERCENT_TAKEN)),
    top(
        'Slots in use by deployment', show('max', 'deployment.concurrency.in_use', BY_DEPLOYMENT, limits=PERCENT_TAKEN)
    ),
    graph(
        'Leaked slots',
        show('sum', 'concurrency_limit.leaked_slots', alias='of global and tag limits', color=BAD),
        show('sum', 'deployment.concurrency.leaked_slots', alias='of deployments', color=WARN),
        display='area',
    ),
    table(
        'Global and tag limits',
        per_limit('max', 'concurrency_limit.active_slots', alias='slots in use', is_bar=True),
        per_limit('max', 'concurrency_limit.limit', alias='limit'),
        per_limit('max', 'concurrency_limit.leaked_slots', alias='leaked slots', limits=ANY_IS_BAD),
        per_limit('min', 'concurrency_limit.is_active', alias='active (1 = yes)'),
        links=(TO_LIMITS,),
        height=3,
    ),
)

SERVICES = group(
    'Background services of the server',
    note(
        '**Look at** the lag: the age of the oldest piece of work that the service should have done by now. The '
        'server stays healthy while a service is dead. **Do**: restart the server (or `prefect server services '
        'start`, where they run apart), and read its log for the name of the service.'
    ),
    top(
        'Healthy services (1 = yes)',
        show('min', 'service.is_healthy', ('background_service',), limits=MUST_BE_ONE),
        order='asc',
    ),
    graph(
        'Lag by service', show('max', 'service.lag_seconds', ('background_service',)), limits=SECONDS_OF_LAG, width=8
    ),
)

COLLECTION = group(
    'The check itself',
    note(
        '**Look at** parts that failed and at what the check asks of the server. **Do**: a part that failed: `agent '
        'status` names endpoint and cause; its counts are sent later, none is lost. Too many requests: raise '
        '`min_collection_interval`, filter by names, or switch groups off with `collect`.'
    ),
    top(
        'Parts that collected all (1 = yes)',
        show('min', 'collector.success', ('collector',), reducer='min', limits=MUST_BE_ONE),
        order='asc',
    ),
    graph(
        'Time by part',
        show('sum', 'collector.duration_seconds', ('collector',)),
        display='area',
        limits=SECONDS_OF_CHECK,
    ),
    graph('Requests by endpoint', show('sum', 'api.requests', ('endpoint_family',)), display='bars'),
    graph('Bytes by endpoint', show('sum', 'api.response_bytes', ('endpoint_family',)), display='bars'),
    graph('Wait for answers by endpoint', show('sum', 'api.duration_seconds', ('endpoint_family',))),
    graph('Series that the check sends', show('sum', 'check.series', ('family',)), display='area'),
)

OVERVIEW = Dashboard(
    title='Prefect overview',
    description=(
        'Whether a Prefect server and its workers do what they should, and if not, why: health, late runs with '
        'reasons, failures, freshness, work pools and queues, workers, tasks, concurrency limits, background '
        'services.'
    ),
    groups=(
        group('About this dashboard', ABOUT, color='white'),
        NOW,
        LATE,
        FLOW_RUNS,
        FRESHNESS,
        QUEUES,
        WORKERS,
        TASKS,
        LIMITS,
        SERVICES,
        COLLECTION,
    ),
)
